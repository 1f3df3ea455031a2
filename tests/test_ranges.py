"""Radiometric sources: which counts are black and white, and the way back to them."""

import dataclasses
import sys

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image as PILImage

from ddfm._checks import DDFMError
from ddfm.fusion import FuseConfig, Fuser
from ddfm.io import from_array, from_pil, read_image
from ddfm.io.ranges import USUAL, Range, local_contrast, parse_ranges, to_levels
from ddfm.opening import Preparation

AUTO, FULL = Range("auto"), Range("full")


def counts(low=20000, high=25000, shape=(40, 50), seed=0):
    """What a thermal camera writes: 14 bits or so, somewhere in 16."""
    return np.random.default_rng(seed).integers(low, high, shape, endpoint=True, dtype=np.uint16)


@pytest.fixture
def fuser(tiny_prior):
    return lambda **options: Fuser(FuseConfig(prior=str(tiny_prior), preset="fast", **options))


# ---- what the user says ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("auto", [("auto", None, None)]),
        ("280:310.5", [("values", 280, 310.5)]),
        ("-20:4e1", [("values", -20, 40)]),
        ("p1:p99.5", [("percentiles", 1, 99.5)]),
        ("20000:25000,full", [("values", 20000, 25000), ("full", None, None)]),
    ],
)
def test_forms(text, expected):
    found = parse_ranges(text)
    assert [r.kind for r in found] == [kind for kind, _, _ in expected]
    assert [(r.low, r.high) for r in found if low_of(r)] == [(a, b) for _, a, b in expected if a is not None]
    assert [r.deep_only for r in found] == [len(expected) == 1] * len(expected)


def low_of(asked):
    return asked.kind in ("values", "percentiles")


@pytest.mark.parametrize(
    "text", ["", "5:2", "5:5", "p5:200", "p5:10", "5:p10", "a:b", "1:2:3", "auto,", "nan:1", "1e999:2e999", 5, ["auto"]]
)
def test_bad_forms_are_refused(text):
    with pytest.raises(DDFMError, match="range: got"):
        FuseConfig(range=text)


@pytest.mark.parametrize("asked", ["auto", "full", "20:30.5", "p1:p99"])
def test_a_range_says_itself_as_it_was_said(asked):
    assert str(parse_ranges(asked)[0]) == asked


# ---- there and back -------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [AUTO, FULL, Range("values", 19000, 26000), Range("percentiles", 0, 100)])
def test_the_relation_gives_the_counts_back_exactly(asked):
    data = counts()
    levels, relation = to_levels(data, asked, 65535, "x")
    inside = (levels > 0) & (levels < 1)
    # float32 levels resolve 2**-24 of the span, far less than half a count
    assert np.array_equal(np.rint(relation.values(levels))[inside], data[inside])
    assert relation.below == (relation.values(levels)[levels == 0] > data[levels == 0]).sum() / data.size
    assert relation.above == (relation.values(levels)[levels == 1] < data[levels == 1]).sum() / data.size


def test_percentiles_of_known_values():
    ramp = np.arange(10001, dtype=np.uint16).reshape(73, 137)  # its n-th percentile is 100 n
    _, relation = to_levels(ramp, Range("percentiles", 5, 90), 65535, "x")
    assert relation.values((0, 1)).tolist() == [500, 9000]
    assert (relation.below, relation.above) == (500 / 10001, 1000 / 10001)


def test_dead_pixels_do_not_spoil_the_automatic_range():
    data = counts(shape=(200, 200))
    data[3, 4], data[50, 60], data[7, 7] = 0, 65535, 65535
    low, high = to_levels(data, AUTO, 65535, "x")[1].values((0, 1))
    assert 20000 <= low < 20030 and 24970 < high <= 25000  # 0.1 % of 5000 counts is 5, doubled and more for chance


