"""Volumes fused: windows, consistency over the slices, colour, reports, and what a user types."""

import importlib
import json
import re
import shutil
import signal
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch

import dicom_files as dicom
from ddfm import color
from ddfm.demo import make_phantom
from ddfm.fusion import FuseConfig, Fuser
from ddfm.io.medical import read_volume
from ddfm.io.volume import ArrayVolume, Geometry
from ddfm.phantoms import phantom_volume
from ddfm.sequence import SceneFuser
from ddfm.volumes import DDFMError, Window, fuse_volumes, parse_windows, settle_window, survey

LUMA = np.float32([0.299, 0.587, 0.114])
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def fuser(tiny_prior):
    """The medical preset; on clean sources it makes no network evaluation, so any prior will do."""
    return Fuser(FuseConfig(preset="medical", prior=str(tiny_prior)))


@pytest.fixture(scope="module")
def heads():
    """Rendered heads of 12 slices by modality, each made once."""
    return {modality: phantom_volume((12, 64, 64), 0, modality) for modality in ("ct", "pet")}


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """See ``files``."""
    folder = tmp_path_factory.mktemp("rendered")
    make_phantom(folder, "ct", 8, 48)
    return folder


@pytest.fixture
def files(rendered, tmp_path):
    """phantom/ct.nii.gz, phantom/ct/, phantom/mri.nii.gz, phantom/mri/, of 8 slices."""
    return shutil.copytree(rendered, tmp_path / "phantom")


@pytest.fixture
def ddfm(tmp_path, tiny_prior, command_line, monkeypatch):
    """Run the command line in the test's folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *words: command_line(*words, "--prior", tiny_prior)


def volume(samples, name="array"):
    shape = samples.shape[2::-1] if samples.ndim == 3 else (samples.shape[2], samples.shape[1], samples.shape[0])
    return ArrayVolume(samples, Geometry(shape, np.diag([-1.0, -1, 2, 1])), name)


def nifti_like(tmp_path, shape):
    """A NIfTI file of zeros, to give a grid."""
    path = tmp_path / "grid.nii"
    nib.save(nib.Nifti1Image(np.zeros(shape[::-1], np.uint8), np.diag([-1.0, -1, 2, 1])), path)
    return path


def fused(path):
    data = np.asanyarray(nib.load(path).dataobj)
    data = np.stack([data[c] for c in "RGB"], -1) if data.dtype.names else data
    return data.swapaxes(0, 2)


# --- windows ----------------------------------------------------------------------------------------


def test_windows_as_text():
    assert parse_windows(None, 3) == ["file"] * 3
    assert parse_windows("40:80, AUTO", 2) == [(0, 80), "auto"]
    assert parse_windows("-600:1500", 2) == [(-1350, 150)] * 2
    for text in ("40", "40:0", "a:b", "nan:1", "40:80,auto,auto", "40:80:3"):
        with pytest.raises(DDFMError, match="--window"):
            parse_windows(text, 2)


def test_a_window_is_linear():
    values = np.float32([-5, 0, 20, 80, 200, np.nan])
    assert np.allclose(Window(0, 80, False, "given").grey(values), [0, 0, 0.25, 1, 1, 0])
    assert np.allclose(Window(0, 80, True, "given").grey(values), [1, 1, 0.75, 0, 0, 0])  # MONOCHROME1


def test_an_automatic_window_is_of_the_whole_volume():
    """Quantiles of all slices together: one bright slice of twenty does not set a window of its own."""
    rng = np.random.default_rng(0)
    samples = rng.uniform(100, 200, (20, 40, 50)).astype(np.float32)
    samples[7] += 1000
    samples[3, :2] = np.nan
    found = survey(volume(samples))
    assert np.allclose(found.ends, np.nanquantile(samples, (0.001, 0.999)))
    assert np.isclose(found.missing, 2 / 40 / 20)
    assert settle_window(volume(samples), found, "auto").low == found.ends[0]
    sparse = np.zeros((4, 40, 50), np.float32)
    sparse[2, 5, 5] = 7
    assert settle_window(volume(sparse), survey(volume(sparse)), "auto").high == 7
    for samples, words in ((np.ones((2, 16, 16)), "everywhere"), (np.full((2, 16, 16), np.nan), "no voxel")):
        with pytest.raises(DDFMError, match=words):
            settle_window(volume(samples), survey(volume(samples)), "auto")


def test_a_window_for_rgb_is_refused(heads):
    pet = volume(heads["pet"].functional)
    with pytest.raises(DDFMError, match="RGB"):
        settle_window(pet, survey(pet), (0.0, 1.0))


# --- consistency ------------------------------------------------------------------------------------


def test_slices_are_what_a_scene_makes_of_them(tmp_path, heads, fuser):
    """The file holds, rounded, what ``SceneFuser`` gives that has learned from all lit slices."""
    head = heads["ct"]
    sources = [volume(head.functional), volume(head.mri)]
    grid = read_volume(nifti_like(tmp_path, head.mri.shape))
    out = tmp_path / "out.nii"
    record = fuse_volumes([*sources[:1], _on(grid, head.mri)], out, fuser, windows=[(0.0, 1.0)] * 2)
    pairs = list(zip(head.functional, head.mri, strict=True))
    lit = [k for k in range(12) if head.mri[k].any()]
    scene = SceneFuser(fuser)
    scene.learn([pairs[k] for k in lit])
    found = fused(out)
    assert len(lit) < 12 and not found[len(lit) :].any()
    for k in lit:
        assert np.abs(found[k] / 255 - scene.fuse(*pairs[k])).max() <= 0.5 / 255 + 1e-6
    assert f"{12 - len(lit)} of 12 slices are black" in " ".join(record["warnings"])


def _on(grid, samples):
    """``samples`` as the source that gives the grid: ``grid``'s header, other slices."""
    grid.slice = lambda k: np.float32(samples[k])
    return grid


