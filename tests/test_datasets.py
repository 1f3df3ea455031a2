"""Pairs of files: layouts as published, and every fault a copy of a data set may have."""

import numpy as np
import pytest
from PIL import Image

from ddfm._checks import DDFMError
from ddfm.datasets import DATASETS, PairedData, check_pairs, find_known, find_pairs, pairs_sha256


def picture(seed, shape=(40, 48), smooth=8):
    """uint8 with coarse structure, different for each seed."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (shape[0] // smooth + 1, shape[1] // smooth + 1))
    return np.kron(coarse, np.ones((smooth, smooth), int))[: shape[0], : shape[1]].astype(np.uint8)


def save(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(data).save(path)


def pairs(root, a="ir", b="vi", stems="xyz"):
    for n, stem in enumerate(stems):
        save(root / a / f"{stem}.png", picture(n))
        save(root / b / f"{stem}.png", picture(100 + n))
    return root


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_every_published_layout_is_found(name, tmp_path):
    for k, (a, b) in enumerate(DATASETS[name].layouts):
        root = pairs(tmp_path / str(k), a, b)
        found = find_pairs(root, name)
        assert list(found.pairs) == ["x", "y", "z"]
        assert found.pairs["y"] == (root / a / "y.png", root / b / "y.png")
        assert list(find_pairs(root).pairs) == ["x", "y", "z"]  # and without being told which


def test_tno_in_folders_by_scene_with_sensor_letters(tmp_path):
    """As on figshare: both files in one folder, a prefix each, and another last letter for each sensor."""
    for scene, first, second in (
        ("Athena/men", "IR_meting003_g", "VIS_meting003_r"),
        ("Athena/bunker", "IR_bunker", "VIS_bunker"),
    ):
        save(tmp_path / scene / f"{first}.bmp", picture(0))
        save(tmp_path / scene / f"{second}.bmp", picture(1))
    found = find_pairs(tmp_path, "tno")
    assert sorted(found.pairs) == ["Athena_bunker_bunker", "Athena_men_meting003_g"]
    assert found.pairs["Athena_men_meting003_g"][1].name == "VIS_meting003_r.bmp"


@pytest.mark.parametrize(("a", "b"), [("infrared", "visible"), ("CT", "MRI"), ("PET", "mri"), ("thermal", "rgb")])
def test_any_two_folders_of_known_roles(a, b, tmp_path):
    found = find_pairs(pairs(tmp_path / "mine", a, b))
    assert (found.name, found.roles, len(found.pairs)) == ("mine", (a, b), 3)


def test_what_cannot_be_found_says_what_was_looked_for(tmp_path):
    with pytest.raises(DDFMError, match="no such folder"):
        find_pairs(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DDFMError, match=r"ir \+ vi.*ddfm data list"):
        find_pairs(tmp_path / "empty")
    with pytest.raises(DDFMError, match=r"cropinfrared \+ crop_LR_visible"):
        find_pairs(tmp_path / "empty", "roadscene")
    save(tmp_path / "apart/ir/a.png", picture(0))
    save(tmp_path / "apart/vi/b.png", picture(1))
    with pytest.raises(DDFMError, match="no file stem in both"):
        find_pairs(tmp_path / "apart")


def test_unmatched_files_are_listed_and_left_out(tmp_path):
    save(pairs(tmp_path) / "ir/alone.png", picture(9))
    data = find_pairs(tmp_path)
    assert [p.name for p in data.unmatched] == ["alone.png"]
    assert [(f.kind, "alone.png" in f.names[0]) for f in check_pairs(data)] == [("unmatched", True)]


def kinds(root):
    return sorted(f.kind for f in check_pairs(find_pairs(root)))


def test_a_sound_set_has_no_findings(tmp_path):
    assert kinds(pairs(tmp_path)) == []


def test_sizes_that_differ(tmp_path):
    save(pairs(tmp_path) / "vi/y.png", picture(7, (40, 50)))
    (finding,) = check_pairs(find_pairs(tmp_path))
    assert (finding.kind, finding.names) == ("size", ("y",))
    assert "48x40 and 50x40" in finding.text


def test_the_same_file_under_both_roles(tmp_path):
    (pairs(tmp_path) / "vi/y.png").write_bytes((tmp_path / "ir/y.png").read_bytes())
    assert kinds(tmp_path) == ["same file", "same picture"]


def test_the_same_pixels_in_another_file(tmp_path):
    Image.open(pairs(tmp_path) / "ir/y.png").save(tmp_path / "vi/y.png", compress_level=0)
    assert kinds(tmp_path) == ["same picture"]


def test_roles_that_are_almost_the_same_picture(tmp_path):
    save(pairs(tmp_path) / "vi/y.png", picture(1).clip(0, 254) + 1)
    assert kinds(tmp_path) == ["same picture"]


def test_constant_pictures(tmp_path):
    save(pairs(tmp_path) / "vi/y.png", np.full((40, 48), 9, np.uint8))
    (finding,) = check_pairs(find_pairs(tmp_path))
    assert (finding.kind, finding.text.endswith("B")) == ("constant", True)


def test_other_parts_of_a_data_set_are_named(tmp_path):
    pairs(pairs(tmp_path, "test/ir", "test/vi"), "train/ir", "train/vi")
    data = find_pairs(tmp_path, "msrs")
    assert data.pairs["x"][0] == tmp_path / "test/ir/x.png"
    assert "train/ir + train/vi" in data.notes[0]


def test_copies_are_found_by_how_their_folders_are_called(tmp_path):
    pairs(tmp_path / "TNO-dev")
    pairs(tmp_path / "mri-ct-dev", "ct", "mri")
    (tmp_path / "msrs").mkdir()
    assert len(find_known(tmp_path, "tno")[1].pairs) == 3
    assert len(find_known(tmp_path, "harvard-ct")[1].pairs) == 3
    assert isinstance(find_known(tmp_path, "msrs")[1], DDFMError)
    assert find_known(tmp_path, "llvip") is None


def test_a_pair_that_is_almost_another(tmp_path):
    for role, base in (("ir", 0), ("vi", 100)):
        noisy = picture(base).astype(int) + np.random.default_rng(5).integers(-2, 3, (40, 48))
        save(pairs(tmp_path) / role / "again.png", noisy.clip(0, 255).astype(np.uint8))
    (finding,) = [f for f in check_pairs(find_pairs(tmp_path)) if f.kind == "near duplicate"]
    assert set(finding.names) == {"again", "x"}


def test_one_role_alike_is_no_duplicate(tmp_path):
    """A fixed camera with another target in the infrared: the visible images are equal, the pairs are not."""
    save(pairs(tmp_path) / "vi/y.png", picture(100).clip(0, 250))
    assert "near duplicate" not in kinds(tmp_path)


def test_swapped_roles_are_told_by_colour(tmp_path):
    root = pairs(tmp_path)
    colour = np.stack([picture(k) // 2 + 60 for k in (1, 2, 3)], axis=2)
    save(root / "ir/y.png", colour)
    assert kinds(root) == ["swapped"]
    pet = np.zeros((40, 48, 3), np.uint8)
    pet[10:30, 10:30, 0] = picture(4)[10:30, 10:30]  # pseudo-colour on black stays where it is
    save(root / "ir/y.png", pet)
    assert kinds(root) == []


def test_an_unreadable_file_does_not_stop_the_check(tmp_path):
    (pairs(tmp_path) / "ir/x.png").write_bytes(b"no picture")
    (tmp_path / "vi/y.png").write_bytes((tmp_path / "vi/y.png").read_bytes()[:60])
    assert kinds(tmp_path) == ["unreadable", "unreadable"]


def test_the_checksum_sees_names_and_bytes(tmp_path):
    first = pairs_sha256(find_pairs(pairs(tmp_path)))
    assert pairs_sha256(find_pairs(tmp_path)) == first
    save(tmp_path / "vi/y.png", picture(7))
    second = pairs_sha256(find_pairs(tmp_path))
    (tmp_path / "ir/z.png").rename(tmp_path / "ir/w.png")
    (tmp_path / "vi/z.png").rename(tmp_path / "vi/w.png")
    assert len({first, second, pairs_sha256(find_pairs(tmp_path))}) == 3


def test_two_folders_anywhere(tmp_path):
    pairs(tmp_path, "left", "right")
    data = PairedData.from_folders(tmp_path / "left", tmp_path / "right", "mine")
    assert (data.name, data.roles, len(data.pairs)) == ("mine", ("left", "right"), 3)
