"""NIfTI and DICOM: what is read, what is written, what is refused. Checked against nibabel, pydicom and SimpleITK."""

import contextlib
import gzip
import itertools
import logging
import shutil
import sys
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.pixels import apply_color_lut, apply_windowing

import dicom_files as dicom
from ddfm._checks import DDFMError
from ddfm.io import writing_folder
from ddfm.io.medical import Origin, is_volume, read_volume, write_volume, writing_volume
from ddfm.io.regrid import regrid
from ddfm.io.volume import ArrayVolume, Geometry, check_one_grid, differences

NIBABEL = Path(nib.__file__).parent / "tests/data"
CT_SERIES = dicom.public("dicomdirtests/98892001/CT5N")  # five slices of 16x16
AFFINE = np.array([[-1.5, 0.2, 0, 30], [0.1, 2, 0.3, -40], [0, -0.4, 3, 5], [0, 0, 0, 1]])
RGB = np.dtype([(c, "u1") for c in "RGB"])


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def save_nifti(path, array, affine=AFFINE, kind=nib.Nifti1Image):
    nib.save(kind(array, affine), path)
    return path


def levels(path):
    """What nibabel reads: (K, J, I), or (K, J, I, 3)."""
    data = np.asanyarray(nib.load(path).dataobj)
    data = np.stack([data[c] for c in "RGB"], -1) if data.dtype.names else data
    return data.swapaxes(0, 2)


def refused(*words, path, **options):
    """The message of what ``read_volume``, or the first look at all slices, refuses; nothing of the patient in it."""
    with pytest.raises(DDFMError) as error:
        read_volume(path, **options).data()
    text = str(error.value)
    assert all(word in text for word in words), text
    assert "Testperson" not in text and "4711" not in text
    return text


# --- NIfTI, reading ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["anatomical.nii", "standard.nii.gz", "resampled_anat_moved.nii"])
def test_public_nifti_files_are_read_as_nibabel_reads_them(name):
    volume, image = read_volume(NIBABEL / name), nib.load(NIBABEL / name)
    expected = np.float32(image.get_fdata()).swapaxes(0, 2)
    assert np.allclose(volume.data(), expected, rtol=1e-6, equal_nan=True)
    assert np.allclose(volume.geometry.affine, image.affine)
    assert volume.geometry.axes == "".join(nib.aff2axcodes(image.affine))
    assert np.allclose(volume.geometry.spacing, image.header.get_zooms()[:3])


