"""The anatomical planes."""

from typing import Literal, get_args

Plane = Literal["axial", "coronal", "sagittal"]
PLANES: tuple[Plane, ...] = get_args(Plane)
"""Planes by the axis of an upright volume (depth, height, width) that crosses them."""
