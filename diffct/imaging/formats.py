"""NIfTI, NRRD and MetaImage files as arrays with an affine, in the axis order of the file."""

import zlib
from pathlib import Path

import nibabel
import nrrd
import numpy as np
from nibabel.arrayproxy import ArrayProxy
from nibabel.dataobj_images import DataobjImage

from diffct.imaging.metaimage import METAIMAGE_ENDINGS, read_metaimage, read_metaimage_values
from diffct.imaging.nifti_space import WorldSpace, nifti_space

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
"""Endings of NIfTI in one file, which is also written."""
PAIR_IMAGES = (".img", ".img.gz")
PAIR_HEADERS = (".hdr", ".hdr.gz")
"""Endings of NIfTI in two files."""
NRRD_ENDINGS = (".nrrd", ".nhdr")
UNREAD_ENDINGS = (".mgz", ".mgh", ".mnc", ".par", ".rec", ".vtk", ".vti", ".gipl", ".mif")
"""Endings of scans that are not read, but named in messages."""

_NIBABEL_ENDINGS = (*NIFTI_ENDINGS, *PAIR_IMAGES, *PAIR_HEADERS)
SCAN_ENDINGS = (*_NIBABEL_ENDINGS, *NRRD_ENDINGS, *METAIMAGE_ENDINGS)
"""Endings of all files that `read_scan_file` reads."""

_FIRST_SLICES = 4
_UNIT_TO_MM = {"meter": 1000.0, "mm": 1.0, "micron": 0.001, "unknown": 1.0}
_NRRD_UNIT_TO_MM = {
    **dict.fromkeys(("mm", "millimeter", "millimeters", "millimetre", "millimetres", ""), 1.0),
    **dict.fromkeys(("um", "µm", "μm", "micron", "microns", "micrometer", "micrometre"), 0.001),
    **dict.fromkeys(("cm", "centimeter", "centimeters", "centimetre", "centimetres"), 10.0),
    **dict.fromkeys(("m", "meter", "meters", "metre", "metres"), 1000.0),
    **dict.fromkeys(("in", "inch", "inches"), 25.4),
}
_NRRD_SPACE_TO_RAS = {
    "right-anterior-superior": (1, 1, 1),
    "ras": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1),
    "las": (-1, 1, 1),
    "left-posterior-superior": (-1, -1, 1),
    "lps": (-1, -1, 1),
}


def read_scan_file(path: Path) -> tuple[np.ndarray, np.ndarray, WorldSpace]:
    """Read a file by the reader of its ending.

    Args:
        path: Ends in one of `SCAN_ENDINGS`.

    Returns:
        Its values, float32 in the file's own axis order, its affine in RAS+ mm, and the worlds that
        the affine leads to.

    Raises:
        ValueError: It is damaged, has no position, or needs a package that is not installed.
    """
    if _ends(path, _NIBABEL_ENDINGS):
        return read_nifti(path)
    read = read_nrrd if _ends(path, NRRD_ENDINGS) else read_metaimage
    return *read(path), WorldSpace()


def read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray, WorldSpace]:
    """Read a NIfTI file.

    Args:
        path: A `.nii` or `.nii.gz` file, or one of a pair of `.img` and `.hdr`.

    Returns:
        Its values, scaled by slope and intercept, float32 in the file's own axis order, its
        affine in RAS+ mm, and the worlds that the affine leads to.

    Raises:
        ValueError: It is damaged, has no position, or contradicts itself.
    """
    try:
        image = nibabel.load(path)
        if isinstance(image, nibabel.AnalyzeImage) and not isinstance(image, nibabel.Nifti1Pair):
            raise ValueError(
                "it is an Analyze file, which knows neither left nor right: convert the original "
                "DICOM to NIfTI"
            )
        if not isinstance(image, nibabel.Nifti1Pair):
            raise ValueError("it holds no image")
        scaled = image.dataobj
        if not isinstance(scaled, ArrayProxy):
            raise ValueError("it holds no image")
        # Scaled here in float32: nibabel would make a float64 copy, 600 MB for 512x512x300.
        stored = _numbers(np.asanyarray(scaled.get_unscaled()))
        slope, intercept = scaled.slope, scaled.inter
        unit_mm = _nifti_unit_mm(image.header)
        pixdim = _stored_pixdim(image)
        image.header.get_qform(coded=True)  # raises if the quaternion is not a rotation
    except _DAMAGE as error:
        raise _unreadable(path, error) from error
    affine, space = nifti_space(image.header, pixdim, path, unit_mm=unit_mm)
    array = _drop_trailing_single_axes(stored).astype(np.float32)
    if (slope, intercept) != (1.0, 0.0):
        array *= np.float32(slope)
        array += np.float32(intercept)
    return array, affine, space