@pytest.mark.parametrize("dtype", ["<i2", ">i2", "<u1", "<f4", ">f8", "<i4"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_types_and_scales(tmp_path, rng, dtype, suffix):
    raw = rng.integers(0, 200, (17, 18, 3)).astype(dtype)
    header = nib.Nifti1Header(endianness=">" if dtype[0] == ">" else "<")
    header.set_data_dtype(dtype)
    image = nib.Nifti1Image(raw, AFFINE, header)
    image.header.set_slope_inter(2.5, -100)
    (tmp_path / "x.nii").write_bytes(image.to_bytes())
    path = tmp_path / f"a{suffix}"
    path.write_bytes(gzip.compress(image.to_bytes()) if suffix == ".nii.gz" else image.to_bytes())
    assert np.allclose(read_volume(path).data(), (2.5 * raw.astype(float) - 100).swapaxes(0, 2))


def test_content_decides_and_not_the_name(tmp_path):
    packed = (NIBABEL / "standard.nii.gz").read_bytes()
    expected = read_volume(NIBABEL / "standard.nii.gz").data()
    for name, content in (("a.nii", packed), ("b.dat", gzip.decompress(packed)), ("c.nii.gz", gzip.decompress(packed))):
        (tmp_path / name).write_bytes(content)
        assert is_volume(tmp_path / name)
        assert np.array_equal(read_volume(tmp_path / name).data(), expected)


def test_values_that_are_none_become_nan(tmp_path):
    data = np.ones((16, 16, 2), np.float32)
    data[0, 0, 0], data[1, 0, 0] = np.nan, np.inf
    found = read_volume(save_nifti(tmp_path / "a.nii", data)).data()
    assert np.isnan(found[0, 0, :2]).all() and np.isfinite(found).sum() == data.size - 2


def test_a_slice_alone_units_and_axes_of_length_one(tmp_path):
    flat = read_volume(save_nifti(tmp_path / "flat.nii", np.zeros((20, 30), np.int16)))
    assert flat.geometry.shape == (20, 30, 1)
    image = nib.Nifti1Image(np.zeros((20, 30, 4, 1), np.int16), AFFINE)
    image.header.set_xyzt_units("micron")
    nib.save(image, tmp_path / "four.nii")
    found = read_volume(tmp_path / "four.nii").geometry
    assert found.shape == (20, 30, 4)
    assert np.allclose(found.affine[:3], AFFINE[:3] / 1000)


def test_rgb_and_rgba(tmp_path, rng):
    colors = rng.integers(0, 256, (16, 17, 3, 4), dtype=np.uint8)
    for n, letters in ((3, "RGB"), (4, "RGBA")):
        array = np.ascontiguousarray(colors[..., :n]).view([(c, "u1") for c in letters])[..., 0]
        volume = read_volume(save_nifti(tmp_path / f"{n}.nii", array))
        assert volume.is_color
        assert np.array_equal(np.rint(volume.data() * 255), colors[..., :3].swapaxes(0, 2))
        assert len(volume.notes) == (n == 4)


def test_a_large_plain_file_is_mapped_and_not_loaded(tmp_path):
    volume = read_volume(save_nifti(tmp_path / "a.nii", np.zeros((16, 16, 3), np.int16)))
    assert isinstance(volume._samples.base if volume._samples.base is not None else volume._samples, np.memmap)


# --- NIfTI, refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["example4d.nii.gz", "functional.nii", "example_nifti2.nii.gz"])
def test_four_axes_are_refused_with_a_remedy(name):
    refused("4 axes", "volumes first", path=NIBABEL / name)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_cut_nifti_files(tmp_path, rng, suffix):
    whole = save_nifti(tmp_path / f"whole{suffix}", rng.integers(0, 9999, (20, 20, 5), dtype=np.int16)).read_bytes()
    for n, length in enumerate((100, 360, len(whole) // 2, len(whole) - 3)):
        path = tmp_path / f"cut{n}{suffix}"
        path.write_bytes(whole[:length])
        refused("damaged or cut", path=path)


def test_what_is_only_called_nifti(tmp_path):
    (tmp_path / "a.nii.gz").write_bytes(b"hello")
    refused("damaged", path=tmp_path / "a.nii.gz")
    (tmp_path / "b.hdr").write_bytes((NIBABEL / "nifti1.hdr").read_bytes())
    refused(".hdr/.img pair", path=tmp_path / "b.hdr")
    refused("no such file", path=tmp_path / "absent.nii")
    (tmp_path / "c.txt").write_text("hello")
    assert not is_volume(tmp_path / "c.txt")


def test_complex_numbers_and_a_singular_affine(tmp_path):
    refused("complex", path=save_nifti(tmp_path / "c.nii", np.zeros((16, 16, 2), np.complex64)))
    header = nib.Nifti1Image(np.zeros((16, 16, 2), np.int16), np.eye(4))
    header.header["sform_code"], header.header["qform_code"] = 1, 0
    header.header["srow_x"] = 0
    content = bytearray(header.to_bytes())
    fresh = header.header.copy()
    fresh["sform_code"], fresh["srow_x"] = 1, 0
    content[:348] = fresh.binaryblock
    (tmp_path / "s.nii").write_bytes(content)
    refused("orientation", path=tmp_path / "s.nii")


def test_what_nibabel_mends_is_told(tmp_path, capfd):
    content = bytearray((NIBABEL / "anatomical.nii").read_bytes())
    content[252:254] = (27904).to_bytes(
        2, "big" if nib.load(NIBABEL / "anatomical.nii").header.endianness == ">" else "little"
    )
    (tmp_path / "a.nii").write_bytes(content)
    assert read_volume(tmp_path / "a.nii").notes == ("header: qform_code 27904 not valid; setting to 0",)
    assert "27904" not in "".join(capfd.readouterr())


def test_random_damage_is_an_error_or_none(tmp_path, rng):
    """Bytes changed anywhere: a DDFMError, or a volume, and nothing else; warnings are errors here."""
    series = dicom.series(
        tmp_path / "s", np.zeros((3, 16, 16), np.int16), RescaleSlope=2, WindowCenter=4, WindowWidth=9
    )
    packed = tmp_path / "a.nii.gz"
    save_nifti(tmp_path / "a.nii", rng.integers(0, 99, (16, 17, 3), dtype=np.int16))
    packed.write_bytes(gzip.compress((tmp_path / "a.nii").read_bytes()))
    multi = dicom.enhanced(tmp_path / "e.dcm", np.zeros((3, 16, 16), np.int16), [0, 1, 2], [1, 1, 1])
    for path, source in ((series / "IM001", series), (multi, multi), (tmp_path / "a.nii",) * 2, (packed, packed)):
        whole = path.read_bytes()
        for n in range(60):
            content = bytearray(whole)
            for place in rng.integers(0, min(1400 if path.suffix != ".nii" else 352, len(whole)), 2):
                content[place] = rng.integers(0, 256)
            path.write_bytes(content[: rng.integers(1, len(whole))] if n % 5 == 0 else content)
            with contextlib.suppress(DDFMError):
                read_volume(source).data()
        path.write_bytes(whole)


# --- NIfTI, writing ---------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("bits", [8, 16])
def test_levels_and_place_survive(tmp_path, rng, suffix, kind, bits):
    """Every level comes back, and every header field that places the grid is the source's to the bit."""
    source = save_nifti(tmp_path / "source.nii", rng.integers(0, 99, (19, 18, 5), dtype=np.int16), kind=kind)
    like = read_volume(source)
    wanted = rng.integers(0, 2**bits, (5, 18, 19))
    out = tmp_path / f"out{suffix}"
    write_volume(out, wanted / (2**bits - 1), like, bit_depth=bits)
    assert np.array_equal(levels(out), wanted)
    assert levels(out).dtype == f"uint{bits}"
    a, b = nib.load(source).header, nib.load(out).header
    assert type(a) is type(b)
    for field in ("qform_code", "sform_code", "srow_x", "srow_y", "srow_z", "quatern_b", "qoffset_x", "xyzt_units"):
        assert np.array_equal(a[field], b[field])
    assert np.array_equal(a["pixdim"][:4], b["pixdim"][:4])
    assert np.array_equal(nib.load(source).affine, nib.load(out).affine)
    assert b"FUSED - not for diagnosis" in bytes(b["descrip"])


def test_rgb_is_written_and_read(tmp_path, rng):
    like = read_volume(save_nifti(tmp_path / "source.nii", np.zeros((19, 18, 5), np.int16)))
    wanted = rng.integers(0, 256, (5, 18, 19, 3))
    write_volume(tmp_path / "out.nii.gz", wanted / 255, like)
    assert np.array_equal(levels(tmp_path / "out.nii.gz"), wanted)
    assert np.array_equal(np.rint(read_volume(tmp_path / "out.nii.gz").data() * 255), wanted)


def test_simpleitk_sees_the_same_place(tmp_path):
    like = read_volume(NIBABEL / "anatomical.nii")
    write_volume(tmp_path / "out.nii", np.zeros(like.geometry.shape[::-1]), like)
    a, b = (sitk.ReadImage(str(p)) for p in (NIBABEL / "anatomical.nii", tmp_path / "out.nii"))
    assert (a.GetOrigin(), a.GetSpacing(), a.GetDirection()) == (b.GetOrigin(), b.GetSpacing(), b.GetDirection())


def test_nothing_of_a_header_but_the_place_is_copied(tmp_path):
    image = nib.Nifti1Image(np.zeros((16, 16, 3), np.int16), AFFINE)
    for field in ("descrip", "db_name", "aux_file", "intent_name"):
        image.header[field] = b"Testperson"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"Testperson 4711"))
    nib.save(image, tmp_path / "a.nii")
    assert b"Testperson" in (tmp_path / "a.nii").read_bytes()
    write_volume(tmp_path / "b.nii", np.zeros((3, 16, 16)), read_volume(tmp_path / "a.nii"))
    assert b"Testperson" not in (tmp_path / "b.nii").read_bytes()


def test_the_same_slices_give_the_same_bytes(tmp_path):
    like = read_volume(NIBABEL / "anatomical.nii")
    for name in ("a.nii.gz", "b.nii.gz"):
        write_volume(tmp_path / name, np.full(like.geometry.shape[::-1], 0.5), like)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_targets_that_are_refused(tmp_path):
    like = read_volume(save_nifti(tmp_path / "a.nii", np.zeros((16, 16, 3), np.int16)))
    data = np.zeros((3, 16, 16))
    for path, words in (
        (tmp_path / "a.nii", "another place than a source"),
        (tmp_path / "out.png", "ending in .nii"),
        (tmp_path / "out", "as the last source is NIfTI"),
        (tmp_path / "none" / "b.nii", "mkdir"),
    ):
        with pytest.raises(DDFMError, match=words):
            write_volume(path, data, like)
    (tmp_path / "b.nii").write_bytes(b"precious")
    with pytest.raises(DDFMError, match="exists"):
        write_volume(tmp_path / "b.nii", data, like)
    assert (tmp_path / "b.nii").read_bytes() == b"precious"
    write_volume(tmp_path / "b.nii", data, like, overwrite=True)
    assert levels(tmp_path / "b.nii").shape == (3, 16, 16)
    with pytest.raises(DDFMError, match="shape"):
        write_volume(tmp_path / "c.nii", data[:2], like)
    with pytest.raises(DDFMError, match="bit_depth"):
        write_volume(tmp_path / "c.nii", np.zeros((3, 16, 16, 3)), like, bit_depth=16)


# --- DICOM, reading ---------------------------------------------------------------------------------


def test_a_public_series_is_read_as_simpleitk_reads_it(tmp_path):
    """In the order of the slices, whatever the files are called: the names are shuffled first."""
    for name, path in zip("dbaec", sorted(CT_SERIES.iterdir()), strict=True):
        shutil.copy(path, tmp_path / name)
    image = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path)))
    volume = read_volume(tmp_path)
    assert np.array_equal(volume.data(), np.float32(sitk.GetArrayFromImage(image)))
    lps = np.diag([-1, -1, 1, 1]) @ volume.geometry.affine
    assert np.allclose(lps[:3, 3], image.GetOrigin())
    assert np.allclose(volume.geometry.spacing, image.GetSpacing(), atol=1e-6)
    assert np.allclose(lps[:3, :3] / image.GetSpacing(), np.reshape(image.GetDirection(), (3, 3)), atol=1e-6)
    assert volume.sha256() == read_volume(CT_SERIES).sha256()


