"""The truth of a chest phantom: the findings that its film shows and its report names.

Sides are the patient's own. The patient's left is on the viewer's right, as films are displayed.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np

FindingKind = Literal["effusion", "consolidation", "nodule", "pneumothorax"]
Side = Literal["left", "right"]
Zone = Literal["upper", "lower"]
Severity = Literal["small", "moderate", "large"]
HeartSize = Literal["normal", "mild", "moderate", "severe"]

_SIDES: tuple[Side, ...] = get_args(Side)
_SEVERITIES: tuple[Severity, ...] = get_args(Severity)
_LARGE_HEARTS: tuple[HeartSize, ...] = ("mild", "moderate", "severe")

HEART_RATIOS: dict[HeartSize, tuple[float, float]] = {
    "normal": (0.40, 0.49),
    "mild": (0.52, 0.56),
    "moderate": (0.58, 0.62),
    "severe": (0.64, 0.70),
}
"""Cardiothoracic ratio (largest heart width over largest inner chest width) of each heart size."""

CLEAR_SHARE = 0.15
"""Share of patients drawn without findings, in addition to those who happen to have none."""
FINDING_RATES: dict[FindingKind, float] = {
    "effusion": 0.42,
    "consolidation": 0.24,
    "nodule": 0.24,
    "pneumothorax": 0.19,
}
"""Probability of each finding in the other patients, before combinations are rejected."""
HEART_RATE = 0.41
"""Probability of an enlarged heart in the other patients."""
LOWER_RATE = 0.6
"""Probability of the lower zone, which is rejected more often: fluid and large hearts hide it."""
BILATERAL_RATE = 0.3
"""Probability that effusions are on both sides."""


@dataclass(frozen=True)
class ChestFinding:
    """One finding.

    Args:
        kind: Kind of finding.
        side: The patient's side.
        zone: The half of the lung that a consolidation or nodule lies in; None for the others.
        severity: Amount of the finding; for a nodule its size.
    """

    kind: FindingKind
    side: Side
    zone: Zone | None
    severity: Severity


@dataclass(frozen=True)
class ChestTruth:
    """The true content of a film.

    Args:
        heart_size: Grade of cardiomegaly.
        cardiothoracic_ratio: Within the grade's range of `HEART_RATIOS`.
        findings: At most one of each kind and side.
    """

    heart_size: HeartSize
    cardiothoracic_ratio: float
    findings: tuple[ChestFinding, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the truth as JSON values."""
        return asdict(self)


def draw_truth(rng: np.random.Generator) -> ChestTruth:
    """Draw the content of a film.

    Heart size and each kind of finding are drawn independently, sides, zones and severities
    uniformly; findings that would hide each other on a film are drawn again.

    Args:
        rng: Source of the draw.

    Returns:
        The truth.
    """
    clear = rng.random() < CLEAR_SHARE
    heart_size: HeartSize = "normal"
    if not clear and rng.random() < HEART_RATE:
        heart_size = _LARGE_HEARTS[rng.choice(len(_LARGE_HEARTS))]
    ratio = float(rng.uniform(*HEART_RATIOS[heart_size]))
    kinds = [] if clear else [k for k, rate in FINDING_RATES.items() if rng.random() < rate]
    both = rng.random() < BILATERAL_RATE
    # Effusions on both sides would leave no side for a pneumothorax.
    if both and {"effusion", "pneumothorax"} <= set(kinds):
        both = False
    while True:
        findings = tuple(f for kind in kinds for f in _draw_findings(kind, rng, both_sides=both))
        if _shows_all(findings, heart_size):
            return ChestTruth(heart_size, ratio, findings)


def _draw_findings(
    kind: FindingKind, rng: np.random.Generator, *, both_sides: bool
) -> list[ChestFinding]:
    number = 2 if kind == "effusion" and both_sides else 1
    sides = [_SIDES[drawn] for drawn in rng.permutation(len(_SIDES))[:number]]
    zoned = kind in ("consolidation", "nodule")
    return [
        ChestFinding(
            kind,
            side,
            ("lower" if rng.random() < LOWER_RATE else "upper") if zoned else None,
            _SEVERITIES[rng.choice(len(_SEVERITIES))],
        )
        for side in sorted(sides)
    ]


def _shows_all(findings: tuple[ChestFinding, ...], heart_size: HeartSize) -> bool:
    """Return whether no finding hides another one and none lies behind a large heart."""
    by_place = {(f.kind, f.side): f for f in findings}
    for finding in findings:
        side, effusion = finding.side, by_place.get(("effusion", finding.side))
        pneumothorax = by_place.get(("pneumothorax", side))
        if effusion and pneumothorax:
            return False
        if finding.zone is None:
            continue
        low = finding.zone == "lower"
        if low and side == "left" and heart_size in ("moderate", "severe"):
            return False
        if effusion and effusion.severity != "small" and (low or effusion.severity == "large"):
            return False
        if pneumothorax and pneumothorax.severity != "small":
            return False
        consolidation = by_place.get(("consolidation", side))
        if finding.kind == "nodule" and consolidation and consolidation.zone == finding.zone:
            return False
    return True
