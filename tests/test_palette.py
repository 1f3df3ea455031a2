"""False colours: palettes are found, also behind compression; natural colours and grey are not."""

import io

import numpy as np
import pytest
from PIL import Image

from ddfm import samples
from ddfm.fusion import FuseConfig, Fuser
from ddfm.io import list_images, read_image
from ddfm.palette import has_false_colors

#: A few stops of the palettes that cameras have, RGB of 255.
PALETTES = {
    "ironbow": [(0, 0, 0), (32, 0, 140), (120, 0, 160), (200, 20, 110), (235, 80, 20), (250, 160, 0), (255, 255, 246)],
    "rainbow": [(0, 0, 40), (0, 0, 255), (0, 160, 255), (0, 220, 120), (240, 230, 0), (230, 0, 0), (255, 255, 255)],
    "hot": [(10, 0, 0), (255, 0, 0), (255, 255, 0), (255, 255, 255)],
    "arctic": [(10, 10, 60), (20, 60, 200), (60, 170, 220), (120, 120, 120), (200, 140, 40), (255, 245, 210)],
}


def paint(grey, name):
    table = np.array(PALETTES[name], np.float32) / 255
    places = np.linspace(0, 1, len(table))
    return np.stack([np.interp(grey, places, table[:, k]) for k in range(3)], axis=-1).astype(np.float32)


def as_jpeg(picture, quality):
    file = io.BytesIO()
    Image.fromarray(np.rint(picture * 255).astype(np.uint8)).save(file, "JPEG", quality=quality, subsampling=2)
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"), np.float32) / 255


@pytest.fixture(scope="module")
def street():
    return samples.street((240, 320))


@pytest.mark.parametrize(
    ("name", "quality"),
    [(n, q) for n in PALETTES for q in (None, 90, 50) if (n, q) != ("arctic", 50)],  # of little colour: not found so
)
def test_palettes_are_found(street, name, quality):
    painted = paint(street.infrared, name)
    assert has_false_colors(painted if quality is None else as_jpeg(painted, quality))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_natural_colours_are_not(seed):
    picture = samples.street((240, 320), seed).visible
    assert not has_false_colors(picture)
    assert not has_false_colors(as_jpeg(picture, 50))


def test_neither_grey_nor_one_tint_nor_one_colour_nor_noise(street):
    grey = street.infrared
    assert not has_false_colors(grey)
    assert not has_false_colors(np.repeat(grey[..., None], 3, axis=2))
    assert not has_false_colors(grey[..., None] * np.array((1.0, 0.85, 0.65), np.float32))  # sepia
    assert not has_false_colors(np.full((64, 64, 3), (1.0, 0.0, 0.0), np.float32))
    assert not has_false_colors(np.random.default_rng(0).random((64, 64, 3), dtype=np.float32))


@pytest.mark.parametrize("size", [(16, 16), (17, 40), (200, 120)])
def test_any_size(size):
    sample = samples.street(size)
    assert not has_false_colors(sample.visible)
    assert has_false_colors(paint(sample.infrared, "ironbow")) or min(size) < 64  # too few pixels to say


@pytest.mark.shared
def test_real_visible_pictures_are_natural_and_real_infrared_ones_can_be_painted(shared):
    natural = [
        p for name in ("msrs-dev", "m3fd-dev", "roadscene-dev") for p in list_images(shared / "pairs" / name / "vi")
    ]
    assert [path.name for path in natural if has_false_colors(read_image(path).data)] == []
    infrared = list_images(shared / "pairs" / "roadscene-dev" / "ir")
    found = [has_false_colors(as_jpeg(paint(_luma(read_image(p).data), "rainbow"), 90)) for p in infrared]
    assert all(found)


def _luma(data):
    return data.mean(-1) if data.ndim == 3 else data


def test_fusion_warns_but_not_with_settings_for_scans(street, tiny_prior):
    painted = paint(street.infrared, "ironbow")[:64, 100:180]
    visible = street.visible[:64, 100:180]
    fuser = Fuser(FuseConfig(prior=str(tiny_prior), preset="fast"))
    notes = " ".join(fuser.fuse(painted, visible).report["warnings"])
    assert "source 1: looks painted with a colour palette" in notes and "white-hot" in notes
    assert "palette" not in " ".join(fuser.fuse(street.infrared[:64, 100:180], visible).report["warnings"])
    scans = Fuser(FuseConfig(prior=str(tiny_prior), preset="medical"))
    assert "palette" not in " ".join(scans.fuse(painted, visible).report["warnings"])
