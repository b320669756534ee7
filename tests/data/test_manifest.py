"""A manifest is read as it was written, and a wrong one is refused by line."""

import json
from pathlib import Path

import pytest

from diffct.data.manifest import Manifest, ManifestRow, read_manifest, write_manifest

ROWS = [
    ManifestRow("images/a.png", "Ada", "train", "1", ("Größe \u2028 normal.",), {"x": [1, 2.5]}),
    ManifestRow("images/b.png", "Ada", "train"),
    ManifestRow("images/c.png", "Bob", "test"),
]


def write_lines(folder: Path, *lines: dict | str) -> Path:
    path = folder / "manifest.jsonl"
    texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path


def row(image: str = "a.png", patient: str = "Ada", split: str = "train", **more: object) -> dict:
    return {"image": image, "patient": patient, "split": split, **more}


def test_what_is_written_is_read_from_the_file_and_from_its_folder(tmp_path):
    (tmp_path / "images").mkdir()
    for name in "abc":
        (tmp_path / "images" / f"{name}.png").touch()
    write_manifest(iter(ROWS), tmp_path / "manifest.jsonl")
    manifest = read_manifest(tmp_path)
    assert manifest == read_manifest(str(tmp_path / "manifest.jsonl"))
    assert manifest == Manifest(tmp_path, tuple(ROWS))
    assert [found.image for found in manifest.split("train")] == ["images/a.png", "images/b.png"]
    assert manifest.split("validation") == []
    assert manifest.path(ROWS[0]) == tmp_path / "images" / "a.png"
    with pytest.raises(ValueError, match="no split 'val'"):
        manifest.split("val")


def test_files_of_other_programs_are_read(tmp_path):
    path = write_lines(tmp_path, row("a.png"), "", row("b.png"))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert len(read_manifest(path, check_files=False).rows) == 2


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([row(), "{"], "line 2: is not JSON"),
        ([row(), "[]"], "line 2: is not a JSON object"),
        ([{"image": "a.png", "split": "train"}], "line 1: lacks the key 'patient'"),
        ([row(patient=7)], "line 1: lacks the key 'patient'"),
        ([row(patient="nan")], "line 1: the patient is 'nan', which means no value"),
        ([row(), row("b.png", sentences=["Fine.", "nan"])], "line 2: the sentence 'nan' says"),
        ([row(split="val")], "line 1: the split is 'val'; it must be one of train, validation"),
        ([row(sentence="x")], "line 1: has the unknown key 'sentence'"),
        ([row(sentences="x")], "line 1: 'sentences' is not a list"),
        ([row(facts=[])], "line 1: 'study' must be a text and 'facts' an object"),
        ([row(), row("b.png"), row()], "lines 1 and 3 name the same image"),
        ([], "lists no image"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, lines, message):
    with pytest.raises(ValueError, match=message):
        read_manifest(write_lines(tmp_path, *lines), check_files=False)


def test_patients_in_two_splits_are_counted_and_not_named(tmp_path):
    lines = [row("1", "Ada"), row("2", "Bob"), row("3", "Ada", "test"), row("4", "Ada", "test")]
    path = write_lines(tmp_path, *lines, row("5", "Bob", "validation"))
    with pytest.raises(ValueError, match=r"2 patient\(s\).*lines 1 and 3; 2 and 5") as caught:
        read_manifest(path, check_files=False)
    assert "Ada" not in str(caught.value) and "Bob" not in str(caught.value)
    rows = [ManifestRow("1", "Ada", "train"), ManifestRow("2", "Ada", "test")]
    with pytest.raises(ValueError, match="two splits"):
        write_manifest(rows, tmp_path / "new.jsonl")
    assert not (tmp_path / "new.jsonl").exists()


def test_missing_images_are_counted_by_line(tmp_path):
    path = write_lines(tmp_path, *(row(f"Ada/{n}.png") for n in range(9)))
    (tmp_path / "Ada").mkdir()
    (tmp_path / "Ada" / "1.png").touch()
    with pytest.raises(
        FileNotFoundError, match=r"8 of 9 images.*lines 1, 3, 4, 5, 6, \."
    ) as caught:
        read_manifest(path)
    assert "Ada" not in str(caught.value)


def test_a_missing_manifest_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"manifest\.jsonl: there is no such"):
        read_manifest(tmp_path)
