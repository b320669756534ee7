"""Scans as arrays with physical meaning: every medical image file is read and written here.

A `Volume` states the unit of its numbers (`unit`) and the position of its voxels: its affine maps
array indices (i, j, k, 1) to millimetres in the RAS+ world of NIfTI (x to the patient's Right, y to
Anterior, z to Superior), for any order and direction of the axes. `read_stored` keeps the axes of
the file, and `write_volume` writes the axes as they are: reading and writing are inverses.

Code that needs known axes turns the volume. `upright` gives the orientation "SPL": the first axis
(depth) grows towards Superior, the second (height) towards Posterior, the third (width) towards
Left, so that `array[d]` is a radiological display (anterior up, the patient's right on the viewer's
left). `read_volume` returns a CT in this orientation. Scans are turned by swapping and flipping
axes only; the rest of an oblique orientation stays in the affine.

Every error starts with the path of the file, and no error quotes anything else that could identify
a patient.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

import nibabel
import numpy as np
from nibabel import orientations

from diffct.atomic import atomic_file
from diffct.imaging import dicom
from diffct.imaging.dicom_series import Modality, read_series
from diffct.imaging.formats import (
    NIFTI_ENDINGS,
    PAIR_HEADERS,
    PAIR_IMAGES,
    SCAN_ENDINGS,
    pair_files,
    read_scan_file,
)
from diffct.imaging.image_folder import ACCEPTED_VOLUMES as ACCEPTED
from diffct.imaging.image_folder import find_images
from diffct.imaging.label_maps import is_label_array
from diffct.imaging.nifti_space import WorldSpace

# A scan of a body includes air around it, or at least fat (-50 to -150 HU).
_FAT_BELOW_HU = -50.0
_MIN_FAT_OR_AIR = 0.001
_SHEAR_TOLERANCE = 2e-3  # cosine between two axes; 0.1 degrees
# The range of medical scanners, with a margin on both sides: a cone-beam CT of teeth has 0.08 mm,
# slices of an old series are 10 mm apart; a scan shows a tooth or the whole body. Beyond these
# bounds, the unit of length in the file is wrong.
SPACING_BOUNDS_MM = (0.05, 20.0)
_FIELD_OF_VIEW_BOUNDS_MM = (10.0, 3000.0)

Unit = Literal["HU", "a.u.", "[0, 1]", "labels"]
"""The unit of a volume's numbers: Hounsfield units; arbitrary units, as in MR and in files that do
not state a unit; intensities normalised to [0, 1]; or the numbers of labels."""
UNITS: tuple[Unit, ...] = get_args(Unit)


@dataclass(frozen=True, eq=False)
class Volume:
    """A scan: its voxels, their positions in the patient, and the unit of their numbers.

    Attributes:
        array: Real numbers with three axes, whose directions are given by the affine; labels are
            uint8.
        affine: Maps indices (i, j, k, 1) to RAS+ millimetres, float64 with shape (4, 4).
        unit: The unit of the numbers, one of `UNITS`; by default that of CT.
        space: The worlds of these millimetres: the scanner's, or a template's. Reading, turning and
            writing keep it.

    Examples:
        >>> import diffct
        >>> import numpy as np
        >>> air = np.full((16, 40, 48), -1000.0)
        >>> volume = diffct.Volume(air, affine=np.diag([8.0, 8.0, 8.0, 1.0]), unit="HU")
        >>> volume.spacing_mm, volume.orientation
        ((8.0, 8.0, 8.0), 'RAS')
    """

    array: np.ndarray
    affine: np.ndarray
    unit: Unit = "HU"
    space: WorldSpace = field(default_factory=WorldSpace)

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise ValueError(f"There is no unit {self.unit!r}; the units are {', '.join(UNITS)}.")
        dtype = self.array.dtype
        if self.unit == "labels" and dtype != np.uint8:
            raise ValueError(f"Labels are uint8, not {dtype}: convert them by astype.")
        if self.unit == "HU" and dtype.kind not in "if":
            raise ValueError(
                f"Hounsfield units have a sign, which {dtype} lacks. Give the unit of the numbers:"
                ' Volume(array, affine, unit="labels"), or "a.u." for intensities without a unit.'
            )
        if self.array.ndim != 3:
            raise ValueError(f"A volume has 3 axes, not the {self.array.ndim} of {self.size}.")
        if np.shape(self.affine) != (4, 4):
            raise ValueError(f"An affine has the shape (4, 4), not {np.shape(self.affine)}.")
        object.__setattr__(self, "affine", np.array(self.affine, dtype=np.float64))

    @property
    def size(self) -> tuple[int, ...]:
        """Number of voxels along each axis of the array."""
        return self.array.shape

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxels along each axis of the array, in mm."""
        # The diagonal would be wrong for every scan that is not parallel to the world's axes.
        first, second, third = np.linalg.norm(self.affine[:3, :3], axis=0).tolist()
        return first, second, third

    @property
    def orientation(self) -> str:
        """The directions in which the three axes grow, e.g. "SPL"."""
        return "".join(orientations.aff2axcodes(self.affine))


