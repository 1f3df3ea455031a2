"""Shared fixtures: a tiny prior without training, a prior with a known score, the development data if present."""

import signal
import sys
import warnings
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"

with warnings.catch_warnings():  # what diffusers' own import says is not ours to mend
    warnings.simplefilter("ignore")
    import diffusers

torch.set_num_threads(2)


def pytest_collection_modifyitems(items):
    """Tests marked ``shared`` read the development data beside the checkout."""
    if SHARED.is_dir():
        return
    for item in items:
        if "shared" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="no development data beside the checkout"))


@pytest.fixture
def shared():
    """The folder of the development data."""
    return SHARED


@pytest.fixture(scope="session")
def tiny_prior(tmp_path_factory):
    """The folder of an untrained luma prior with two levels: what can be tested without good weights."""
    from ddfm.pipeline import DDFMPipeline

    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(
        in_channels=4,
        out_channels=4,
        block_out_channels=(16, 16),
        layers_per_block=1,
        norm_num_groups=8,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        add_attention=False,
    )
    folder = tmp_path_factory.mktemp("prior")
    scheduler = diffusers.DDPMScheduler(prediction_type="v_prediction")
    DDFMPipeline(unet.eval(), scheduler, "luma", 2).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def make_clip():
    """A function that writes a clip with PyAV alone: uint8 or uint16 frames, (H, W) or (H, W, 3), and a tone beside."""
    av = pytest.importorskip("av")

    def make(path, frames, *, codec="ffv1", pixels=None, fps=25, stamps=None, base=None, options=None, audio=None):
        """stamps: in units of ``base``; audio: seconds of a tone. The container is the suffix's."""
        base = base or Fraction(1, 1000)
        height, width = frames[0].shape[:2]
        kind = ("gray" if frames[0].dtype == np.uint8 else "gray16le") if frames[0].ndim == 2 else "rgb24"
        with av.open(str(path), "w") as file:
            video = file.add_stream(codec, rate=fps, options=options or {})
            video.width, video.height = width, height
            video.pix_fmt = pixels or {"gray": "gray", "gray16le": "gray16le", "rgb24": "bgr0"}[kind]
            video.codec_context.time_base = base
            sound = file.add_stream("aac", rate=44100, layout="mono") if audio else None
            for k, data in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(data), format=kind)
                frame.pts = stamps[k] if stamps else round(k / fps / base)
                frame.time_base = base
                file.mux(video.encode(frame))
            file.mux(video.encode(None))
            if sound:
                tone = 0.3 * np.sin(0.05 * np.arange(int(44100 * audio), dtype=np.float32))[None]
                block = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
                block.rate, block.pts = 44100, 0
                file.mux(sound.encode(block))
                file.mux(sound.encode(None))
        return path

    return make


@pytest.fixture
def pairs(tmp_path):
    """Folders ir/ and vis/ with three pairs of 24x20 pictures."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for name, shape in (("ir", (20, 24)), ("vis", (20, 24, 3))):
        (tmp_path / name).mkdir()
        for stem in "abc":
            Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(tmp_path / name / f"{stem}.png")
    return tmp_path


@pytest.fixture
def command_line(monkeypatch, capsys):
    """Run the command line in process: exit code and all that it printed, in one line."""
    from ddfm import cli

    monkeypatch.setattr("ddfm._runtime.keep_freed_memory", lambda: None)  # of this process's, not a test's

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["ddfm", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        text = captured.out + captured.err
        assert "Traceback" not in text
        return stop.value.code or 0, " ".join(text.split())

    return run


@pytest.fixture
def ddfm(pairs, tiny_prior, command_line, monkeypatch):
    """Run the command line in the folder of the pairs."""
    monkeypatch.chdir(pairs)

    def run(*words, prior=tiny_prior):
        return command_line(*words, *(["--prior", prior] if words[0] == "fuse" and prior else []))

    return run


@pytest.fixture(scope="module")
def one_thread():
    """Pictures this small are fused faster by one thread, the more so where others are at work."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_works():
    """Started in the background of a script, a process is given SIGINT ignored, and its children are too."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
