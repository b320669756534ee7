"""The page of a report: one HTML file that loads nothing from elsewhere and runs nothing."""

import base64
import mimetypes
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from diffct.atomic import atomic_file
from diffct.eval.figures import Number, Table
from diffct.eval.section import PRIVACY, QUALITY, TRUTH, VARIETY, Picture, Section, Verdict

PURPOSE = "For research, not for diagnosis."
SYNTHETIC = "SYNTHETIC phantoms: these figures say nothing about patients."

_ALWAYS_ASKED = (QUALITY, VARIETY, PRIVACY)
_ORDER = (TRUTH, *_ALWAYS_ASKED)
_DRAWN_FIRST = {"distribution": 0, "fidelity": 1, "privacy": 2}
_HASH = re.compile(r"[0-9a-f]{40,}")
_BOLD = re.compile(r"\*\*(.+?)\*\*", re.DOTALL)
_MAX_BESIDE = 2  # columns of intervals; more would be wider than the page
Column = Literal["text", "numbers", "intervals", "stacked"]


def write_report(
    sections: Sequence[Section],
    path: Path,
    *,
    title: str,
    summary: Mapping[str, str],
    synthetic: bool,
    origin: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Write all sections into one HTML file, atomically; see `render_report`."""
    page = render_report(sections, title=title, summary=summary, synthetic=synthetic, origin=origin)
    with atomic_file(path) as partial:
        partial.write_text(page, encoding="utf-8")


def render_report(
    sections: Sequence[Section],
    *,
    title: str,
    summary: Mapping[str, str],
    synthetic: bool,
    origin: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Return all sections as one HTML page.

    First the answers to a reader's questions, then pictures, then tables; the figures of random
    networks and the origin of the report come last, folded.

    Args:
        sections: The sections, in the order of the report.
        title: Title of the report.
        summary: Names and values that summarise model, data and settings.
        synthetic: Whether the data are phantoms, which the report then says at its top.
        origin: How the report was made: the command and its folders, without files of patients.

    Raises:
        FileNotFoundError: A picture is missing.
        ValueError: The name of a picture's file is not that of a picture.
    """
    folder = files(__package__)
    versions: dict[str, str] = next(
        (s.protocol["versions"] for s in sections if "versions" in s.protocol), {}
    )
    template = _environment().from_string((folder / "report.html.jinja").read_text("utf-8"))
    return template.render(
        title=title,
        purpose=PURPOSE,
        synthetic=synthetic,
        synthetic_banner=SYNTHETIC,
        style=Markup((folder / "report.css").read_text("utf-8")),
        answers=sorted(_answers(sections), key=_place),
        summary=summary,
        sections=sections,
        pictures=_pictures(sections),
        aside=[table for section in sections for table in section.tables if table.aside],
        paths=bool(origin),
        origin={**origin, **({"Versions": versions} if versions else {})},
        columns=_columns,
    )


def _environment() -> Environment:
    """Return the template's environment, which escapes every text."""
    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    environment.filters |= {"prose": _prose, "scalar": _scalar, "data_url": _data_url}
    environment.tests |= {
        "alarm": lambda text: bool(_BOLD.search(text)),
        "container": _is_container,
        "nested": _is_nested,
        "hash": lambda value: isinstance(value, str) and bool(_HASH.fullmatch(value)),
    }
    return environment


def _answers(sections: Sequence[Section]) -> Iterator[tuple[Verdict, Section | None]]:
    """List the answers of all sections, and the questions that none answers."""
    for section in sections:
        for verdict in section.verdicts:
            yield verdict, section
    asked = {verdict.question for section in sections for verdict in section.verdicts}
    for question in _ALWAYS_ASKED:
        if question not in asked:
            yield Verdict(question, "not measured", "No measurement here answers it."), None


def _place(answer: tuple[Verdict, Section | None]) -> int:
    question = answer[0].question
    return _ORDER.index(question) if question in _ORDER else len(_ORDER)


def _pictures(sections: Sequence[Section]) -> list[Picture]:
    """List all pictures: samples beside held-out images first, then the nearest pairs."""
    ordered = sorted(sections, key=lambda section: _DRAWN_FIRST.get(section.name, len(sections)))
    first = [picture for section in ordered for picture in section.pictures[:1]]
    return first + [picture for section in ordered for picture in section.pictures[1:]]


def _columns(table: Table) -> list[Column]:
    """Return the kind of each column, ignoring empty cells; numbers are aligned.

    Intervals have a column beside their numbers; in wide tables they stand below them.
    """
    kinds = [_column([row[place] for row in table.rows]) for place in range(len(table.columns))]
    if kinds.count("intervals") > _MAX_BESIDE:
        return ["stacked" if kind == "intervals" else kind for kind in kinds]
    return kinds


def _column(cells: Sequence[Number | str]) -> Column:
    numbers = [cell for cell in cells if isinstance(cell, Number)]
    if not numbers or len(numbers) < len(cells) or all(cell.value is None for cell in numbers):
        return "text"
    return "intervals" if any(cell.interval for cell in numbers) else "numbers"


def _prose(text: str) -> Markup:
    """Escape a sentence, and mark its **bold** words."""
    return Markup(_BOLD.sub(r"<strong>\1</strong>", str(escape(text))))


def _data_url(picture: Picture) -> str:
    """Return a picture as a data URL."""
    kind = mimetypes.guess_type(picture.path.name)[0]
    if kind is None or not kind.startswith("image/"):
        raise ValueError(f"{picture.path} is no picture by its name; give e.g. a PNG.")
    data = base64.b64encode(picture.path.read_bytes()).decode("ascii")
    return f"data:{kind};base64,{data}"


def _is_container(value: object) -> bool:
    return isinstance(value, Mapping | list | tuple)


def _is_nested(value: object) -> bool:
    """Return whether a value of a protocol card needs a list of its own, not a line of scalars."""
    if isinstance(value, Mapping):
        return bool(value)
    return isinstance(value, list | tuple) and any(_is_container(inner) for inner in value)


def _scalar(value: object) -> str:
    """Write a single value of a protocol card."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