@pytest.mark.parametrize("share", [0.0011, 0.005, 0.019])
@pytest.mark.parametrize("stuck", [0, 65535, "either", "anywhere"])
def test_more_dead_pixels_neither(share, stuck):
    """Up to 2 %, stuck at the ends or at values of their own, all over the picture."""
    data, rng = counts(20000, 23000, (200, 250)), np.random.default_rng(1)
    dead = rng.permutation(data.size)[: round(share * data.size)]
    values = {"either": rng.choice([0, 65535], dead.size), "anywhere": rng.integers(0, 65536, dead.size)}
    data.flat[dead] = values.get(stuck, stuck)
    for asked in (AUTO, USUAL):
        low, high = from_array(data, "x", asked).relation.values((0, 1))
        # those at values of their own may by chance be near the others; 3 spans of 3000 lie between
        slack = 30 if stuck != "anywhere" else 3000 * 3 * (share > 0.01)
        assert 20000 - slack <= low < 20030 and 22970 < high <= 23000 + slack


@pytest.mark.parametrize("dead", [0, 0.005])
def test_a_small_hot_target_is_no_dead_pixel(dead):
    """Half a percent of the picture, up to three times the span of the rest above it: its own differences show."""
    data, rng = counts(20000, 23000, (200, 200)), np.random.default_rng(1)
    data[50:60, 50:70] = rng.integers(27000, 32000, (10, 20))
    place = rng.permutation(data.size)[: round(dead * data.size)]
    place = place[(data.ravel()[place] < 23001)]
    data.flat[place] = 65535
    low, high = to_levels(data, AUTO, 65535, "x")[1].values((0, 1))
    assert 20000 <= low < 20030 and 30500 < high <= 32000


@pytest.mark.parametrize("share", [0.03, 0.1])
def test_where_too_many_are_stuck_it_is_said_that_the_rest_differs_little(share):
    data = counts(20000, 23000, (200, 200))
    data.flat[np.random.default_rng(1).permutation(data.size)[: round(share * data.size)]] = 65535
    data.flat[np.random.default_rng(2).permutation(data.size)[: round(0.025 * data.size)]] = 0
    if share == 0.1:
        data[data == 0] = 20000
    for asked in (AUTO, USUAL, Range("values", 0, 65535)):
        (note,) = from_array(data, "x", asked).notes
        assert note.startswith("most values keep to") and note.endswith("name theirs with --range LOW:HIGH")
    (note,) = from_array(counts(20000, 23000), "x", Range("values", 0, 65535)).notes
    assert note.startswith("most values keep to 4.1% of 0 to 65535")  # nine tenths of 3000
    assert not from_array(counts(20000, 23000), "x", FULL).notes  # it was asked for


def test_values_wider_than_a_number_can_say_are_refused():
    data = np.full((20, 20), -1.7e308)
    data[10:] = 1.7e308
    with pytest.raises(DDFMError, match=r"x: got values from -1.7e\+308 to 1.7e\+308.*--range LOW:HIGH"):
        from_array(data, "x", AUTO)
    with pytest.raises(DDFMError, match="range: got"):
        parse_ranges("-1.7e308:1.7e308")
    data[0, :5] = 1.6e308
    assert from_array(data / 4, "x", Range("values", 0, 1e308)).data.max() <= 1


@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_kelvins_and_degrees(tmp_path, scale):
    kelvin = (280 + scale * np.random.default_rng(0).random((20, 30))).astype(np.float32)
    tifffile.imwrite(tmp_path / "k.tif", kelvin)
    image = read_image(tmp_path / "k.tif", Range("values", 275, 290))
    np.testing.assert_allclose(image.relation.values(image.data), kelvin, rtol=0, atol=15 * 2**-23)
    assert image.bit_depth == 16


