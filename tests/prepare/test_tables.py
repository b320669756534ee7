"""Tables of real programs: no row is shifted, no missing value kept, no letter guessed."""

import gzip
from pathlib import Path

import pytest

from diffct.imaging.missing_values import is_missing
from diffct.prepare.radiology_reports import split_sentences
from diffct.prepare.tables import read_table

NEEDED = ("image", "text")
GOOD = 'image,text,patient\n0.png,"No effusion, no pneumothorax.",p1\n1.png,Größe normal.,p2\n'
ROWS = {
    2: {"image": "0.png", "text": "No effusion, no pneumothorax.", "patient": "p1"},
    3: {"image": "1.png", "text": "Größe normal.", "patient": "p2"},
}


def read(folder: Path, content: bytes | str, name: str = "films.csv") -> dict[int, dict[str, str]]:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_table(path, needed=NEEDED, optional=("patient",))


def semicolons(text: str) -> str:
    return text.replace(",", ";").replace("effusion;", "effusion,")


@pytest.mark.parametrize(
    "content",
    [
        GOOD,
        "\ufeff" + GOOD,
        GOOD.replace("\n", "\r\n"),
        GOOD.replace("\n", "\r"),
        GOOD.rstrip("\n"),
        GOOD + "\n\r\n,,\n  \n",
        GOOD.encode("utf-16"),
        semicolons(GOOD),
        ("\ufeff" + semicolons(GOOD).replace("\n", "\r\n")).encode(),
        "sep=;\r\n" + semicolons(GOOD),
        GOOD.replace(",", "\t").replace("effusion\t", "effusion,").encode("utf-16"),
        GOOD.replace("image,", " image , ").replace(",p1", " , p1 ").replace('." ,', '.",'),
        '"image", "text", "patient"\n' + GOOD.split("\n", 1)[1].replace(",", ", "),
    ],
)
def test_a_table_is_read_whatever_program_wrote_it(tmp_path, content):
    found = read(tmp_path, content)
    assert {n: {k: " ".join(v.split()) for k, v in row.items()} for n, row in found.items()} == ROWS


def test_a_gzipped_table_is_read_and_a_cut_one_named(tmp_path):
    content = gzip.compress(GOOD.encode())
    assert read(tmp_path, content, "films.csv.gz") == ROWS
    with pytest.raises(ValueError, match=r"films\.csv\.gz: is damaged or cut off"):
        read(tmp_path, content[:-20], "films.csv.gz")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("0.png,No effusion, clear.,p1", r"line 4: has 4 cells, its header 3\. A comma .* quoted"),
        # An empty last cell conceals the shift.
        ("0.png,No effusion, clear.,", r"line 4: has 4 cells"),
        ("0.png,Fine.", r"line 4: has 2 cells, its header 3\. A cell may be missing"),
        ("0.png", r"line 4: has 1 cells"),
        ('0.png,"Fine.,p1', r"line 4: .*A quote may be open"),
        ('0.png,"A "large" mass.",p1', r"line 4: .*a quote is written twice"),
    ],
)
def test_a_row_of_another_length_is_named_by_its_line_in_the_file(tmp_path, row, message):
    # The row before it takes two lines of the file.
    before = 'image,text,patient\n1.png,"Clear.\nNormal.",p2\n'
    with pytest.raises(ValueError, match=r"films\.csv, " + message):
        read(tmp_path, f"{before}{row}\n2.png,Fine.,p3\n")


def test_an_unquoted_semicolon_is_named_as_the_cause(tmp_path):
    with pytest.raises(ValueError, match=r"line 2: has 4 cells, its header 3\. A semicolon"):
        read(tmp_path, "image;text;patient\n0.png;Clear; normal, too.;p1\n")


def test_rows_are_counted_as_a_spreadsheet_counts_them(tmp_path):
    assert list(read(tmp_path, "image,text\n\n0.png,Fine.\n,\n1.png,Fine.\n")) == [3, 5]


@pytest.mark.parametrize(
    "cell",
    [
        "",
        " ",
        "nan",
        "NaN",
        "NAN",
        "N/A",
        "n/a",
        "NA",
        "#N/A",
        "<NA>",
        "NULL",
        "None",
        "-",
        "–",
        "—",
    ],
)
def test_a_cell_without_a_value_is_empty_in_every_column(tmp_path, cell):
    for column in range(3):
        cells = ["0.png", "Fine.", "p1"]
        cells[column] = cell
        (row,) = read(tmp_path, f"image,text,patient\n{','.join(cells)}\n").values()
        assert list(row.values()).count("") == 1 and list(row.values())[column] == ""


def test_words_that_mean_something_are_never_missing(tmp_path):
    for word in ("None.", "No.", "Nana", "Nanni", "Nath", "0", "0.0", "NAD", "n.a.d.", "Normal"):
        assert not is_missing(word)
    (row,) = read(tmp_path, "image,text,patient\n0.png,None.,0\n").values()
    assert (row["text"], row["patient"]) == ("None.", "0")


def test_missing_values_pasted_into_a_report_are_not_sentences():
    assert split_sentences("nan. Heart normal. N/A") == ["Heart normal."]
    assert split_sentences("None. Nasal tube in place. NAD.") == [
        "None.",
        "Nasal tube in place.",
        "NAD.",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GOOD.encode("latin-1"), r", line 3: is no CSV file in UTF-8 .*Latin-1.*CSV UTF-8"),
        (GOOD.encode("mac-roman"), r", line 3: is no CSV file in UTF-8"),
        (GOOD.encode("utf-16-le"), r": is no CSV file in UTF-8; it may be UTF-16.*CSV UTF-8"),
        (GOOD.encode("utf-16")[:-1], r": is cut off"),
        (b"PK\x03\x04" + bytes(99), r": is a workbook, not a CSV file.*CSV UTF-8"),
        (b"image,text,text\n0.png,a,b\n", r": has 2 columns 'text'\. Keep one"),
        (b"image,patient\n0.png,a\n", r": lacks the column 'text'; it has image, patient"),
        (b"image;patient\n0.png;a\n", r": lacks the column 'text'; it has image, patient"),
        (b"image,text\n,\n\n", r": has no rows below its header"),
    ],
)
def test_ambiguous_tables_are_refused_with_a_remedy(tmp_path, content, message):
    with pytest.raises(ValueError, match=r"films\.csv" + message):
        read(tmp_path, content)
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        read_table(tmp_path / "nowhere.csv", needed=NEEDED)