def test_the_sample_that_is_learned_from_reaches_over_the_volume(tmp_path, fuser, monkeypatch):
    seen = []
    learn = SceneFuser.learn
    monkeypatch.setattr(SceneFuser, "learn", lambda self, frames: (seen.extend(frames), learn(self, frames))[1])
    monkeypatch.setattr(SceneFuser, "fuse", lambda self, *sources: sources[0])  # not what is asked here
    ramp = np.random.default_rng(0).random((50, 16, 16), dtype=np.float32)
    ramp[:] = 0.2 + 0.6 * ramp
    ramp[:, 0, 0] = np.arange(50) / 50  # which slice it is
    fuse_volumes(
        [volume(ramp), _on(read_volume(nifti_like(tmp_path, ramp.shape)), ramp[:, ::-1])],
        tmp_path / "out.nii",
        fuser,
        windows=[(0.0, 1.0)] * 2,
    )
    numbers = [round(float(frame[0][0, 0]) * 50) for frame in seen]
    assert len(numbers) == 16 and numbers[0] == 0 and numbers[-1] == 49
    assert set(np.diff(numbers)) <= {3, 4}


def test_the_order_of_slices_does_not_matter(tmp_path, heads, fuser):
    """A volume from the head downwards gives the same slices, the other way round."""
    head = heads["ct"]
    results = []
    for name, way in (("up.nii", slice(None)), ("down.nii", slice(None, None, -1))):
        grid = read_volume(nifti_like(tmp_path, head.mri.shape))
        fuse_volumes([volume(head.functional[way]), _on(grid, head.mri[way])], tmp_path / name, fuser)
        results.append(fused(tmp_path / name)[way])
    difference = np.abs(results[0].astype(int) - results[1])
    assert difference.max() <= 1  # sums in another order round differently


def level_of_slices(results, head):
    """How bright each slice comes out beyond what one linear map of the true sources for all slices explains."""
    inside = [k for k in range(len(results)) if head.clean_mri[k].any()]
    masks = {k: head.clean_mri[k] > 0 for k in inside}
    first = head.clean_functional @ LUMA if head.clean_functional.ndim == 4 else head.clean_functional
    columns = [np.concatenate([x[k][masks[k]] for k in inside]) for x in (first, head.clean_mri)]
    matrix = np.stack([np.ones_like(columns[0]), *columns], 1)
    target = np.concatenate([results[k][masks[k]] for k in inside])
    weights = np.linalg.lstsq(matrix, target, rcond=None)[0]
    rest = np.split(target - matrix @ weights, np.cumsum([masks[k].sum() for k in inside])[:-1])
    return np.array([part.mean() for part in rest])


