"""The converter against the original code's output, and against the architecture written again from its description."""

import math
import shutil

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ddfm._checks import DDFMError
from ddfm.conversion import convert
from ddfm.pipeline import DDFMPipeline
from ddfm.priors import adm, load_prior

HERE = __import__("pathlib").Path(__file__).parent
TINY = HERE / "golden/adm-tiny"

#: The paper's prior.
ADM_256 = adm.AdmConfig(
    channels=(256, 256, 512, 512, 1024, 1024),
    res_blocks=2,
    attention=(False, False, False, True, True, True),
    head_channels=64,
    in_channels=3,
    out_channels=6,
    scale_shift=True,
    res_resampling=True,
)


def small(**changes):
    settings = {
        "channels": (32, 64, 64),
        "res_blocks": 2,
        "attention": (False, True, True),
        "head_channels": 16,
        "in_channels": 3,
        "out_channels": 6,
        "scale_shift": True,
        "res_resampling": True,
    }
    return adm.AdmConfig(**(settings | changes))


VARIANTS = {
    "adm": {},
    "no learned variance": {"out_channels": 3},
    "no scale-shift": {"scale_shift": False},
    "new attention order": {"new_attention_order": True},
    "convolutions between levels": {"res_resampling": False},
    "luma": {"in_channels": 1, "out_channels": 2},
    "attention everywhere": {"attention": (True, True, True)},
    "attention in the middle only": {"attention": (False, False, False)},
    "one level": {"channels": (32,), "attention": (True,)},
    "one head": {"head_channels": 64, "attention": (False, False, True)},
}


def checkpoint(config, seed=0):
    """Random weights under the names of guided-diffusion, shapes by that architecture."""
    generator = torch.Generator().manual_seed(seed)
    state, first = {}, config.channels[0]

    def layer(name, *shape):
        fan = math.prod(shape[1:]) or 1
        state[f"{name}.weight"] = torch.randn(shape, generator=generator) / math.sqrt(fan)
        state[f"{name}.bias"] = torch.randn(shape[0], generator=generator) * 0.1

    def norm(name, channels):
        state[f"{name}.weight"] = 1 + 0.1 * torch.randn(channels, generator=generator)
        state[f"{name}.bias"] = 0.1 * torch.randn(channels, generator=generator)

    def res(name, before, after):
        norm(f"{name}.in_layers.0", before)
        layer(f"{name}.in_layers.2", after, before, 3, 3)
        layer(f"{name}.emb_layers.1", after * (2 if config.scale_shift else 1), 4 * first)
        norm(f"{name}.out_layers.0", after)
        layer(f"{name}.out_layers.3", after, after, 3, 3)
        if before != after:
            layer(f"{name}.skip_connection", after, before, 1, 1)

    def attention(name, channels):
        norm(f"{name}.norm", channels)
        layer(f"{name}.qkv", 3 * channels, channels, 1)
        layer(f"{name}.proj_out", channels, channels, 1)

    layer("time_embed.0", 4 * first, first)
    layer("time_embed.2", 4 * first, 4 * first)
    layer("input_blocks.0.0", first, config.in_channels, 3, 3)
    number, now, skips = 1, first, [first]
    for level, channels in enumerate(config.channels):
        for _ in range(config.res_blocks):
            res(f"input_blocks.{number}.0", now, channels)
            now = channels
            if config.attention[level]:
                attention(f"input_blocks.{number}.1", now)
            skips.append(now)
            number += 1
        if level < len(config.channels) - 1:
            if config.res_resampling:
                res(f"input_blocks.{number}.0", now, now)
            else:
                layer(f"input_blocks.{number}.0.op", now, now, 3, 3)
            skips.append(now)
            number += 1
    res("middle_block.0", now, now)
    attention("middle_block.1", now)
    res("middle_block.2", now, now)
    number = 0
    for level in reversed(range(len(config.channels))):
        for k in range(config.res_blocks + 1):
            res(f"output_blocks.{number}.0", now + skips.pop(), config.channels[level])
            now = config.channels[level]
            if config.attention[level]:
                attention(f"output_blocks.{number}.1", now)
            if level and k == config.res_blocks:
                last = f"output_blocks.{number}.{2 if config.attention[level] else 1}"
                if config.res_resampling:
                    res(last, now, now)
                else:
                    layer(f"{last}.conv", now, now, 3, 3)
            number += 1
    norm("out.0", first)
    layer("out.2", config.out_channels, first, 3, 3)
    return state


