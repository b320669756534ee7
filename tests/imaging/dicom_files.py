"""DICOM series written slice by slice, and scans with all slices as frames of one file."""

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

NAME = "Doe^Jane"
AXIAL = ((1.0, 0, 0), (0, 1.0, 0))
# A gentle tilt of the whole patient: still two unit vectors at right angles.
OBLIQUE = ((0.8, 0.6, 0), (-0.48, 0.64, 0.6))
CORONAL = ((1.0, 0, 0), (0, 0, -1.0))


def stored_values() -> np.ndarray:
    """Nine slices of 12 rows and 10 columns, different everywhere, as unsigned CT values."""
    return np.random.default_rng(0).integers(0, 3000, (9, 12, 10)).astype(np.uint16)


def write_slice(file: Path, stored: np.ndarray, position, *, series="1.2.3", axes=AXIAL, **tags):
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = tags.get("SOPClassUID", CTImageStorage)
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(file), {}, file_meta=meta, preamble=b"\0" * 128)
    values = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "Modality": "CT",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "SeriesInstanceUID": series,
        "PatientName": NAME,
        "PatientID": "ID-7",
        "ImagePositionPatient": [float(f"{x:.9g}") for x in position],
        "ImageOrientationPatient": [*axes[0], *axes[1]],
        "PixelSpacing": [1.5, 2.0],  # between rows, between columns
        "Rows": stored.shape[0],
        "Columns": stored.shape[1],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
        "RescaleSlope": 1,
        "RescaleIntercept": -1024,
        "PixelData": stored.astype("<u2").tobytes(),
    } | tags
    for tag, value in values.items():
        if value is not None:
            setattr(dataset, tag, value)
    file.parent.mkdir(exist_ok=True)
    dataset.save_as(file, enforce_file_format=True)


def write_series(
    folder: Path, *, gap=4.0, axes=AXIAL, heights=None, step=None, values=None, **tags
) -> Path:
    """Write slices that step along the normal, under names that say nothing of their order."""
    normal = np.cross(*axes)
    step = gap * normal if step is None else np.asarray(step)
    heights = np.arange(9) if heights is None else heights
    values = stored_values() if values is None else values
    for index, height in enumerate(heights):
        name = f"{(index * 5) % 9}-{index}.dcm"
        position = np.array([-15.0, -20, 100]) + height * step
        write_slice(folder / name, values[index], position, axes=axes, **tags)
    return folder


MR = {
    "SOPClassUID": MRImageStorage,
    "Modality": "MR",
    "RescaleSlope": None,
    "RescaleIntercept": None,
}
"""Tags of a slice of magnetic resonance, which has no rescale."""


def _item(**tags: object) -> pydicom.Dataset:
    item = pydicom.Dataset()
    for tag, value in tags.items():
        setattr(item, tag, value)
    return item


def write_frames(file: Path, frames: int = 9, *, kind, shared_rescale=True, axes=AXIAL, **tags):
    """Write a multi-frame file; slices of 4 mm are shuffled, as their positions say."""
    order = np.random.default_rng(1).permutation(frames)
    stored = stored_values()[order]
    item_of = {
        "PixelMeasuresSequence": _item(PixelSpacing=[1.5, 2.0], SliceThickness=4),
        "PlaneOrientationSequence": _item(ImageOrientationPatient=[*axes[0], *axes[1]]),
    }
    rescale = _item(RescaleSlope=1, RescaleIntercept=-1024, RescaleType="HU")
    if shared_rescale:
        item_of["PixelValueTransformationSequence"] = rescale
    shared = _item(**{group: Sequence([item]) for group, item in item_of.items()})
    own = []
    for index in order:
        position = np.array([-15.0, -20, 100]) + index * 4 * np.cross(*axes)
        place = _item(ImagePositionPatient=[float(f"{x:.9g}") for x in position])
        own.append(_item(PlanePositionSequence=Sequence([place])))
    values = {
        "SOPClassUID": kind,
        "ImagePositionPatient": None,
        "ImageOrientationPatient": None,
        "PixelSpacing": None,
        "RescaleSlope": None,
        "RescaleIntercept": None,
        "Rows": 12,
        "Columns": 10,
        "NumberOfFrames": frames,
        "SharedFunctionalGroupsSequence": Sequence([shared]),
        "PerFrameFunctionalGroupsSequence": Sequence(own),
    }
    write_slice(file, stored, (0, 0, 0), **values | tags)


def strip_preamble(file: Path) -> None:
    """Write a file anew without preamble and meta header, as some archives export it."""
    dataset = pydicom.dcmread(file)
    dataset.preamble, dataset.file_meta = None, FileMetaDataset()
    pydicom.dcmwrite(file, dataset, implicit_vr=True, little_endian=True, enforce_file_format=False)
