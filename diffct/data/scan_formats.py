"""NIfTI and NRRD files as arrays with an affine, in the axis order of the file."""

import zlib
from pathlib import Path

import nibabel
import nrrd
import numpy as np

# What nibabel, pynrrd, gzip and numpy raise on damaged files (OSError includes bad gzip data).
_DAMAGE = (
    nibabel.filebasedimages.ImageFileError,
    nibabel.spatialimages.HeaderDataError,
    nrrd.NRRDError,
    OSError,
    EOFError,
    zlib.error,
    ValueError,
    KeyError,
    OverflowError,
    StopIteration,  # pynrrd, on an empty file
)
NIFTI_ENDINGS = (".nii", ".nii.gz")
NRRD_ENDINGS = (".nrrd", ".nhdr")
UNREAD_ENDINGS = (".mha", ".mhd", ".hdr", ".img", ".img.gz", ".mgz", ".mgh", ".mnc", ".par", ".rec")
"""Of scans that are not read, but named where they are found."""

_FIRST_SLICES = 4
_UNIT_TO_MM = {"meter": 1000.0, "mm": 1.0, "micron": 0.001, "unknown": 1.0}
_NRRD_SPACE_TO_RAS = {
    "right-anterior-superior": (1, 1, 1),
    "ras": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1),
    "las": (-1, 1, 1),
    "left-posterior-superior": (-1, -1, 1),
    "lps": (-1, -1, 1),
}


def read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a NIfTI file.

    Args:
        path: A `.nii` or `.nii.gz` file.

    Returns:
        Its values, scaled by slope and intercept, float32 in the file's own axis order, and its
        affine in RAS+ mm.

    Raises:
        ValueError: It is damaged, or does not say where it lies.
    """
    try:
        image = nibabel.load(path)
        if not isinstance(image, nibabel.Nifti1Image):
            raise ValueError("it holds no image")
        # Scaled here in float32: nibabel would make a float64 copy, 600 MB for 512x512x300.
        stored = _numbers(np.asanyarray(image.dataobj.get_unscaled()))
        slope, intercept = image.dataobj.slope, image.dataobj.inter
        unit_mm = _UNIT_TO_MM[image.header.get_xyzt_units()[0]]
    except _DAMAGE as error:
        raise _unreadable(path, error) from error
    if image.header["qform_code"] == 0 and image.header["sform_code"] == 0:
        # The standard then knows neither left nor right, and readers disagree in their guess.
        raise ValueError(
            f"{path}: does not say how the patient lies (qform_code and sform_code are both 0). "
            "Convert it again from DICOM, or set the affine with nibabel if you know it."
        )
    array = _drop_trailing_single_axes(stored).astype(np.float32)
    if (slope, intercept) != (1.0, 0.0):
        array *= np.float32(slope)
        array += np.float32(intercept)
    return array, np.diag([unit_mm, unit_mm, unit_mm, 1.0]) @ image.affine


def read_nrrd(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read an NRRD file.

    Args:
        path: A `.nrrd` or `.nhdr` file.

    Returns:
        Its values, float32 in the file's own axis order, and its affine turned to RAS+ mm.

    Raises:
        ValueError: It is damaged, or does not say where it lies.
    """
    try:
        array, header = nrrd.read(str(path))
        array = _numbers(array)
    except _DAMAGE as error:
        raise _unreadable(path, error) from error
    missing = [f for f in ("space", "space directions", "space origin") if f not in header]
    if missing:
        raise ValueError(
            f"{path}: does not say how the patient lies: {', '.join(missing)} missing in its "
            "header. Export it again, e.g. with 3D Slicer."
        )
    space = str(header["space"]).lower()
    if space not in _NRRD_SPACE_TO_RAS:
        known = ", ".join(name for name in _NRRD_SPACE_TO_RAS if "-" in name)
        raise ValueError(f"{path}: its space is {space!r}; accepted are {known}.")
    directions = np.asarray(header["space directions"], dtype=np.float64)
    origin = np.asarray(header["space origin"], dtype=np.float64)
    if directions.shape != (array.ndim, 3) or origin.shape != (3,):
        raise ValueError(f"{path}: its space is not three-dimensional. Export it again.")
    # Axes that are no direction in space (time, components) have "none" there, read as NaN.
    elsewhere = np.flatnonzero(np.isnan(directions).any(axis=1))
    if any(array.shape[axis] != 1 for axis in elsewhere) or array.ndim - len(elsewhere) != 3:
        raise ValueError(f"{path}: its size is {array.shape}, not one three-dimensional scan.")
    to_ras = np.diag(_NRRD_SPACE_TO_RAS[space])
    affine = np.eye(4)
    affine[:3, :3] = to_ras @ np.delete(directions, elsewhere, axis=0).T
    affine[:3, 3] = to_ras @ origin
    return array.squeeze(tuple(elsewhere)).astype(np.float32), affine


def read_first_slices(path: Path) -> np.ndarray:
    """Read a few slices at the beginning of a file, to tell what it holds.

    Args:
        path: A NIfTI or NRRD file; an NRRD file is read whole, since it cannot be read in part.

    Returns:
        Scaled values in the file's own axis order.

    Raises:
        ValueError: The file is damaged.
    """
    if not path.name.lower().endswith(NIFTI_ENDINGS):
        return read_stored_values(path)
    try:
        image = nibabel.load(path)
        return _numbers(np.asanyarray(image.dataobj[..., :_FIRST_SLICES]))
    except _DAMAGE as error:
        raise _unreadable(path, error) from error


def read_stored_values(path: Path) -> np.ndarray:
    """Read the values of a file, wherever they lie in space.

    Args:
        path: A NIfTI or NRRD file.

    Returns:
        Scaled values in the file's own axis order.

    Raises:
        ValueError: The file is damaged.
    """
    try:
        if path.name.lower().endswith(NIFTI_ENDINGS):
            return _numbers(np.asanyarray(nibabel.load(path).dataobj))
        return _numbers(nrrd.read(str(path))[0])
    except _DAMAGE as error:
        raise _unreadable(path, error) from error


def _numbers(stored: np.ndarray) -> np.ndarray:
    """Pass an array of real numbers; refuse colours and complex values."""
    if stored.dtype.kind not in "iuf":
        raise ValueError(f"its voxels are {stored.dtype}, not single real numbers")
    return stored


def _drop_trailing_single_axes(array: np.ndarray) -> np.ndarray:
    """Take a (w, h, d, 1) array as (w, h, d): converters like to add an axis for time."""
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    return array


def _unreadable(path: Path, error: BaseException) -> ValueError:
    """Say that a file is damaged, and why the reader thinks so."""
    return ValueError(f"{path}: cannot be read ({error}). Copy or export the file again.")