def evaluate(state, config, x, t):
    """The network as guided-diffusion describes it, written anew on the state dict alone."""

    def linear(name, h):
        return F.linear(h, state[f"{name}.weight"], state[f"{name}.bias"])

    def conv(name, h, **options):
        return F.conv2d(h, state[f"{name}.weight"], state[f"{name}.bias"], **options)

    def norm(name, h):
        return F.group_norm(h, 32, state[f"{name}.weight"], state[f"{name}.bias"], 1e-5)

    def res(name, h, resample=lambda h: h):
        inner = conv(f"{name}.in_layers.2", resample(F.silu(norm(f"{name}.in_layers.0", h))), padding=1)
        emb = linear(f"{name}.emb_layers.1", F.silu(embedding))[:, :, None, None]
        if config.scale_shift:
            scale, shift = emb.chunk(2, 1)
            inner = norm(f"{name}.out_layers.0", inner) * (1 + scale) + shift
        else:
            inner = norm(f"{name}.out_layers.0", inner + emb)
        inner = conv(f"{name}.out_layers.3", F.silu(inner), padding=1)
        h = resample(h)
        return inner + (conv(f"{name}.skip_connection", h) if f"{name}.skip_connection.weight" in state else h)

    def attend(name, h):
        b, c, height, width = h.shape
        flat = norm(f"{name}.norm", h).reshape(b, c, -1)
        qkv = F.conv1d(flat, state[f"{name}.qkv.weight"], state[f"{name}.qkv.bias"])
        heads, size = c // config.head_channels, config.head_channels
        if config.new_attention_order:
            q, k, v = (part.reshape(b * heads, size, -1) for part in qkv.chunk(3, 1))
        else:
            q, k, v = qkv.reshape(b * heads, 3 * size, -1).split(size, 1)
        weights = torch.softmax(torch.einsum("bct,bcs->bts", q, k) / math.sqrt(size), -1)
        out = torch.einsum("bts,bcs->bct", weights, v).reshape(b, c, -1)
        out = F.conv1d(out, state[f"{name}.proj_out.weight"], state[f"{name}.proj_out.bias"])
        return h + out.reshape(b, c, height, width)

    def resampled(name, h, up):
        change = (lambda h: F.interpolate(h, scale_factor=2)) if up else (lambda h: F.avg_pool2d(h, 2))
        if f"{name}.in_layers.0.weight" in state:
            return res(name, h, change)
        return conv(f"{name}.conv", change(h), padding=1) if up else conv(f"{name}.op", h, stride=2, padding=1)

    half = config.channels[0] // 2
    angle = t[:, None].float() * torch.exp(-math.log(10000) * torch.arange(half) / half)
    embedding = linear("time_embed.2", F.silu(linear("time_embed.0", torch.cat([angle.cos(), angle.sin()], 1))))
    h = conv("input_blocks.0.0", x, padding=1)
    skips, number = [h], 1
    for level in range(len(config.channels)):
        for _ in range(config.res_blocks):
            h = res(f"input_blocks.{number}.0", h)
            h = attend(f"input_blocks.{number}.1", h) if config.attention[level] else h
            skips.append(h)
            number += 1
        if level < len(config.channels) - 1:
            h = resampled(f"input_blocks.{number}.0", h, up=False)
            skips.append(h)
            number += 1
    h = res("middle_block.2", attend("middle_block.1", res("middle_block.0", h)))
    number = 0
    for level in reversed(range(len(config.channels))):
        for k in range(config.res_blocks + 1):
            h = res(f"output_blocks.{number}.0", torch.cat([h, skips.pop()], 1))
            h = attend(f"output_blocks.{number}.1", h) if config.attention[level] else h
            if level and k == config.res_blocks:
                h = resampled(f"output_blocks.{number}.{2 if config.attention[level] else 1}", h, up=True)
            number += 1
    return conv("out.2", F.silu(norm("out.0", h)), padding=1)


