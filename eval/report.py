"""The report of an evaluation: one HTML file that loads nothing from elsewhere and runs nothing."""

import base64
import mimetypes
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from diffct.atomic import atomic_file
from diffct.eval.report_answers import list_answers
from diffct.eval.report_style import STYLE
from diffct.eval.section import Picture, Section, Table

PURPOSE = "For research, not for diagnosis."
SYNTHETIC = "SYNTHETIC phantoms: these figures say nothing about patients."
_RANDOM = (
    "Their features mean nothing to a reader: these figures compare with figures of the same random"
    " network only, and are no FID. Give a network's weights with --feature-network."
)
_PATHS = "The command names folders of the machine that it ran on: mind that before you share it."

_PICTURES = "pictures"
_DRAWN_FIRST = {"distribution": 0, "fidelity": 1, "privacy": 2}

# Whatever escaping might miss may neither load nor run.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_NUMBER = re.compile(r"[-−+±<≤≥>~≈]?\s*\d")
_INTERVAL = re.compile(r"(.+?)\s+(\[.*\])")
_HASH = re.compile(r"[0-9a-f]{40,}")
_HASH_SHOWN = 12
_BOLD = re.compile(r"\*\*(.+?)\*\*", re.DOTALL)
_MISSING = ("", "–")
_MOST_BESIDE = 2  # columns of intervals; more are wider than the page
Column = Literal["text", "numbers", "intervals", "stacked"]
_HEADS: dict[Column, str] = {
    "text": "",
    "numbers": ' class="number"',
    "intervals": ' class="number" colspan="2"',
    "stacked": ' class="number"',
}