@pytest.mark.parametrize("dtype", ["int16", "int32", "uint32", ">u2", "float64", "int8"])
def test_samples_of_any_real_type(tmp_path, dtype):
    values = np.arange(-30 if np.dtype(dtype).kind != "u" else 0, 90, 1).reshape(10, -1).astype(dtype)
    tifffile.imwrite(tmp_path / "x.tif", values)
    asked = Range("values", -40, 100)
    image = read_image(tmp_path / "x.tif", asked)
    assert np.array_equal(np.rint(image.relation.values(image.data)), values)
    assert np.array_equal(from_array(values, "x", asked).data, image.data)


def test_a_16_bit_png_and_pillow_images(tmp_path):
    data = counts()
    (tmp_path / "x.png").write_bytes(imagecodecs.png_encode(data))
    asked = Range("values", 20000, 25000)
    expected = ((data - 20000.0) / 5000).astype(np.float32)
    assert np.array_equal(read_image(tmp_path / "x.png", asked).data, expected)
    for mode in ("I;16", "I", "F"):
        pil = PILImage.fromarray({"I;16": data, "I": data.astype(np.int32), "F": data.astype(np.float32)}[mode])
        assert pil.mode == mode
        assert np.array_equal(from_pil(pil, "x", asked).data, expected)


# ---- nobody said anything -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        counts(0, 65535),
        counts(30000, 39000),  # a seventh of the range: an ordinary pale picture
        counts(0, 12000),
        np.full((20, 30), 22000, np.uint16),
        np.stack([counts(seed=s) for s in range(3)], 2),  # colour
        counts(0, 30).astype(np.uint8),
        np.random.default_rng(0).random((20, 30)).astype(np.float32) * 0.01,
    ],
    ids=["spanning", "pale", "dark", "flat", "colour", "8 bits", "floats"],
)
def test_ordinary_pictures_are_as_they_were(data):
    before, after = from_array(data), from_array(data, "x", USUAL)
    assert np.array_equal(before.data, after.data)
    assert after.notes == before.notes and after.relation is None


@pytest.mark.parametrize("data", [counts(), counts(0, 4095)], ids=["FLIR", "12 bits"])
def test_counts_come_out_as_a_visible_picture_and_that_is_said(fuser, data):
    visible = counts(0, 255).astype(np.uint8)
    fused = fuser().fuse(data, visible)
    low, high = np.percentile(data, (0.1, 99.9))
    assert fused.report["inputs"][0]["range"]["asked"] == "auto"
    assert "range" not in fused.report["inputs"][1]
    (note,) = [w for w in fused.report["warnings"] if "--range" in w]
    assert f"--range {low:.0f}:{high:.0f}" in note and "--range full" in note
    assert np.array_equal(fused.data, fuser(range="auto").fuse(data, visible).data)
    plain = fuser(range="full").fuse(data, visible)
    assert not [w for w in plain.report["warnings"] if "--range" in w]
    unit = np.true_divide(data, 65535, dtype=np.float32)
    assert np.array_equal(plain.data, fuser().fuse(unit, visible).data)  # what came of it before there were ranges
    flat = np.full_like(visible, 128)
    shown, hidden = (fuser(range=asked).fuse(data, flat).data.std() for asked in (None, "full"))
    assert shown > 5 * hidden


# ---- one range, or one for each -------------------------------------------------------------------


def test_one_range_is_for_the_deep_sources_and_a_list_is_for_all(fuser):
    deep, shallow = counts(), counts(100, 150).astype(np.uint8)
    one = fuser(range="20000:25000").fuse(deep, shallow).report["inputs"]
    assert one[0]["range"]["slope"] == 5000 and one[0]["range"]["offset"] == 20000 and "range" not in one[1]
    unit = np.random.default_rng(1).random(deep.shape, np.float32)
    two = fuser(range="20000:25000").fuse(deep, unit).report["inputs"]
    assert two[0]["range"]["slope"] == 5000 and "range" not in two[1]
    each = fuser(range="20000:25000,100:150").fuse(deep, shallow).report["inputs"]
    assert each[1]["range"]["slope"] == 50 and each[1]["range"]["offset"] == 100