@torch.no_grad()
def test_the_original_codes_output():
    state = adm.read_checkpoint(TINY / "checkpoint.pt")
    unet = adm.to_unet(state, adm.infer_config(state, head_channels=16))
    golden = np.load(TINY / "io.npz")
    y = unet(torch.from_numpy(golden["x"]), torch.from_numpy(golden["t"])).sample
    assert np.abs(y.numpy() - golden["y"]).max() <= 1e-5 * np.abs(golden["y"]).max()
    again = evaluate(
        {k: v.float() for k, v in state.items()},
        adm.infer_config(state, 16),
        torch.from_numpy(golden["x"]),
        torch.from_numpy(golden["t"]),
    )
    assert np.abs(again.numpy() - golden["y"]).max() <= 1e-5 * np.abs(golden["y"]).max()  # the oracle below is sound


@torch.no_grad()
@pytest.mark.parametrize("name", VARIANTS)
def test_variants_against_the_architecture_written_anew(name):
    config = small(**VARIANTS[name])
    state = checkpoint(config)
    found = adm.infer_config(state, config.head_channels, config.new_attention_order)
    assert found == config
    generator = torch.Generator().manual_seed(1)
    x = torch.randn((2, config.in_channels, 16, 24), generator=generator)  # not square
    t = torch.tensor([3, 721])
    expected = evaluate(state, config, x, t)
    got = adm.to_unet(state, config)(x, t).sample
    assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_the_papers_prior_has_its_parameters():
    from diffusers import UNet2DModel

    with torch.device("meta"):
        unet = UNet2DModel(**adm.unet_arguments(ADM_256))
    assert adm.parameters(unet) == 552_814_086
    with torch.device("meta"):
        empty = {name: torch.empty(1) for name in adm.all_names(ADM_256)}
    assert len(empty) == len({theirs for _, theirs, _ in adm._mapping(ADM_256)})


def test_the_papers_architecture_is_read_from_its_shapes(monkeypatch):
    monkeypatch.setattr(torch, "randn", lambda *shape, generator: torch.empty(*shape, device="meta"))  # no 2 GB
    state = checkpoint(ADM_256)
    assert sum(tensor.numel() for tensor in state.values()) == 552_814_086
    assert adm.infer_config(state) == ADM_256
    assert state.keys() == set(adm.all_names(ADM_256))


def test_every_tensor_is_used_once_and_only_once():
    names = [theirs for _, theirs, part in adm._mapping(small()) if part in (None, -1)]
    thirds = [theirs for _, theirs, part in adm._mapping(small()) if part in (0, 1, 2)]
    ours = [ours for ours, _, _ in adm._mapping(small())]
    assert len(set(names)) == len(names)
    assert all(thirds.count(name) == 3 for name in set(thirds))
    assert len(set(ours)) == len(ours)
    assert set(names) | set(thirds) == checkpoint(small()).keys()


