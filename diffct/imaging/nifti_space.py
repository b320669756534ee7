"""The position of a NIfTI file's voxels, which its header states in up to three ways.

The *sform* is a whole affine, the *qform* a rotation, and *pixdim* the spacing. The codes of sform
and qform name the world that each leads to; 0 means that it is not set. If both have the same code,
they describe the same position and must agree. With different codes they may differ (a scan that
was registered to a template keeps its position in the scanner), but must not exchange left and
right.

Source: the NIfTI-1 standard, nifti1.h, "3D image (volume) orientation and location in space".
"""

from dataclasses import dataclass, field
from pathlib import Path

import nibabel
import numpy as np

_TEMPLATES = (3, 4, 5)  # Talairach, MNI152, other: a registration to them may scale
_MAX_SCALING = 1.5  # of a head to a template
_SPACING_TOLERANCE = 0.01  # headers round
_DIRECTION_TOLERANCE = 5e-3  # a quaternion in float32 loses about 1e-3
_SHEAR_TOLERANCE = 2e-3


@dataclass(frozen=True, eq=False)
class WorldSpace:
    """The worlds that the affine of a scan leads to.

    Attributes:
        sform_code: Code of the sform, which is the affine: 0 not set, 1 scanner, 2 aligned with
            another scan, 3 Talairach, 4 MNI152, 5 another template.
        qform_code: Code of the qform, which is the affine if the sform is not set.
        to_qform: The transform from the world of the affine to that of the qform, (4, 4).
    """

    sform_code: int = 1
    qform_code: int = 1
    to_qform: np.ndarray = field(default_factory=lambda: np.eye(4))


def nifti_space(
    header: nibabel.Nifti1Header, pixdim: np.ndarray, path: Path, *, unit_mm: float = 1.0
) -> tuple[np.ndarray, WorldSpace]:
    """Read the position of the voxels of a NIfTI file.

    Args:
        header: Its header.
        pixdim: The spacing as it is stored, (3,); 0 means that it is not set.
        path: The file, for error messages.
        unit_mm: Its unit of length.

    Returns:
        The affine in RAS+ mm, and the worlds that it leads to.

    Raises:
        ValueError: The header has no position, or contradicts itself.
    """
    sform_code, qform_code = int(header["sform_code"]), int(header["qform_code"])
    if sform_code == 0 and qform_code == 0:
        # Left and right are then undefined in the standard, and readers guess differently.
        raise ValueError(
            f"{path}: does not say how the patient lies (qform_code and sform_code are both 0). "
            "Convert it again from DICOM, or set the affine with nibabel if you know it."
        )
    if qform_code and not (np.isfinite(pixdim).all() and pixdim.all()):
        raise ValueError(
            f"{path}: its pixdim {pixdim.tolist()} holds no spacing, which its qform (code "
            f"{qform_code}) needs. Convert it again from DICOM."
        )
    sform = header.get_sform() if sform_code else None
    qform = header.get_qform() if qform_code else None
    for name, form in (("sform", sform), ("qform", qform)):
        if form is not None and not np.isfinite(form).all():
            raise ValueError(
                f"{path}: its {name} holds NaN or infinity. Convert it again from DICOM, or set it"
                " right with nibabel."
            )
    if sform is not None and np.linalg.det(sform[:3, :3]) != 0:
        problem = _contradiction(sform, qform, pixdim, (sform_code, qform_code), header)
        if problem:
            raise ValueError(
                f"{path}: its header contradicts itself: {problem}. Convert it again from DICOM, "
                "or set the wrong one right with nibabel."
            )
    scale = np.diag([unit_mm, unit_mm, unit_mm, 1.0])
    affine = scale @ (qform if sform is None else sform)
    to_qform = np.eye(4)
    if sform_code != qform_code and sform is not None and qform is not None:
        to_qform = scale @ qform @ np.linalg.pinv(affine)
    return affine, WorldSpace(sform_code, qform_code, to_qform)


def _contradiction(
    sform: np.ndarray,
    qform: np.ndarray | None,
    pixdim: np.ndarray,
    codes: tuple[int, int],
    header: nibabel.Nifti1Header,
) -> str | None:
    """Return how a header whose sform is set contradicts itself; None if it does not."""
    columns = sform[:3, :3]
    spacing = np.linalg.norm(columns, axis=0)
    scaling = 1 + _SPACING_TOLERANCE
    if codes[0] in _TEMPLATES and codes[0] != codes[1]:
        scaling = _MAX_SCALING
    said = f"the sform (code {codes[0]}) says {_words(sform)}"
    if pixdim.all() and not _within(spacing, pixdim, scaling):
        return f"{said}, but pixdim {_lengths(pixdim)}"
    if qform is None:
        return None
    words = f"{said}, but the qform (code {codes[1]}) {_words(qform)}"
    directions, others = columns / spacing, qform[:3, :3] / np.linalg.norm(qform[:3, :3], axis=0)
    if np.linalg.det(directions) * np.linalg.det(others) < 0:
        return f"{words}, a mirror image"
    cosines = (directions * others).sum(axis=0)
    if codes[0] != codes[1]:
        return f"{words}, the other way" if cosines.min() < 0 else None
    sheared = np.abs(directions.T @ directions - np.eye(3)).max() > _SHEAR_TOLERANCE
    if sheared:
        return None  # a qform cannot express shear; reading the scan refuses such a grid
    if np.abs(directions - others).max() > _DIRECTION_TOLERANCE:
        return f"{words}, turned by {np.degrees(np.arccos(cosines.clip(-1, 1))).max():.1f} degrees"
    middle = np.append((np.array(header.get_data_shape()[:3]) - 1) / 2, 1)
    apart = np.linalg.norm((sform - qform) @ middle)
    if apart > spacing.min() / 2 + _DIRECTION_TOLERANCE * np.linalg.norm(columns @ middle[:3]):
        return f"{words}, with the middle {apart:.1f} units apart"
    return None


def _within(one: np.ndarray, other: np.ndarray, factor: float) -> bool:
    """Return whether lengths differ by no more than a factor."""
    ratio = one / other
    return bool((ratio <= factor).all() and (ratio >= 1 / factor).all())


def _words(affine: np.ndarray) -> str:
    """Describe an affine: orientation, spacing, origin."""
    codes = "".join(str(code) for code in nibabel.aff2axcodes(affine))
    origin = ", ".join(f"{place:.4g}" for place in affine[:3, 3])
    return f"{codes}, {_lengths(np.linalg.norm(affine[:3, :3], axis=0))} from ({origin})"


def _lengths(spacing: np.ndarray) -> str:
    return "spacing " + " x ".join(f"{length:.4g}" for length in spacing)
