"""The report of an evaluation: one HTML file that loads nothing from elsewhere and runs nothing."""

import base64
import mimetypes
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Literal

from diffct.atomic import atomic_file
from diffct.evaluation.report_style import STYLE
from diffct.evaluation.section import Picture, Section, Table

PURPOSE = "For research, not for diagnosis."
SYNTHETIC = "SYNTHETIC phantoms: these figures say nothing about patients."

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
) -> None:
    """Write all sections into one HTML file, atomically.

    Args:
        sections: What was measured, in the order of the report.
        path: The file to write.
        title: Of the report.
        summary: What was measured on what, when and by what; names and values.
        synthetic: Whether the data are phantoms, which the report then says at its top.

    Raises:
        FileNotFoundError: A picture is gone.
        ValueError: A file that should be a picture is none by its name.
    """
    page = "\n".join(
        [
            _head(title),
            _header(title, synthetic=synthetic),
            _contents(sections),
            _summary(summary),
            *(_section(section) for section in sections),
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
    links = "".join(
        f'<li><a href="#{escape(section.name)}">{escape(section.title)}</a></li>'
        for section in sections
    )
    return f'<nav aria-label="Contents"><ul>{links}</ul></nav>'


def _summary(summary: dict[str, str]) -> str:
    rows = "\n".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>'
        for name, value in summary.items()
    )
    return _scroll(f'<table class="summary"><tbody>\n{rows}\n</tbody></table>', "Summary")


def _section(section: Section) -> str:
    """Write a section: what limits it first, how it was measured last."""
    name = escape(section.name)
    parts = [f'<section id="{name}" aria-labelledby="{name}-title">']
    parts.append(f'<h2 id="{name}-title">{escape(section.title)}</h2>')
    if section.remarks:
        remarks = "\n".join(f"<p>{_prose(remark)}</p>" for remark in section.remarks)
        parts.append(f'<div class="remarks" role="note">\n{remarks}\n</div>')
    parts += [_table(table) for table in section.tables]
    parts += [_figure(picture) for picture in section.pictures]
    card = _definition(section.protocol)
    parts.append(f"<details>\n<summary>Protocol</summary>\n{card}\n</details>\n</section>")
    return "\n".join(parts)


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
