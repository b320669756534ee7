"""The facts of brain slices in a manifest: position, intensity range and conditions.

`diffct prepare brain` writes them into the facts of each row, as

    {"plane": "axial", "slice_index": 41, "affine": [[...], ...], "volume_size": [182, 218, 182],
     "volume_affine": [[...], ...], "intensity_range": [0.0, 812.5],
     "conditions": {"FLAIR": {"image": "images/...-FLAIR.png", "intensity_range": [0.0, 540.0]}},
     "labels": "images/...-labels.png", "synthetic": true}

where `labels` and `synthetic` may be absent.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffct.data.manifest import ManifestRow
from diffct.imaging.intensity import IntensityRange
from diffct.imaging.planes import PLANES, Plane


@dataclass(frozen=True)
class ConditionImage:
    """A slice of another contrast at the same position.

    Attributes:
        image: Its path relative to the manifest's folder.
        intensity_range: The scan's intensities that became 0 and 1.
    """

    image: str
    intensity_range: IntensityRange


@dataclass(frozen=True, eq=False)
class BrainSlice:
    """The position of a slice, its conditions and its labels.

    Attributes:
        plane: The plane that the volume was turned to before it was sliced.
        slice_index: Index of the slice in the turned volume.
        affine: Maps (0, row, column, 1) of the image to RAS+ mm, float64 with shape (4, 4).
        volume_size: Voxels of the turned volume (slices, rows, columns).
        volume_affine: Maps the indices of the turned volume to RAS+ mm, float64 with shape (4, 4).
        intensity_range: The scan's intensities that became 0 and 1.
        conditions: The existing conditions, by name; at least one.
        labels: Path of the labels relative to the manifest's folder, if there are any.
        synthetic: Whether this is a phantom.
    """

    plane: Plane
    slice_index: int
    affine: np.ndarray
    volume_size: tuple[int, int, int]
    volume_affine: np.ndarray
    intensity_range: IntensityRange
    conditions: dict[str, ConditionImage]
    labels: str | None = None
    synthetic: bool = False

    @property
    def spacing_mm(self) -> tuple[float, float]:
        """Distance between neighbouring rows and between neighbouring columns, in mm."""
        row, column = np.linalg.norm(self.affine[:3, 1:3], axis=0).tolist()
        return row, column

    @classmethod
    def from_row(cls, row: ManifestRow) -> "BrainSlice":
        """Read the facts of a row.

        Args:
            row: A row of the manifest that `diffct prepare brain` writes.

        Returns:
            The slice.

        Raises:
            ValueError: A fact is missing or invalid; it is named.
        """
        facts = _Facts(row.facts, f"{row.image}: its facts in the manifest")
        plane = facts.get("plane")
        if plane not in PLANES:
            raise facts.wrong("plane", f"one of {', '.join(PLANES)}")
        index, size = facts.get("slice_index"), facts.numbers("volume_size", (3,)).tolist()
        if any(length < 1 or length != int(length) for length in size):
            raise facts.wrong("volume_size", "three positive whole numbers")
        if type(index) is not int or not 0 <= index < size[0]:
            raise facts.wrong("slice_index", f"a whole number from 0 to {size[0] - 1:g}")
        depth, height, width = map(int, size)
        return cls(
            plane=plane,
            slice_index=index,
            affine=facts.numbers("affine", (4, 4)),
            volume_size=(depth, height, width),
            volume_affine=facts.numbers("volume_affine", (4, 4)),
            intensity_range=facts.intensity_range(),
            conditions=_read_conditions(facts),
            labels=facts.path("labels") if "labels" in row.facts else None,
            synthetic=row.facts.get("synthetic") is True,
        )


@dataclass(frozen=True)
class _Facts:
    """Facts that are not checked yet, and their place in the manifest for messages."""

    values: Mapping[str, Any]
    where: str

    def get(self, key: str) -> Any:  # noqa: ANN401 (JSON may hold anything)
        """Return a required fact."""
        if key not in self.values:
            raise ValueError(
                f"{self.where} lack {key!r}. Make the manifest with diffct prepare brain."
            )
        return self.values[key]

    def wrong(self, key: str, wanted: str) -> ValueError:
        """Return the error that a fact is invalid."""
        return ValueError(f"{self.where}: {key!r} is {self.values[key]!r}; it must be {wanted}.")

    def numbers(self, key: str, shape: tuple[int, ...]) -> np.ndarray:
        """Return finite numbers of a shape as float64."""
        value = self.get(key)
        try:
            found = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise self.wrong(key, f"numbers of shape {shape}") from error
        if found.shape != shape or not np.isfinite(found).all():
            raise self.wrong(key, f"finite numbers of shape {shape}")
        return found

    def intensity_range(self) -> IntensityRange:
        """Return the fact `intensity_range`."""
        low, high = self.numbers("intensity_range", (2,)).tolist()
        if not low < high:
            raise self.wrong("intensity_range", "two numbers, low before high")
        return IntensityRange(low, high)

    def path(self, key: str) -> str:
        """Return the path of a file."""
        if not isinstance(self.get(key), str) or not self.values[key]:
            raise self.wrong(key, "the path of an image")
        return self.values[key]

    def mapping(self, key: str) -> "_Facts":
        """Return facts within a fact."""
        if not isinstance(self.get(key), dict) or not self.values[key]:
            raise self.wrong(key, "an object that is not empty")
        return _Facts(self.values[key], f"{self.where}, {key!r}")


def _read_conditions(facts: _Facts) -> dict[str, ConditionImage]:
    """Read the conditions by name."""
    conditions = facts.mapping("conditions")
    found = {name: conditions.mapping(name) for name in conditions.values}
    return {
        name: ConditionImage(own.path("image"), own.intensity_range())
        for name, own in found.items()
    }
