"""Shared fixtures: a tiny prior without training, a prior with a known score, the development data if present."""

import warnings
from pathlib import Path

import pytest
import torch

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"

with warnings.catch_warnings():  # what diffusers' own import says is not ours to mend
    warnings.simplefilter("ignore")
    import diffusers  # noqa: F401

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
