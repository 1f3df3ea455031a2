"""Registration: geometry by hand, transforms that are known found again, and pairs that must not be trusted."""

import dataclasses
import json
import sys

import cv2
import numpy as np
import pytest

from ddfm import samples
from ddfm._checks import DDFMError
from ddfm.io import read_image
from ddfm.registration import (
    Transform,
    apply,
    checkerboard,
    estimate,
    fill_outside,
    load_transforms,
    resizing,
    save_transforms,
)
from ddfm.registration.transform import corner_error, corner_points, project
from ddfm.registration.warping import luma

IDENTITY = ((1, 0, 0), (0, 1, 0), (0, 0, 1))


def transform(matrix=IDENTITY, kind="affine", moving=(30, 40), fixed=(30, 40)):
    return Transform(kind, matrix, moving, fixed)


def shifted(x, y):
    return ((1, 0, x), (0, 1, y), (0, 0, 1))


# ---- what a transform is --------------------------------------------------------------------------


@pytest.mark.parametrize(("moving", "fixed"), [((30, 40), (90, 100)), ((64, 80), (16, 40)), ((7, 9), (7, 9))])
def test_resizing_lays_border_on_border(moving, fixed):
    plain = transform(resizing(moving, fixed), "resize", moving, fixed)
    edges = np.array([[-0.5, -0.5], [fixed[1] - 0.5, fixed[0] - 0.5]])
    np.testing.assert_allclose(plain.points(edges), [[-0.5, -0.5], [moving[1] - 0.5, moving[0] - 0.5]], atol=1e-12)
    assert plain.share_inside == 1
    assert plain.is_identity == (moving == fixed)


def test_points_by_hand():
    found = transform(((2, 0, 3), (0, 1, -1), (0, 0, 1))).points(np.array([[0, 0], [5, 4]]))
    assert found.tolist() == [[3, -1], [13, 3]]
    found = transform(((1, 0, 0), (0, 1, 0), (0.01, 0, 1)), "homography").points(np.array([[10, 20]]))
    np.testing.assert_allclose(found, [[10 / 1.1, 20 / 1.1]])


@pytest.mark.parametrize(
    ("matrix", "kind", "match"),
    [
        ("abc", "affine", "three rows of three"),
        ([[1, 0], [0, 1]], "affine", "three rows of three"),
        (((1, 0, np.nan), *IDENTITY[1:]), "affine", "finite"),
        ((*IDENTITY[:2], (0, 0, 0)), "affine", "last entry of 0"),
        ((*IDENTITY[:2], (0.01, 0, 1)), "affine", "Or is it a homography"),
        ((*IDENTITY[:2], (-0.1, 0, 1)), "homography", "mirrors or folds"),  # the horizon crosses the picture
        (((-1, 0, 39), *IDENTITY[1:]), "affine", "mirrors or folds"),
        (((0, 0, 0), *IDENTITY[1:]), "affine", "mirrors or folds"),
        (((9, 0, 0), (0, 9, 0), (0, 0, 1)), "affine", "areas changed 81 times"),
        (shifted(39, 0), "affine", "2% of the picture covered"),
        (IDENTITY, "spline", "one of resize, translation"),
    ],
)
def test_what_no_camera_could_have_made_is_refused(matrix, kind, match):
    with pytest.raises(DDFMError, match=match):
        transform(matrix, kind)


def test_files_round_trip(tmp_path):
    known = [transform(shifted(0.1, -2 / 3), "translation"), transform(resizing((7, 9), (30, 40)), "resize", (7, 9))]
    path = save_transforms(tmp_path / "t.json", known)
    assert list(load_transforms(path)) == known
    with pytest.raises(DDFMError, match="a file that exists"):
        save_transforms(path, known[:1])
    assert list(load_transforms(path)) == known
    save_transforms(path, known[:1], overwrite=True)
    assert list(load_transforms(path)) == known[:1]


TURNED = ((1, 0.1, 0), (-0.1, 1, 0), (0, 0, 1))
EVIDENCE = {"similarity": 0.5, "before": 0.4, "agree": 9, "blocks": 20, "luck": 1e-9, "return_error": 0.2}


