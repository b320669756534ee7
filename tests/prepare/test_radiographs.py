"""`prepare radiographs`: any folder of films with a table."""

import csv
import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from diffct.cli import main
from diffct.data.manifest import SPLITS, read_manifest
from diffct.imaging.radiograph import read_radiograph, resize_shorter_side
from diffct.prepare.radiographs import prepare_radiographs

SHAPE = (150, 120)


def write_table(path: Path, *rows: dict[str, str]) -> Path:
    with path.open("w", encoding="utf-8-sig", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_image(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_dicom(path: Path, stored: np.ndarray) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = pydicom.dataset.FileDataset(path, {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.Modality, dataset.PhotometricInterpretation = "CR", "MONOCHROME1"
    dataset.PatientName, dataset.PatientID = "Doe^Jane", "SECRET-1"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
    dataset.ImagerPixelSpacing = [0.2, 0.2]
    dataset.WindowCenter, dataset.WindowWidth = 2048, 4096
    dataset.PixelData = stored.astype(np.uint16).tobytes()
    dataset.save_as(path)


@pytest.fixture
def ramp() -> np.ndarray:
    return np.linspace(0, 1, SHAPE[0] * SHAPE[1]).reshape(SHAPE)


@pytest.fixture
def films(tmp_path, ramp) -> Path:
    """Four films in four formats, one of them with the name of its patient."""
    folder = tmp_path / "films"
    write_image(folder / "a.jpg", (marked(ramp, 0) * 255).astype(np.uint8))
    write_image(folder / "sub" / "a.png", (marked(ramp, 1) * 65535).astype(np.uint16))
    write_image(folder / "12 bit" / "a.png", (marked(ramp, 2) * 4095).astype(np.uint16))
    write_dicom(folder / "Doe_Jane.dcm", (1 - marked(ramp, 3)) * 4095)
    return folder


def marked(ramp: np.ndarray, number: int) -> np.ndarray:
    """Make another film of a ramp: with a band that is mirrored."""
    film = ramp.copy()
    film[30 * number : 30 * (number + 1)] = 1 - film[30 * number : 30 * (number + 1)]
    return film


def rows_of(films: Path, **more: str) -> list[dict[str, str]]:
    names = sorted(path.relative_to(films).as_posix() for path in films.rglob("*.*"))
    return [
        {"image": name, "text": f"Film {number}. No effusion.", "patient": f"P{number}", **more}
        for number, name in enumerate(names)
    ]


def prepare(films: Path, out: Path, table: Path, **options):
    return prepare_radiographs(
        films, table, out, **({"size": 75, "show_progress": False} | options)
    )


def test_a_film_comes_out_of_every_format(films, tmp_path, ramp):
    table = write_table(tmp_path / "films.csv", *rows_of(films))
    report = prepare(films, tmp_path / "out", table)
    assert report.dropped == {"image bit depth": 1} and sum(report.images.values()) == 3
    assert "12 of 16 bits" in (tmp_path / "out" / "dropped.csv").read_text()
    manifest = read_manifest(tmp_path / "out")
    for number, patient in {0: "P2", 1: "P3", 3: "P1"}.items():
        (row,) = (row for row in manifest.rows if row.patient == patient)
        film = read_radiograph(manifest.path(row))
        assert film.shape == (94, 75)
        assert np.abs(film - resize_shorter_side(marked(ramp, number), 75)).max() < 0.02
    dicom = next(row for row in manifest.rows if "pixel_spacing_mm" in row.facts)
    assert dicom.facts["original_size"] == [150, 120]
    assert dicom.facts["pixel_spacing_mm"] == pytest.approx([0.2 * 150 / 94, 0.2 * 120 / 75])


def test_bits_in_use_can_be_stated(films, tmp_path):
    table = write_table(tmp_path / "films.csv", rows_of(films)[0])
    report = prepare(films, tmp_path / "out", table, bits=12)
    assert report.dropped == {} and report.images["train"] == 1
    with pytest.raises(ValueError, match="bits is 17"):
        prepare(films, tmp_path / "other", table, bits=17)


def test_outputs_do_not_carry_names_of_files_or_dicom_tags(films, tmp_path):
    table = write_table(tmp_path / "films.csv", *rows_of(films))
    prepare(films, tmp_path / "out", table)
    for path in (tmp_path / "out").rglob("*"):
        assert "Doe" not in path.name
        if path.is_file():
            assert b"Doe" not in path.read_bytes() and b"SECRET" not in path.read_bytes()


def test_the_split_of_the_table_is_used_and_leaks_are_dropped(films, tmp_path):
    rows = rows_of(films)[1:]
    for row, split in zip(rows, ("train", "Val", "test"), strict=True):
        row["split"] = split
    rows += [rows[0] | {"split": "test", "image": "other.png"}]
    report = prepare(films, tmp_path / "out", write_table(tmp_path / "films.csv", *rows))
    assert report.dropped == {"patient in two splits": 2}
    assert report.images == {"train": 0, "validation": 1, "test": 1}


def test_incomplete_rows_are_counted(films, tmp_path):
    good = rows_of(films)[1] | {"split": "train", "study": "s"}
    rows = [good, good | {"image": "./" + good["image"], "text": "again"}]
    rows += [good | {"text": " ... "}, good | {"image": ""}, good | {"patient": ""}]
    rows += [good | {"split": ""}, good | {"image": "nowhere.png"}, good | {"image": "sub"}]
    report = prepare(films, tmp_path / "out", write_table(tmp_path / "films.csv", *rows))
    assert report.images["train"] == 1 and report.rows == 8
    assert report.dropped == {
        "image file missing": 2,
        "image listed twice": 1,
        "no image named": 1,
        "no patient named": 1,
        "no split named": 1,
        "no text": 1,
    }


def test_missing_values_are_neither_reports_nor_patients(films, tmp_path):
    good = rows_of(films)[1]
    other = rows_of(films)[2]
    rows = [good, good | {"image": "b.png", "text": "nan"}, other | {"patient": "NaN"}]
    report = prepare(films, tmp_path / "out", write_table(tmp_path / "films.csv", *rows))
    assert report.dropped == {"no patient named": 1, "no text": 1}
    (row,) = read_manifest(tmp_path / "out").rows
    assert row.patient == good["patient"]
    assert row.sentences == tuple(good["text"].replace(". ", ".|").split("|"))
    assert "4,no patient named" in (tmp_path / "out" / "dropped.csv").read_text()


def test_an_image_of_two_patients_is_dropped(films, tmp_path):
    good, other = rows_of(films)[1:3]
    rows = [good, other, other | {"patient": good["patient"]}]
    report = prepare(films, tmp_path / "out", write_table(tmp_path / "films.csv", *rows))
    assert report.dropped == {"image of two patients": 2} and report.rows == 3
    # A row without a patient does not affect another row of the same image.
    rows = [other | {"text": "nan"}, good, other]
    report = prepare(films, tmp_path / "again", write_table(tmp_path / "films.csv", *rows))
    assert report.dropped == {"no text": 1} and report.images["train"] == 2


def test_reports_and_plain_text_are_both_read(films, tmp_path):
    rows = rows_of(films)[1:3]
    rows[0]["text"] = "INDICATION: Cough.\nFINDINGS: Clear.\nIMPRESSION: Normal."
    rows[1]["text"] = "A mass, 3 cm in size. No effusion."
    prepare(films, tmp_path / "out", write_table(tmp_path / "films.csv", *rows))
    told = {row.patient: row.sentences for row in read_manifest(tmp_path / "out").rows}
    assert told[rows[0]["patient"]] == ("Clear.", "Normal.")
    assert told[rows[1]["patient"]] == ("A mass, 3 cm in size.", "No effusion.")


def test_drawn_split_keeps_patients_together(tmp_path, ramp):
    rows = []
    for number in range(40):
        film = np.roll(ramp, 3 * number, axis=0)
        write_image(tmp_path / "films" / f"{number}.png", (film * 255).astype(np.uint8))
        rows.append({"image": f"{number}.png", "text": "Clear.", "patient": str(number % 20)})
    table = write_table(tmp_path / "films.csv", *rows)
    report = prepare(tmp_path / "films", tmp_path / "out", table)
    assert report.images == {"train": 32, "validation": 4, "test": 4}
    assert report.patients == {"train": 16, "validation": 2, "test": 2}
    assert [row.facts["csv_row"] for row in read_manifest(tmp_path / "out").rows] == [*range(2, 42)]


def test_a_tibia_is_not_taken_for_a_chest_without_a_warning(films, tmp_path):
    path = films / "Doe_Jane.dcm"
    dataset = pydicom.dcmread(path)
    dataset.BodyPartExamined, dataset.ViewPosition = "TIBIA", "LATERAL"
    dataset.save_as(path)
    for word in ("once", "again, from the finished pictures"):
        report = prepare(films, tmp_path / "out", write_table(tmp_path / "a.csv", *rows_of(films)))
        assert report.unlike_chest == {"body part TIBIA": 1, "view LATERAL": 1}, word
    assert "WARNING" in report.format() and "body part TIBIA (1)" in report.format()
    told = [row.facts.get("header") for row in read_manifest(tmp_path / "out").rows]
    assert sorted(filter(None, told)) == [["body part TIBIA", "view LATERAL"]]
    others = [row for row in rows_of(films) if not row["image"].endswith(".dcm")]
    rest = prepare(films, tmp_path / "rest", write_table(tmp_path / "b.csv", *others))
    assert rest.unlike_chest == {} and "WARNING" not in rest.format()


def test_small_films_are_enlarged_and_counted(films, tmp_path):
    table = write_table(tmp_path / "films.csv", rows_of(films)[1])
    report = prepare(films, tmp_path / "out", table, size=200)
    assert (
        report.enlarged == 1 and "1 images were smaller than the requested size" in report.format()
    )


def test_a_table_without_patients_needs_an_explicit_option(films, tmp_path):
    rows = [{"image": row["image"], "text": row["text"]} for row in rows_of(films)[1:]]
    table = write_table(tmp_path / "films.csv", *rows)
    with pytest.raises(ValueError, match=r"lacks the column 'patient'.*--one-patient-per-image"):
        prepare(films, tmp_path / "out", table)
    assert not (tmp_path / "out").exists()
    prepare(films, tmp_path / "out", table, one_patient_per_image=True)
    assert len({row.patient for row in read_manifest(tmp_path / "out").rows}) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"image,patient\na.jpg,P\n", r"films\.csv: lacks the column 'text'; it has image, p"),
        (b"image,text,patient,split\na.jpg,x,P,holdout\n", r"row 2: the split is 'holdout'"),
        (b"image,text,patient\n", "has no rows"),
        (b"", "lacks the column 'image'"),
        (b"image,text,patient\na.jpg,\xff\xfe,P\n", "is no CSV file in UTF-8"),
    ],
)
def test_a_wrong_table_is_named(films, tmp_path, content, message):
    (tmp_path / "films.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        prepare(films, tmp_path / "out", tmp_path / "films.csv")


def test_the_command_prints_the_counts_and_names_mistakes(films, tmp_path, capsys):
    table = write_table(tmp_path / "films.csv", *rows_of(films))
    words = ["prepare", "radiographs", "--csv", str(table), "--out", str(tmp_path / "out")]
    words += ["--workers", "1", "--size", "75", "--images"]
    main([*words, str(films)])
    assert "3 images kept + 1 rows dropped = 4 rows" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"diffct: .*nowhere: there is no such folder"):
        main([*words, str(tmp_path / "nowhere")])
    with pytest.raises(SystemExit, match=r"workers is 0"):
        main([*words, str(films), "--workers", "0"])
    report = json.loads((tmp_path / "out" / "prepare_report.json").read_text())
    assert report["settings"]["size"] == 75 and report["rows"] == 4


def test_phantom_films_are_written_by_a_command(tmp_path, capsys):
    words = ["phantom", "chest", "--out", str(tmp_path / "out"), "--number", "10"]
    main([*words, "--size", "64", "64"])
    manifest = read_manifest(tmp_path / "out")
    assert [len(manifest.split(name)) for name in SPLITS] == [8, 1, 1]
    assert "8 train, 1 validation, 1 test" in capsys.readouterr().out
