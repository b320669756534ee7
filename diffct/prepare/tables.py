"""Tables of images as CSV, as written by databases, pandas and spreadsheets, also gzipped."""

import codecs
import csv
import gzip
import io
import re
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path

from diffct.imaging.missing_values import is_missing

_DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab"}
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # .xlsx and .ods, and the older .xls
# A first line by which Excel names its delimiter.
_EXCEL_HINT = re.compile(r"\A\"?sep=(.)\"?\r?\n")
_SAVE_AS_UTF_8 = (
    "Save it as UTF-8: in Excel by Save As, type 'CSV UTF-8 (Comma delimited)'; in pandas by "
    "to_csv(path, index=False)"
)


def read_table(
    path: Path, *, needed: Collection[str], optional: Collection[str] = ()
) -> dict[int, dict[str, str]]:
    """Read a CSV file whose first row names the columns.

    Cells are separated by commas, semicolons (Excel in much of Europe) or tabs; the separator that
    yields the most needed columns is used. Every row must have as many cells as the header: an
    additional cell means an unquoted comma, after which words of a report would be read as a
    patient.

    Args:
        path: The file, in UTF-8, or in UTF-16 with a byte order mark; `.gz` is unpacked.
        needed: Required columns.
        optional: Columns that are kept if present; all others are left out.

    Returns:
        The rows by their number as a spreadsheet counts them: the header is row 1, and empty rows
        count. White space around cells is removed; missing values (`is_missing`) become "".

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is truncated, in another encoding, lacks a column or has one twice, has a row
            with too many or too few cells, or has no rows.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file.")
    text = _decode(_content(path), path)
    delimiter = _delimiter(text, needed)
    rows = _rows(text, delimiter, path)
    header, _ = next(rows, ([], 1))
    for name in needed:
        if name not in header:
            found = ", ".join(header) or "none"
            raise ValueError(f"{path}: lacks the column {name!r}; it has {found}.")
    kept = [name for name in (*needed, *optional) if name in header]
    for name in kept:
        if header.count(name) > 1:
            raise ValueError(f"{path}: has {header.count(name)} columns {name!r}. Keep one.")
    places = {name: header.index(name) for name in kept}
    table = {}
    for number, (cells, line) in enumerate(rows, start=2):
        if not any(cells):
            continue
        if len(cells) != len(header):
            divider = _DELIMITERS.get(delimiter, delimiter)
            raise ValueError(
                f"{path}, line {line}: {_describe_wrong_length(len(cells), len(header), divider)}"
            )
        table[number] = {
            name: "" if is_missing(cells[place]) else cells[place] for name, place in places.items()
        }
    if not table:
        raise ValueError(f"{path}: has no rows below its header.")
    return table


def _content(path: Path) -> bytes:
    """Return the bytes of a file, unpacked if gzipped."""
    content = path.read_bytes()
    if path.suffix != ".gz":
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}: is damaged or cut off. Download it again.") from error


def _decode(content: bytes, path: Path) -> str:
    """Decode bytes whose encoding is certain; refuse all others."""
    if content.startswith(_WORKBOOKS):
        raise ValueError(f"{path}: is a workbook, not a CSV file. {_SAVE_AS_UTF_8}.")
    if content.startswith(_UTF_16):
        try:
            return content.decode("utf-16")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: is cut off. Save it again.") from error
    if b"\0" in content:
        raise ValueError(f"{path}: is no CSV file in UTF-8; it may be UTF-16. {_SAVE_AS_UTF_8}.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # A guess could be wrong: Western, Central European and Macintosh encodings differ.
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path}, line {line}: is no CSV file in UTF-8 (byte 0x{content[error.start]:02x}); it "
            f"may be in Latin-1. {_SAVE_AS_UTF_8}."
        ) from error


def _delimiter(text: str, needed: Collection[str]) -> str:
    """Return the delimiter that Excel names, or the one that yields the needed columns."""
    hint = _EXCEL_HINT.match(text)
    if hint:
        return hint[1]
    line = next(io.StringIO(text, newline=""), "")

    def found(delimiter: str) -> tuple[int, int]:
        header = next(csv.reader([line], delimiter=delimiter), [])
        return len({*needed} & {name.strip() for name in header}), len(header)

    # The number of columns decides if several delimiters yield equally many needed ones.
    return max(_DELIMITERS, key=found)


def _rows(text: str, delimiter: str, path: Path) -> Iterator[tuple[list[str], int]]:
    """Yield rows of stripped cells, each with the line of the file that it starts on."""
    hint = _EXCEL_HINT.match(text)
    stream = io.StringIO(text[hint.end() :] if hint else text, newline="")
    reader = csv.reader(stream, delimiter=delimiter, strict=True, skipinitialspace=True)
    line = first = 2 if hint else 1
    try:
        for cells in reader:
            yield [cell.strip() for cell in cells], line
            line = first + reader.line_num
    except csv.Error as error:
        raise ValueError(
            f"{path}, line {line}: is no row of a CSV file ({error}). A quote may be open; inside "
            "quotes, a quote is written twice."
        ) from error


def _describe_wrong_length(cells: int, columns: int, divider: str) -> str:
    """Describe a row with more or fewer cells than the header, and the probable cause."""
    cause = (
        f"A {divider} in the text may not be quoted: put quotes around that cell"
        if cells > columns
        else "A cell may be missing, or a line break may not be quoted"
    )
    return f"has {cells} cells, its header {columns}. {cause}."
