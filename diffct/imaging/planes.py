"""The anatomical planes."""

from typing import Literal, get_args

Plane = Literal["axial", "coronal", "sagittal"]
PLANES: tuple[Plane, ...] = get_args(Plane)
"""Planes in the order of the axes of an upright volume (depth, height, width) that cross them."""