def test_a_written_series_comes_back(tmp_path, rng):
    samples = rng.integers(-1000, 1000, (6, 18, 20), dtype=np.int16)
    volume = read_volume(dicom.series(tmp_path, samples, RescaleSlope=2, RescaleIntercept=-24))
    assert np.array_equal(volume.data(), np.float32(2) * samples - 24)
    assert np.allclose(volume.geometry.spacing, (0.5, 0.75, 2.5))  # columns, rows, slices
    assert volume.geometry.shape == (20, 18, 6)
    assert np.allclose(volume.geometry.affine[:3, 3], (20.5, 30.25, 7))
    assert volume.geometry.axes == "LPS"


@pytest.mark.parametrize("kind", ["RLE", "bigendian", "expb", "implicit", "jp2klossless", "padded"])
def test_every_lossless_encoding_gives_the_same_values(kind):
    assert np.array_equal(
        read_volume(dicom.public(f"MR_small_{kind}.dcm")).data(), read_volume(dicom.public("MR_small.dcm")).data()
    )


@pytest.mark.parametrize("name", ["MR_small.dcm", "dicomdirtests/77654033/CR1/6154", "examples_overlay.dcm"])
def test_the_window_of_a_file_is_pydicoms(name):
    """Its windowing, put on [0, 1], is the line between the two ends that the volume states."""
    volume, ds = read_volume(dicom.public(name)), pydicom.dcmread(dicom.public(name))
    values = volume.slice(0).astype(np.float64)
    low, high = volume.window
    expected = apply_windowing(pydicom.pixels.apply_rescale(ds.pixel_array, ds), ds)
    # its output spans what the stored bits could hold after rescaling
    top, bottom = (int(ds.get("RescaleIntercept", 0)) + s * float(ds.get("RescaleSlope", 1)) for s in _stored(ds))
    grey = (expected - bottom) / (top - bottom)
    assert np.allclose(np.clip((values - low) / (high - low), 0, 1), grey, atol=2e-4)
    assert volume.inverted == (ds.PhotometricInterpretation == "MONOCHROME1")


def _stored(ds):
    return (
        (2 ** (ds.BitsStored - 1) - 1, -(2 ** (ds.BitsStored - 1)))
        if ds.PixelRepresentation
        else (
            2**ds.BitsStored - 1,
            0,
        )
    )


def test_colours_of_public_files():
    """RGB as stored, YBR converted, palettes looked up: against pydicom."""
    for name in ("examples_rgb_color.dcm", "examples_jpeg2k.dcm", "SC_rgb_rle.dcm"):
        found = read_volume(dicom.public(name))
        assert found.is_color
        assert np.array_equal(np.rint(found.slice(0) * 255), pydicom.dcmread(dicom.public(name)).pixel_array)
    ds = pydicom.dcmread(dicom.public("examples_palette.dcm"))
    wanted = apply_color_lut(ds.pixel_array, ds)
    found = read_volume(dicom.public("examples_palette.dcm")).slice(0)
    assert np.array_equal(np.rint(found * 65535), wanted)
    assert read_volume(dicom.public("SC_rgb_rle_16bit_2frame.dcm")).data().shape == (2, 100, 100, 3)


