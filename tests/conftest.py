"""Shared fixtures: a tiny prior without training, a prior with a known score, the development data if present."""

import warnings
from pathlib import Path

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
