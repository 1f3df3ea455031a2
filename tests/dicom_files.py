"""DICOM files for tests, made with pydicom alone."""

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

CT, MR, ENHANCED_MR = (f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("2", "4", "4.1"))
PATIENT = "Sarah^Testperson"


def base(sop_class=CT, modality="CT", **tags):
    """A header without geometry and pixels; ``tags`` by keyword."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = sop_class
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = generate_uid(None)
    ds.Modality, ds.PatientName, ds.PatientID, ds.PatientBirthDate = modality, PATIENT, "ID-4711", "19700101"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = "1.2.3", "1.2.3.4", "1.2.3.5"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, 1
    for tag, value in tags.items():
        setattr(ds, tag, value)
    return ds


def put_pixels(ds, samples):
    ds.Rows, ds.Columns = samples.shape[-2:]
    ds.PixelData = np.ascontiguousarray(samples).astype(f"<u{ds.BitsAllocated // 8}").tobytes()
    return ds


def save(ds, path):
    ds.save_as(path, enforce_file_format=True)
    return path


def series(folder, samples, step=2.5, order=None, change=None, **tags):
    """Write samples (K, J, I), int16, as a series of K axial files whose names do not follow the slices.

    change: called with each dataset and its number, to spoil it; what returns False is left out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    order = order if order is not None else np.random.default_rng(0).permutation(len(samples))
    for name, k in enumerate(order):
        ds = base(**tags)
        ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        ds.ImagePositionPatient = [-20.5, -30.25, 7 + step * float(k)]
        ds.PixelSpacing, ds.SliceThickness, ds.InstanceNumber = [0.75, 0.5], 2, int(k) + 1
        put_pixels(ds, samples[k])
        if change is None or change(ds, int(k)) is not False:
            save(ds, folder / f"IM{name:03d}")
    return folder


def enhanced(path, samples, heights, slopes):
    """A multi-frame file: samples (K, J, I) int16, one height and one rescale slope for each frame."""
    ds = base(ENHANCED_MR, "MR", NumberOfFrames=len(samples))
    shared, ds.PerFrameFunctionalGroupsSequence = Dataset(), []
    plane, measures = Dataset(), Dataset()
    plane.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    measures.PixelSpacing, measures.SliceThickness = [1, 1], 3
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [plane], [measures]
    ds.SharedFunctionalGroupsSequence = [shared]
    for height, slope in zip(heights, slopes, strict=True):
        frame, place, values = Dataset(), Dataset(), Dataset()
        place.ImagePositionPatient = [0, 0, height]
        values.RescaleSlope, values.RescaleIntercept, values.RescaleType = slope, 10, "US"
        frame.PlanePositionSequence, frame.PixelValueTransformationSequence = [place], [values]
        ds.PerFrameFunctionalGroupsSequence.append(frame)
    return save(put_pixels(ds, samples), path)


def public(name):
    """The path of one of pydicom's own test files."""
    from pathlib import Path

    return Path(pydicom.__file__).parent / "data/test_files" / name