def test_a_clip_of_frames_without_positions():
    volume = read_volume(dicom.public("examples_ybr_color.dcm"))
    frames = pydicom.dcmread(dicom.public("examples_ybr_color.dcm")).pixel_array
    assert volume.geometry.shape == (320, 240, 30) and not volume.geometry.known
    assert np.array_equal(np.rint(volume.slice(17) * 255), frames[17])


def test_enhanced_multi_frame(tmp_path, rng):
    """Frames out of order, each with its own slope: sorted by height, rescaled one by one."""
    samples = rng.integers(0, 1000, (4, 16, 17), dtype=np.int16)
    volume = read_volume(dicom.enhanced(tmp_path / "x.dcm", samples, [9, 0, 6, 3], [1, 2, 3, 4]))
    order, slopes = [1, 3, 2, 0], np.float32([2, 4, 3, 1])[:, None, None]
    assert np.array_equal(volume.data(), samples[order] * slopes + 10)
    assert np.allclose(volume.geometry.spacing, (1, 1, 3))


def test_padding_has_no_value(tmp_path):
    samples = np.full((3, 16, 16), 40, np.int16)
    samples[:, :2], samples[:, 2] = -2000, -1990
    volume = read_volume(dicom.series(tmp_path / "a", samples, PixelPaddingValue=-2000, RescaleIntercept=-24))
    assert np.isnan(volume.data()[:, :2]).all() and not np.isnan(volume.data()[:, 2:]).any()
    ranged = dicom.series(tmp_path / "b", samples, PixelPaddingValue=-2000, PixelPaddingRangeLimit=-1985)
    assert np.isnan(read_volume(ranged).data()[:, :3]).all()


def test_one_window_for_slices_with_their_own(tmp_path):
    def change(ds, k):
        ds.WindowCenter, ds.WindowWidth = 100 + 10 * k, 201

    volume = read_volume(dicom.series(tmp_path / "a", np.zeros((3, 16, 16), np.int16), change=change))
    assert volume.window == (109.5 - 100, 109.5 + 100)  # those of the middle slice, PS3.3 C.11.2.1.2
    assert "different windows" in volume.notes[0]
    exact = dicom.series(
        tmp_path / "b",
        np.zeros((2, 16, 16), np.int16),
        WindowCenter=[40, 400],
        WindowWidth=[80, 1500],
        VOILUTFunction="LINEAR_EXACT",
    )
    assert read_volume(exact).window == (0, 80) and not read_volume(exact).notes


def test_what_else_lies_in_the_folder_is_told(tmp_path):
    dicom.series(tmp_path, np.zeros((3, 16, 16), np.int16))
    (tmp_path / "README").write_text("hello")
    (tmp_path / ".hidden").write_text("hello")
    shutil.copy(dicom.public("reportsi.dcm"), tmp_path)
    volume = read_volume(tmp_path)
    assert volume.geometry.shape[2] == 3 and "2 files" in volume.notes[0]


# --- DICOM, refused ---------------------------------------------------------------------------------


@pytest.fixture
def spoil(tmp_path):
    """A series of five slices of 16x16, spoilt."""
    return lambda change, name="s", **tags: dicom.series(
        tmp_path / name, np.zeros((5, 16, 16), np.int16), change=change, **tags
    )


def test_a_missing_slice(spoil):
    text = refused("1 missing slices", "instance 2", "5 mm", "2.5 mm", path=spoil(lambda ds, k: k != 2))
    assert "Copy or export it again" in text


def test_uneven_steps(spoil):
    def change(ds, k):
        ds.ImagePositionPatient = [0, 0, [0, 2.5, 5, 8.6, 11.1][k]]

    refused("uneven steps", path=spoil(change))


def test_what_rounding_does_to_positions_is_no_fault(spoil):
    def change(ds, k):
        ds.ImagePositionPatient = [0, 0, round(0.6666667 * k, 2)]

    assert np.allclose(read_volume(spoil(change)).geometry.spacing[2], 0.6667, atol=0.004)


