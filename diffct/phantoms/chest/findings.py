"""A reader of findings on chest films, by a few thresholds on physical measurements.

Each question is decided by one threshold: is there a meniscus, a gap of air, a round opacity; is a
round opacity a nodule or a consolidation by its diameter; where does one grade end and the next
begin. The thresholds are set on films of known truth, and are valid for similar films only.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from diffct.phantoms.chest.measurements import SIDES, Blob, ChestMeasurement, LungMeasurement

KINDS = ("effusion", "pneumothorax", "nodule", "consolidation")
SEVERITIES = ("small", "moderate", "large")
HEART_SIZES = ("normal", "mild", "moderate", "severe")
_ROUND = ("nodule", "consolidation")

Truth = Mapping[str, Any]
"""The true content of a film: `heart_size`, `cardiothoracic_ratio`, and `findings`, each a mapping
with `kind`, `side`, `zone` (None for effusion and pneumothorax) and `severity`."""


@dataclass(frozen=True)
class ReadFinding:
    """A finding that was read on a film.

    Attributes:
        kind: One of `KINDS`.
        side: "left" or "right", the patient's.
        zone: "upper" or "lower"; None for effusion and pneumothorax.
        severity: One of `SEVERITIES`.
        amount: The measurement that determines the severity: height of fluid, share of air,
            diameter of a nodule, mass of a consolidation.
    """

    kind: str
    side: str
    zone: str | None
    severity: str
    amount: float


@dataclass(frozen=True)
class Reading:
    """All findings that were read on a film.

    Attributes:
        findings: At most one of each kind and side.
        cardiothoracic_ratio: NaN if the heart is hidden.
        heart_size: One of `HEART_SIZES`; None if the heart is hidden.
    """

    findings: tuple[ReadFinding, ...]
    cardiothoracic_ratio: float
    heart_size: str | None


@dataclass(frozen=True)
class FindingReader:
    """A reader of findings from measurements.

    Attributes:
        present: For each measurement the threshold above which it counts: `meniscus` and
            `fluid_height` (either means effusion), `air_gap`, `nodule` and `consolidation`
            (strength of a blob), `consolidation_diameter` (a smaller blob is a nodule).
        grades: For each kind of finding the amounts at which "moderate" and "large" begin.
        heart: The cardiothoracic ratios at which the grades after "normal" begin.
    """

    present: dict[str, float]
    grades: dict[str, tuple[float, ...]]
    heart: tuple[float, ...]

    @classmethod
    def fit(
        cls, measurements: Sequence[ChestMeasurement | None], truths: Sequence[Truth]
    ) -> "FindingReader":
        """Set the thresholds.

        Args:
            measurements: Measurements of films; None, for films without a chest, is left out.
            truths: The true content of the films.

        Returns:
            The reader.

        Raises:
            ValueError: A finding, severity or heart size does not occur in the films.
        """
        films = [(m, t) for m, t in zip(measurements, truths, strict=True) if m is not None]
        lungs = [
            (getattr(measurement, side), _severities(truth, side))
            for measurement, truth in films
            for side in SIDES
        ]
        clear = [lung for lung, severities in lungs if not severities]
        # Lungs with only one kind of finding, and its severity.
        only = {
            kind: [
                (lung, severities[kind]) for lung, severities in lungs if set(severities) == {kind}
            ]
            for kind in KINDS
        }
        blobs = {
            kind: [(lung.blobs[0], severity) for lung, severity in only[kind] if lung.blobs]
            for kind in _ROUND
        }
        present = {}
        for figure, kind, severities in (
            ("meniscus", "effusion", ("small",)),
            ("fluid_height", "effusion", ("moderate", "large")),
            ("air_gap", "pneumothorax", SEVERITIES),
        ):
            affected = [lung for lung, severity in only[kind] if severity in severities]
            present[figure] = _threshold(
                *([getattr(x, figure) for x in g] for g in (clear, affected))
            )
        present["consolidation_diameter"] = _threshold(
            [blob.diameter for blob, severity in blobs["nodule"] if severity == "large"],
            [blob.diameter for blob, severity in blobs["consolidation"] if severity == "small"],
            max_false_share=1,
        )
        for kind in _ROUND:
            groups = (clear, [lung for lung, _ in only[kind]])
            present[kind] = _threshold(*([_strongest(x, kind, present) for x in g] for g in groups))

        amounts = {
            "effusion": [(lung.fluid_height, severity) for lung, severity in only["effusion"]],
            "pneumothorax": [(lung.air_gap, severity) for lung, severity in only["pneumothorax"]],
            **{k: [(_amount(blob, k), severity) for blob, severity in blobs[k]] for k in _ROUND},
        }
        grades = {kind: _thresholds(amounts[kind], SEVERITIES) for kind in KINDS}
        hearts = [(m.cardiothoracic_ratio, truth["heart_size"]) for m, truth in films]
        seen = [(ratio, size) for ratio, size in hearts if np.isfinite(ratio)]
        return cls(present, grades, _thresholds(seen, HEART_SIZES))

    def read(self, measurement: ChestMeasurement) -> Reading:
        """Read the findings of a film.

        Args:
            measurement: Measurements of the film.

        Returns:
            The findings.
        """
        findings = [
            finding
            for side in SIDES
            for finding in self._read_lung(getattr(measurement, side), side)
        ]
        ratio = measurement.cardiothoracic_ratio
        heart = HEART_SIZES[np.searchsorted(self.heart, ratio)] if np.isfinite(ratio) else None
        return Reading(tuple(findings), ratio, heart)

    def _read_lung(self, lung: LungMeasurement, side: str) -> list[ReadFinding]:
        amounts: dict[str, tuple[float, str | None]] = {}
        fluid = lung.fluid_height > self.present["fluid_height"]
        if fluid or lung.meniscus > self.present["meniscus"]:
            amounts["effusion"] = lung.fluid_height, None
        if lung.air_gap > self.present["air_gap"]:
            amounts["pneumothorax"] = lung.air_gap, None
        # Consolidations first: other blobs in the same zone may be parts of them.
        for kind in reversed(_ROUND):
            taken = amounts.get("consolidation", (0, None))[1]
            for blob in lung.blobs:
                fits = _kind(blob, self.present) == kind and blob.strength > self.present[kind]
                if fits and blob.zone != taken and kind not in amounts:
                    amounts[kind] = _amount(blob, kind), blob.zone
        return [
            ReadFinding(
                kind, side, zone, SEVERITIES[np.searchsorted(self.grades[kind], amount)], amount
            )
            for kind, (amount, zone) in amounts.items()
        ]


def _kind(blob: Blob, present: Mapping[str, float]) -> str:
    return "nodule" if blob.diameter < present["consolidation_diameter"] else "consolidation"


def _strongest(lung: LungMeasurement, kind: str, present: Mapping[str, float]) -> float:
    """Return the strength of the strongest blob of a kind, 0 if there is none."""
    return max((blob.strength for blob in lung.blobs if _kind(blob, present) == kind), default=0.0)


def _amount(blob: Blob, kind: str) -> float:
    return blob.diameter if kind == "nodule" else blob.mass


def _severities(truth: Truth, side: str) -> dict[str, str]:
    """Return the severity of each kind of finding on one side."""
    return {f["kind"]: f["severity"] for f in truth["findings"] if f["side"] == side}


def _thresholds(values: Iterable[tuple[float, str]], grades: Sequence[str]) -> tuple[float, ...]:
    """Return the thresholds between successive grades."""
    values = list(values)
    by_grade = [[value for value, found in values if found == grade] for grade in grades]
    return tuple(
        _threshold(lower, higher, max_false_share=1) for lower, higher in pairwise(by_grade)
    )


def _threshold(
    lower: Sequence[float], higher: Sequence[float], *, max_false_share: float = 0.005
) -> float:
    """Return the threshold that separates two groups with the best balanced accuracy.

    Args:
        lower: Values that should lie below.
        higher: Values that should lie above.
        max_false_share: Largest accepted share of `lower` above the threshold.

    Returns:
        The middle of all best thresholds.

    Raises:
        ValueError: A group is empty.
    """
    if not len(lower) or not len(higher):
        raise ValueError("Too few films: each finding, severity and heart size must occur in them.")
    below, above, both = np.sort(lower), np.sort(higher), np.unique([*lower, *higher])
    cuts = np.append((both[:-1] + both[1:]) / 2, both[-1])
    false = 1 - np.searchsorted(below, cuts, side="right") / len(below)
    missed = np.searchsorted(above, cuts, side="right") / len(above)
    # A cost of 2 rules out thresholds with too many false positives.
    cost = np.where(false <= max_false_share, false + missed, 2)
    best = cuts[np.isclose(cost, cost.min())]
    return float((best[0] + best[-1]) / 2)
