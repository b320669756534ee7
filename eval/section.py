"""The section of a measurement: figures under their protocol, answers, tables, pictures."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal

from diffct.atomic import atomic_file
from diffct.eval.figures import Figure, Table, nested


@dataclass(frozen=True)
class Picture:
    """A picture and its caption."""

    path: Path
    caption: str


# The questions that a report opens with, in this order.
TRUTH, QUALITY = "True to the patient?", "As good as real?"
VARIETY, PRIVACY = "As varied as real?", "Private?"
State = Literal["good", "in doubt", "bad", "not measured"]


@dataclass(frozen=True)
class Verdict:
    """The answer to one question of a reader.

    Attributes:
        question: The question, the same for every section that answers it: "As good as real?".
        state: The answer in a word; "in doubt" if intervals or numbers do not decide.
        sentence: One sentence with the figure and its yardstick; the reason if not measured.
    """

    question: str
    state: State
    sentence: str


@dataclass(frozen=True)
class Section:
    """The findings of one measurement.

    Attributes:
        name: Name of its JSON file: "distribution", "privacy", ...
        title: Title for readers.
        protocol: The protocol card; see `diffct.eval.protocol`.
        figures: All figures, in the order of the JSON.
        tables: Figures for readers.
        pictures: Files beside the JSON.
        remarks: Sentences about the figures: findings and their limits.
        verdicts: Answers to the questions that a report opens with.
        missing: Sentences that say what could not be measured and why. A section without figures
            has nothing else; see `not_measured`.
    """

    name: str
    title: str
    protocol: dict[str, Any]
    figures: Sequence[Figure]
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    remarks: Sequence[str] = field(default=())
    verdicts: Sequence[Verdict] = ()
    missing: Sequence[str] = ()

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401 - any value of a figure
        """Return the value of a figure, or its values by role, by its name: "FD[net], axial"."""
        return nested(self.figures)[name]

    def markdown(self) -> str:
        """Return verdicts, missing figures, remarks and tables as Markdown."""
        verdicts = [f"{v.question} {v.state.upper()}: {v.sentence}" for v in self.verdicts]
        missing = [f"Not measured: {reason}" for reason in self.missing]
        tables = [table.markdown() for table in self.tables]
        return "\n\n".join([f"## {self.title}", *verdicts, *missing, *self.remarks, *tables])

    def json(self) -> dict[str, Any]:
        """Return protocol, figures and words as JSON values; NaN becomes null."""
        return {
            "protocol": _plain(self.protocol),
            "figures": _plain(nested(self.figures)),
            "remarks": list(self.remarks),
            "verdicts": _plain(list(self.verdicts)),
            "missing": list(self.missing),
        }


def anonymise(section: Section, names: Mapping[str, str]) -> Section:
    """Return a section whose sentences and tables name no file of a patient.

    Error messages begin with the name of a file, which the user needs; reports are shared.

    Args:
        section: The section.
        names: Paths and file names with their replacements.
    """
    # Longest first: a path contains a file name. A name must not match inside another, as 0.png in
    # s0.png.
    ordered = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    pattern = re.compile(rf"(?<![\w-])(?:{ordered})") if names else None

    def clean(text: str) -> str:
        return pattern.sub(lambda found: names[found[0]], text) if pattern else text

    verdicts = [replace(verdict, sentence=clean(verdict.sentence)) for verdict in section.verdicts]
    remarks, missing = (
        [clean(text) for text in lines] for lines in (section.remarks, section.missing)
    )
    tables = [
        replace(
            table,
            rows=[[clean(c) if isinstance(c, str) else c for c in row] for row in table.rows],
        )
        for table in section.tables
    ]
    return replace(section, tables=tables, verdicts=verdicts, remarks=remarks, missing=missing)


def not_measured(name: str, title: str, reason: str, *, questions: Sequence[str]) -> Section:
    """Return the section of a measurement that was not possible, with only the reason.

    Args:
        name: Name of the section.
        title: Title for readers.
        reason: A sentence, without patients and file names.
        questions: The questions that it would have answered; they become "not measured".
    """
    verdicts = [Verdict(question, "not measured", reason) for question in questions]
    return Section(name, title, {}, (), verdicts=verdicts, missing=[reason])


def write_section(section: Section, folder: Path) -> Path:
    """Write a section's JSON, atomically, and return its path."""
    path = folder / f"{section.name}.json"
    write_json(section.json(), path)
    return path


def write_json(values: dict[str, Any], path: Path) -> None:
    """Write JSON values, atomically."""
    with atomic_file(path) as partial:
        partial.write_text(json.dumps(values, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Convert dataclasses to dictionaries, and floats that JSON cannot hold to null."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, dict):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