def test_two_slices_at_one_place(spoil):
    def change(ds, k):
        ds.ImagePositionPatient = [0, 0, 2.5 * (k // 2)]

    refused("2 slices at the position of another one", "echo", path=spoil(change))


def test_several_series(spoil):
    def change(ds, k):
        ds.SeriesInstanceUID, ds.Modality = ("1.2.3.4", "CT") if k < 3 else ("1.2.3.9", "MR")

    folder = spoil(change)
    refused("2 series", "1.2.3.4 (CT, 3 slices", "1.2.3.9 (MR, 2 slices", "--series", path=folder)
    assert read_volume(folder, "1.2.3.9").geometry.shape == (16, 16, 2)
    refused("--series", "1.2.3.4 (CT", path=folder, series="7.7")
    refused("3 series", path=dicom.public("dicomdirtests/98892003/MR1"))


def test_a_localiser_and_slices_that_turn(spoil):
    def change(ds, k):
        if k == 4:
            ds.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]

    refused("another orientation", "localisers", path=spoil(change))
    refused("another orientation", path=dicom.public("dicomdirtests/98892003/MR700"))


def test_other_spacing_size_and_place(spoil):
    def spacing(ds, k):
        ds.PixelSpacing = [0.75, 0.5 if k else 0.6]

    def size(ds, k):
        if k == 1:
            dicom.put_pixels(ds, np.zeros((16, 18), np.int16))

    def away(ds, k):
        ds.ImagePositionPatient = [30 * (k == 2), 0, 2.5 * k]

    refused("another spacing", path=spoil(spacing, "a"))
    refused("16x16", "18x16", path=spoil(size, "b"))
    refused("off a straight line", path=spoil(away, "c"))


def test_slices_without_geometry(spoil):
    def change(ds, k):
        del ds.ImagePositionPatient

    refused("without position", path=spoil(change))


def set_raw(path, tag, value):
    """Put bytes that no writer would write into a tag of a file."""
    ds = pydicom.dcmread(path)
    element = ds[tag]
    old = pydicom.filebase.DicomBytesIO()
    old.is_little_endian, old.is_implicit_VR = True, False
    pydicom.filewriter.write_data_element(old, element)
    encoded = old.getvalue()
    content = path.read_bytes()
    assert content.count(encoded) == 1
    length = len(encoded) - 8
    path.write_bytes(content.replace(encoded, encoded[:8] + value.ljust(length)[:length]))


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        ("RescaleSlope", b"2?x"),
        ("ImagePositionPatient", b"1.0\\Testperson"),
        ("PixelSpacing", b"nan\\1"),
        ("InstanceNumber", b"z"),
        ("WindowCenter", b"1,5"),
    ],
)
def test_a_corrupt_tag_is_named_and_its_value_is_not(tmp_path, tag, value):
    tags = {"RescaleSlope": "2.000", "RescaleIntercept": 0, "WindowCenter": "40.000", "WindowWidth": 80}
    folder = dicom.series(tmp_path, np.zeros((2, 16, 16), np.int16), **tags)
    set_raw(folder / "IM001", tag, value)
    text = refused("IM001", tag, "damaged", path=folder)
    assert value.decode() not in text


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        ("SliceThickness", b"DOE^JANE"),
        ("PhotometricInterpretation", b"DOE^JANE"),
        ("RescaleSlope", b"0"),
        ("RescaleSlope", b"1e31"),
        ("RescaleIntercept", b"-1e300"),
        ("NumberOfFrames", b"0"),
        ("NumberOfFrames", b"-1"),
        ("NumberOfFrames", b"5000000"),
        ("NumberOfFrames", b"2147483647"),
        ("BitsAllocated", b"\x07\0"),
        ("BitsStored", b"\x63\0"),
        ("SamplesPerPixel", b"\0\0"),
        ("PixelRepresentation", b"\x05\0"),
    ],
)
def test_a_tag_that_cannot_be_is_named_before_any_work(tmp_path, tag, value):
    """None of them may reach the pixels: a damaged number of frames would fill the memory."""
    tags = {"RescaleSlope": "2.000000", "RescaleIntercept": "1.000000", "NumberOfFrames": "0000000001"}
    tags["SpacingBetweenSlices"] = 2.5

    def change(ds, k):
        ds.SliceThickness = "2.000000"

    folder = dicom.series(tmp_path, np.zeros((2, 16, 16), np.int16), change=change, **tags)
    set_raw(folder / "IM001", tag, value)
    with pytest.raises(DDFMError) as error:
        read_volume(folder)
    assert "IM001" in str(error.value) and tag in str(error.value) and "DOE" not in str(error.value)


def test_more_frames_than_fragments_have_room(tmp_path):
    ds = pydicom.dcmread(dicom.public("MR_small_RLE.dcm"))
    ds.NumberOfFrames = 2147483647
    ds.save_as(tmp_path / "x.dcm")
    refused("NumberOfFrames", path=tmp_path / "x.dcm")