def canonical_affine(size: Sequence[int], spacing_mm: Sequence[float]) -> np.ndarray:
    """Return the affine of an upright grid whose centre is the world's origin.

    Args:
        size: Voxels (depth, height, width).
        spacing_mm: Voxel size (depth, height, width).

    Returns:
        The map from indices (d, h, w, 1) in orientation "SPL" to RAS+ millimetres, (4, 4).
    """
    affine = np.eye(4)
    # World rows are (R, A, S): width grows to the left, height to posterior, depth to superior.
    superior, anterior, right = affine[2], affine[1], affine[0]
    affine[:3, :3] = 0
    superior[0], anterior[1], right[2] = spacing_mm[0], -spacing_mm[1], -spacing_mm[2]
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(size) - 1) / 2)
    return affine


def read_volume(path: str | Path, *, modality: Modality | None = "CT") -> Volume:
    """Read one scan in upright orientation, by default a CT.

    Args:
        path: A `.nii`, `.nii.gz`, `.img` with `.hdr`, `.nrrd`, `.nhdr`, `.mha` or `.mhd` file; a
            folder holding exactly one DICOM series; or a multi-frame DICOM file.
        modality: Which series of a DICOM folder: "CT", "MR", or None for the only one. Other
            formats do not state their modality.

    Returns:
        The scan in orientation "SPL", with its stored values scaled by slope and intercept, and the
        unit that `read_stored` describes.

    Raises:
        FileNotFoundError: There is nothing at `path`.
        ValueError: The file is damaged or not three-dimensional, its position is missing or
            contradictory, or its size is not that of an image of a person.

    Examples:
        >>> import diffct
        >>> scan = diffct.read_volume("scan.nii.gz")
        >>> scan.array.shape, scan.unit, scan.orientation  # slices, rows, columns
        ((16, 40, 48), 'HU', 'SPL')
    """
    return upright(read_stored(path, modality=modality))