def test_files_by_hand_may_round_and_be_cut_from_reports(tmp_path):
    for kind, third in (("resize", 0.33333), ("translation", 0.33333), ("affine", 0.3)):
        matrix = ((third, 0, -0.33333), (0, third, -0.33333), (0, 0, 1))
        change = {"kind": kind, "matrix": matrix, "moving_size": [30, 40], "fixed_size": [90, 120]}
        change |= {"evidence": EVIDENCE, "inside": 1.0}
        (tmp_path / "t.json").write_bytes(edited(lambda c, change=change: c["transforms"][0].update(change)))
        (found,) = load_transforms(tmp_path / "t.json")
        assert (found.kind, found.matrix, found.evidence.agree) == (kind, matrix, 9)


def edited(change):
    content = {
        "format": "ddfm-transform",
        "version": 1,
        "transforms": [{"kind": "affine", "matrix": IDENTITY, "moving_size": [30, 40], "fixed_size": [30, 40]}],
    }
    change(content)
    return json.dumps(content).encode()


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "not JSON"),
        (b"\x89PNG\r\n\x1a\n", "not JSON"),
        (b"[" * 100000, "not JSON"),
        (b"[1, 2]", "another kind of file.*--save-transform"),
        (b'{"matrix": [[1,0,0],[0,1,0],[0,0,1]]}', "another kind of file"),
        (b" " * (1 << 20) + b"{}", "a small JSON file"),
        (edited(lambda c: c.update(version=2)), "version 2, expected version 1"),
        (edited(lambda c: c.update(transforms=[])), "no transforms"),
        (edited(lambda c: c["transforms"].append(7)), "transform 2: got an entry"),
        (edited(lambda c: c["transforms"][0].pop("matrix")), "lacks or garbles 'matrix'"),
        (edited(lambda c: c["transforms"][0].update(matrix=[[1, 0, 99], [0, 1, 0], [0, 0, 1]])), "transform 1: matrix"),
        (edited(lambda c: c["transforms"][0].update(moving_size=[30.5, 40])), "moving_size: got"),
        (edited(lambda c: c["transforms"][0].update(fixed_size=[0, 40])), "fixed_size: got"),
        (edited(lambda c: c["transforms"][0].update(evidence={"similarity": 1})), "lacks or garbles"),
        (edited(lambda c: c["transforms"][0].update(matrix=[[1, 0, float("nan")], [0, 1, 0], [0, 0, 1]])), "finite"),
        (edited(lambda c: c["transforms"][0].update(matrix=[["1", 0, 0], [0, 1, 0], [0, 0, 1]])), "three finite num"),
        (edited(lambda c: c["transforms"][0].update(matrix=[[True, 0, 0], [0, 1, 0], [0, 0, 1]])), "three finite num"),
        (edited(lambda c: c["transforms"][0].update(kind="translation", matrix=TURNED)), "Or is it affine"),
        (
            edited(lambda c: c["transforms"][0].update(kind="resize", matrix=shifted(2, 0))),
            "2 pixels beside what a res",
        ),
        (edited(lambda c: c["transforms"][0].update(matirx=IDENTITY)), "transform 1: got the key 'matirx'.*misspelt"),
        (edited(lambda c: c.update(evidence=None)), "the key 'evidence'"),
        (edited(lambda c: c["transforms"][0].update(evidence=True)), "evidence: got True, expected an object"),
        (edited(lambda c: c["transforms"][0].update(evidence=False)), "evidence: got False, expected an object"),
        (edited(lambda c: c["transforms"][0].update(evidence=EVIDENCE | {"luck": True})), "a value that is no number"),
        (edited(lambda c: c["transforms"][0].update(evidence=EVIDENCE | {"agree": 1.5})), "whole ones"),
        (edited(lambda c: c["transforms"][0].update(evidence=EVIDENCE | {"x": 1})), "the key 'x'"),
        (edited(lambda c: None).replace(b'"kind"', b'"kind": "homography", "kind"'), "'kind': got it twice"),
    ],
)
def test_bad_files_are_refused(tmp_path, content, match):
    (tmp_path / "t.json").write_bytes(content)
    with pytest.raises(DDFMError, match=match) as error:
        load_transforms(tmp_path / "t.json")
    assert str(error.value).startswith(str(tmp_path / "t.json"))


