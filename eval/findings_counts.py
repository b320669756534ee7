"""Counts of films that are as requested."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

from diffct.phantoms.chest.findings import HEART_SIZES, KINDS, SEVERITIES, Reading
from diffct.phantoms.chest.requests import SUBJECTS, Rate, Request

SOURCES = ("sampled", "empty prompt", "decoded", "held-out")
"""The sources of films."""
QUESTIONS = ("present", "side", "wrong side", "zone", "severity", "heart size", "absent")
"""The questions about each film; see `Request.judge`."""

Judged = list[tuple[Request, Reading | None]]
"""The request and the reading of each film; the reading is None where it shows no chest."""


@dataclass(frozen=True)
class Asked:
    """The rates of films that are as requested.

    Attributes:
        question: One of `QUESTIONS`.
        about: A subject; for denied findings their kind; "all" for all together.
        rates: Rates by source.
    """

    question: str
    about: str
    rates: dict[str, Rate]


@dataclass(frozen=True)
class Amounts:
    """The measured amount of a finding, by requested grade.

    Attributes:
        about: The finding, or "heart".
        source: Source of the films.
        means: Means of the measured figure, from the lowest grade to the highest; None without
            films.
        counts: Number of films of each grade.
        spearman: Rank correlation of grade and figure; None where it is not defined.
    """

    about: str
    source: str
    means: list[float | None]
    counts: list[int]
    spearman: float | None


def hit_rates(judged: dict[str, Judged]) -> list[Asked]:
    """Count how often films are as requested.

    Args:
        judged: For each source, the requests and readings.

    Returns:
        One row for each question and subject (for denied findings their kind).
    """
    rows = []
    for question in QUESTIONS:
        answers = {
            source: [
                (request.kind or request.subject, answer[question])
                for request, reading in judged[source]
                if question in (answer := request.judge(reading))
            ]
            for source in SOURCES
        }
        asked = {about for source in SOURCES for about, _ in answers[source]}
        for about in [name for name in SUBJECTS if name in asked] + ["all"] * (len(asked) > 1):
            rates = {
                source: Rate.from_answers(
                    hit for name, hit in answers[source] if about in (name, "all")
                )
                for source in SOURCES
            }
            rows.append(Asked(question, about, rates))
    return rows


def amounts_by_grade(judged: dict[str, Judged]) -> list[Amounts]:
    """Average the measured figure over the films of each requested grade.

    Args:
        judged: For each source, the requests and readings.

    Returns:
        One row for each subject and source.
    """
    rows = []
    for subject in (*KINDS, "heart"):
        grades = HEART_SIZES if subject == "heart" else SEVERITIES
        for source in SOURCES:
            found = [
                (grades.index(request.grade), amount)
                for request, reading in judged[source]
                if request.subject == subject and (amount := request.amount(reading)) is not None
            ]
            by_grade = [[amount for rank, amount in found if rank == n] for n in range(len(grades))]
            rows.append(
                Amounts(
                    subject,
                    source,
                    means=[float(np.mean(some)) if some else None for some in by_grade],
                    counts=[len(some) for some in by_grade],
                    spearman=_rank_correlation(found),
                )
            )
    return rows


def _rank_correlation(pairs: Sequence[tuple[int, float]]) -> float | None:
    """Return Spearman's coefficient; None if ranks or amounts are all the same."""
    ranks, amounts = (np.array([pair[n] for pair in pairs]) for n in (0, 1))
    if len(pairs) < 3 or not np.ptp(ranks) or not np.ptp(amounts):
        return None
    return float(spearmanr(ranks, amounts).statistic)
