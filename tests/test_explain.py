"""How a result came about: recorder, maps, energy, spread over seeds, film, page, command."""

import base64
import dataclasses
import hashlib
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

import ddfm
from ddfm import samples
from ddfm._checks import DDFMError
from ddfm.admm import AdmmLikelihood
from ddfm.explaining import Recorder, explain, explain_with, lapse, maps, trace
from ddfm.explaining.charts import chart
from ddfm.fusion import FuseConfig, Fuser
from ddfm.likelihood import EPSILON, FusionLikelihood
from ddfm.noise import noisy_log_density
from ddfm.operators import grad
from ddfm.presets import PRESETS
from ddfm.released import ReleasedLikelihood

SIZE = (40, 56)
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def street():
    """Infrared (H, W) and visible (H, W, 3) of a night, uint8."""
    scene = samples.street((96, 128), 1)
    return [np.rint(data * 255).astype(np.uint8) for data in (scene.infrared, scene.visible)]


@pytest.fixture(scope="module")
def prior(tiny_prior):
    return {"prior": str(tiny_prior)}


@pytest.fixture(scope="module")
def told(street, prior):
    """The default, with two seeds."""
    return explain(*street, seeds=2, **prior)


@pytest.fixture(scope="module")
def page(told):
    return told.html()


def grey(seed, size=SIZE):
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


def blobs(seed, size=SIZE):
    """Smooth structure, so that EM has something to work on."""
    field = torch.nn.functional.avg_pool2d(torch.from_numpy(grey(seed, size) / 255.0)[None, None], 5, 1, 2)[0, 0]
    return ((field - field.min()) / (field.max() - field.min())).float().numpy()


# ---- the same bytes -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"preset": "stack"},
        {"preset": "medical", "tone": "percentile"},
        {"steps": 2},
        {"preset": "balanced", "steps": 6, "seed": 3},
        {"preset": "paper", "steps": 3},
        {"preset": "released", "steps": 3},
        {"noise_std": 0.05, "steps": 2},
        {"bit_depth": 16},
        {"tile": 32, "preset": "paper", "steps": 2},
    ],
    ids=str,
)
def test_the_same_bytes_as_without_looking(street, prior, options):
    told = explain(*street, seeds=0, **prior, **options)
    plain = ddfm.fuse(*street, **prior, **options)
    assert told.fused.data.tobytes() == plain.data.tobytes()
    assert told.fused.encode() == plain.encode()
    same = {key: value for key, value in plain.report.items() if key != "seconds"}
    assert {key: value for key, value in told.fused.report.items() if key != "seconds"} == same
    assert told.spread is None
    assert told.samples is None