@pytest.mark.parametrize(("modality", "share"), [("ct", 0.5), ("pet", 1.0)])
def test_slices_flicker_less_than_one_by_one(heads, fuser, modality, share):
    """From slice to slice the level jumps less, beyond what the truth does, than if each slice is fused alone.

    Beside CT it is a third of that; beside PET one by one hardly flickers: both stay below a grey level.
    """
    head = heads[modality]
    pairs = [pair for pair in zip(head.functional, head.mri, strict=True) if pair[1].any()]
    scene = SceneFuser(fuser)
    scene.learn(pairs)

    def luma(pictures):
        return [p @ LUMA if p.ndim == 3 else p for p in pictures]

    alone = level_of_slices(luma(fuser.fuse(*pair).data for pair in pairs), head)
    together = level_of_slices(luma(scene.fuse(*pair) for pair in pairs), head)
    flicker = [np.abs(np.diff(levels)).mean() for levels in (alone, together)]
    assert flicker[1] < share * flicker[0] and flicker[1] < 1 / 255


def test_the_lesion_shows_in_every_slice_that_has_it(heads, fuser):
    head = heads["ct"]
    scene = SceneFuser(fuser)
    pairs = list(zip(head.functional, head.mri, strict=True))
    scene.learn([pair for pair in pairs if pair[1].any()])
    slices = [k for k in range(12) if head.lesion[k].sum() > 8]
    assert len(slices) >= 2
    for k in slices:
        ring = (head.clean_functional[k] < 0.5) & (head.clean_functional[k] > 0.2)
        inside = scene.fuse(*pairs[k])[head.lesion[k]].mean()
        assert inside > scene.fuse(*pairs[k])[ring].mean()  # darker than its surround in the MRI


# --- colour -----------------------------------------------------------------------------------------


def test_colours_are_kept(tmp_path, heads, fuser):
    """The hue of every voxel is the PET's; of its saturation there is as much as the fused luma leaves room for."""
    head = heads["pet"]
    grid = _on(read_volume(nifti_like(tmp_path, head.mri.shape)), head.mri)
    fuse_volumes([volume(head.functional), grid], tmp_path / "out.nii.gz", fuser, windows=["file", (0.0, 1.0)])
    found = fused(tmp_path / "out.nii.gz")
    assert found.shape == (12, 64, 64, 3)

    def chroma(rgb):
        return color.split(torch.from_numpy(np.float32(rgb)).permute(0, 3, 1, 2))[1].numpy()

    a, b = chroma(head.functional), chroma(found / 255)
    strong = np.hypot(*a.swapaxes(0, 1)) > 0.1
    cross = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    lengths = np.hypot(*a.swapaxes(0, 1)) * np.hypot(*b.swapaxes(0, 1))
    coloured = strong & (np.hypot(*b.swapaxes(0, 1)) > 0.05)
    assert coloured.sum() > 0.5 * strong.sum()
    assert (np.abs(cross[coloured]) / lengths[coloured]).max() < 0.06  # sine of the angle: levels are rounded


# --- the command line -------------------------------------------------------------------------------


def test_nifti_in_nifti_out(ddfm, files):
    code, text = ddfm("fuse", files / "ct.nii.gz", files / "mri.nii.gz", "-o", "out.nii.gz", "--window", "40:80,auto")
    assert code == 0 and "8 slices" in text and "not for diagnosis" in text
    assert "--preset medical" in text and "medical@" in text
    a, b = nib.load("out.nii.gz"), nib.load(files / "mri.nii.gz")
    assert np.array_equal(a.affine, b.affine) and a.shape == b.shape
    assert a.header["sform_code"] == b.header["sform_code"]