def test_the_report_leads_from_a_level_to_the_count(fuser):
    data = counts()
    relation = fuser(range="p1:p99").fuse(data, counts(0, 255).astype(np.uint8)).report["inputs"][0]["range"]
    levels, _ = to_levels(data, Range("percentiles", 1, 99), 65535, "x")
    inside = (levels > 0) & (levels < 1)
    back = relation["slope"] * levels.astype(float) + relation["offset"]
    assert np.array_equal(np.rint(back[inside]), data[inside])
    assert 0.005 < relation["below"] < 0.015 and 0.005 < relation["above"] < 0.015


def test_settings_tell_of_ranges_only_where_there_are_any(fuser):
    plain, ranged = fuser().settings, fuser(range="auto", clahe=True).settings
    assert set(ranged) - set(plain) == {"range", "clahe"}
    assert ranged["hash"] == plain["hash"]  # of preset and weights, as ever


@pytest.mark.parametrize(
    ("sources", "options", "match"),
    [
        ((counts(0, 9).astype(np.uint8),) * 2, {"range": "auto"}, "8 bits, or floats in"),
        ((np.zeros((20, 20)), np.eye(20)), {"range": "auto"}, "one of counts"),
        ((counts(0, 9).astype(np.uint8),) * 2, {"clahe": True}, "8 bits only"),
        ((counts(), counts(seed=1)), {"range": "auto,full,full"}, "3 ranges, expected one, or 2"),
        ((counts(), counts(seed=1)), {"range": "1:2"}, r"source 1: got values from 200\d\d to 2\d+.*--range 1:2"),
        ((np.full((20, 20), 7, np.uint16), counts()), {"range": "auto"}, "one value everywhere, 7"),
        ((counts().astype(float), counts()), {"range": "full"}, "no full range"),
        ((np.float32([[280, np.nan]] * 20), counts()), {"range": "auto"}, "NaN"),
        ((counts().astype(float), counts()), {}, "--range auto, or LOW:HIGH"),
        ((counts().astype(complex), counts()), {"range": "auto"}, "complex"),
    ],
)
def test_refused_with_a_remedy(fuser, sources, options, match):
    with pytest.raises(DDFMError, match=match):
        fuser(**options).fuse(*sources)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_where_zero_is_white_ranges_are_of_the_stored_values_and_lead_back_to_them(tmp_path, dtype):
    stored = np.arange(0, 120, dtype=dtype).reshape(10, 12)
    tifffile.imwrite(tmp_path / "x.tif", stored, photometric="miniswhite")
    image = read_image(tmp_path / "x.tif", Range("values", 10, 100))
    inside = (stored >= 10) & (stored <= 100)
    assert image.relation.slope == -90 and image.relation.offset == 100
    # a float32 level resolves 2**-24 of the span, and 1 less it no more
    np.testing.assert_allclose(image.relation.values(image.data)[inside], stored[inside], atol=90 * 2**-23)
    assert (image.data[stored < 10] == 1).all() and (image.data[stored > 100] == 0).all()
    assert (image.relation.below, image.relation.above) == (19 / 120, 10 / 120)
    again = read_image(tmp_path / "x.tif", image.relation.span)
    assert np.array_equal(again.data, image.data)
    assert "white is zero: inverted" in image.notes