def read_stored(path: str | Path, *, modality: Modality | None = None) -> Volume:
    """Read one scan with its axes as they are stored.

    Args:
        path: As for `read_volume`.
        modality: As for `read_volume`.

    Returns:
        The scan with its axes in the order of the file (for DICOM: column, row, slice), so that
        `orientation` shows how it was stored, and `write_volume` writes it likewise. Its unit is
        "HU" for a DICOM series of CT, and for any file that is read as a CT, which
        `check_hounsfield` can check; otherwise "a.u.".

    Raises:
        FileNotFoundError: There is nothing at `path`.
        ValueError: As for `read_volume`.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such file or folder. Give {ACCEPTED}.")
    space, found = WorldSpace(), modality
    if path.name.lower().endswith(SCAN_ENDINGS) and path.is_file():
        array, affine, space = read_scan_file(path)
    elif path.is_dir() or dicom.is_dicom(path):
        array, affine, found = read_series(path, modality=modality)
    else:
        raise ValueError(f"{path}: not a known kind of scan. Give {ACCEPTED}.")
    _check_grid(array, affine, path)
    return Volume(array, affine, "HU" if found == "CT" else "a.u.", space)


def upright(volume: Volume) -> Volume:
    """Turn a volume to the orientation closest to "SPL"; see `reorient`."""
    return reorient(volume, "SPL")


def reorient(volume: Volume, codes: str) -> Volume:
    """Swap and flip the axes of a volume so that they grow in given directions.

    Args:
        volume: A volume in any orientation.
        codes: The directions of the three axes, e.g. "SPL"; oblique axes come as close as possible.

    Returns:
        The same voxels at the same positions in the world. Turning back to the volume's own
        `orientation` is the identity.
    """
    turn = orientations.ornt_transform(
        orientations.io_orientation(volume.affine), orientations.axcodes2ornt(codes)
    )
    array = orientations.apply_orientation(volume.array, turn)
    affine = volume.affine @ orientations.inv_ornt_aff(turn, volume.size)
    return replace(volume, array=np.ascontiguousarray(array), affine=affine)


def check_hounsfield(volume: Volume, path: str | Path) -> None:
    """Refuse a scan whose values cannot be Hounsfield units.

    A CT of a body includes fat or air, so at least 0.1 % of its voxels lie below -50 HU. Padding
    outside the scan circle (-2048, -3024) is accepted.

    Args:
        volume: The scan as read.
        path: Its file, for error messages.

    Raises:
        ValueError: The scan holds NaN or infinity, is constant, or is not in HU.
    """
    low, high = float(volume.array.min()), float(volume.array.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError(f"{path}: holds NaN or infinite voxels. Export it again in HU.")
    if low == high:
        raise ValueError(f"{path}: every voxel is {low:g}, so the image is empty.")
    span = f"{path}: its values ({low:g} to {high:g}) are not Hounsfield units"
    bounds = np.iinfo(np.int16)
    if low < bounds.min or high > bounds.max:
        raise ValueError(f"{span}: they do not fit 16 bits. Give a CT in HU.")
    fat_or_air = np.count_nonzero(volume.array < _FAT_BELOW_HU) / volume.array.size
    if fat_or_air >= _MIN_FAT_OR_AIR:
        return
    if is_label_array(volume.array):
        hint = "The image looks like a label map (a mask); give the CT itself."
    elif low >= -1 and high <= 1:
        hint = "The image looks normalised to [-1, 1] or [0, 1]; give the CT before that step."
    elif low >= 0 and high <= 255:
        hint = "The image looks like 8-bit gray values; give the CT before that conversion."
    elif low >= 0:
        hint = (
            "It may be an MR, or a CT stored without its rescale intercept (often -1024): add the "
            "intercept, or convert the DICOM series again."
        )
    else:
        hint = "Give a CT in HU."
    raise ValueError(
        f"{span}: a CT of a body holds air or fat, but {fat_or_air:.2%} of the voxels lie below "
        f"{_FAT_BELOW_HU:g} HU. {hint}"
    )


def write_volume(
    volume: Volume,
    path: str | Path,
    *,
    stored_as: Literal["int16", "float32"] | None = None,
    description: str = "",
) -> None:
    """Write a volume as NIfTI, atomically; `read_stored` reads back the same volume.

    Args:
        volume: The volume; the axes of the array become those of the file.
        path: The file to write, ending in `.nii` or `.nii.gz`.
        stored_as: The type of the stored numbers; None for int16 of HU, uint8 of labels, and
            float32 of intensities. For int16, numbers are rounded and clipped to its range.
        description: Text for the header, at most 79 ASCII letters, without identifiers.

    Raises:
        ValueError: The path has another ending, the volume holds NaN or infinity, or its affine is
            one that `read_stored` refuses. (The volume itself may have any size.)
        OSError: The disk is full.

    Examples:
        >>> import diffct
        >>> scan = diffct.read_volume("scan.nii.gz")
        >>> diffct.write_volume(scan, "copy.nii.gz", description="A copy")
    """
    path = Path(path)
    if not path.name.lower().endswith(NIFTI_ENDINGS):
        raise ValueError(f"{path}: a NIfTI file ends in .nii or .nii.gz.")
    _check_affine(volume.affine, path)
    if not np.isfinite(volume.array).all():
        raise ValueError(f"{path}: not written, since the volume holds NaN or infinity.")
    dtype = np.dtype(stored_as or {"HU": "int16", "labels": "uint8"}.get(volume.unit, "float32"))
    stored = volume.array
    if dtype.kind in "iu" and stored.dtype != dtype:
        bounds = np.iinfo(dtype)
        stored = np.rint(stored.clip(bounds.min, bounds.max))
    image = nibabel.Nifti1Image(stored.astype(dtype), volume.affine)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = description.encode("ascii")
    # Usually the qform is the same matrix, for readers that use only the qform.
    affine, space = image.affine.copy(), volume.space
    image.set_qform(space.to_qform @ affine, code=space.qform_code)
    image.set_sform(affine, code=space.sform_code)
    with atomic_file(path) as partial:
        nibabel.save(image, partial)


def check_spacing_mm(spacing_mm: Sequence[float], axes: str) -> None:
    """Refuse a spacing that is impossible for an image of a person, and could not be written.

    Args:
        spacing_mm: A length for each axis.
        axes: The names of these axes, e.g. "depth, height, width".

    Raises:
        ValueError: The number of lengths is wrong, or one is NaN or out of bounds.
    """
    low, high = SPACING_BOUNDS_MM
    number = len(axes.split(", "))
    if len(spacing_mm) != number or not all(low <= length <= high for length in spacing_mm):
        raise ValueError(
            f"spacing_mm is {list(spacing_mm)}; give {number} lengths ({axes}) from {low:g} to"
            f" {high:g} mm."
        )


def find_scans(folder: str | Path) -> list[Path]:
    """Find every scan in a folder and the folders below it; see `image_folder.find_images`."""
    return list(find_images(folder, kind="volumes").images)


def source_files(path: Path) -> list[Path]:
    """List all files that a scan depends on.

    Args:
        path: A scan, as found by `find_scans`.

    Returns:
        The file itself; both files of a NIfTI pair; for a DICOM folder, and for a `.nhdr` or
        `.mhd` header whose data lie in other files beside it, every visible file of the folder.
    """
    name = path.name.lower()
    if path.is_dir() or name.endswith((".nhdr", ".mhd")):
        return dicom.visible_files(path if path.is_dir() else path.parent)
    if name.endswith((*PAIR_IMAGES, *PAIR_HEADERS)):
        return pair_files(path)
    return [path]


def _check_grid(array: np.ndarray, affine: np.ndarray, path: Path) -> None:
    """Refuse an array that is not a three-dimensional, rectangular grid of a person's size."""
    if array.ndim != 3:
        raise ValueError(
            f"{path}: has {array.ndim} axes {array.shape}. Give one three-dimensional scan a file."
        )
    if min(array.shape) < 2:
        raise ValueError(f"{path}: is a 2D image {array.shape}. Give a scan of several slices.")
    extents = _check_affine(affine, path) * array.shape
    _check_bounds("field of view", extents.max(keepdims=True), _FIELD_OF_VIEW_BOUNDS_MM, path)