def test_dicom_in_dicom_out(ddfm, files):
    code, _ = ddfm("fuse", files / "ct", files / "mri", "-o", "out", "--report", "r.jsonl")
    assert code == 0
    found, like = read_volume("out"), read_volume(files / "mri")
    assert np.allclose(found.geometry.affine, like.geometry.affine)
    assert found.head.FrameOfReferenceUID == like.head.FrameOfReferenceUID
    code, _ = ddfm("fuse", files / "ct", files / "mri", "-o", "out.nii")
    assert code == 0
    assert np.array_equal(np.rint(found.data()), fused("out.nii"))  # the same picture, either way


def test_the_same_voxels_as_dicom_and_as_nifti(ddfm, files):
    """With one window for both, DICOM and NIfTI give the same result."""
    for kind, suffix in (("a", ""), ("b", ".nii.gz")):
        words = ("fuse", files / f"ct{suffix}", files / f"mri{suffix}", "-o", f"{kind}.nii")
        assert ddfm(*words, "--window", "40:80,500:1000")[0] == 0
    assert np.array_equal(fused("a.nii"), fused("b.nii"))


def test_sixteen_bits_and_another_preset(ddfm, files):
    code, text = ddfm(
        "fuse",
        files / "ct",
        files / "mri",
        "-o",
        "out",
        "--bit-depth",
        "16",
        "--preset",
        "balanced",
        "--noise-std",
        "0",
    )
    assert code == 0 and "balanced@" in text and "note: volumes" not in text
    ds = pydicom.dcmread("out/0003.dcm")
    assert ds.BitsStored == 16 and ds.pixel_array.max() > 255


def test_single_slices(ddfm, files, tmp_path):
    one = sorted((files / "ct").iterdir())[2], sorted((files / "mri").iterdir())[2]
    assert ddfm("fuse", *one, "-o", "one.dcm")[0] == 0
    assert pydicom.dcmread("one.dcm").ImagePositionPatient == pydicom.dcmread(one[1]).ImagePositionPatient


def test_three_volumes(ddfm, files):
    names = [files / f"{name}.nii.gz" for name in ("ct", "mri", "mri")]
    assert ddfm("fuse", *names, "-o", "three.nii")[0] == 0


def test_a_report_tells_the_windows_and_no_name(ddfm, tmp_path):
    """Neither a path nor anything of the patient: the folders are called like one."""
    rng = np.random.default_rng(0)
    for name, modality in (("Testperson_ct", "CT"), ("Testperson_mr", "MR")):
        samples = rng.integers(0, 1000, (3, 16, 16), dtype=np.int16)
        dicom.series(
            tmp_path / name, samples, modality=modality, RescaleIntercept=-24, WindowCenter=400, WindowWidth=801
        )
    code, text = ddfm(
        "fuse", "Testperson_ct", "Testperson_mr", "-o", "out", "--report", "r.jsonl", "--window", "file,auto"
    )
    assert code == 0 and "4711" not in text and "Sarah" not in text
    line = (tmp_path / "r.jsonl").read_text()
    assert not any(word in line for word in ("Testperson", "Sarah", "4711", str(tmp_path)))
    record = json.loads(line)
    first, second = record["inputs"]
    assert first["window"] == {
        "low": -0.5,
        "high": 799.5,
        "source": "file",
        "grey": "(value - low) / (high - low), clipped to [0, 1]",
    }
    assert "quantiles" in second["window"]["source"]
    assert first["spacing_mm"] == [0.5, 0.75, 2.5] and first["sha256"] == read_volume("Testperson_ct").sha256()
    assert record["slices"] == 3 and record["label"] == "FUSED - not for diagnosis" and record["output"] == "out"


