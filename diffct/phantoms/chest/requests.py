"""Prompts that ask for one thing each, and whether a film shows it."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product

from scipy.stats import binomtest

from diffct.phantoms.chest.findings import HEART_SIZES, KINDS, SEVERITIES, Reading, Truth
from diffct.phantoms.chest.measurements import SIDES

ZONES = ("upper", "lower")
SUBJECTS = (*KINDS, "heart", "absence")
"""What a request may be about."""

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
    """What a prompt asks for.

    Args:
        subject: One of `SUBJECTS`.
        prompt: In words.
        kind: The finding that shall be there, or, when the subject is "absence", shall not; "" for
            the heart.
        side: The patient's side of the finding.
        zone: Of a nodule or consolidation.
        grade: Severity of the finding, or size of the heart.
    """

    subject: str
    prompt: str
    kind: str = ""
    side: str | None = None
    zone: str | None = None
    grade: str | None = None

    def is_met_by(self, truth: Truth) -> bool:
        """Return whether a film is as asked; a finding asked for must be the only one of its kind.

        Args:
            truth: What the film shows.
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
        """Compare a film with what was asked.

        Args:
            reading: What was read from the film; None when it shows no chest.

        Returns:
            Whether it is as asked, by question: "absent"; "heart size", where the heart is seen;
            "present", on whatever side, and for what is present "side" (on the asked side and on no
            other), "wrong side" (only on the other), and, of what is on the asked side, "zone" and
            "severity".
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
        """Return the measured figure that the asked grade is about.

        Args:
            reading: What was read from the film.

        Returns:
            The cardiothoracic ratio, or the amount of the finding on the asked side; None when
            there is no such thing.
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
    """How often something was so.

    Args:
        hits: How often it was.
        count: How often it could have been.
    """

    hits: int
    count: int

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % confidence interval; all is possible when nothing was counted."""
        if self.count == 0:
            return 0.0, 1.0
        found = binomtest(self.hits, self.count).proportion_ci(method="wilson")
        return float(found.low), float(found.high)

    @classmethod
    def of(cls, answers: Iterable[bool]) -> "Rate":
        """Count answers."""
        answers = list(answers)
        return cls(sum(answers), len(answers))

    def __str__(self) -> str:
        if self.count == 0:
            return "–"
        low, high = (100 * bound for bound in self.interval)
        share = 100 * self.hits / self.count
        return f"{share:.0f} % ({self.hits}/{self.count}; {low:.0f}–{high:.0f})"


def every_request(*, wording: int = 0) -> dict[str, list[Request]]:
    """Return all that can be asked for, by subject.

    Args:
        wording: 0 or 1, in which words.
    """
    requests: dict[str, list[Request]] = {}
    for kind in KINDS:
        zones = ZONES if kind in ("nodule", "consolidation") else (None,)
        requests[kind] = []
        for grade, zone, side in product(SEVERITIES, zones, SIDES):
            # A nodule is no "moderate nodule", in no report.
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
    """Return requests about every subject equally often, and within it about every case.

    Args:
        count: How many.

    Returns:
        The requests, subjects in turn; from round to round the wording changes.
    """
    worded = [every_request(wording=wording) for wording in range(2)]
    requests = []
    for index in range(count):
        turn, subject = index // len(SUBJECTS), SUBJECTS[index % len(SUBJECTS)]
        times, case = divmod(turn, len(worded[0][subject]))
        requests.append(worded[times % 2][subject][case])
    return requests