def _check_affine(affine: np.ndarray, path: Path) -> np.ndarray:
    """Return the spacing of an affine; refuse a missing or impossible spacing, and shear."""
    columns = affine[:3, :3]
    spacing = np.linalg.norm(columns, axis=0)
    if not np.isfinite(affine).all() or (spacing < 1e-6).any():
        raise ValueError(f"{path}: its affine is not usable: {affine.tolist()}. Export it again.")
    _check_bounds("spacing", spacing, SPACING_BOUNDS_MM, path)
    cosines = (columns / spacing).T @ (columns / spacing) - np.eye(3)
    if np.abs(cosines).max() > _SHEAR_TOLERANCE:
        raise ValueError(
            f"{path}: its axes are not at right angles (as after a gantry tilt). Resample it to a "
            "rectangular grid, e.g. with dcm2niix or 3D Slicer."
        )
    return spacing


def _check_bounds(name: str, lengths: np.ndarray, bounds: tuple[float, float], path: Path) -> None:
    """Refuse lengths that are too small or too large for an image of a person."""
    low, high = bounds
    if lengths.min() < low or lengths.max() > high:
        words = " x ".join(f"{mm:.4g}" for mm in lengths)
        raise ValueError(
            f"{path}: its {name} is {words} mm, but images of people have {low:g} to {high:g} mm."
            " Its unit of length or its spacing is wrong: set it right in the header, or convert"
            " the scan again."
        )