@pytest.mark.parametrize("path", [".", "missing.json"])
def test_no_file_is_refused(tmp_path, path):
    with pytest.raises(DDFMError, match="a transform file"):
        load_transforms(tmp_path / path)


# ---- resampling -----------------------------------------------------------------------------------


def picture(height=30, width=40, channels=None, seed=0):
    shape = (height, width) if channels is None else (height, width, channels)
    return np.random.default_rng(seed).random(shape, np.float32)


@pytest.mark.parametrize("channels", [None, 3])
def test_whole_shifts_copy_pixels_and_know_what_is_outside(channels):
    moving = picture(channels=channels)
    warped, inside = apply(transform(shifted(3, -2)), moving)
    expected = np.zeros((30, 40), bool)
    expected[2:, :37] = True
    assert np.array_equal(inside, expected)
    np.testing.assert_allclose(warped[2:, :37], moving[:-2, 3:], atol=1e-6)
    np.testing.assert_allclose(warped[2:, 37:], np.repeat(moving[:-2, -1:], 3, 1), atol=1e-6)  # the border repeated


def test_a_plane_stays_a_plane_under_affine_and_homography():
    """Splines reproduce what is linear, nine pixels from a repeated border; 1e-5 is what float32 leaves of it."""
    height, width = 60, 80
    y, x = np.mgrid[:height, :width]
    ramp = ((x + 2 * y) / 220).astype(np.float32)
    for matrix, kind in (
        (((0.9, 0.1, 4), (-0.05, 1.1, 2), (0, 0, 1)), "affine"),
        (((1, 0.02, 3), (0.01, 1, 2), (1e-4, 2e-4, 1)), "homography"),
    ):
        known = transform(matrix, kind, (height, width), (height, width))
        warped, inside = apply(known, ramp)
        at = known.points(np.column_stack([x.ravel(), y.ravel()])).reshape(height, width, 2)
        away = (at > 9).all(2) & (at[..., 0] < width - 10) & (at[..., 1] < height - 10)
        assert away.mean() > 0.4 and inside[away].all()
        assert np.abs(warped - (at[..., 0] + 2 * at[..., 1]) / 220)[away].max() < 1e-5