def test_other_grids_are_refused_and_resampled(ddfm, files, tmp_path):
    image = nib.load(files / "ct.nii.gz")
    moved = image.affine.copy()
    moved[2, 3] += image.header.get_zooms()[2]  # by one slice upwards
    nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj), moved), tmp_path / "moved.nii")
    words = ("fuse", "moved.nii", files / "mri.nii.gz", "-o", "out.nii", "--window", "40:80,500:1000")
    code, text = ddfm(*words)
    assert code == 2 and "origin" in text and "--resample" in text and not (tmp_path / "out.nii").exists()
    code, text = ddfm(*words, "--resample", "--report", "r.jsonl")
    assert code == 0 and "12.5% of the voxels are outside the source" in text  # one slice of eight
    record = json.loads((tmp_path / "r.jsonl").read_text())
    assert [x["resampled"] for x in record["inputs"]] == ["linear", None]
    assert record["inputs"][0]["outside"] == 0.125
    by_hand = np.concatenate([np.full((48, 48, 1), -1000, np.int16), np.asanyarray(image.dataobj)[..., :-1]], 2)
    nib.save(nib.Nifti1Image(by_hand, image.affine), tmp_path / "hand.nii")
    assert ddfm("fuse", "hand.nii", *words[2:4], "hand_out.nii", *words[5:])[0] == 0
    assert np.abs(fused("out.nii").astype(int) - fused("hand_out.nii")).max() <= 1
    moved[0, 3] += 9999
    nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj), moved), tmp_path / "far.nii")
    code, text = ddfm("fuse", "far.nii", files / "mri.nii.gz", "-o", "far_out.nii", "--resample")
    assert code == 2 and "wholly outside" in text and not (tmp_path / "far_out.nii").exists()


def test_series_are_chosen(ddfm, files, tmp_path):
    """Both series in one folder, given twice: each source takes its own."""
    (tmp_path / "both").mkdir()
    uids = []
    for name in ("ct", "mri"):
        uids.append(read_volume(files / name).head.SeriesInstanceUID)
        for path in (files / name).iterdir():
            (tmp_path / "both" / f"{name}{path.name}").write_bytes(path.read_bytes())
    code, text = ddfm("fuse", "both", "both", "-o", "out.nii")
    assert code == 2 and all(uid in text for uid in uids) and "--series" in text
    assert ddfm("fuse", "both", "both", "-o", "out.nii", "--series", ",".join(uids))[0] == 0
    assert ddfm("fuse", files / "ct", files / "mri", "-o", "plain.nii")[0] == 0
    assert np.array_equal(fused("out.nii"), fused("plain.nii"))
    code, text = ddfm("fuse", "both", "both", "-o", "x.nii", "--series", "1,2,3")
    assert code == 2 and "3 UIDs" in text


def test_headers_that_speak_against_it(ddfm, tmp_path):
    samples = np.random.default_rng(0).integers(0, 1000, (2, 16, 16), dtype=np.int16)
    dicom.series(tmp_path / "a", samples)
    dicom.series(tmp_path / "b", samples[:, ::-1], PatientID="ID-4712", FrameOfReferenceUID="9.9")
    code, text = ddfm("fuse", "a", "b", "-o", "out")
    assert code == 0 and "are they of one patient" in text and "frames of reference differ" in text
    assert "4712" not in text


