"""Requests: prompts that ask for one thing each, and the judgement whether a film shows it."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product

from scipy.stats import binomtest

from diffct.phantoms.chest.findings import HEART_SIZES, KINDS, SEVERITIES, Reading, Truth
from diffct.phantoms.chest.measurements import SIDES

ZONES = ("upper", "lower")
SUBJECTS = (*KINDS, "heart", "absence")
"""Possible subjects of a request."""

# In the wording of the phantoms' reports.
_WORDINGS = {
    "effusion": (
        "There is a {grade} {side} pleural effusion.",
        "{grade} {side} pleural effusion.",
    ),
    "pneumothorax": ("There is a {grade} {side} pneumothorax.", "{grade} {side} pneumothorax."),
    "nodule": (
        "There is a {grade} nodule in the {side} {zone} lung.",
        "{grade} {side} {zone} lung nodule.",
    ),
    "consolidation": (
        "There is a {grade} consolidation in the {side} {zone} lung.",
        "{grade} {side} {zone} lung consolidation.",
    ),
}
_HEART_WORDINGS = {
    "normal": ("The heart size is normal.", "The heart is not enlarged."),
    "mild": ("The heart is mildly enlarged.", "There is mild cardiomegaly."),
    "moderate": ("The heart is moderately enlarged.", "There is moderate cardiomegaly."),
    "severe": ("The heart is severely enlarged.", "There is severe cardiomegaly."),
}
_ABSENCE_WORDINGS = {
    "effusion": ("There is no pleural effusion.", "No pleural effusion."),
    "pneumothorax": ("There is no pneumothorax.", "No pneumothorax."),
    "nodule": ("There is no pulmonary nodule.", "No pulmonary nodule."),
    "consolidation": ("There is no focal consolidation.", "No focal consolidation."),
}


@dataclass(frozen=True)
class Request:
    """A prompt and what it asks for.

    Args:
        subject: One of `SUBJECTS`.
        prompt: The request in words.
        kind: The requested finding or, if the subject is "absence", the finding that must be
            absent; "" for the heart.
        side: The patient's side of the finding.
        zone: Zone of a nodule or consolidation.
        grade: Severity of the finding, or size of the heart.
    """

    subject: str
    prompt: str
    kind: str = ""
    side: str | None = None
    zone: str | None = None
    grade: str | None = None

    def is_met_by(self, truth: Truth) -> bool:
        """Return whether a film shows what is requested, and no other finding of that kind.

        Args:
            truth: The true content of the film.
        """
        if self.subject == "heart":
            return truth["heart_size"] == self.grade
        found = [
            (finding["side"], finding["zone"], finding["severity"])
            for finding in truth["findings"]
            if finding["kind"] == self.kind
        ]
        return found == ([] if self.subject == "absence" else [(self.side, self.zone, self.grade)])

    def judge(self, reading: Reading | None) -> dict[str, bool]:
        """Compare a film with the request.

        Args:
            reading: The findings read on the film; None if it shows no chest.

        Returns:
            The answers by question: "absent"; "heart size", if the heart is visible; "present", on
            any side; for present findings "side" (on the requested side only) and "wrong side"
            (on the other side only); for those on the requested side "zone" and "severity".
        """
        if reading is None:
            return {
                {"heart": "heart size", "absence": "absent"}.get(self.subject, "present"): False
            }
        if self.subject == "heart":
            seen = reading.heart_size is not None
            return {"heart size": reading.heart_size == self.grade} if seen else {}
        found = [finding for finding in reading.findings if finding.kind == self.kind]
        if self.subject == "absence":
            return {"absent": not found}
        if not found:
            return {"present": False}
        sides = {finding.side for finding in found}
        answers = {"present": True, "side": sides == {self.side}}
        answers["wrong side"] = self.side not in sides
        for finding in found:
            if finding.side == self.side:
                answers["severity"] = finding.severity == self.grade
                if self.zone is not None:
                    answers["zone"] = finding.zone == self.zone
        return answers

    def amount(self, reading: Reading | None) -> float | None:
        """Return the measurement that corresponds to the requested grade.

        Args:
            reading: The findings read on the film.

        Returns:
            The cardiothoracic ratio, or the amount of the finding on the requested side; None if
            there is none.
        """
        if reading is None:
            return None
        if self.subject == "heart":
            return None if reading.heart_size is None else reading.cardiothoracic_ratio
        wanted = (self.kind, self.side)
        amounts = [found.amount for found in reading.findings if (found.kind, found.side) == wanted]
        return amounts[0] if amounts and self.subject != "absence" else None


@dataclass(frozen=True)
class Rate:
    """A share of positive answers.

    Args:
        hits: Number of positive answers.
        count: Number of all answers.
    """

    hits: int
    count: int

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % confidence interval; (0, 1) if there are no answers."""
        if self.count == 0:
            return 0.0, 1.0
        found = binomtest(self.hits, self.count).proportion_ci(method="wilson")
        return float(found.low), float(found.high)

    @classmethod
    def from_answers(cls, answers: Iterable[bool]) -> "Rate":
        """Count the positive answers."""
        answers = list(answers)
        return cls(sum(answers), len(answers))

    def __str__(self) -> str:
        if self.count == 0:
            return "–"
        low, high = (100 * bound for bound in self.interval)
        share = 100 * self.hits / self.count
        return f"{share:.0f} % ({self.hits}/{self.count}; {low:.0f}–{high:.0f})"


def all_requests(*, wording: int = 0) -> dict[str, list[Request]]:
    """Return all possible requests by subject.

    Args:
        wording: Which of the two wordings, 0 or 1.
    """
    requests: dict[str, list[Request]] = {}
    for kind in KINDS:
        zones = ZONES if kind in ("nodule", "consolidation") else (None,)
        requests[kind] = []
        for grade, zone, side in product(SEVERITIES, zones, SIDES):
            # Radiologists do not write "moderate nodule".
            size = "moderate-sized" if (kind, grade) == ("nodule", "moderate") else grade
            words = _WORDINGS[kind][wording].format(grade=size, side=side, zone=zone)
            prompt = words[0].upper() + words[1:]
            requests[kind].append(Request(kind, prompt, kind, side, zone, grade))
    requests["heart"] = [
        Request("heart", _HEART_WORDINGS[grade][wording], grade=grade) for grade in HEART_SIZES
    ]
    requests["absence"] = [
        Request("absence", _ABSENCE_WORDINGS[kind][wording], kind) for kind in KINDS
    ]
    return requests


def balanced_requests(count: int) -> list[Request]:
    """Return requests that cover all subjects, and all cases of a subject, equally often.

    Args:
        count: Number of requests.

    Returns:
        The requests, cycling through the subjects; the wording alternates between rounds.
    """
    worded = [all_requests(wording=wording) for wording in range(2)]
    requests = []
    for index in range(count):
        turn, subject = index // len(SUBJECTS), SUBJECTS[index % len(SUBJECTS)]
        times, case = divmod(turn, len(worded[0][subject]))
        requests.append(worded[times % 2][subject][case])
    return requests