@pytest.mark.parametrize("fixed", [(90, 120), (15, 20), (45, 40)])
def test_resize_keeps_planes_and_means(fixed):
    y, x = np.mgrid[:30, :40]
    ramp = ((x + y) / 70).astype(np.float32)
    known = transform(resizing((30, 40), fixed), "resize", (30, 40), fixed)
    warped, inside = apply(known, ramp)
    assert warped.shape == fixed and inside.all()
    at = known.points(np.column_stack([v.ravel() for v in np.mgrid[: fixed[1], : fixed[0]][::1]]))
    expected = (at.sum(1) / 70).reshape(fixed[1], fixed[0]).T
    rim = tuple(slice(side // 8, -(side // 8)) for side in fixed)
    assert np.abs(warped - expected)[rim].max() < 1e-3  # Pillow's kernel is sampled and normalised
    # the repeated border pulls the outermost samples in, by symmetry as much at both ends
    np.testing.assert_allclose(warped.mean(), ramp.mean(), atol=1e-3)


def test_a_picture_that_shrinks_is_blurred_first():
    """A checkerboard of single pixels, shrunk to a third: grey, not moire."""
    y, x = np.mgrid[:90, :120]
    board = ((x + y) % 2).astype(np.float32)
    shrunk = transform(((3, 0, 1.4), (0, 3, 0.8), (0, 0, 1)), "affine", (90, 120), (30, 40))
    warped, _ = apply(shrunk, board)
    assert np.abs(warped[2:-2, 2:-2] - 0.5).max() < 0.05


def test_identity_changes_no_bit():
    moving = picture()
    warped, inside = apply(transform(), moving)
    assert warped is moving and inside.all()


def test_pictures_of_another_size_are_refused():
    with pytest.raises(DDFMError, match="40x30 pixels, as the transform says"):
        apply(transform(), picture(31, 40))


@pytest.mark.parametrize("channels", [(None, None), (None, 3), (3, None), (3, 3)])
def test_outside_only_the_reference_speaks(channels):
    moving, reference = (picture(200, 300, number, seed) for seed, number in enumerate(channels))
    warped, inside = apply(transform(shifted(-150, 0), "translation", (200, 300), (200, 300)), moving)
    filled = fill_outside(warped, inside, reference)
    assert filled.dtype == np.float32 and filled.shape == moving.shape
    assert np.array_equal(filled[inside], warped[inside])
    other = luma(reference) if moving.ndim == 2 else np.broadcast_to(reference.reshape(200, 300, -1), moving.shape)
    # exp(-4) of the border's pixels is left 4 bands of 25 pixels away, exp(-6) at the end
    assert np.abs(filled[:, :50] - other[:, :50]).max() < 0.02
    assert np.abs(filled[:, 0] - other[:, 0]).max() < 0.003
    # at the seam the border pixel goes on: no edge between two levels
    np.testing.assert_allclose(filled[:, 149], filled[:, 150], atol=0.25)
    assert np.abs(other[:, 149] - filled[:, 150]).max() > 0.8


# ---- the picture to judge by ----------------------------------------------------------------------


def test_checkerboard_by_hand():
    black, white = np.zeros((40, 60), np.float32), np.ones((40, 60), np.float32)
    board = checkerboard(black, white, squares=4)
    y, x = np.mgrid[:40, :60]
    assert np.array_equal(board, (x // 10 + y // 10) % 2)
    assert checkerboard(black, white[..., None].repeat(3, 2)).shape == (40, 60, 3)


def test_checkerboard_shows_pale_pictures():
    pale = (0.5 + 0.01 * picture(80, 80)).astype(np.float32)
    assert checkerboard(pale, pale).std() > 0.25  # 0.29 is that of a uniform distribution


@pytest.mark.parametrize("case", [((30, 40), (30, 41), 8), ((30, 40), (30, 40), 1)])
def test_checkerboard_refuses(case):
    first, second, squares = case
    with pytest.raises(DDFMError):
        checkerboard(np.zeros(first), np.zeros(second), squares)


# ---- known transforms, found again ----------------------------------------------------------------


def random_transform(kind, size, shape, seed):
    """A matrix that moves the corners of a picture by ``size`` pixels in the mean."""
    rng, corners, centre = np.random.default_rng(seed), corner_points(shape), (np.array(shape[::-1]) - 1) / 2
    if kind == "translation":
        angle = rng.uniform(0, 2 * np.pi)
        return np.array(shifted(size * np.cos(angle), size * np.sin(angle)), float)
    if kind == "affine":
        linear = rng.normal(size=(2, 2)) / np.hypot(*centre)
        change = np.column_stack([linear, rng.normal(size=2) - linear @ centre])
        change *= size / np.hypot(*(corners @ change[:, :2].T + change[:, 2]).T).mean()
        return np.vstack([np.eye(3)[:2] + change, [0, 0, 1]])
    offsets = rng.normal(size=(4, 2))
    offsets *= size / np.hypot(*offsets.T).mean()
    return cv2.getPerspectiveTransform(np.float32(corners), np.float32(corners + offsets)).astype(float)


def displaced(moving, fixed, truth, inset=0.1):
    """The middle of both, the first resampled so that ``truth`` takes the second to it."""
    top, left = (round(side * inset) for side in fixed.shape)
    height, width = fixed.shape[0] - 2 * top, fixed.shape[1] - 2 * left
    matrix = np.array(shifted(left, top), float) @ np.linalg.inv(truth)
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    shown = cv2.warpPerspective(moving, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.clip(shown, 0, 1), fixed[top : top + height, left : left + width]


def street(seed=0, size=(250, 340)):
    scene = samples.street(size, seed)
    return scene.infrared, luma(scene.visible)


@pytest.mark.parametrize(
    ("kind", "size", "seed"),
    [
        ("translation", 3, 0),
        ("translation", 25, 1),
        ("affine", 4, 0),
        ("affine", 15, 1),
        ("homography", 5, 0),
        ("homography", 12, 1),
    ],
)
def test_known_transforms_of_rendered_samples_are_found_to_under_a_pixel(kind, size, seed):
    """In the mean over the picture; at the corners too, but of homographies, whose eight parameters swing there."""
    scene = street(seed, (360, 490) if kind == "homography" else (250, 340))
    truth = random_transform(kind, size, (288, 392) if kind == "homography" else (200, 272), size)
    moving, fixed = displaced(*scene, truth)
    found = estimate(moving, fixed, kind)
    assert corner_error(found.array, truth, fixed.shape) < (2 if kind == "homography" else 1)
    y, x = np.mgrid[: fixed.shape[0] : 7, : fixed.shape[1] : 7]
    points = np.column_stack([x.ravel(), y.ravel()])
    assert np.hypot(*(found.points(points) - project(truth, points)).T).mean() < 1
    assert found.kind == kind and found.evidence.similarity > found.evidence.before
    assert found.evidence.return_error < 1.5


def test_a_small_infrared_picture_is_found_in_a_large_visible_one():
    """The infrared camera has half the resolution and sees 80 % of the width and of the height."""
    infrared, visible = street(2, (400, 560))
    part = cv2.resize(infrared[40:360, 56:504], (224, 160), interpolation=cv2.INTER_AREA)
    found = estimate(part, visible, "affine")
    truth = np.array([[0.5, 0, (0.5 - 56) / 2 - 0.5], [0, 0.5, (0.5 - 40) / 2 - 0.5], [0, 0, 1]])
    corners = np.array([[56, 40], [503, 40], [503, 359], [56, 359]], float)  # of what both see
    shown = project(truth, corners)
    assert np.hypot(*(found.points(corners) - shown).T).mean() < 1
    assert abs(found.share_inside - 0.64) < 0.02


def test_what_is_bright_does_not_matter_and_nothing_is_drawn_by_lot():
    moving, fixed = displaced(*street(), random_transform("translation", 6, (200, 272), 3))
    found = estimate(moving, fixed, "translation")
    assert estimate(moving, fixed, "translation") == found
    negative = estimate(1 - moving, fixed, "translation")
    assert corner_error(found.array, negative.array, fixed.shape) < 1e-3


@pytest.mark.shared
@pytest.mark.parametrize(
    ("data", "stem", "kind"),
    [
        ("roadscene-dev", "FLIR_00594.jpg", "homography"),
        ("roadscene-dev", "FLIR_00550.jpg", "affine"),
        ("tno-dev", "18.png", "affine"),
        ("m3fd-dev", "M3FD_01017.png", "translation"),
    ],
)
def test_known_transforms_of_real_pairs_are_found_to_under_a_pixel(shared, data, stem, kind):
    """On top of what the pair itself is out by, which the same estimate of the untouched pair tells."""
    folder = shared / "pairs" / data
    moving, fixed = (np.ascontiguousarray(luma(read_image(folder / role / stem).data)) for role in ("ir", "vi"))
    own = estimate(*displaced(moving, fixed, np.eye(3)), kind)
    truth = random_transform(kind, 15, own.fixed_size, 7)
    found = estimate(*displaced(moving, fixed, truth), kind)
    assert corner_error(found.array, truth @ own.array, own.fixed_size) < 1


@pytest.mark.shared
def test_a_visible_picture_of_several_times_the_size(shared):
    """Against the registration of the small visible picture with the large one, which is of one modality."""
    name = "FLIR_00594.jpg"
    large, small, infrared = (
        luma(read_image(shared / "pairs" / path / name).data)
        for path in ("roadscene-hr-dev/vi", "roadscene-dev/vi", "roadscene-hr-dev/ir")
    )
    within, across = estimate(small, large, "affine"), estimate(infrared, large, "affine")
    assert corner_error(within.array, across.array, large.shape) < 2  # the small pair itself is out by one
    assert corner_error(within.array, np.array(resizing(small.shape, large.shape)), large.shape) < 3


# ---- what must not be trusted ---------------------------------------------------------------------


def noise(seed=0):
    return np.random.default_rng(seed).random((200, 272), np.float32)


def scrambled(picture):
    """Its strips of ten rows in another order."""
    strips = picture.reshape(25, 10, -1)
    return strips[np.random.default_rng(0).permutation(25)].reshape(picture.shape)


def phantom():
    return np.ascontiguousarray(luma(samples.phantom(seed=0).infrared))


def seen_through(hole, *pictures):
    """Pictures behind the same mask, a circle or a frame."""
    height, width = pictures[0].shape
    y, x = np.mgrid[:height, :width]
    y, x = y - height / 2, x - width / 2
    inside = y**2 + x**2 < (0.45 * height) ** 2 if hole == "circle" else (abs(y) < height / 2 - 20) & (abs(x) < 100)
    return tuple(np.where(inside, one, 0).astype(np.float32) for one in pictures)


@pytest.mark.parametrize("hole", ["circle", "frame"])
def test_a_mask_that_both_pictures_have_is_no_scene(hole):
    """The rim of an endoscope stays where it is; what is seen through it is moved."""
    infrared, visible = street(0, (250, 340))
    moved = np.roll(infrared, (5, -8), (0, 1))
    found = estimate(*seen_through(hole, moved, visible), "translation")
    truth = np.array(shifted(-8, 5))
    assert corner_error(found.array, truth, visible.shape) < 1


UNRELATED = {
    "another scene": lambda: (phantom(), street()[1]),
    "noise": lambda: (noise(), street()[1]),
    "noise and noise": lambda: (noise(), noise(1)),
    "upside down": lambda: (street()[0][::-1].copy(), street()[1]),
    "scrambled": lambda: (scrambled(street()[0]), street()[1]),
    "upside down through a circle": lambda: seen_through("circle", street()[0][::-1], street()[1]),
    "scrambled in a frame": lambda: seen_through("frame", scrambled(street()[0]), street()[1]),
}


@pytest.mark.parametrize("kind", ["translation", "affine"])
@pytest.mark.parametrize("case", UNRELATED)
def test_unrelated_pictures_are_not_trusted(case, kind):
    with pytest.raises(DDFMError, match=rf"the first source: got no trustworthy {kind}: .*--align resize"):
        estimate(*UNRELATED[case](), kind)


@pytest.mark.parametrize(
    ("moving", "match"),
    [
        (np.full((200, 272), 0.3, np.float32), "the first source without any contrast"),
        (noise()[:90], "272x90 pixels in the first source, expected 96x96"),
    ],
)
def test_too_little_to_see_is_refused(moving, match):
    with pytest.raises(DDFMError, match=match):
        estimate(moving, street()[1], "affine")


def test_where_a_simpler_kind_does_as_well_the_evidence_says_so():
    """A mere shift is found by an affine map as well; a turned picture by no shift."""
    scene = street(0, (250, 340))
    shift = estimate(*displaced(*scene, np.array(shifted(6.0, -3.0))), "affine").evidence
    assert shift.simpler_agree >= shift.agree - 0.1 * shift.blocks
    assert shift.simpler_apart < 1 and not shift.is_hardly_better
    assert dataclasses.replace(shift, simpler_apart=1.5).is_hardly_better
    turned = estimate(*displaced(*scene, random_transform("affine", 15, (200, 272), 0)), "affine").evidence
    assert turned.simpler_agree < turned.agree - 0.1 * turned.blocks and not turned.is_hardly_better
    assert turned.simpler_apart > 3


def test_a_kind_that_is_unknown_names_the_nearest():
    with pytest.raises(DDFMError, match="Did you mean 'affine'"):
        estimate(noise(), noise(), "afine")


def test_opencv_is_needed_to_estimate_but_not_to_apply(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    known = estimate(picture(), picture(60, 80), "resize")
    assert apply(known, picture())[0].shape == (60, 80)
    apply(transform(shifted(1, 0)), picture())
    with pytest.raises(DDFMError, match=r"pip install 'ddfm\[align\]'"):
        estimate(noise(), noise(), "affine")


def test_evidence_is_kept_in_the_file(tmp_path):
    found = estimate(*displaced(*street(), np.eye(3)), "translation")
    path = save_transforms(tmp_path / "t.json", [found])
    assert load_transforms(path) == (found,)
    assert set(json.loads(path.read_text())["transforms"][0]["evidence"]) == {
        field.name for field in dataclasses.fields(found.evidence)
    }