def read_nrrd(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read an NRRD file.

    Args:
        path: A `.nrrd` or `.nhdr` file.

    Returns:
        Its values, float32 in the file's own axis order, and its affine turned to RAS+ mm.

    Raises:
        ValueError: It is damaged, or has no position.
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
    space = str(header["space"]).lower().strip()
    if space not in _NRRD_SPACE_TO_RAS:
        known = ", ".join(name for name in _NRRD_SPACE_TO_RAS if "-" in name)
        raise ValueError(f"{path}: its space is {space!r}; accepted are {known}.")
    directions = np.asarray(header["space directions"], dtype=np.float64)
    origin = np.asarray(header["space origin"], dtype=np.float64)
    if directions.shape != (array.ndim, 3) or origin.shape != (3,):
        raise ValueError(f"{path}: its space is not three-dimensional. Export it again.")
    # Axes that are not spatial (time, components) have the direction "none", read as NaN.
    elsewhere = np.flatnonzero(np.isnan(directions).any(axis=1))
    if any(array.shape[axis] != 1 for axis in elsewhere) or array.ndim - len(elsewhere) != 3:
        raise ValueError(f"{path}: its size is {array.shape}, not one three-dimensional scan.")
    to_ras = np.diag(_NRRD_SPACE_TO_RAS[space]) * _nrrd_unit_mm(header, elsewhere, path)
    affine = np.eye(4)
    affine[:3, :3] = to_ras @ np.delete(directions, elsewhere, axis=0).T
    affine[:3, 3] = to_ras @ origin
    return array.squeeze(tuple(elsewhere)).astype(np.float32), affine


def read_first_slices(path: Path) -> np.ndarray:
    """Read a few slices at the beginning of a file, to find out what it holds.

    Args:
        path: Ends in one of `SCAN_ENDINGS`; only NIfTI can be read in part.

    Returns:
        Scaled values in the file's own axis order.

    Raises:
        ValueError: The file is damaged.
    """
    if not _ends(path, _NIBABEL_ENDINGS):
        return read_stored_values(path)
    try:
        return _numbers(np.asanyarray(_load(path).dataobj[..., :_FIRST_SLICES]))
    except _DAMAGE as error:
        raise _unreadable(path, error) from error


def read_stored_values(path: Path) -> np.ndarray:
    """Read the values of a file, without their position in space.

    Args:
        path: Ends in one of `SCAN_ENDINGS`.

    Returns:
        Scaled values in the file's own axis order.

    Raises:
        ValueError: The file is damaged.
    """
    try:
        if _ends(path, _NIBABEL_ENDINGS):
            return _numbers(np.asanyarray(_load(path).dataobj))
        if _ends(path, METAIMAGE_ENDINGS):
            return _numbers(read_metaimage_values(path))
        return _numbers(nrrd.read(str(path))[0])
    except _DAMAGE as error:
        raise _unreadable(path, error) from error


def read_description(path: Path) -> str:
    """Read the description in the header of a NIfTI file; "" for other and damaged files."""
    if not _ends(path, NIFTI_ENDINGS):
        return ""
    try:
        image = nibabel.load(path)
        if not isinstance(image, nibabel.Nifti1Pair):
            return ""
        return image.header["descrip"].item().decode("ascii", errors="replace")
    except _DAMAGE:
        return ""


def _load(path: Path) -> DataobjImage:
    """Open a file with nibabel; its values are read on access."""
    image = nibabel.load(path)
    if not isinstance(image, DataobjImage):
        raise ValueError("it holds no image")
    return image


def pair_files(path: Path) -> list[Path]:
    """List the existing files of a NIfTI pair, given either of them."""
    stem = path.name.lower().removesuffix(".gz").rpartition(".")[0]
    names = {stem + ending for ending in (*PAIR_IMAGES, *PAIR_HEADERS)}
    return sorted(file for file in path.parent.iterdir() if file.name.lower() in names)


def _ends(path: Path, endings: tuple[str, ...]) -> bool:
    return path.name.lower().endswith(endings)


def _stored_pixdim(image: nibabel.Nifti1Pair) -> np.ndarray:
    """Read the spacing in a NIfTI header as it is stored: nibabel replaces 0 by 1."""
    holder = image.file_map.get("header", image.file_map["image"])
    with holder.get_prepare_fileobj("rb") as stream:
        header = image.header_class.from_fileobj(stream, check=False)
    return np.abs(header["pixdim"][1:4].astype(np.float64))


def _nifti_unit_mm(header: nibabel.Nifti1Header) -> float:
    """Return the unit of length that a NIfTI header states, in mm."""
    code = int(header["xyzt_units"]) % 8
    try:
        return _UNIT_TO_MM[header.get_xyzt_units()[0]]
    except KeyError as error:
        raise ValueError(f"its unit of length has the unknown code {code}") from error


def _nrrd_unit_mm(header: dict, elsewhere: np.ndarray, path: Path) -> float:
    """Return the unit of length that an NRRD header states, in mm.

    Args:
        header: As pynrrd reads it.
        elsewhere: Axes that are not spatial.
        path: The file, named in errors.
    """
    field = "space units" if "space units" in header else "units"
    stated = [str(unit).strip().strip('"') for unit in header.get(field, ())]
    if field == "units":
        stated = [unit for axis, unit in enumerate(stated) if axis not in elsewhere]
    if not stated:
        return 1.0
    units = [_NRRD_UNIT_TO_MM[unit.lower()] for unit in stated if unit.lower() in _NRRD_UNIT_TO_MM]
    if len(units) != len(stated) or len(set(units)) != 1:
        known = ", ".join(unit for unit in _NRRD_UNIT_TO_MM if len(unit) == 2)
        raise ValueError(
            f"{path}: its {field} are {stated}; accepted is one of {known}, m and inches for all "
            "axes. Export it again, e.g. with 3D Slicer."
        )
    return units[0]


def _numbers(stored: np.ndarray) -> np.ndarray:
    """Return an array of real numbers; refuse colours and complex values."""
    if stored.dtype.kind not in "iuf":
        raise ValueError(f"its voxels are {stored.dtype}, not single real numbers")
    return stored


def _drop_trailing_single_axes(array: np.ndarray) -> np.ndarray:
    """Return a (w, h, d, 1) array as (w, h, d): converters often add an axis for time."""
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    return array


def _unreadable(path: Path, error: BaseException) -> ValueError:
    """Return the error that a file is damaged, with the reader's reason."""
    if isinstance(error, FileNotFoundError) and path.exists():  # nibabel knows .nii, .NII
        return ValueError(
            f"{path}: cannot be read by this name: write its ending in small letters."
        )
    return ValueError(f"{path}: cannot be read ({error}). Copy or export the file again.")
