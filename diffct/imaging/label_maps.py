"""The distinction of label maps from images.

A label map assigns each voxel to a structure. It holds few different whole numbers, none below -1
(which marks unlabelled voxels), and most neighbours are equal. CT has air far below zero and noise;
MR and 8-bit exports have noise. In smooth images most neighbours are equal, too, but those that
differ have adjacent values, unlike in maps of many labels.
"""

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from diffct.imaging.formats import read_first_slices, read_stored_values

MAX_LABELS = 256
_MIN_AGREEMENT = 0.5  # of neighbouring voxels that are both labelled
_FEW_LABELS = 32  # may be numbered in their anatomical order, as vertebrae are
_SMALL_STEP = 2  # in smooth 8-bit images, most neighbours that differ do so by at most this
_LARGE_AREAS = 0.95  # of neighbouring voxels are equal in maps of many labels


def is_label_array(array: np.ndarray) -> bool:
    """Return whether an array is a label map.

    Args:
        array: Of any shape. One that is zero everywhere counts as an empty label map.
    """
    if not _may_be_labels(array):
        return False
    agreeing = pairs = small_steps = 0
    for axis in range(array.ndim):
        first, second = array.swapaxes(0, axis)[:-1], array.swapaxes(0, axis)[1:]
        both = (first > 0) & (second > 0)
        pairs += int(np.count_nonzero(both))
        agreeing += int(np.count_nonzero(both & (first == second)))
        # Differences of unsigned numbers would wrap, so the smaller is taken from the larger.
        apart = np.maximum(first, second) - np.minimum(first, second)
        small_steps += int(np.count_nonzero(both & (apart <= _SMALL_STEP)))
    if agreeing < _MIN_AGREEMENT * pairs:
        return False
    smooth = 2 * (small_steps - agreeing) > pairs - agreeing
    if not smooth or agreeing >= _LARGE_AREAS * pairs:
        return True
    return len(np.unique(array)) <= _FEW_LABELS


def is_label_volume(path: Path, *, empty: bool = True) -> bool:
    """Return whether the file of a scan is a label map; damaged files are not.

    Most scans are recognised by their first slices, so that only label maps are read completely
    (in NIfTI). The files that 3D Slicer names `.seg.nrrd` are always label maps.

    Args:
        path: The file.
        empty: Whether a volume of one value may be a label map.
    """
    if path.name.lower().endswith(".seg.nrrd"):
        return True
    try:
        if not _may_be_labels(read_first_slices(path)):
            return False
        values = read_stored_values(path)
        return (empty or values.min() < values.max()) and is_label_array(values)
    except ValueError:
        return False  # reading the scan reports what is wrong with it


def is_label_picture(path: Path) -> bool:
    """Return whether a PNG or TIFF file is a label map; one of a single value counts as an image.

    Lossy formats cannot hold labels.
    """
    try:
        with Image.open(path, formats=["PNG", "TIFF"]) as image:
            if image.mode not in ("1", "L", "P", "I", "I;16"):
                return False
            array = np.asarray(image)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError):
        return False
    return array.ndim == 2 and array.min() < array.max() and is_label_array(array.astype(int))


def _may_be_labels(array: np.ndarray) -> bool:
    """Return whether an array holds few different whole numbers, none below -1."""
    if array.size == 0 or not np.isfinite(array).all() or array.min() < -1:
        return False
    if array.dtype.kind == "f" and (array != np.rint(array)).any():
        return False
    return len(np.unique(array)) <= MAX_LABELS
