"""The preset `released` against what the released code itself gave."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ddfm._checks import DDFMError
from ddfm.fusion import FuseConfig, Fuser
from ddfm.pictures import stretch
from ddfm.pipeline import DDFMPipeline
from ddfm.presets import PRESETS
from ddfm.priors import adm
from ddfm.released import ReleasedLikelihood

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN / "released/released.npz")


def levels(golden, name):
    return torch.from_numpy(golden[name].astype(np.float32))[None, None] / 255


def test_five_calls_of_the_em(golden):
    likelihood = PRESETS["released"].likelihood
    state = likelihood.init(torch.cat([levels(golden, "infrared"), levels(golden, "visible")], 1) * 2 - 1)
    for given, expected in zip(golden["em_in"], golden["em_out"], strict=True):
        f_hat, state = likelihood.step(torch.from_numpy(given)[None, None], state, 0.0)
        assert np.abs(f_hat[0, 0].numpy() - expected).max() <= 1e-5


def test_a_whole_run(golden, monkeypatch):
    """Ten steps from the same noise with the same network: the sample, and the picture after the stretch."""
    preset = PRESETS["released"]
    noise = torch.from_numpy(golden["noise"])
    monkeypatch.setattr("ddfm.pipeline.draw_noise", lambda like, generators: noise)
    state = adm.read_checkpoint(GOLDEN / "adm-tiny/checkpoint.pt")
    unet = adm.to_unet(state, adm.infer_config(state, 16))
    scheduler = __import__("diffusers").DDPMScheduler(beta_start=1e-4, beta_end=0.02, clip_sample=False)
    pipe = DDFMPipeline(unet, scheduler, "rgb")
    pipe.set_progress_bar_config(disable=True)
    seen = []
    out = pipe(
        levels(golden, "infrared"),
        levels(golden, "visible"),
        num_inference_steps=int(golden["steps"]),
        likelihood=preset.likelihood,
        sampler=preset.sampler,
        luma=preset.luma,
        callback_on_step_end=lambda p, i, t, tensors: seen.append(tensors["x_t"]),
    )
    assert np.abs(seen[-1].numpy() - golden["sample"]).max() <= 1e-3
    final = stretch(out.unclipped, preset.tone)[0, 0].numpy() * 255
    assert np.abs(final - golden["final"]).max() <= 1e-3 * 255


def test_its_tone_is_the_presets_unless_the_user_names_one(tiny_prior):
    a, b = (np.random.default_rng(k).random((24, 24), dtype=np.float32) for k in (0, 1))
    stretched = Fuser(FuseConfig("released", str(tiny_prior), steps=2)).fuse(a, b)
    plain = Fuser(FuseConfig("released", str(tiny_prior), steps=2, tone="none")).fuse(a, b)
    assert (stretched.report["tone"], plain.report["tone"]) == ("minmax", "none")
    assert (stretched.data.min(), stretched.data.max()) == (0, 1)
    assert plain.data.min() > 0 or plain.data.max() < 1


def test_hashes_from_before_these_fields_stay():
    assert "tone" not in PRESETS["balanced"].settings()
    assert PRESETS["released"].settings()["tone"] == "minmax"


def test_two_sources_only():
    with pytest.raises(DDFMError, match="two, infrared and visible"):
        ReleasedLikelihood().init(torch.zeros(1, 3, 16, 16))