def without(key):
    return lambda state: {k: v for k, v in state.items() if k != key}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: s | {"label_emb.weight": torch.zeros(1000, 128)}, "class-conditional network .1000 classes"),
        (lambda s: {"model.diffusion_model.x": torch.zeros(1)}, "text-to-image"),
        (lambda s: {"weight": torch.zeros(3)}, "no tensor time_embed.0.weight"),
        (without("middle_block.1.proj_out.bias"), "no tensor middle_block.1.proj_out.bias"),
        (lambda s: s | {"extra.weight": torch.zeros(3)}, "without a place: extra.weight"),
        (lambda s: s | {"out.2.weight": torch.zeros(5, 32, 3, 3)}, "5 output channels"),
        (lambda s: s | {"middle_block.0.in_layers.2.weight": torch.zeros(64, 63, 3, 3)}, r"\(64, 63, 3, 3\)"),
        (without("output_blocks.8.0.in_layers.0.weight"), "no tensor output_blocks.8.0"),
        (
            without("input_blocks.1.0.out_layers.3.weight"),
            "no tensor input_blocks.1.0.out_layers.3.weight.*Is it whole",
        ),
        (lambda s: s | {"out.2.weight": torch.tensor(1.0)}, "out.2.weight of shape"),
        (lambda s: {}, "it is empty"),
        (lambda s: s | {"out.2.bias": s["out.2.bias"].to(torch.int8)}, "out.2.bias of torch.int8"),
        (lambda s: s | {"out.2.bias": s["out.2.bias"] / 0}, "out.2.bias with NaN or infinite"),
        (lambda s: s | {"input_blocks.0.0.weight": torch.zeros(32, 6, 3, 3)}, "6 input channels.*upsampling"),
        (lambda s: {k: v for k, v in s.items() if not k.startswith("output_blocks.4.")}, "consecutive output blocks"),
    ],
)
def test_other_checkpoints_are_refused_with_a_reason(change, says):
    state = change(checkpoint(small()))
    with pytest.raises(DDFMError, match=says):
        adm.to_unet(state, adm.infer_config(state, 16))


def test_heads_that_do_not_divide_the_channels():
    with pytest.raises(DDFMError, match="--head-channels"):
        adm.infer_config(checkpoint(small()), 48)