def test_pixels_and_transfer_syntax_that_are_not_there(tmp_path):
    def change(ds, k):
        if k:
            del ds.PixelData

    refused("PixelData", path=dicom.series(tmp_path / "a", np.zeros((2, 16, 16), np.int16), change=change))
    folder = dicom.series(tmp_path / "b", np.zeros((2, 16, 16), np.int16))
    path = folder / "IM000"
    content = path.read_bytes()
    path.write_bytes(content.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.9\0"))
    refused("IM000", "TransferSyntaxUID", path=folder)


def test_what_is_no_uid_is_neither_shown_nor_copied(tmp_path):
    name = "Doe^Jane 19700101"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")

        def change(ds, k):
            ds.SeriesInstanceUID, ds.Modality = (name, "DOE") if k else ("1.2.3.4", "MR")

        folder = dicom.series(tmp_path / "two", np.zeros((2, 16, 16), np.int16), change=change)
        text = refused("not a UID (unknown modality", "1.2.3.4 (MR", path=folder)
        tags = {"FrameOfReferenceUID": name, "StudyInstanceUID": "19700101", "SOPInstanceUID": name}
        like = read_volume(dicom.series(tmp_path / "one", np.zeros((1, 16, 16), np.int16), **tags))
    assert "Doe" not in text and "DOE" not in text
    assert "FrameOfReferenceUID is not a UID" in "".join(like.notes)
    with writing_volume(tmp_path / "x.dcm", like, color=False, origin=Origin([like], keep_patient=True)) as write:
        write(np.zeros((16, 16)))
    ds = pydicom.dcmread(tmp_path / "x.dcm")
    assert ds.FrameOfReferenceUID.is_valid and ds.StudyInstanceUID.startswith("2.25.")
    assert b"Doe" not in (tmp_path / "x.dcm").read_bytes() and not ds.SourceImageSequence


@pytest.mark.parametrize("width", [0, -80])
def test_a_window_without_width_is_told_and_not_used(tmp_path, width):
    folder = dicom.series(tmp_path, np.zeros((2, 16, 16), np.int16), WindowCenter=40, WindowWidth=width)
    volume = read_volume(folder)
    assert volume.window is None and "WindowWidth" in "".join(volume.notes)


def test_damage_where_nothing_is_read_does_not_matter(tmp_path):
    folder = dicom.series(tmp_path, np.zeros((2, 16, 16), np.int16), PatientWeight="70.000")
    set_raw(folder / "IM001", "PatientWeight", b"heavy")
    assert read_volume(folder).data().shape == (2, 16, 16)


@pytest.mark.parametrize("keep", [200, 900, -100])
def test_a_cut_file(tmp_path, keep):
    folder = dicom.series(tmp_path, np.zeros((2, 16, 16), np.int16))
    path = folder / "IM000"
    path.write_bytes(path.read_bytes()[:keep])
    refused("IM000", path=folder)


def test_public_damaged_and_other_files():
    refused("NumberOfFrames", path=dicom.public("badVR.dcm"))
    refused("damaged or cut", path=dicom.public("MR_truncated.dcm"))
    refused("DICOM without pixels", path=dicom.public("rtplan.dcm"))
    refused("without its preamble", path=dicom.public("no_meta.dcm"))
    refused("JPEG-LS", "gdcmconv", path=dicom.public("MR_small_jpeg_ls_lossless.dcm"))


def test_nothing_is_logged(tmp_path, caplog):
    """pydicom's warnings quote values; none of them gets out, nor of the messages of what fails."""

    def change(ds, k):
        ds.add_new("PatientBirthDate", "DA", "Testperson")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = dicom.series(tmp_path, np.zeros((2, 16, 16), np.int16), change=change)
    caplog.clear()
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        volume = read_volume(folder)
        with writing_volume(tmp_path / "out", volume, color=False, origin=Origin([volume], keep_patient=True)) as write:
            write(np.zeros((16, 16)))
            write(np.zeros((16, 16)))
    assert not caught and "Testperson" not in caplog.text


# --- DICOM, writing ---------------------------------------------------------------------------------


@pytest.fixture
def source(tmp_path, rng):
    samples = rng.integers(0, 1000, (4, 17, 16), dtype=np.int16)  # an odd number of pixels is padded
    return read_volume(dicom.series(tmp_path / "source", samples, StudyDate="20200101", InstitutionName="Hospital"))


@pytest.mark.parametrize(("bits", "color"), [(8, False), (16, False), (8, True)])
def test_written_series(tmp_path, source, rng, bits, color, monkeypatch):
    """Levels, place and what it says of itself, as pydicom in its strict mode reads them."""
    monkeypatch.setattr(pydicom.config.settings, "reading_validation_mode", pydicom.config.RAISE)
    wanted = rng.integers(0, 2**bits, (4, 17, 16, *((3,) if color else ())))
    write_volume(tmp_path / "out", wanted / (2**bits - 1), source, bit_depth=bits)
    files = sorted((tmp_path / "out").iterdir())
    slices = [pydicom.dcmread(path) for path in files]
    assert [path.name for path in files] == ["0001.dcm", "0002.dcm", "0003.dcm", "0004.dcm"]
    assert np.array_equal(np.stack([ds.pixel_array for ds in slices]), wanted)
    for k, ds in enumerate(slices):
        assert ds.SOPClassUID.name == "Secondary Capture Image Storage"
        assert ds.ImageType == ["DERIVED", "SECONDARY"] and "not for diagnosis" in ds.SeriesDescription
        assert ds.FrameOfReferenceUID == "1.2.3.5" and ds.InstanceNumber == k + 1
        assert ds.ImagePositionPatient == [-20.5, -30.25, 7 + 2.5 * k]
        assert (ds.PixelSpacing, ds.SliceThickness) == ([0.75, 0.5], 2)
        assert ds.BurnedInAnnotation == "NO" and "RescaleSlope" not in ds and "RescaleType" not in ds
        assert [ds[element.tag] is not None for element in ds.iterall()]  # every value converts
    assert len({ds.SOPInstanceUID for ds in slices}) == 4 and len({ds.SeriesInstanceUID for ds in slices}) == 1
    assert slices[0].SeriesInstanceUID != "1.2.3.4"


def test_simpleitk_reads_it_in_place(tmp_path, source):
    write_volume(tmp_path / "out", np.zeros((4, 17, 16)), source)
    images = []
    for folder in ("source", "out"):
        names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path / folder))
        images.append(sitk.ReadImage(names))
    a, b = images
    assert a.GetSize() == b.GetSize()
    assert np.allclose(a.GetOrigin(), b.GetOrigin()) and np.allclose(a.GetSpacing(), b.GetSpacing())
    assert np.allclose(a.GetDirection(), b.GetDirection())
    assert differences(read_volume(tmp_path / "out").geometry, source.geometry) == []


def test_no_patient_in_the_output_unless_asked(tmp_path, source):
    write_volume(tmp_path / "out", np.zeros((4, 17, 16)), source)
    for path in (tmp_path / "out").iterdir():
        content = path.read_bytes()
        assert not any(word in content for word in (b"Testperson", b"4711", b"1970", b"Hospital", b"20200101"))
        ds = pydicom.dcmread(path)
        assert ds.PatientIdentityRemoved == "YES" and ds.StudyInstanceUID != "1.2.3"
        assert ds.PatientID.startswith("ANON-") and "SourceImageSequence" not in ds


def test_the_patient_kept(tmp_path, source):
    with writing_volume(tmp_path / "out", source, color=False, origin=Origin([source], keep_patient=True)) as write:
        for _ in range(4):
            write(np.zeros((17, 16)))
    ds = pydicom.dcmread(tmp_path / "out/0003.dcm")
    assert (ds.PatientName, ds.PatientID, ds.StudyInstanceUID) == (dicom.PATIENT, "ID-4711", "1.2.3")
    assert ds.StudyDate == "20200101" and "InstitutionName" not in ds and "PatientIdentityRemoved" not in ds
    referred = ds.SourceImageSequence[0].ReferencedSOPInstanceUID
    assert referred == pydicom.dcmread(source.frames[2].path).SOPInstanceUID


def test_names_in_other_scripts_are_kept(tmp_path):
    def change(ds, k):
        ds.SpecificCharacterSet, ds.PatientName = "ISO_IR 192", "Иванов^Иван"

    like = read_volume(dicom.series(tmp_path / "a", np.zeros((1, 16, 16), np.int16), change=change))
    with writing_volume(tmp_path / "x.dcm", like, color=False, origin=Origin([like], keep_patient=True)) as write:
        write(np.zeros((16, 16)))
    assert pydicom.dcmread(tmp_path / "x.dcm").PatientName == "Иванов^Иван"


