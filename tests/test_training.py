"""The recipe: resuming changes nothing, the export loads, what is broken says so."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from ddfm._checks import DDFMError
from ddfm.diffusion import alpha_bar, linear_betas
from ddfm.training import (
    PhotographCrops,
    TrainConfig,
    Trainer,
    export,
    min_snr_weight,
    parse_channels,
    per_level_loss,
    relative_weight,
)

SETTINGS = {"channels": (16, 16), "batch_size": 2, "crops": (32,), "warmup": 2}


@pytest.fixture(scope="module")
def crops(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for n in range(3):
        Image.fromarray(rng.integers(0, 256, (70, 80), dtype=np.uint8)).save(folder / f"{n}.png")
    return PhotographCrops([folder])


def trained(crops, folder, *stops):
    """Weights after the last of ``stops`` steps, the run being taken up anew after each."""
    for stop in stops:
        trainer = Trainer(TrainConfig(steps=4, **SETTINGS), crops, folder)
        trainer.resume()
        steps = trainer._steps(log_every=2)
        while trainer.step < stop:
            next(steps)
        trainer.save()
    return trainer


def test_a_stopped_run_ends_in_the_same_weights(crops, tmp_path):
    once = trained(crops, tmp_path / "once", 4)
    thrice = trained(crops, tmp_path / "thrice", 1, 2, 4)
    for mine, theirs in ((once.unet, thrice.unet), (once.ema, thrice.ema)):
        for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
            assert torch.equal(a, b)
    assert not all(torch.equal(a, b) for a, b in zip(once.unet.parameters(), once.ema.parameters(), strict=True))


def test_run_logs_checkpoints_and_exports(crops, tmp_path):
    from ddfm.priors import load_prior, prior_info

    trainer = Trainer(TrainConfig(steps=4, **SETTINGS), crops, tmp_path)
    trainer.run(log_every=2, save_every=2, on_step=lambda record: None)
    assert [json.loads(x)["step"] for x in (tmp_path / "log.jsonl").read_text().splitlines()] == [2, 4]
    folder = export(trainer, "CC0")
    info = prior_info(folder)
    assert (info["licence"], info["prediction_type"], info["unshuffle"]) == ("CC0", "v_prediction", 2)
    loaded = load_prior(folder).unet.state_dict()
    for name, value in trainer.ema.state_dict().items():
        assert torch.equal(loaded[name], value.half().float())


def test_an_interrupt_leaves_a_checkpoint(crops, tmp_path):
    trainer = Trainer(TrainConfig(steps=4, **SETTINGS), crops, tmp_path)

    def stop(record):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.run(on_step=stop)
    again = Trainer(TrainConfig(steps=4, **SETTINGS), crops, tmp_path)
    assert again.resume() and again.step == 1


def test_another_networks_checkpoint_is_refused(crops, tmp_path):
    trained(crops, tmp_path, 1)
    with pytest.raises(DDFMError, match="channels"):
        Trainer(TrainConfig(steps=4, **(SETTINGS | {"channels": (16, 32)})), crops, tmp_path).resume()


def test_a_diverged_run_stops_with_advice(crops, tmp_path):
    trainer = Trainer(TrainConfig(steps=4, **SETTINGS), crops, tmp_path)
    with torch.no_grad():
        next(trainer.unet.parameters()).fill_(float("nan"))
    with pytest.raises(DDFMError, match="learning_rate"):
        trainer.train_step()


def test_crops_are_in_range_and_of_the_asked_size(crops):
    batch = crops.batch(32, np.random.default_rng(0), [True] * 20)
    assert batch.shape == (20, 1, 32, 32)
    assert float(batch.min()) >= -1 and float(batch.max()) <= 1
    assert torch.equal(batch, crops.batch(32, np.random.default_rng(0), [True] * 20))


def test_no_photographs(tmp_path):
    with pytest.raises(DDFMError, match="64 pixels"):
        PhotographCrops([tmp_path])
    (tmp_path / "x.png").write_text("no picture")
    with pytest.raises(DDFMError, match=r"x\.png"):
        PhotographCrops([tmp_path])


def test_min_snr_weight_at_known_points():
    """snr = 1: 1 / 2; snr far above gamma = 5: 5 / (snr + 1)."""
    assert min_snr_weight(torch.tensor(0.5), 5.0).item() == pytest.approx(0.5)
    assert min_snr_weight(torch.tensor(0.99), 5.0).item() == pytest.approx(5 / 100, rel=1e-4)


def test_relative_weight_where_the_wiener_filter_is_known():
    """One pixel: P is the variance V, so the v loss is V / (abar V + 1 - abar)."""
    abar = torch.tensor([1e-4, 0.3, 0.999], dtype=torch.float64)
    expected = (abar * 0.24 + 1 - abar) / 0.24
    torch.testing.assert_close(relative_weight(abar, 0.24, size=1), expected, rtol=1e-12, atol=0)


def test_relative_weight_against_a_simulated_wiener_filter():
    """The v error of the posterior mean, drawn from the Gaussian prior itself: its weight times it is 1."""
    size, abar, count = 16, 0.6, 2000
    rng = np.random.default_rng(0)
    f = np.fft.fftfreq(size, 1 / size)
    power = np.maximum(f[:, None] ** 2 + f[None] ** 2, 0.5) ** -1.25
    power *= 0.24 / power.mean()
    x0 = np.fft.ifft2(np.sqrt(power) * np.fft.fft2(rng.standard_normal((count, size, size)))).real
    noise = rng.standard_normal(x0.shape)
    x_t = abar**0.5 * x0 + (1 - abar) ** 0.5 * noise
    gain = abar**0.5 * power / (abar * power + 1 - abar)
    estimate = np.fft.ifft2(gain * np.fft.fft2(x_t)).real
    v = abar**0.5 * noise - (1 - abar) ** 0.5 * x0
    answer = (abar**0.5 * x_t - estimate) / (1 - abar) ** 0.5
    loss = ((answer - v) ** 2).mean()
    # 512,000 squares: known to 0.2 %, five times that
    assert float(relative_weight(torch.tensor(abar, dtype=torch.float64), 0.24, size)) * loss == pytest.approx(
        1, rel=0.01
    )


def test_tone_is_varied_only_where_asked():
    """Flips, turns and reduction leave a white photograph white; contrast, brightness and inversion do not."""
    flat = PhotographCrops.__new__(PhotographCrops)
    flat.images = [np.full((70, 80), 255, np.uint8)]
    plain = flat.batch(32, np.random.default_rng(0), [False] * 20)
    varied = flat.batch(32, np.random.default_rng(0), [True] * 20)
    assert torch.equal(plain, torch.ones_like(plain))
    assert not torch.equal(varied, torch.ones_like(varied))


def test_a_second_phase_starts_from_the_first_and_its_card_says_so(crops, tmp_path):
    first = trained(crops, tmp_path / "first", 2)
    folder = export(first, "CC0")
    second = Trainer(TrainConfig(steps=4, start_from=str(folder), **SETTINGS), crops, tmp_path / "second")
    for a, b in zip(second.unet.parameters(), first.ema.parameters(), strict=True):
        assert torch.equal(a, b.half().float())
    for a, b in zip(second.ema.parameters(), second.unet.parameters(), strict=True):
        assert torch.equal(a, b)
    card = json.loads((export(second, "CC0") / "card.json").read_text())
    assert card["started_from"]["steps"] == 2
    assert str(tmp_path) not in json.dumps(card)


def test_a_second_phase_of_another_network_is_refused(crops, tmp_path):
    folder = export(trained(crops, tmp_path / "first", 1), "CC0")
    with pytest.raises(DDFMError, match="start_from"):
        Trainer(TrainConfig(start_from=str(folder), **(SETTINGS | {"channels": (16, 32)})), crops, tmp_path / "second")


def test_unknown_weighting_is_refused():
    with pytest.raises(DDFMError, match="weighting"):
        TrainConfig(weighting="min_snr")


def test_loss_per_level_of_a_network_that_answers_zero(crops):
    """v = 0 means eps = sqrt(1 - abar) x_t, whose error for x0 = 0 is abar^2 on average."""

    class Zero(torch.nn.Module):
        def forward(self, x, t):
            return type("Output", (), {"sample": torch.zeros_like(x)})()

    losses = per_level_loss(Zero(), torch.zeros(16, 1, 64, 64), [100, 500], 2)
    levels = alpha_bar(linear_betas())
    for loss, t in zip(losses, (100, 500), strict=True):
        # eps (1 - (1 - abar)) = abar eps; 65,536 draws: the mean of eps^2 is known to 0.6 %, five times that
        assert loss == pytest.approx(float(levels[t]) ** 2, rel=0.03)


@pytest.mark.parametrize("text", ["", "16,x", "17", "0", "-16"])
def test_bad_channels(text):
    with pytest.raises(DDFMError, match="channels"):
        parse_channels(text)


def test_rate_rises_holds_and_falls():
    config = TrainConfig(steps=100, warmup=10, cooldown=0.2, learning_rate=1.0)
    assert [round(config.rate(s), 3) for s in (0, 9, 50, 90, 99)] == [0.1, 1.0, 1.0, 0.5, 0.05]


def test_an_export_replaces_an_earlier_one_and_nothing_else(crops, tmp_path):
    trainer = trained(crops, tmp_path / "run", 1)
    first = export(trainer, "CC0")
    assert export(trainer, "CC0 again") == first
    assert json.loads((first / "card.json").read_text())["licence"] == "CC0 again"
    assert {p.name for p in first.parent.iterdir()} <= {"checkpoint.pt", "log.jsonl", "prior"}  # no .part, no .old
    other = tmp_path / "other"
    (other / "prior").mkdir(parents=True)
    (other / "prior/mine.txt").write_text("precious")
    with pytest.raises(DDFMError, match="not an earlier export"):
        Trainer(TrainConfig(steps=1, **SETTINGS), crops, other)
    with pytest.raises(DDFMError, match="not an earlier export"):
        export(trainer, "CC0", other / "prior")
    assert (other / "prior/mine.txt").read_text() == "precious"
    with pytest.raises(DDFMError, match="--licence"):
        export(trainer, "")