@pytest.mark.parametrize("asked", [None, USUAL, FULL], ids=str)
def test_where_zero_is_white_and_nobody_names_a_range_it_is_what_it_was(tmp_path, asked):
    stored = counts(0, 65535)
    tifffile.imwrite(tmp_path / "x.tif", stored, photometric="miniswhite")
    image = read_image(tmp_path / "x.tif", asked)
    np.testing.assert_allclose(image.data, (65535 - stored.astype(float)) / 65535, atol=2**-24 * 1.5)
    assert image.notes == ("white is zero: inverted",)


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
def test_premultiplied_transparency_and_ranges(tmp_path, dtype):
    opaque = np.iinfo(dtype).max if dtype != "float32" else 1
    plain, alpha = counts(2000, 8000), np.full((40, 50), opaque, dtype)
    alpha[:, :10] = opaque // 2
    stored = np.dstack([np.rint(plain * (alpha / opaque)), alpha]).astype(dtype)
    tifffile.imwrite(
        tmp_path / "x.tif", stored, photometric="minisblack", planarconfig="contig", extrasamples=["assocalpha"]
    )
    if dtype != "uint16":  # nothing says what an opaque pixel has
        with pytest.raises(DDFMError, match=r"premultiplied transparency.*without transparency"):
            read_image(tmp_path / "x.tif", AUTO)
        return
    image = read_image(tmp_path / "x.tif", Range("values", 1000, 9000))
    # half a count was lost where the stored value was rounded, twice that where it was halved
    np.testing.assert_allclose(image.relation.values(image.data), plain, atol=1.1)
    assert set(np.unique(np.rint(image.alpha * 65535))) == {65535 // 2, 65535}
    low, high = read_image(tmp_path / "x.tif", AUTO).relation.values((0, 1))
    assert 2000 <= low < 2030 and 7970 < high <= 8000


def test_much_that_is_clipped_is_said():
    ramp = np.arange(2000, dtype=np.uint16).reshape(40, 50)
    image = from_array(ramp, "x", Range("values", 200, 1199))
    assert image.notes == ("50% of the values lie outside --range 200:1199 and are clipped",)
    assert not from_array(ramp, "x", Range("values", 200, 1800)).notes


# ---- local contrast -------------------------------------------------------------------------------


def test_local_contrast_leaves_what_is_equalised_already():
    rng = np.random.default_rng(0)
    flat = rng.permuted(np.linspace(0, 1, 512 * 512)).reshape(512, 512).astype(np.float32)
    # tiles of 4096 pixels: the distribution function of a uniform sample is off by 1 / sqrt(4096) at most, about
    assert np.abs(local_contrast(flat) - flat).max() < 0.04


def test_local_contrast_raises_faint_detail_by_no_more_than_its_limit():
    rng = np.random.default_rng(0)
    x = np.linspace(0.2, 0.8, 512, dtype=np.float32)[None].repeat(512, 0)
    faint = np.clip(x + 0.02 * rng.standard_normal((512, 512), np.float32), 0, 1)
    gain = (local_contrast(faint) - local_contrast(faint).mean(0)).std() / (faint - faint.mean(0)).std()
    # the limit of 2 on a slope, and at most 1 from what was cut off, which is spread evenly over all levels
    assert 1.3 < gain < 3


def test_local_contrast_is_told_and_needs_opencv(fuser, monkeypatch):
    data, other = counts(), counts(0, 255).astype(np.uint8)
    fused = fuser(range="20000:25000", clahe=True).fuse(data, other)
    assert fused.report["inputs"][0]["range"]["local_contrast"]
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(DDFMError, match=r"pip install 'ddfm\[align\]'"):
        fuser(clahe=True).fuse(data, other)


def test_scenes_keep_the_range_of_their_first_picture():
    first, later = counts(20000, 25000), counts(21000, 24000, seed=1)
    other = counts(0, 255).astype(np.uint8)
    preparation = Preparation(ranges=parse_ranges("auto"))
    settled = preparation.settled(preparation.gather([first, other]))
    low, high = np.percentile(first, (0.1, 99.9))
    expected = np.clip((later.astype(np.float64) - low) / (high - low), 0, 1)
    image = settled.gather([later, other]).images[0]
    np.testing.assert_allclose(image.data, expected, atol=1e-6)
    assert dataclasses.replace(settled, ranges=None) == Preparation()
