"""Lists of images as CSV, plain or gzipped."""

import csv
import gzip
import zlib
from collections.abc import Collection
from pathlib import Path


def read_table(
    path: Path, *, needed: Collection[str], optional: Collection[str] = ()
) -> list[dict[str, str]]:
    """Read a CSV file whose first row names the columns.

    Args:
        path: The file; one that ends in `.gz` is unpacked.
        needed: Columns that must be there.
        optional: Columns that are kept when they are there; all others are left out.

    Returns:
        The rows in the order of the file, without white space around the cells; a cell that a short
        row lacks is "".

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is cut off, no CSV in UTF-8, lacks a column, or has no rows.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file.")
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, restval="", strict=True)
            columns = list(reader.fieldnames or ())
            missing = [name for name in needed if name not in columns]
            kept = [name for name in (*needed, *optional) if name in columns]
            rows = [{name: row[name].strip() for name in kept} for row in reader]
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}: is damaged or cut off. Download it again.") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: is no CSV file in UTF-8 ({error}).") from error
    if missing:
        raise ValueError(f"{path}: lacks the column {missing[0]!r}; it has {', '.join(columns)}.")
    if not rows:
        raise ValueError(f"{path}: has no rows below its header.")
    return rows