def test_a_hint_for_ct_without_a_window(ddfm, files):
    _, text = ddfm("fuse", files / "ct.nii.gz", files / "mri.nii.gz", "-o", "out.nii")
    assert "look like Hounsfield units" in text and "--window 40:80" in text


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("ct.nii.gz", "picture.png", "-o", "o.nii"), "all volumes"),
        (("picture.png", "picture.png", "-o", "o.png", "--window", "1:2"), "--window"),
        (("picture.png", "picture.png", "-o", "o.png", "--resample"), "--resample"),
        (("ct.nii.gz", "mri.nii.gz", "-o", "o.png"), "ending in .nii"),
        (("ct.nii.gz", "mri.nii.gz", "-o", "folder"), "as the last source is NIfTI"),
        (("ct.nii.gz", "mri.nii.gz", "-o", "mri.nii.gz", "--overwrite"), "than a source"),
        (("ct", "mri", "-o", "o.dcm"), "one file for 8 slices"),
        (("ct", "mri", "-o", "o.nii", "--keep-patient"), "no place for a patient"),
        (("ct.nii.gz", "mri.nii.gz", "-o", "o.nii", "--window", "40"), "center:width"),
        (("ct.nii.gz", "mri.nii.gz", "-o", "o.nii", "--window", "9000:1"), "black in every source"),
        (("ct.nii.gz", "mri.nii.gz", "-o", "o.nii", "--bit-depth", "12"), "8 or 16"),
        (("ct.nii.gz", "mri.nii.gz", "-o", "o.nii", "--suffix", ".tif"), "--suffix"),
        (("ct.nii.gz", "-o", "o.nii"), "two or more"),
        (("ct.nii.gz", "absent.nii", "-o", "o.nii"), "absent.nii"),
        (("ct.nii.gz", "mri.nii.gz", "-o", "none/o.nii"), "mkdir"),
        (("ct.nii.gz", "mri.nii.gz", "-o", "taken.nii"), "exists"),
        (("ct", "mri", "-o", "."), "files that stay"),
        (("tiny.nii", "tiny.nii", "-o", "o.nii"), "16x16 voxels or more"),
        (("ct", "mri", "-o", "out", "--report", "out"), "which is the output"),
        (("ct", "mri", "-o", "out", "--report", "./ct/../out"), "which is the output"),
        (("ct", "mri", "-o", "o.nii", "--report", "o.nii"), "which is the output"),
        (("ct.nii.gz", "mri.nii.gz", "-o", "o.nii", "--report", "mri.nii.gz"), "which is a source"),
        (("ct", "mri", "-o", "out", "--report", "ct/0001.dcm"), "a volume's"),
        (("ct", "mri", "-o", "out", "--report", "r.nii.gz"), "a volume's"),
    ],
)
def test_what_is_refused_leaves_nothing(ddfm, files, monkeypatch, words, told):
    from PIL import Image

    monkeypatch.chdir(files)
    Image.new("L", (32, 32), 9).save("picture.png")
    (files / "taken.nii").write_bytes(b"precious")
    nib.save(nib.Nifti1Image(np.arange(8 * 20 * 3, dtype=np.int16).reshape(8, 20, 3), np.eye(4)), "tiny.nii")
    before = sorted(files.rglob("*"))
    code, text = ddfm("fuse", *words)
    assert code == 2 and told in text
    assert sorted(files.rglob("*")) == before
    assert (files / "taken.nii").read_bytes() == b"precious"