def test_burned_in_and_lossy_are_passed_on(tmp_path):
    tags = {"BurnedInAnnotation": "YES", "LossyImageCompression": "01"}
    like = read_volume(dicom.series(tmp_path / "a", np.zeros((2, 16, 16), np.int16), **tags))
    write_volume(tmp_path / "out", np.zeros((2, 16, 16)), like)
    ds = pydicom.dcmread(tmp_path / "out/0001.dcm")
    assert (ds.BurnedInAnnotation, ds.LossyImageCompression, ds.PatientIdentityRemoved) == ("YES", "01", "NO")


def test_one_slice_into_one_file(tmp_path):
    like = read_volume(dicom.public("MR_small.dcm"))
    write_volume(tmp_path / "x.dcm", np.zeros((1, 64, 64)), like)
    assert pydicom.dcmread(tmp_path / "x.dcm").ImagePositionPatient == list(like.frames[0].position)
    several = read_volume(CT_SERIES)
    with pytest.raises(DDFMError, match="one file for 5 slices"):
        write_volume(tmp_path / "y.dcm", np.zeros((5, 16, 16)), several)


def test_dicom_to_nifti_lies_where_it_lay(tmp_path, source):
    write_volume(tmp_path / "out.nii.gz", np.zeros((4, 17, 16)), source)
    assert differences(read_volume(tmp_path / "out.nii.gz").geometry, source.geometry) == []
    a = sitk.ReadImage(str(tmp_path / "out.nii.gz"))
    b = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path / "source")))
    assert np.allclose(a.GetOrigin(), b.GetOrigin(), atol=1e-4)
    assert np.allclose(a.GetDirection(), b.GetDirection())


def test_folders_that_are_replaced_and_that_are_not(tmp_path, source):
    data = np.zeros((4, 17, 16))
    (tmp_path / "empty").mkdir()
    write_volume(tmp_path / "empty", data, source)
    with pytest.raises(DDFMError, match="4 files that stay"):
        write_volume(tmp_path / "empty", data, source)
    write_volume(tmp_path / "empty", data + 1, source, overwrite=True)  # our own series may go
    assert pydicom.dcmread(tmp_path / "empty/0001.dcm").pixel_array.min() == 255
    (tmp_path / "empty" / "thesis.tex").write_text("precious")
    with pytest.raises(DDFMError, match="1 files that stay"):
        write_volume(tmp_path / "empty", data, source, overwrite=True)
    with pytest.raises(DDFMError, match="another place than a source"):
        write_volume(tmp_path / "source", data, source, overwrite=True)
    other = dicom.series(tmp_path / "other", np.zeros((2, 16, 16), np.int16))
    with pytest.raises(DDFMError, match="2 files that stay"):  # somebody's scans, whatever was allowed
        write_volume(other, data, source, overwrite=True)
    assert not [p for p in tmp_path.iterdir() if p.name.endswith(".part")]


@pytest.mark.parametrize("spoil", ["Manufacturer", "SeriesDescription", "DerivationDescription"])
def test_only_files_with_our_mark_are_replaced(tmp_path, source, spoil):
    """A Secondary Capture of another device has the same SOP class and ConversionType."""
    write_volume(tmp_path / "out", np.zeros((4, 17, 16)), source)
    ds = pydicom.dcmread(tmp_path / "out/0002.dcm")
    setattr(ds, spoil, "screenshot")
    ds.save_as(tmp_path / "out/0002.dcm")
    with pytest.raises(DDFMError, match="1 files that stay"):
        write_volume(tmp_path / "out", np.zeros((4, 17, 16)), source, overwrite=True)
    assert len(list((tmp_path / "out").iterdir())) == 4


def test_a_file_that_is_read_is_not_replaced(tmp_path):
    series = read_volume(dicom.series(tmp_path / "one", np.zeros((1, 16, 16), np.int16)))
    target = (tmp_path / "one/IM000").rename(tmp_path / "one/0001.dcm")
    before = target.read_bytes()
    for source in (tmp_path / "one", target):
        series = read_volume(source)
        for name in ("0001.dcm", "../one/0001.dcm"):
            with pytest.raises(DDFMError, match="another place than a source"):
                write_volume(tmp_path / "one" / name, np.zeros((1, 16, 16)), series, overwrite=True)
    write_volume(tmp_path / "out", np.zeros((1, 16, 16)), series)
    result = read_volume(tmp_path / "out/0001.dcm")  # ours, and a source this time
    with pytest.raises(DDFMError, match="another place than a source"):
        write_volume(tmp_path / "out", np.zeros((1, 16, 16)), result, overwrite=True)
    assert target.read_bytes() == before


def test_what_stops_leaves_nothing(tmp_path, source):
    for name in ("out", "out.nii.gz"):
        with (
            pytest.raises(KeyboardInterrupt),
            writing_volume(tmp_path / name, source, color=False, origin=Origin([source])) as write,
        ):
            write(np.zeros((17, 16)))
            raise KeyboardInterrupt
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source"]


def test_the_working_folder_is_filled_and_stays_itself(tmp_path, source, monkeypatch):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    before = here.stat().st_ino
    write_volume(".", np.zeros((4, 17, 16)), source)
    write_volume(".", np.ones((4, 17, 16)), source, overwrite=True)
    assert [p.name for p in sorted(here.iterdir())] == ["0001.dcm", "0002.dcm", "0003.dcm", "0004.dcm"]
    assert pydicom.dcmread("0004.dcm").pixel_array.min() == 255 and here.stat().st_ino == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["here", "source"]
    rename = Path.rename

    def fail(self, target):
        if self.parent != here and Path(target) == here / "0003.dcm" and self.parent.joinpath("0004.dcm").exists():
            monkeypatch.setattr(Path, "rename", rename)
            raise OSError("disk")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(DDFMError):
        write_volume(".", np.zeros((4, 17, 16)), source, overwrite=True)
    assert len(list(here.iterdir())) == 4 and pydicom.dcmread("0001.dcm").pixel_array.min() == 255
    assert sorted(p.name for p in tmp_path.iterdir()) == ["here", "source"]