def test_a_recorder_does_what_its_inner_one_does_for_any_likelihood():
    sources = torch.rand(1, 2, *SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    x0 = sources.mean(1, keepdim=True) / 2
    pulled = FusionLikelihood(prior_weight=0.7, sweeps=3)
    for inner in (pulled, ReleasedLikelihood(), AdmmLikelihood(0.5), PRESETS["balanced"].likelihood):
        recorder = Recorder(inner)
        assert hasattr(recorder, "start") == hasattr(inner, "start")
        seen, plain = recorder.init(sources), inner.init(sources)
        for snr in (0.0, 0.3, 2.0):
            a, seen = recorder.step(x0, seen, snr)
            b, plain = inner.step(x0, plain, snr)
            assert torch.equal(a, b)


# ---- maps of what was seen ------------------------------------------------------------------------


def test_shares_are_the_weights_of_the_last_sweep_by_brute_force(prior):
    """Three EM steps written out anew, W = sqrt(2 a / (gamma d^2)) of the last one pixel by pixel."""
    sources = [blobs(0), blobs(1)]
    told = explain(*sources, seeds=0, **prior)
    likelihood = PRESETS["balanced"].likelihood
    state = likelihood.init(torch.from_numpy(np.stack(sources))[None] * 2 - 1)
    f, gamma = likelihood.start(state), np.ones(2)
    for _ in range(PRESETS["balanced"].warm_sweeps * likelihood.sweeps):
        d = np.sqrt((f - state.sources)[0].numpy().astype(np.float64) ** 2 + EPSILON**2)
        a = state.maps[0].numpy().astype(np.float64)
        weights = np.sqrt(2 * a / gamma[:, None, None]) / d
        gamma = (a / weights).mean((1, 2)) + gamma / 2
        sweep = likelihood.sweep(f, f, state, 0.0)
        f, state = sweep.f, sweep.state
    assert np.abs(told.shares.sum(0) - 1).max() < 1e-6
    np.testing.assert_allclose(told.shares, weights / weights.sum(0), atol=1e-4)  # float32 over six sweeps
    np.testing.assert_allclose(told.gammas[-1], gamma, rtol=1e-4)
    np.testing.assert_allclose(told.scale_maps.sum(0), 2, rtol=1e-5)


def test_without_texture_the_result_is_the_sources_by_their_shares():
    """Eq. 30 with psi = 0: f = sum_k share_k s_k; so the shares are what each pixel follows."""
    sources = torch.rand(1, 3, *SIZE) * 2 - 1
    recorder = Recorder(FusionLikelihood(psi=0.0))
    f, _ = recorder.step(torch.zeros(1, 1, *SIZE), recorder.init(sources), 1.0)
    weights = recorder.trace().weights
    expected = (weights / weights.sum(0) * sources[0].numpy()).sum(0)
    np.testing.assert_allclose(f[0, 0].numpy(), expected, atol=1e-5)


def test_shares_of_the_released_code_say_whom_its_result_follows():
    """With a splitting that weighs nothing its result is the sources' mean by those shares, the infrared first."""
    sources = torch.rand(1, 2, *SIZE) * 2 - 1
    recorder = Recorder(ReleasedLikelihood(rho=1e-9))
    f, _ = recorder.step(0.1 * torch.ones(1, 1, *SIZE), recorder.init(sources), 1.0)
    weights = recorder.trace().weights
    expected = (weights / weights.sum(0) * sources[0].numpy()).sum(0)
    np.testing.assert_allclose(f[0, 0].numpy(), expected, atol=1e-5)


def test_each_half_follows_the_source_that_shows_something_there(prior):
    """Texture and light in the first source's left half and in the second's right half, flat grey elsewhere."""
    first, second = np.full((64, 96), 0.3, np.float32), np.full((64, 96), 0.3, np.float32)
    first[:, :48] = 0.5 + 0.5 * blobs(2, (64, 48))
    second[:, 48:] = 0.5 + 0.5 * blobs(3, (64, 48))
    told = explain(first, second, seeds=0, noise_std=0, **prior)
    shares = told.shares[0]
    assert shares[:, :40].mean() > 0.9
    assert shares[:, 56:].mean() < 0.1
    colors = maps.share_map(told.shares).astype(float)
    assert colors[:, :40, 0].mean() > colors[:, :40, 2].mean() + 100  # orange
    assert colors[:, 56:, 2].mean() > colors[:, 56:, 0].mean() + 100  # blue


def test_colors_of_maps():
    ends = maps.share_map(np.array([[[1.0, 0.5, 0.0]], [[0.0, 0.5, 1.0]]]))[0]
    assert ends.tolist() == [[230, 97, 1], [247, 247, 247], [33, 102, 172]]
    alone = maps.share_map(np.eye(3)[:, :, None])[:, 0]
    assert alone.tolist() == [list(color) for color in maps.palette(3)]
    assert len(set(maps.palette(7))) == 7
    assert len(maps.palette(12)) == 12
    assert maps.spread_map(np.array([[0.0, 2.0, 9.0]]), 2.0)[0].tolist() == [
        [0, 0, 4],
        [252, 255, 164],
        [252, 255, 164],
    ]


@pytest.mark.parametrize(("most", "top"), [(0.0, 0.1), (0.9, 1), (1, 1), (1.7, 2), (3, 5), (7, 10), (120, 200)])
def test_the_top_of_a_scale_is_a_round_number_above_what_is_shown(most, top):
    assert maps.spread_top(np.full((4, 4), most)) == pytest.approx(top)


# ---- objective and energy -------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"preset": "paper", "steps": 4}, {"steps": 6}], ids=str)
def test_the_objective_falls_in_every_m_step(street, prior, options):
    told = explain(*street, seeds=0, **prior, **options)
    assert len(told.objective) == len(told.gammas) == len(told.energy) > 3
    assert (told.objective[:, 1] < told.objective[:, 0]).all()


@pytest.mark.parametrize("noise", [(), (0.1, 0.2)])
def test_energy_never_rises_over_the_sweeps_of_em(noise):
    """In float64, where rounding cannot hide or feign a rise; EM lowers it in picture and scales at once."""
    likelihood = dataclasses.replace(PRESETS["balanced"].likelihood, sweeps=12, noise=noise)
    sources = torch.from_numpy(np.stack([blobs(0), blobs(1)])).double()[None] * 2 - 1
    recorder = Recorder(likelihood)
    state = recorder.init(sources)
    recorder.step(recorder.start(state), state, 0.0)
    energy = recorder.trace().energy
    assert (energy[:, 1] < energy[:, 0]).all()
    assert (energy[1:, 0] <= energy[:-1, 1]).all()  # k is then at its best for the new f


def test_energy_against_numerical_integration_over_m():
    """-log of prod_k int N(s_k; f, m / a_k) EXP(m; gamma_k) dm, and the texture term by its definition."""
    likelihood = FusionLikelihood(psi=0.6, eta=1.5, reach=2.0)
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    state = likelihood.init(2 * draw(1, 2, 3, 4) - 1)
    a = 0.5 + draw(1, 2, 3, 4)
    state = dataclasses.replace(state, maps=a, gamma=0.1 + draw(1, 2, 1, 1))
    f, k, u = draw(1, 1, 3, 4), draw(1, 1, 3, 4), draw(1, 2, 3, 4)
    root = torch.linspace(1e-6, 12, 400_001, dtype=torch.float64)  # m = root^2 takes the pole at 0 away
    total = 0.0
    for n in range(2):
        for y in range(3):
            for x in range(4):
                total -= _marginal(root, f[0, 0, y, x] - state.sources[0, n, y, x], a[0, n, y, x], state.gamma[0, n], 0)
    slope = grad(k) - likelihood.texture_target(state.sources, state.maps)
    split = 2.0 * (u - slope).square().sum() + (k - f).square().sum()
    expected = total + 0.5 * (0.6 * u.square().sum() + 1.5 / 2 * split)
    assert likelihood.energy(f, k, u, state).item() == pytest.approx(float(expected), rel=1e-6)


def _marginal(root, d, a, gamma, sigma):
    """log int N(d; 0, (m + sigma^2) / a) exp(-m / gamma) / gamma dm with d guarded as in the E-step."""
    m = root.square()
    variance = (m + sigma**2) / a
    density = (-(d**2 + EPSILON**2) / (2 * variance)).exp() / (2 * torch.pi * variance).sqrt()
    return torch.trapezoid(density * (-m / gamma).exp() / gamma * 2 * root, root).log().item()


@pytest.mark.parametrize("d", [0.0, 0.05, 0.4, 1.9])
def test_density_of_noisy_sources_against_numerical_integration(d):
    a, gamma, sigma = 1.3, 0.05, 0.2
    root = torch.linspace(1e-6, 3, 200_001, dtype=torch.float64)
    wide = [torch.tensor([value], dtype=torch.float64) for value in (d**2 + EPSILON**2, a, gamma, sigma)]
    assert noisy_log_density(*wide).item() == pytest.approx(_marginal(root, d, a, gamma, sigma), abs=1e-7)


def test_density_of_noisy_sources_tends_to_the_laplace_one():
    """For a noise far below the difference; and far out it does not overflow."""
    square, a, gamma = torch.tensor([0.25, 4.0]), torch.tensor(1.0), torch.tensor(0.02)
    laplace = -(2 * a * square / gamma).sqrt() + (a / (2 * gamma)).log() / 2
    torch.testing.assert_close(noisy_log_density(square, a, gamma, torch.tensor(1e-3)), laplace, rtol=1e-4, atol=0)


# ---- spread over seeds ----------------------------------------------------------------------------


def test_spread_is_the_standard_deviation_of_fusions_with_those_seeds(prior):
    sources, options = [grey(0), grey(1)], {"preset": "paper", "steps": 2, "seed": 5, "tone": "percentile"}
    told = explain(*sources, seeds=4, **prior, **options)
    options.pop("seed")
    runs = [ddfm.fuse(*sources, **prior, **options, seed=seed).data for seed in (5, 6, 7, 8)]
    assert told.samples.seeds == (5, 6, 7, 8)
    assert told.samples.own
    assert told.samples.frames == ()
    np.testing.assert_allclose(told.spread, np.std(np.float64(runs), axis=0, ddof=1), atol=1e-6)
    assert told.spread.max() > 0.01


def test_where_nothing_is_drawn_posterior_samples_are_and_that_is_said(street, prior, told):
    assert not told.samples.own
    assert any("draws nothing at random" in note for note in told.notes)
    assert told.samples.settings["steps"] == 10
    preset = PRESETS["balanced"].with_steps(10)
    fuser = Fuser(FuseConfig(**prior), preset=dataclasses.replace(preset, noise_std=None, draws=0))
    fuser.config = dataclasses.replace(fuser.config, noise_std=0)
    runs = []
    for seed in (0, 1):
        fuser.config = dataclasses.replace(fuser.config, seed=seed)
        runs.append(fuser.fuse(*street).data @ np.array((0.299, 0.587, 0.114)))
    # of the luma of a colour picture, which the gamut and float32 touch here and there
    assert np.quantile(np.abs(told.spread - np.std(runs, axis=0, ddof=1)), 0.99) < 1e-3
    names = [frame.name for frame in told.samples.frames]
    assert names[:2] == ["EM 1", "EM 2"]
    assert names[2] == "step 1 of 10, t = 90"
    assert names[-1] == "step 10 of 10, t = 0"


@pytest.mark.parametrize("seeds", [-1, 1001, 2.5, True, "3"])
def test_seeds_that_cannot_be(seeds, prior):
    with pytest.raises(DDFMError, match="seeds"):
        explain(grey(0), grey(1), seeds=seeds, **prior)


# ---- frames ---------------------------------------------------------------------------------------


def test_frames_are_what_the_pipeline_saw(street, prior):
    told = explain(*street, seeds=0, preset="paper", steps=4, **prior)
    seen = []
    fuser = Fuser(FuseConfig(preset="paper", steps=4, **prior))
    ready = fuser.ready(fuser.open(street).gathered.images)
    from ddfm.pictures import pair_seed

    fuser.pipeline(
        *ready.lumas,
        num_inference_steps=4,
        likelihood=ready.preset.likelihood,
        generator=torch.Generator().manual_seed(pair_seed(ready.lumas, 0)),
        callback_on_step_end=lambda p, i, t, tensors: seen.append((t, tensors["x0"], tensors["f_hat"])),
    )
    assert [frame.name for frame in told.frames] == [f"step {n + 1} of 4, t = {t}" for n, (t, _, _) in enumerate(seen)]
    for frame, (_, x0, f_hat) in zip(told.frames, seen, strict=True):
        for kept, tensor in ((frame.x0, x0), (frame.f_hat, f_hat)):
            exact = ((tensor[0, 0].numpy() + 1) * 127.5).clip(0, 255)
            assert np.abs(kept - exact).max() <= 0.5 + 1e-3


def test_em_begins_at_the_mixture_and_ends_at_the_picture(prior):
    sources = [blobs(0), blobs(1)]
    told = explain(*sources, seeds=0, noise_std=0, **prior)
    assert [frame.name for frame in told.frames] == [f"EM {n}" for n in range(1, 7)]
    mean = (told.scale_maps * (np.stack(sources))).mean(0)
    assert np.corrcoef(told.frames[0].x0.ravel(), mean.ravel())[0, 1] > 0.99
    assert np.abs(told.frames[-1].f_hat - told.fused.data * 255).max() <= 0.5 + 1e-3
    for before, after in zip(told.frames, told.frames[1:], strict=False):
        assert np.array_equal(before.f_hat, after.x0)


def test_many_frames_are_thinned_evenly_and_large_ones_reduced(monkeypatch):
    monkeypatch.setattr(trace, "MOST_FRAMES", 7)
    monkeypatch.setattr(trace, "MOST_PIXELS", SIZE[0] * SIZE[1] // 4)
    recorder = Recorder(FusionLikelihood(), moments=100, name=lambda n, snr: f"{n}")
    state = recorder.init(torch.zeros(1, 2, *SIZE))
    for _ in range(100):
        _, state = recorder.step(torch.zeros(1, 1, *SIZE), state, 1.0)
    frames = recorder.trace().frames
    names = [int(frame.name) for frame in frames]
    assert (names[0], names[-1], len(names)) == (1, 100, 7)
    assert set(np.diff(names)) <= {16, 17}
    assert frames[0].x0.shape == (SIZE[0] // 2, SIZE[1] // 2)
    assert (frames[0].x0 == 128).all()


def test_thinning_and_size_are_told(street, prior, monkeypatch):
    monkeypatch.setattr("ddfm.explaining.explanation.MOST_FRAMES", 3)
    monkeypatch.setattr(trace, "MOST_FRAMES", 3)
    monkeypatch.setattr(trace, "MOST_PIXELS", 5000)
    told = explain(*street, seeds=0, **prior)
    assert len(told.frames) == 3
    text = " ".join(told.notes)
    assert "3 of 6 moments" in text
    assert "1/2 of its sides" in text


# ---- sources of every kind ------------------------------------------------------------------------


def test_three_sources_and_their_names(prior, tmp_path):
    pictures = [grey(n) for n in range(3)]
    paths = []
    for n, picture in enumerate(pictures):
        (tmp_path / str(n)).mkdir()
        paths.append(tmp_path / str(n) / "same.png")
        Image.fromarray(picture).save(paths[-1])
    told = explain(*paths, preset="stack", seeds=0, **prior)
    assert told.labels == ("same.png (1)", "same.png (2)", "same.png (3)")
    assert told.shares.shape == (3, *SIZE)
    assert "here are more" in told.html()
    named = explain(*pictures, labels=["near", "middle", "far"], preset="stack", seeds=0, **prior)
    assert named.labels == ("near", "middle", "far")
    assert explain(*pictures[:2], seeds=0, **prior).labels == ("source 1", "source 2")
    for labels in (["a"], "ab", ["a", ""], ["a", 2]):
        with pytest.raises(DDFMError, match="labels"):
            explain(*pictures[:2], labels=labels, seeds=0, **prior)


def test_noisy_sources_are_kept_as_they_were_fused(street, prior):
    told = explain(*street, seeds=0, noise_std=(0.06, 0), steps=1, **prior)
    assert len(told.cleaned) == 2
    infrared = street[0] / 255
    assert np.abs(told.cleaned[0] - infrared).max() > 0.01
    luma = (street[1] / 255) @ np.array((0.299, 0.587, 0.114))
    np.testing.assert_allclose(told.cleaned[1], luma, atol=1e-5)
    assert "Noise taken out first" in told.html()


def test_released_and_other_likelihoods(street, prior):
    told = explain(*street, seeds=0, preset="released", steps=2, **prior)
    assert told.shares.shape == (2, 96, 128)
    assert len(told.objective) == len(told.energy) == 0
    assert told.scale_maps is None
    assert any("no objective" in note for note in told.notes)
    assert "How it settled" not in told.html()
    preset = dataclasses.replace(PRESETS["paper"], likelihood=AdmmLikelihood(0.5), steps=2)
    other = explain_with(Fuser(FuseConfig(**prior), preset=preset), street, seeds=0)
    assert other.shares is None
    assert any("no weights" in note for note in other.notes)
    assert "Which source each pixel follows" not in other.html()


def test_sixteen_bits_and_alignment(prior, street):
    deep = [(picture.astype(np.uint16) * 257) for picture in (street[0], street[1])]
    told = explain(*deep, seeds=0, bit_depth=16, **prior)
    assert f"base64,{base64.b64encode(told.fused.encode()).decode()}" in told.html()
    small = np.asarray(Image.fromarray(street[0]).resize((64, 48)))
    aligned = explain(small, street[1], seeds=0, align="resize", **prior)
    assert aligned.sources[0].shape == (96, 128)
    assert aligned.fused.data.tobytes() == ddfm.fuse(small, street[1], align="resize", **prior).data.tobytes()
    assert len(aligned.fused.transforms) == 1


def test_pictures_that_are_fused_in_strips_are_refused(prior, monkeypatch):
    monkeypatch.setattr("ddfm.fusion.STRIP_PIXELS", 1000)
    with pytest.raises(DDFMError, match="Reduce or crop"):
        explain(grey(0), grey(1), seeds=0, **prior)


# ---- progress and cancelling ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"noise_std": 0.05, "steps": 3},
        {"preset": "paper", "steps": 3},
        {"preset": "released", "steps": 2},
        {"tile": 32},
    ],
    ids=str,
)
def test_progress_is_told_to_the_end(prior, options):
    seen = []
    explain(grey(0), grey(1), seeds=3, on_step=lambda *step: seen.append(step), **prior, **options)
    assert len({of for _, of in seen}) == 1
    done = [step for step, _ in seen]
    assert done == [*range(done[-1] + 1), done[-1]]  # one by one, none left over, none too many; then the end
    assert done[-1] == seen[0][1]


class Cancelled(Exception):
    """What a page raises."""


@pytest.mark.parametrize("when", [0, 2, 9, 20])
def test_an_exception_in_on_step_ends_the_work_at_once(prior, when):
    calls = []

    def on_step(done, of):
        calls.append(done)
        if done == when:
            raise Cancelled

    fuser = Fuser(FuseConfig(**prior))
    with pytest.raises(Cancelled):
        explain_with(fuser, (grey(0), grey(1)), seeds=3, on_step=on_step)
    assert calls[-1] == when
    assert not fuser.pipeline.unet._forward_hooks  # nothing is left behind in a fuser that goes on
    assert fuser.fuse(grey(0), grey(1)).data.tobytes() == ddfm.fuse(grey(0), grey(1), **prior).data.tobytes()


# ---- film -----------------------------------------------------------------------------------------


def test_gif(told):
    film = Image.open(io.BytesIO(told.gif()))
    assert film.n_frames == len(told.frames) == 6
    assert film.size == (2 * 128 + 4, 96)
    film.seek(5)
    shown = np.asarray(film.convert("L")).astype(int)
    # below the names: the frame's two pictures (a GIF of greys is exact)
    assert np.array_equal(shown[30:, :128], told.frames[5].x0[30:])
    assert np.array_equal(shown[30:, 132:], told.frames[5].f_hat[30:])
    with pytest.raises(DDFMError, match="frames"):
        lapse.gif(())


def test_film_of_large_frames_is_reduced():
    frame = trace.Frame("EM 1", np.zeros((700, 1300), np.uint8), np.zeros((700, 1300), np.uint8))
    assert Image.open(io.BytesIO(lapse.gif([frame]))).size == (2 * 640 + 4, 345)
    assert [f.name for f in lapse.thinned([trace.Frame(str(n), None, None) for n in range(9)], 3)] == ["0", "4", "8"]


def test_mp4(told, tmp_path):
    pytest.importorskip("av")
    from ddfm.io.video import open_clips

    path = tmp_path / "lapse.mp4"
    path.write_bytes(told.mp4())
    frames = list(open_clips([path])[0].frames())
    assert len(frames) == 6
    last = frames[-1].image.data
    last = last if last.ndim == 2 else last.mean(-1)
    assert last.shape == (96, 260)
    assert np.abs(last[30:, 132:] * 255 - told.frames[-1].f_hat[30:]).mean() < 4  # lossy


# ---- the page -------------------------------------------------------------------------------------


class Reader(HTMLParser):
    """Tags with their attributes, and the text outside script and style."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.raw, self._open = [], [], {}, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._open.append(tag)

    def handle_endtag(self, tag):
        if tag in self._open:
            while self._open.pop() != tag:
                pass

    def handle_data(self, data):
        tag = self._open[-1] if self._open else ""
        (self.raw.setdefault(tag, []) if tag in ("script", "style") else self.words).append(data)


def test_the_page_needs_nothing_else(page):
    reader = Reader(page)
    for tag, attributes in reader.tags:
        for name in ("src", "href", "srcset", "data", "action", "poster"):
            value = attributes.get(name) or ""
            assert not value or value.startswith("data:image/"), (tag, name, value[:60])
        assert not (tag == "script" and "src" in attributes)
        assert tag not in ("link", "iframe", "object", "embed", "base")
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
    text = re.sub(r"base64,[A-Za-z0-9+/=]+", "", page)
    assert "http" not in re.sub(r'http-equiv="', "", text)
    assert "@import" not in text
    assert "url(" not in text.replace("url(#", "")


def test_the_policy_lets_its_own_script_and_style_run_and_nothing_else(page):
    reader = Reader(page)
    policy = next(a["content"] for tag, a in reader.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy
    for tag in ("script", "style"):
        assert len(reader.raw[tag]) == 1
        digest = base64.b64encode(hashlib.sha256(reader.raw[tag][0].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_the_page_holds_the_fused_picture_exactly(told, page):
    content = told.fused.encode(".png")
    assert page.count(base64.b64encode(content).decode()) == 1
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), np.rint(told.fused.data * 255))


def test_every_picture_has_words_and_every_control_a_name(page):
    reader = Reader(page)
    images = [a for tag, a in reader.tags if tag == "img"]
    assert len(images) > 30
    assert all(a.get("alt") for a in images)
    assert all(a.get("aria-label") for tag, a in reader.tags if a.get("type") == "range" or a.get("role") == "img")
    ids = [a["id"] for _, a in reader.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert all(a["aria-labelledby"] in ids for _, a in reader.tags if "aria-labelledby" in a)
    text = " ".join(reader.words)
    for words in ("Not a medical device", "How sure it is", "balanced@4", "What the prior would make of it", "minVIF"):
        assert words in text
    assert "nan" not in text.split()


def test_names_are_escaped(prior):
    evil = '<script>alert("x")</script>'
    told = explain(grey(0), grey(1), labels=[evil, "b\" onload='y"], seeds=2, **prior)
    reader = Reader(told.html())
    assert [tag for tag, _ in reader.tags].count("script") == 1
    assert not [a for _, a in reader.tags if "onload" in a]
    assert any(evil in words for words in reader.words)


def test_no_path_of_the_machine_is_in_the_page(prior, tmp_path):
    secret = tmp_path / "secret-folder"
    secret.mkdir()
    for n in range(2):
        Image.fromarray(grey(n, (48, 48, 3))).convert("P").save(secret / f"{n}.png")  # a palette: a note with the path
    told = explain(secret / "0.png", secret / "1.png", seeds=0, **prior)
    assert any(str(secret) in note for note in told.fused.report["warnings"])
    page = re.sub(r"base64,[A-Za-z0-9+/=]+", "", told.html())
    for text in (str(tmp_path), "secret-folder", prior["prior"], str(tmp_path.parent)):
        assert text not in page
    assert "0.png" in page
    assert told.fused.report["prior"]["name"] == prior["prior"]  # the report itself stays what it was


def test_saving(told, tmp_path):
    path = told.save(tmp_path / "report.html")
    assert path.read_text("utf-8") == told.html()
    with pytest.raises(DDFMError, match="exists"):
        told.save(path)
    told.save(path, overwrite=True)
    with pytest.raises(DDFMError, match=r"\.html"):
        told.save(tmp_path / "report.pdf")


def test_a_chart_draws_values_where_they_are():
    svg = str(chart(np.array([[4.0, 2.0], [2.0, 0.0]]), "below <", "beside", joined=True))
    points = re.search(r'points="([^"]+)"', svg)[1].split()
    heights = [float(point.split(",")[1]) for point in points]
    assert heights[1] == heights[2]
    assert heights[1] - heights[0] == pytest.approx(heights[3] - heights[2], abs=0.11)  # a tenth is printed
    assert "below &lt;" in svg
    assert "nan" not in str(chart(np.zeros((1, 2)), "a", "b", joined=False))  # all values alike


# ---- the command ----------------------------------------------------------------------------------


@pytest.fixture
def explain_command(command_line, tmp_path, monkeypatch, tiny_prior):
    monkeypatch.chdir(tmp_path)
    for n, name in enumerate(("ir", "vis")):
        Image.fromarray(grey(n)).save(f"{name}.png")

    return lambda *words: command_line("explain", *words, "--prior", tiny_prior, "--seeds", "2")


def test_the_command_writes_page_and_film(explain_command, tmp_path, tiny_prior):
    pytest.importorskip("av")
    code, text = explain_command("ir.png", "vis.png", "-o", "r.html", "--gif", "r.gif", "--mp4", "r.mp4", "--steps", 2)
    assert code == 0, text
    page = (tmp_path / "r.html").read_text("utf-8")
    fused = ddfm.fuse("ir.png", "vis.png", prior=str(tiny_prior), steps=2).encode()
    assert base64.b64encode(fused).decode() in page
    assert Image.open("r.gif").n_frames == 4
    assert (tmp_path / "r.mp4").stat().st_size > 500
    assert "draws nothing at random" in text


def test_the_command_teaches(explain_command, tmp_path):
    (tmp_path / "there.html").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "scan.nii").write_bytes(b"\0" * 400)
    (tmp_path / "clip.mp4").write_bytes(b"\0\0\0\x18ftypisom" + b"\0" * 200)
    before = sorted(tmp_path.iterdir())
    for words, expected in (
        (("ir.png", "vis.png", "-o", "r.pdf"), r"ending in \.html"),
        (("ir.png", "vis.png", "-o", "r.html", "--gif", "r.png"), r"ending in \.gif"),
        (("ir.png", "vis.png", "-o", "r.html", "--mp4", "r.gif"), r"ending in \.mp4"),
        (("ir.png", "vis.png", "-o", "there.html"), "--overwrite"),
        (("ir.png", "vis.png", "-o", "new/r.html"), "existing folder"),
        (("ir.png", "-o", "r.html"), "two or more"),
        (("ir.png", "none.png", "-o", "r.html"), "no such file"),
        (("ir.png", "folder", "-o", "r.html"), "one picture of each"),
        (("ir.png", "scan.nii", "-o", "r.html"), "a volume.*slice"),
        (("ir.png", "clip.mp4", "-o", "r.html"), "a video.*frame"),
        (("ir.png", "vis.png", "-o", "r.html", "--preset", "balancd"), "Did you mean 'balanced'"),
        (("ir.png", "vis.png", "-o", "r.html", "--noise-std", "3"), "noise_std"),
        (("ir.png", "vis.png", "-o", "r.html", "--noise-std", "0.1,0.1,0.1"), "3 values"),
        (("ir.png", "there.html", "-o", "r.html"), "Convert"),
    ):
        code, text = explain_command(*words)
        assert code == 2, (words, text)
        assert re.search(expected, text), (words, text)
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "there.html").read_text() == "mine"
    assert explain_command("ir.png", "vis.png", "-o", "there.html", "--overwrite")[0] == 0


def test_stopping_the_command_leaves_nothing(explain_command, tmp_path, monkeypatch):
    before = sorted(tmp_path.iterdir())
    calls = []

    def stop(self, *words):
        calls.append(words)
        if len(calls) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr("ddfm.explaining.explanation._Work._tell", stop)
    code, text = explain_command("ir.png", "vis.png", "-o", "r.html", "--gif", "r.gif")
    assert (code, text) == (130, "stopped")
    assert len(calls) == 5
    assert sorted(tmp_path.iterdir()) == before