def test_files_that_are_no_checkpoint(tmp_path):
    import pickle

    with pytest.raises(DDFMError, match="existing file"):
        adm.read_checkpoint(tmp_path / "none.pt")
    (tmp_path / "cut.pt").write_bytes((TINY / "checkpoint.pt").read_bytes()[:100_000])
    damaged = bytearray((TINY / "checkpoint.pt").read_bytes())
    damaged[len(damaged) // 2] ^= 255
    (tmp_path / "damaged.pt").write_bytes(damaged)
    (tmp_path / "folder.pt").mkdir()
    (tmp_path / "text.pt").write_text("hello")
    (tmp_path / "empty.pt").write_bytes(b"")
    (tmp_path / "old.pt").write_bytes(pickle.dumps(shutil.rmtree))
    torch.save({"run": shutil.rmtree}, tmp_path / "code.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"model": {}, "step": 3}, tmp_path / "nested.pt")
    torch.save({"run": shutil.rmtree}, tmp_path / "old_code.pt", _use_new_zipfile_serialization=False)
    says = {"damaged": "damaged in", "folder": "a folder", "old_code": "Nothing in it was run"}
    says |= {"cut": "cut short", "text": "begins with b'hell'", "empty": "an empty file", "old": "torch.save"}
    says |= {"code": "Nothing in it was run", "list": "list", "nested": "entries model, step"}
    for name, text in says.items():
        with pytest.raises(DDFMError, match=f"{name}.pt.*{text}"):
            adm.read_checkpoint(tmp_path / f"{name}.pt")


@torch.no_grad()
def test_a_converted_folder_is_a_prior_and_fuses(tmp_path):
    out = convert(TINY / "checkpoint.pt", tmp_path / "tiny", head_channels=16, licence="MIT")
    prior = load_prior(out)
    assert (prior.color, prior.unshuffle, prior.scheduler.config.prediction_type) == ("rgb", 1, "epsilon")
    assert prior.scheduler.config.beta_end == 0.02
    pipe = DDFMPipeline.from_pretrained(out)
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.rand((1, 1, 33, 40), generator=generator) for _ in range(2))
    fused = pipe(a, b, num_inference_steps=3).images
    assert fused.shape == (1, 1, 33, 40)
    assert fused.isfinite().all()
    with pytest.raises(DDFMError, match="which exists"):
        convert(TINY / "checkpoint.pt", tmp_path / "tiny", head_channels=16)
    cosine = convert(TINY / "checkpoint.pt", tmp_path / "cosine", head_channels=16, schedule="cosine")
    assert load_prior(cosine).scheduler.config.beta_schedule == "squaredcos_cap_v2"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cosine", "tiny"]


def test_a_checkpoint_of_torch_before_1_6(tmp_path):
    state = adm.read_checkpoint(TINY / "checkpoint.pt")
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    old = adm.read_checkpoint(tmp_path / "old.pt")
    assert old.keys() == state.keys()
    assert all(torch.equal(old[key], state[key]) for key in state)
    (tmp_path / "cut.pt").write_bytes((tmp_path / "old.pt").read_bytes()[:200_000])
    with pytest.raises(DDFMError, match="cut short"):
        adm.read_checkpoint(tmp_path / "cut.pt")


def test_schedules_of_other_lengths_and_predictions(tmp_path):
    """Linear: beta scaled by 1000 / T, so that the noise at the end is the same; cosine: the curve itself."""
    options = {"head_channels": 16, "diffusion_steps": 4000}
    scheduler = load_prior(convert(TINY / "checkpoint.pt", tmp_path / "long", **options)).scheduler
    assert scheduler.betas[[0, -1]].tolist() == pytest.approx([2.5e-5, 5e-3])
    options |= {"schedule": "cosine", "predict_xstart": True}
    scheduler = load_prior(convert(TINY / "checkpoint.pt", tmp_path / "cosine", **options)).scheduler
    assert scheduler.config.prediction_type == "sample"
    half = math.cos((0.5 + 0.008) / 1.008 * math.pi / 2) ** 2 / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    assert float(scheduler.alphas_cumprod[1999]) == pytest.approx(half, rel=1e-3)


# ---- a folder whole or not at all -----------------------------------------------------------------


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def tiny_into(out):
    return convert(TINY / "checkpoint.pt", out, head_channels=16)


@pytest.mark.parametrize("failure", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_stopped_in_the_middle_it_leaves_nothing(tmp_path, monkeypatch, failure):
    def half(self, folder):
        (folder / "model_index.json").write_text("{}")
        raise failure

    with monkeypatch.context() as patch:
        patch.setattr(DDFMPipeline, "save_pretrained", half)
        with pytest.raises((KeyboardInterrupt, DDFMError), match=r"^$|No space left on device"):
            tiny_into(tmp_path / "tiny")
    assert names(tmp_path) == []
    (tmp_path / "tiny.part").mkdir()  # of a run that was killed
    (tmp_path / "tiny.part/rest").write_text("half")
    tiny_into(tmp_path / "tiny")
    assert names(tmp_path) == ["tiny"]
    assert "rest" not in names(tmp_path / "tiny")


def test_two_conversions_at_once(tmp_path):
    from filelock import FileLock

    (tmp_path / "tiny.part").mkdir()
    with FileLock(tmp_path / "tiny.lock"), pytest.raises(DDFMError, match="another run is at work"):
        tiny_into(tmp_path / "tiny")
    assert names(tmp_path / "tiny.part") == []  # the other run's, left alone
    assert not (tmp_path / "tiny").exists()


def test_a_place_that_cannot_be_written_is_said_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr("ddfm.conversion.read_checkpoint", lambda path: pytest.fail("work was done"))
    (tmp_path / "file").write_text("x")
    with pytest.raises(DDFMError, match=r"output: got .*tiny .*expected a folder that can be written"):
        tiny_into(tmp_path / "file/tiny")