def write_report(
    sections: Sequence[Section],
    path: Path,
    *,
    title: str,
    summary: dict[str, str],
    synthetic: bool,
    origin: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Write all sections into one HTML file, atomically.

    First the answers to a reader's questions, then pictures, then tables; the figures of random
    networks and how all was made come last, folded.

    Args:
        sections: What was measured, in the order of the report.
        path: The file to write.
        title: Of the report.
        summary: What was measured on what, when and by what; names and values.
        synthetic: Whether the data are phantoms, which the report then says at its top.
        origin: The command and the folders that it was made of; no file of a patient, please.

    Raises:
        FileNotFoundError: A picture is gone.
        ValueError: A file that should be a picture is none by its name.
    """
    page = "\n".join(
        [
            _head(title),
            _header(title, synthetic=synthetic),
            list_answers(sections),
            _summary(summary),
            _contents(sections),
            _pictures(sections),
            *(_section(section) for section in sections),
            _aside(sections),
            _origin(origin, sections),
            f"<footer>Written by diffct. {PURPOSE}</footer>\n</body>\n</html>\n",
        ]
    )
    with atomic_file(path) as partial:
        partial.write_text(page, encoding="utf-8")


def _head(title: str) -> str:
    return f"""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
</head>
<body>"""


def _header(title: str, *, synthetic: bool) -> str:
    """Write the title, and what the figures are not for."""
    banner = f'<p class="banner" role="note">{SYNTHETIC}</p>\n' if synthetic else ""
    return (
        f'<header>\n<h1>{escape(title)}</h1>\n{banner}<p class="purpose">{PURPOSE}</p>\n</header>'
    )


def _contents(sections: Sequence[Section]) -> str:
    places = [(section.name, section.title) for section in sections]
    if any(section.pictures for section in sections):
        places.insert(0, (_PICTURES, "Pictures"))
    links = "".join(
        f'<li><a href="#{escape(place)}">{escape(title)}</a></li>' for place, title in places
    )
    return f'<nav aria-label="Contents"><ul>{links}</ul></nav>'


def _pictures(sections: Sequence[Section]) -> str:
    """Write all pictures: samples beside held-out images first, then the nearest pairs."""
    ordered = sorted(sections, key=lambda section: _DRAWN_FIRST.get(section.name, len(sections)))
    pictures = [picture for section in ordered for picture in section.pictures[:1]]
    pictures += [picture for section in ordered for picture in section.pictures[1:]]
    figures = [_figure(picture) for picture in pictures]
    if not figures:
        return ""
    return _part(_PICTURES, "Pictures", "\n".join(figures))


def _part(name: str, title: str, inner: str) -> str:
    name, title = escape(name), escape(title)
    return (
        f'<section id="{name}" aria-labelledby="{name}-title">\n'
        f'<h2 id="{name}-title">{title}</h2>\n{inner}\n</section>'
    )


def _summary(summary: dict[str, str]) -> str:
    rows = "\n".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>'
        for name, value in summary.items()
    )
    return _scroll(f'<table class="summary"><tbody>\n{rows}\n</tbody></table>', "Summary")


def _section(section: Section) -> str:
    """Write a section: what was found and what limits it first, how it was measured last."""
    parts = [_remark(remark) for remark in section.remarks]
    if section.missing:
        items = "".join(f"<li>{escape(reason)}</li>" for reason in section.missing)
        parts.append(f'<div class="missing"><p>Not measured:</p><ul>{items}</ul></div>')
    parts += [_table(table) for table in section.tables if not table.aside]
    if section.protocol:
        card = _definition(section.protocol)
        parts.append(f"<details>\n<summary>Protocol</summary>\n{card}\n</details>")
    return _part(section.name, section.title, "\n".join(parts))


def _remark(text: str) -> str:
    """Write a sentence beside the figures; one with bold words is an alarm, and looks like one."""
    if _BOLD.search(text):
        return f'<p class="remark alarm" role="note">{_prose(text)}</p>'
    return f'<p class="remark">{escape(text)}</p>'


def _aside(sections: Sequence[Section]) -> str:
    """Write the tables that readers may skip, folded."""
    tables = [_table(table) for section in sections for table in section.tables if table.aside]
    if not tables:
        return ""
    label = f"{len(tables)} tables of networks with random weights"
    intro = f"<p>{_RANDOM}</p>"
    inner = "\n".join(tables)
    folded = f"<details>\n<summary>{label}</summary>\n<div>{inner}</div>\n</details>"
    return _part("random", "Random networks", f"{intro}\n{folded}")


def _origin(origin: Mapping[str, str], sections: Sequence[Section]) -> str:
    """Write what the report was made with, folded."""
    versions = next((s.protocol["versions"] for s in sections if "versions" in s.protocol), {})
    facts = dict(origin) | ({"Versions": versions} if versions else {})
    if not facts:
        return ""
    warning = f"<p>{_PATHS}</p>\n" if origin else ""
    return (
        '<details class="origin">\n<summary>How this report was made</summary>\n'
        f"{warning}{_definition(facts)}\n</details>"
    )


def _prose(text: str) -> str:
    """Escape a sentence, and set what sections write as **bold**."""
    return _BOLD.sub(r"<strong>\1</strong>", escape(text))


def _table(table: Table) -> str:
    """Write a table in a box of its own, which scrolls on narrow screens."""
    columns = [_column([row[i] for row in table.rows]) for i in range(len(table.columns))]
    if columns.count("intervals") > _MOST_BESIDE:
        columns = ["stacked" if kind == "intervals" else kind for kind in columns]
    head = "".join(
        f'<th scope="col"{_HEADS[kind]}>{escape(name)}</th>'
        for name, kind in zip(table.columns, columns, strict=True)
    )
    lines = []
    for row in table.rows:
        cells = [_cell(text, kind) for text, kind in zip(row, columns, strict=True)]
        if columns[0] == "text":
            cells[0] = f'<th scope="row">{escape(row[0])}</th>'
        lines.append(f"<tr>{''.join(cells)}</tr>")
    body = "\n".join(lines)
    inner = f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"
    note = f'\n<p class="note">{_prose(table.note)}</p>' if table.note else ""
    return f"<h3>{escape(table.title)}</h3>\n{_scroll(inner, table.title)}{note}"


def _scroll(table: str, label: str) -> str:
    """Put a table into a box that scrolls, by the keyboard as well."""
    return (
        f'<div class="scroll" role="region" aria-label="{escape(label)}" tabindex="0">'
        f"\n{table}\n</div>"
    )


def _column(cells: Sequence[str]) -> Column:
    """Say what a column holds, besides gaps."""
    filled = [cell for cell in cells if cell not in _MISSING]
    if not filled or not all(_NUMBER.match(cell) for cell in filled):
        return "text"
    return "intervals" if any(_INTERVAL.fullmatch(cell) for cell in filled) else "numbers"


def _cell(text: str, kind: Column) -> str:
    """Write a cell, or two for a number and its interval, so that numbers stand in line.

    In wide tables the interval stands below its number.
    """
    if kind == "text":
        return f"<td>{escape(text)}</td>"
    if kind == "numbers":
        return f'<td class="number">{escape(text)}</td>'
    parts = _INTERVAL.fullmatch(text)
    value, interval = parts.groups() if parts else (text, "")
    if kind == "stacked":
        return f'<td class="number">{escape(value)}<span>{escape(interval)}</span></td>'
    return (
        f'<td class="number">{escape(value)}</td>'
        f'<td class="number interval">{escape(interval)}</td>'
    )


def _figure(picture: Picture) -> str:
    """Write a picture with its bytes."""
    kind = mimetypes.guess_type(picture.path.name)[0]
    if kind is None or not kind.startswith("image/"):
        raise ValueError(f"{picture.path} is no picture by its name; give e.g. a PNG.")
    data = base64.b64encode(picture.path.read_bytes()).decode("ascii")
    caption = escape(picture.caption)
    return (
        f'<figure>\n<img src="data:{kind};base64,{data}" alt="{caption}">\n'
        f"<figcaption>{caption}</figcaption>\n</figure>"
    )


def _definition(value: object) -> str:
    """Write a value of a protocol card: dictionaries as lists of definitions, hashes short."""
    if isinstance(value, dict) and value:
        lines = []
        for name, inner in value.items():
            label, shown = escape(str(name).replace("_", " ")), _definition(inner)
            nested = ' class="nested"' if shown.startswith(("<dl>", "<ol>")) else ""
            lines.append(f"<dt>{label}</dt><dd{nested}>{shown}</dd>")
        return "<dl>\n" + "\n".join(lines) + "\n</dl>"
    if isinstance(value, list | tuple) and value:
        shown = [_definition(inner) for inner in value]
        if any(isinstance(inner, dict | list | tuple) for inner in value):
            return "<ol>" + "".join(f"<li>{inner}</li>" for inner in shown) + "</ol>"
        return ", ".join(shown)
    if isinstance(value, dict | list | tuple):
        return "none"
    return _scalar(value)


def _scalar(value: object) -> str:
    """Write a single value of a protocol card."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = escape(str(value))
    if _HASH.fullmatch(text):
        return f'<code><abbr title="{text}">{text[:_HASH_SHOWN]}…</abbr></code>'
    return text
