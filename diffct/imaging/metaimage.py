"""MetaImage files (`.mha`, `.mhd`), read with SimpleITK if it is installed.

SimpleITK silently assumes what a header leaves open: without a matrix it takes the axes for those
of the patient, and it ignores the unit of length. So files without a matrix are refused here, and
the unit is applied.
"""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import SimpleITK

METAIMAGE_ENDINGS = (".mha", ".mhd")
METAIMAGE_INSTALL = "pip install 'diffct[metaimage]'"
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
_MAX_HEADER_BYTES = 65536
_MATRIX_KEYS = {"transformmatrix", "rotation", "orientation"}
_UNIT_TO_MM = {"mm": 1.0, "cm": 10.0, "um": 0.001, "?": 1.0, "": 1.0}


def can_read_metaimage() -> bool:
    """Return whether SimpleITK is installed."""
    return importlib.util.find_spec("SimpleITK") is not None


def read_metaimage(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a MetaImage file.

    Args:
        path: A `.mha` or `.mhd` file.

    Returns:
        Its values, float32 in the file's own axis order, and its affine turned to RAS+ mm.

    Raises:
        ValueError: It is damaged, has no position, or SimpleITK is not installed.
    """
    image = _load(path)
    header = _header(path)
    if not _MATRIX_KEYS & set(header):
        raise ValueError(
            f"{path}: does not say how the patient lies: its header has no TransformMatrix. Export "
            "it again, e.g. with 3D Slicer."
        )
    unit = header.get("distanceunits", "").lower()
    if unit not in _UNIT_TO_MM:
        raise ValueError(f"{path}: its DistanceUnits are {unit!r}; accepted are mm, cm and um.")
    dimensions = image.GetDimension()
    if dimensions != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        size = (*image.GetSize(), image.GetNumberOfComponentsPerPixel())
        raise ValueError(f"{path}: its size is {size}, not one three-dimensional scan.")
    directions = np.reshape(image.GetDirection(), (3, 3)) * np.array(image.GetSpacing())
    affine = np.eye(4)
    affine[:3, :3] = _UNIT_TO_MM[unit] * _LPS_TO_RAS @ directions
    affine[:3, 3] = _UNIT_TO_MM[unit] * _LPS_TO_RAS @ image.GetOrigin()
    return _values(image).astype(np.float32), affine


def read_metaimage_values(path: Path) -> np.ndarray:
    """Read the values of a MetaImage file in its own axis order, without their position.

    Raises:
        ValueError: It is damaged, or SimpleITK is not installed.
    """
    return _values(_load(path))


def _load(path: Path) -> "SimpleITK.Image":
    """Read a file with SimpleITK."""
    try:
        import SimpleITK
    except ImportError as error:
        raise ValueError(
            f"{path}: MetaImage is read by SimpleITK, which is not installed. "
            f"{METAIMAGE_INSTALL}, or convert it to NIfTI."
        ) from error
    try:
        return SimpleITK.ReadImage(str(path), imageIO="MetaImageIO")
    except RuntimeError as error:
        raise ValueError(f"{path}: cannot be read. Copy or export the file again.") from error


def _values(image: "SimpleITK.Image") -> np.ndarray:
    """Return the values of an image with its fastest axis first."""
    import SimpleITK

    return SimpleITK.GetArrayFromImage(image).T


def _header(path: Path) -> dict[str, str]:
    """Read the lines "Key = value" before the data, keys in lower case."""
    with path.open("rb") as stream:
        text = stream.read(_MAX_HEADER_BYTES).decode("latin-1")
    header = {}
    for line in text.splitlines():
        key, _, value = line.partition("=")
        header[key.strip().lower()] = value.strip()
        if key.strip().lower() == "elementdatafile":
            break
    return header