def test_into_the_working_folder(ddfm, files, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert ddfm("fuse", files / "ct", files / "mri", "-o", ".")[0] == 0
    assert len(list((tmp_path / "empty").iterdir())) == 8
    monkeypatch.chdir(tmp_path)
    code, text = ddfm("fuse", files / "ct", files / "mri", "-o", files / "ct.nii.gz")
    assert code == 2 and "--overwrite" in text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("output", ["out.nii.gz", "out"])
def test_stopped_with_a_signal(ddfm, files, tmp_path, monkeypatch, output, number):
    """Ctrl-C is SIGINT."""
    fuse = SceneFuser.fuse
    calls = []

    def stop(self, *sources):
        calls.append(1)
        if len(calls) == 3:
            signal.raise_signal(number)
        return fuse(self, *sources)

    monkeypatch.setattr(SceneFuser, "fuse", stop)
    code, text = ddfm("fuse", files / "ct", files / "mri", "-o", output, "--report", "r.jsonl")
    assert code == 130 and "stopped" in text
    assert [p.name for p in tmp_path.iterdir()] == ["phantom"]


def test_a_damaged_slice_is_found_before_any_work(ddfm, files, tmp_path, monkeypatch):
    monkeypatch.setattr(SceneFuser, "learn", lambda *words: pytest.fail("work began"))
    path = sorted((files / "ct").iterdir())[-1]
    path.write_bytes(path.read_bytes()[:-50])
    code, text = ddfm("fuse", files / "ct", files / "mri", "-o", "out")
    assert code == 2 and path.name in text and not (tmp_path / "out").exists()


def test_a_mask_without_values_is_black(ddfm, files, tmp_path):
    image = nib.load(files / "mri.nii.gz")
    values = np.asanyarray(image.dataobj).astype(np.float32)
    values[values == 0] = np.nan
    nib.save(nib.Nifti1Image(values, image.affine), tmp_path / "stripped.nii")
    window = ("--window", "40:80,500:1000")
    code, text = ddfm("fuse", files / "ct.nii.gz", "stripped.nii", "-o", "a.nii", *window)
    assert code == 0 and "without a value (NaN or padding) and count as black" in text
    assert ddfm("fuse", files / "ct.nii.gz", files / "mri.nii.gz", "-o", "b.nii", *window)[0] == 0
    assert np.array_equal(fused("a.nii"), fused("b.nii"))


def test_a_monochrome1_source_is_turned_round(ddfm, tmp_path):
    """The negative of a source, stated as MONOCHROME1, gives what the source gives."""
    rng = np.random.default_rng(0)
    ct, mr = rng.integers(0, 1000, (2, 3, 16, 16), dtype=np.int16)
    window = {"WindowCenter": 500, "WindowWidth": 1000, "VOILUTFunction": "LINEAR_EXACT"}
    dicom.series(tmp_path / "a", ct, **window)
    dicom.series(tmp_path / "negative", 1000 - ct, PhotometricInterpretation="MONOCHROME1", **window)
    dicom.series(tmp_path / "mr", mr, **window)
    for name in ("a", "negative"):
        assert ddfm("fuse", name, "mr", "-o", f"{name}.nii")[0] == 0
    assert np.abs(fused("a.nii").astype(int) - fused("negative.nii")).max() <= 1


def test_what_cannot_be_read_beside_pictures_is_passed_over(ddfm, tmp_path):
    """A folder of pictures is asked for DICOM in it; a file that is nobody's business does not stop it."""
    from PIL import Image

    for name in ("ir", "vis"):
        (tmp_path / name).mkdir()
        pixels = np.random.default_rng(len(name)).integers(0, 256, (20, 20), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name / "a.png")
        (tmp_path / name / "notes.txt").write_text("hello")
        (tmp_path / name / "gone").symlink_to("nowhere")
    code, text = ddfm("fuse", "ir", "vis", "-o", "out")
    assert code == 0 and "1 fused" in text


# --- the rendered head ------------------------------------------------------------------------------


def test_the_rendered_head(heads):
    """An ellipsoid: sections shrink as sqrt(1 - z^2); the lesion is bright in CT; the same seed gives the same."""
    head = heads["ct"]
    heights = np.linspace(-0.7, 1.05, 12)
    area = (head.clean_mri > 0).sum((1, 2))
    assert not area[heights > 1].any()
    full = area / np.where(heights < 1, 1 - heights**2, np.inf)
    middle = full[np.abs(heights) < 0.6]
    assert np.ptp(middle) < 0.06 * middle.mean()  # the outline is uneven by two per cent of its radius
    assert head.lesion.any() and head.clean_functional[head.lesion].min() > head.clean_functional[area > 0].mean()
    noise = (head.mri - head.clean_mri)[head.clean_mri > 0.1]
    assert np.isclose(noise.std(), 0.012, rtol=0.05)
    again = phantom_volume((12, 64, 64), 0, "ct")
    assert np.array_equal(again.functional, head.functional) and np.array_equal(again.mri, head.mri)
    assert np.array_equal(again.clean_mri, heads["pet"].clean_mri)  # one head, whatever looks at it
    for shape, modality in (((1, 64, 64), "ct"), ((4, 8, 64), "ct"), ((4, 64, 64), "mri")):
        with pytest.raises(DDFMError):
            phantom_volume(shape, 0, modality)


def test_neighbouring_slices_are_alike():
    """Anatomy changes smoothly: with twice the slices, the steps between them are about half as large."""
    steps = []
    for count in (22, 43):
        clean = phantom_volume((count, 64, 64), 1).clean_mri[count // 4 : count // 2]
        steps.append(np.abs(np.diff(clean, axis=0)).mean())
    assert 0.4 < steps[1] / steps[0] < 0.8


@pytest.mark.parametrize("modality", ["ct", "pet", "spect"])
def test_the_phantoms_files_say_the_same(tmp_path, modality):
    head = phantom_volume((4, 32, 32), 0, modality)
    paths = make_phantom(tmp_path, modality, 4, 32)
    assert [p.name for p in paths] == [f"{modality}.nii.gz", modality, "mri.nii.gz", "mri"]
    for nifti, folder in ((paths[0], paths[1]), (paths[2], paths[3])):
        a, b = read_volume(nifti), read_volume(folder)
        assert np.allclose(a.data(), b.data(), atol=1e-6)
        assert np.allclose(a.geometry.affine, b.geometry.affine, atol=1e-5)
    assert np.abs(read_volume(paths[3]).data() / 1000 - head.mri).max() <= 0.0005 + 1e-6
    if modality == "ct":
        hounsfield = read_volume(paths[1]).data()
        assert np.abs(hounsfield / 80 - head.functional)[head.clean_functional > 0].max() <= 0.5 / 80 + 1e-6
        assert (hounsfield[head.clean_functional == 0] == -1000).all()
        assert read_volume(paths[1]).window == (0, 80)
    with pytest.raises(DDFMError, match="exists"):
        make_phantom(tmp_path, modality, 4, 32)
    make_phantom(tmp_path, modality, 4, 32, overwrite=True)


def test_the_page_uses_each_name_once():
    """It can be run from top to bottom: nothing that one block wrote is in the way of another."""
    page = (Path(__file__).parents[1] / "docs/volumes.md").read_text("utf-8")
    code = "".join(re.findall(r"^```(?:bash|python)\n(.*?)^```", page, re.M | re.S))
    names = re.findall(r"-o (\S+)|data phantom (\S+)|make_phantom\(Path\(\"(.+?)\"|volumes, Path\(\"(.+?)\"", code)
    names = ["".join(found) for found in names]
    assert len(names) > 10 and len(set(names)) == len(names)


def test_the_phantoms_ct_is_drawn_in_the_brain_window(rendered):
    """The documentation says so: nothing above 80 Hounsfield units, and air."""
    values = np.asanyarray(nib.load(rendered / "ct.nii.gz").dataobj)
    assert values.min() == -1000 and 60 < values.max() <= 80 and not ((values > -1000) & (values < 0)).any()


def test_the_benchmark_of_volumes(tmp_path, tiny_prior, monkeypatch):
    """On tiny heads: three modalities, levels that equal those measured here another way, and a sheet."""
    from pathlib import Path

    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    module = importlib.import_module("volume")
    words = ["--seeds", "1", "--slices", "6", "--size", "32", "--memory", "", "--prior", str(tiny_prior)]
    module.main([*words, "--output", str(tmp_path / "v.json"), "--sheet", str(tmp_path / "sheet.png")])
    record = json.loads((tmp_path / "v.json").read_text())
    assert set(record["flicker_grey_levels"]) == {"ct", "pet", "spect"}
    assert str(tmp_path) not in json.dumps(record)
    head = phantom_volume((6, 32, 32), 0, "ct")
    fuser = Fuser(FuseConfig(preset="medical", prior=str(tiny_prior)))
    own = level_of_slices(
        [fuser.fuse(*p).data for p in zip(head.functional, head.mri, strict=True) if p[1].any()], head
    )
    assert np.isclose(record["flicker_grey_levels"]["ct"]["alone"]["std"], 255 * own.std(), rtol=0.01)
    from PIL import Image

    with Image.open(tmp_path / "sheet.png") as image:
        assert image.size == (5 * 32, 5 * 32)


def test_a_path_beside_a_volume_that_is_not_there_is_called_that(ddfm, files):
    code, text = ddfm("fuse", files / "ct", files / "gone", "-o", "z.nii.gz")
    assert code == 2 and "gone: got no such file or folder" in text


def test_dicom_one_folder_deeper_or_without_preamble_is_pointed_at(ddfm, files, tmp_path):
    code, text = ddfm("fuse", files.parent, files.parent, "-o", "out")
    assert code == 2 and "There is a volume" in text and str(files) in text
    bare = tmp_path / "bare"
    bare.mkdir()
    for path in (files / "ct").iterdir():
        (bare / path.name).with_suffix(".dcm").write_bytes(path.read_bytes()[132:])
    code, text = ddfm("fuse", bare, bare, "-o", "out")
    assert code == 2 and "preamble" in text
