"""The same film under two names is one film of one patient, whatever format it is in."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffct.data.manifest import read_manifest
from diffct.phantoms.chest.cohort import write_chest_cohort
from tests.prepare.test_radiographs import prepare, write_dicom, write_table


@pytest.fixture(scope="module")
def chests(tmp_path_factory) -> list[np.ndarray]:
    """Eight phantom films (144, 128) with the grain of a detector, in [0, 1]."""
    folder = tmp_path_factory.mktemp("chests") / "out"
    write_chest_cohort(folder, number=8, seed=3, size=(144, 128))
    pictures = [np.asarray(Image.open(path)) / 65535 for path in sorted(folder.rglob("*.png"))]
    rng = np.random.default_rng(0)
    return [np.clip(film + rng.normal(0, 0.01, film.shape), 0, 1) for film in pictures]


def save(path: Path, film: np.ndarray, bits: int = 8, **options: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = np.uint8 if bits == 8 else np.uint16
    Image.fromarray((film * (2**bits - 1)).astype(kind)).save(path, **options)


def write_originals(folder: Path, chests: list[np.ndarray]) -> list[dict[str, str]]:
    """Write each film as DICOM and return the rows of a table."""
    folder.mkdir(parents=True)
    rows = []
    for number, film in enumerate(chests):
        write_dicom(folder / f"{number}.dcm", (1 - film) * 4095)
        text = f"Film {number}."
        rows.append({"image": f"{number}.dcm", "text": text, "patient": f"P{number}"})
    return rows


COPIES = {
    "8 bits": lambda film, path: save(path / "copy.png", film),
    "16 bits": lambda film, path: save(path / "copy.png", film, 16),
    "JPEG": lambda film, path: save(path / "copy.jpg", film, quality=90),
    "another window": lambda film, path: save(path / "copy.png", 0.2 + 0.7 * film),
    "smaller": lambda film, path: (
        Image.fromarray((film * 255).astype(np.uint8)).resize((96, 108)).save(path / "copy.png")
    ),
}


@pytest.mark.parametrize("how", COPIES)
def test_a_film_and_its_conversion_are_one_patient_and_used_once(chests, tmp_path, how):
    rows = write_originals(tmp_path / "films", chests)
    COPIES[how](chests[2], tmp_path / "films")
    name = next((tmp_path / "films").glob("copy.*")).name
    rows.append({"image": name, "text": "Again.", "patient": "OTHER"})
    report = prepare(tmp_path / "films", tmp_path / "o", write_table(tmp_path / "t.csv", *rows))
    assert report.dropped == {"same picture as another row's": 1}
    assert report.joined_patients == 1 and sum(report.images.values()) == 8
    assert "1 patients have the same picture as another" in report.format()
    with (tmp_path / "o" / "dropped.csv").open() as stream:
        assert [row["csv_row"] for row in csv.DictReader(stream)] == ["10"]
    assert "the picture of row 4" in (tmp_path / "o" / "dropped.csv").read_text()
    assert json.loads((tmp_path / "o" / "prepare_report.json").read_text())["joined_patients"] == 1
    assert len(list((tmp_path / "o" / "images").iterdir())) == 8


@pytest.mark.parametrize("seed", range(3))
def test_all_films_of_patients_who_share_one_are_in_one_split(chests, tmp_path, seed):
    rows = write_originals(tmp_path / "films", chests)
    save(tmp_path / "films" / "copy.png", chests[0])
    rows.append({"image": "copy.png", "text": "Again.", "patient": "P7"})
    table = write_table(tmp_path / "t.csv", *rows)
    prepare(tmp_path / "films", tmp_path / "o", table, seed=seed)
    splits = {row.facts["csv_row"]: row for row in read_manifest(tmp_path / "o").rows}
    assert splits[2].split == splits[9].split and splits[2].patient == splits[9].patient == "P0"


def test_patients_who_share_a_film_are_dropped_if_the_table_separates_them(chests, tmp_path):
    rows = write_originals(tmp_path / "films", chests)
    save(tmp_path / "films" / "copy.png", chests[0])
    rows.append({"image": "copy.png", "text": "Again.", "patient": "P7"})
    for number, row in enumerate(rows):
        row["split"] = "train" if number < 6 else "test"
    report = prepare(tmp_path / "films", tmp_path / "o", write_table(tmp_path / "t.csv", *rows))
    assert report.dropped == {"same picture as a patient's of another split": 3}
    assert report.images == {"train": 5, "validation": 0, "test": 1}
    for row in rows:
        row["split"] = "train"
    report = prepare(tmp_path / "films", tmp_path / "p", write_table(tmp_path / "t.csv", *rows))
    assert report.dropped == {"same picture as another row's": 1} and report.images["train"] == 8


def test_similar_films_are_not_copies(tmp_path):
    """Films that differ by their noise alone agree in their thumbnails, but not in their pixels."""
    rng, rows = np.random.default_rng(0), []
    smooth = 0.2 + 0.6 * np.linspace(0, 1, 160 * 128).reshape(160, 128)
    for number in range(6):
        film = np.clip(smooth + rng.normal(0, 0.03, smooth.shape), 0, 1)
        save(tmp_path / "films" / f"{number}.png", film)
        rows.append({"image": f"{number}.png", "text": "Clear.", "patient": f"P{number}"})
    table = write_table(tmp_path / "t.csv", *rows)
    report = prepare(tmp_path / "films", tmp_path / "o", table, size=128)
    assert report.dropped == {} and report.joined_patients == 0


def test_copies_are_found_among_films_that_an_earlier_run_has_finished(chests, tmp_path):
    rows = write_originals(tmp_path / "films", chests)
    prepare(tmp_path / "films", tmp_path / "o", write_table(tmp_path / "t.csv", *rows))
    save(tmp_path / "films" / "copy.png", chests[5])
    rows.append({"image": "copy.png", "text": "Again.", "patient": "OTHER"})
    pictures = (tmp_path / "o" / "images").iterdir()
    finished = {path: path.stat().st_mtime_ns for path in pictures}
    for word in ("first", "again"):
        report = prepare(tmp_path / "films", tmp_path / "o", write_table(tmp_path / "t", *rows))
        assert report.dropped == {"same picture as another row's": 1}, word
        assert {path: path.stat().st_mtime_ns for path in finished} == finished


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_nearly_black_films_of_8_bits_are_dropped(chests, tmp_path, ending):
    for number, brightness in enumerate((1.0, 0.05)):
        save(tmp_path / "films" / f"{number}.{ending}", brightness * chests[number])
    rows = [
        {"image": f"{number}.{ending}", "text": "Clear.", "patient": f"P{number}"}
        for number in range(2)
    ]
    report = prepare(tmp_path / "films", tmp_path / "o", write_table(tmp_path / "t.csv", *rows))
    assert report.dropped == {"image constant": 1} and report.images["train"] == 1
    assert (
        "0.0% of its pixels lie between black and white"
        in (tmp_path / "o" / "dropped.csv").read_text()
    )