def test_a_folder_comes_back_when_the_exchange_fails(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("old")
    rename = Path.rename

    def fail(self, target):
        if target == tmp_path / "out" and not (self / "old").exists():
            raise OSError("disk")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(DDFMError), writing_folder(tmp_path / "out", lambda entry: True) as part:
        (part / "new").write_text("new")
    assert [p.name for p in tmp_path.rglob("*")] == ["out", "old"]


@pytest.mark.parametrize(("module", "path"), [("nibabel", NIBABEL / "anatomical.nii"), ("pydicom", CT_SERIES)])
def test_without_the_library_the_extra_is_named(monkeypatch, module, path):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DDFMError, match=r"pip install 'ddfm\[medical\]'"):
        read_volume(path)


# --- grids ------------------------------------------------------------------------------------------


def grid(shape=(20, 18, 6), affine=AFFINE):
    return Geometry(shape, np.array(affine, float))


def test_differences_are_named():
    base = grid()
    moved, finer, turned = AFFINE.copy(), AFFINE.copy(), AFFINE.copy()
    moved[0, 3] += 1
    finer[:3, 2] *= 0.9
    turned[:3, 0] *= -1
    assert differences(base, grid(affine=AFFINE + 1e-4)) == []
    for other, word in (
        (grid((20, 18, 7)), "shape 20x18x6 and 20x18x7"),
        (grid(affine=moved), "origin (30, -40, 5) and (31, -40, 5) mm"),
        (grid(affine=finer), "spacing"),
        (grid(affine=turned), "orientation LAS and RAS"),
    ):
        assert word in "; ".join(differences(base, other))
    angle = np.radians(2)
    rotation = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    axial = np.eye(4)
    tilted = np.eye(4)
    tilted[:3, :3] = rotation
    assert "differs by 2 degrees" in "; ".join(differences(grid(affine=axial), grid(affine=tilted)))


def test_grids_that_state_no_place():
    unknown = Geometry((20, 18, 6), np.eye(4), known=False)
    a, b = (ArrayVolume(np.zeros((6, 18, 20)), g) for g in (unknown, grid()))
    assert "states no position" in check_one_grid([a, b])[0]
    with pytest.raises(DDFMError, match="shape"):
        check_one_grid([a, ArrayVolume(np.zeros((5, 18, 20)), grid((20, 18, 5)))])
    with pytest.raises(DDFMError, match="states no position"):
        regrid(a, grid())


def place(geometry):
    """Millimetres of every voxel, (K, J, I, 3)."""
    i, j, k = np.meshgrid(*map(np.arange, geometry.shape), indexing="ij")
    return (np.stack([i, j, k, np.ones_like(i)], -1) @ geometry.affine.T)[..., :3].transpose(2, 1, 0, 3)


@pytest.mark.parametrize("color", [False, True])
def test_resampling_is_exact_for_a_ramp(color):
    """Linear interpolation reproduces a linear function of space, whatever the grids: sheared, flipped or turned."""
    sheared = np.array([[0.9, 0.1, 0.2, 2], [-0.2, -1.1, 0.1, 21], [0.05, 0.1, 1.7, 1], [0, 0, 0, 1]])
    moving = Geometry((40, 38, 12), np.diag([1.2, -1.3, 2.5, 1]))
    moving.affine[:2, 3] = 5, 20
    target = Geometry((18, 17, 9), sheared)

    def ramp(geometry):
        x, y, z = np.moveaxis(place(geometry), -1, 0)
        value = 0.3 + 0.004 * x - 0.003 * y + 0.005 * z
        return np.stack([value, value / 2, 1 - value], -1) if color else 1000 * value

    found = regrid(ArrayVolume(ramp(moving), moving), target).data()
    index = np.linalg.inv(moving.affine) @ np.concatenate([place(target), np.ones((9, 17, 18, 1))], -1)[..., None]
    inside = np.all((index[..., :3, 0] >= 0) & (index[..., :3, 0] <= np.array(moving.shape) - 1), axis=-1)
    assert 0.2 < inside.mean() < 1
    assert np.allclose(found[inside], ramp(target)[inside], rtol=2e-5)
    outside = np.any((index[..., :3, 0] < -0.51) | (index[..., :3, 0] > np.array(moving.shape) - 0.49), axis=-1)
    assert np.isnan(found[outside]).all()


def test_resampling_agrees_with_simpleitk_in_space(tmp_path):
    """The same from millimetres as SimpleITK alone makes it from the files."""
    a, b = NIBABEL / "anatomical.nii", NIBABEL / "resampled_anat_moved.nii"
    expected = sitk.Resample(
        sitk.ReadImage(str(a), sitk.sitkFloat32), sitk.ReadImage(str(b)), sitk.Transform(), sitk.sitkLinear, -1.0
    )
    found = regrid(read_volume(a), read_volume(b).geometry).data()
    wanted = sitk.GetArrayFromImage(expected)
    both = np.isfinite(found) & (wanted >= 0)
    assert both.mean() > 0.9 and (np.isfinite(found) ^ (wanted >= 0)).mean() < 0.02
    assert np.allclose(found[both], wanted[both], rtol=1e-3, atol=3)


def test_holes_do_not_grow_by_resampling():
    samples = np.full((6, 18, 20), 5.0)
    samples[2, 3, 4] = np.nan
    assert np.isfinite(regrid(ArrayVolume(samples, grid()), grid()).data()).all()


def test_all_axis_codes_are_nibabels():
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            affine = np.eye(4)
            affine[:3, :3] = np.eye(3)[:, order] * signs
            assert grid(affine=affine).axes == "".join(nib.aff2axcodes(affine))
