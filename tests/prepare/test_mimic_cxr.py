"""`prepare mimic-cxr` on a synthetic tree in MIMIC's exact layout, with seeded faults."""

import csv
import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from diffct.cli import main
from diffct.data.manifest import SPLITS, read_manifest
from diffct.imaging.radiograph import read_radiograph
from diffct.prepare.mimic_cxr import prepare_mimic_cxr
from tests.prepare.runs import children, contents


def prepare(tree, out: Path, **options):
    options = {"size": 64, "show_progress": False} | options
    return prepare_mimic_cxr(tree.images, tree.reports, out, **options)


@pytest.fixture(scope="module")
def prepared(tree, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("prepared") / "out"
    prepare(tree, out)
    return out


def test_counts_equal_the_seeded_faults(tree, prepared):
    report = json.loads((prepared / "prepare_report.json").read_text())
    assert len(tree.expected["dropped"]) == 11
    for key, value in tree.expected.items():
        assert report[key] == value, key
    assert report["rows"] == sum(report["images"].values()) + sum(report["dropped"].values())


def test_every_row_of_the_metadata_is_kept_or_dropped_once(tree, prepared):
    with (prepared / "dropped.csv").open() as stream:
        dropped = [int(row["csv_row"]) for row in csv.DictReader(stream)]
    kept = [row.facts["csv_row"] for row in read_manifest(prepared).rows]
    assert sorted(dropped + kept) == list(range(2, tree.expected["rows"] + 2))


def test_every_film_keeps_its_own_words_and_patient(tree, prepared, mimic_tree):
    manifest = read_manifest(prepared)
    assert len({row.image for row in manifest.rows}) == len(manifest.rows) > 200
    for row in manifest.rows:
        film = read_radiograph(manifest.path(row))
        assert min(film.shape) == 64
        told = {int(mm) for mm in re.findall(r"(\d+) mm", " ".join(row.sentences))}
        assert told == {mimic_tree.read_code(film)}
        assert row.image.startswith(f"images/p{row.patient[:2]}/p{row.patient}/s{row.study}/")
        report = tree.reports / row.image.replace("images", "files").rpartition("/")[0]
        assert f"{min(told)} mm" in report.with_suffix(".txt").read_bytes().decode("latin-1")


def test_sentences_are_those_of_findings_and_impression(prepared):
    rows = read_manifest(prepared).rows
    sentences = {re.sub(r"\d+ mm", "N mm", text) for row in rows for text in row.sentences}
    assert {
        "A nodule in the right upper lobe measures approx. N mm, unchanged since ___.",
        "The cardiac silhouette, as measured by Dr. ___, is enlarged.",
        "Nodule of N mm in the right upper lobe",
        "___ catheter ends in the low SVC",
        "nodule of N mm in size.",
        "no effusion.",
        "LUNGS: Nodule of N mm.",
        "Nodule (chest wall 37 °C) of N mm.",
    } <= sentences
    # Nothing of the other sections may appear.
    assert not re.search("pain|CHF|CT chest|telephone|999|Cough|FINAL", " ".join(sentences))
    assert len(sentences) < 30


def test_official_split_is_kept_and_no_patient_is_in_two(tree, prepared):
    with gzip.open(tree.images / "mimic-cxr-2.0.0-split.csv.gz", "rt") as stream:
        official = {row["dicom_id"]: row["split"] for row in csv.DictReader(stream)}
    manifest = read_manifest(prepared)  # refuses a patient in two splits
    for row in manifest.rows:
        name = official[Path(row.image).stem]
        assert row.split == {"validate": "validation"}.get(name, name)
    assert all(manifest.split(name) for name in SPLITS)


def test_seeded_split_is_by_patient_and_follows_the_seed(small_tree, tmp_path):
    (small_tree.images / "mimic-cxr-2.0.0-split.csv.gz").unlink()
    told = {}
    for name, seed in (("a", 1), ("again", 1), ("b", 2)):
        prepare(small_tree, tmp_path / name, split="seeded", seed=seed)
        rows = read_manifest(tmp_path / name).rows
        told[name] = {row.patient: row.split for row in rows}
        assert set(told[name].values()) == set(SPLITS)
    assert told["a"] == told["again"] != told["b"]


def test_zipped_reports_give_the_same(tree, prepared, mimic_tree, tmp_path):
    mimic_tree.write_tree(tmp_path / "mimic", zipped=True)
    for reports in (tmp_path / "mimic", tmp_path / "mimic" / "mimic-cxr-reports.zip"):
        out = tmp_path / f"out-{reports.name}"
        shutil.copytree(prepared, out)
        (out / "manifest.jsonl").unlink()
        prepare(tree._replace(reports=reports), out)
        assert (out / "manifest.jsonl").read_bytes() == (prepared / "manifest.jsonl").read_bytes()


def test_version_2_1_and_unpacked_tables_are_read(small_tree, tmp_path):
    expected = prepare(small_tree, tmp_path / "first")
    for kind in ("metadata", "split"):
        packed = small_tree.images / f"mimic-cxr-2.0.0-{kind}.csv.gz"
        (small_tree.images / f"mimic-cxr-2.1.0-{kind}.csv").write_bytes(
            gzip.decompress(packed.read_bytes())
        )
        packed.unlink()
    assert prepare(small_tree, tmp_path / "second") == expected


def test_second_run_writes_only_images_whose_source_has_changed(small_tree, tmp_path):
    out = tmp_path / "out"
    first = prepare(small_tree, out)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    changed = read_manifest(out).rows[0].image
    source = small_tree.images / changed.replace("images", "files", 1).replace(".png", ".jpg")
    with Image.open(source) as opened:
        ImageOps.flip(opened).save(source)
    assert prepare(small_tree, out) == first
    rewritten = {path for path, before in times.items() if path.stat().st_mtime_ns != before}
    assert rewritten == {out / changed}
    shutil.copyfile(source.with_name(source.name), tmp_path / "kept.jpg")
    source.write_bytes(source.read_bytes()[:900])
    assert prepare(small_tree, out).dropped["image unreadable"] == 1 + first.dropped.get(
        "image unreadable", 0
    )
    assert not (out / changed).exists()


@pytest.mark.parametrize(("option", "value"), [("size", 65), ("split", "seeded")])
def test_changed_settings_are_refused_in_the_same_folder(small_tree, tmp_path, option, value):
    prepare(small_tree, tmp_path / "out")
    before = contents(tmp_path / "out")
    with pytest.raises(ValueError, match=rf"out: was prepared with {option} .*, not {value}"):
        prepare(small_tree, tmp_path / "out", **{option: value})
    assert contents(tmp_path / "out") == before


def test_a_folder_with_other_things_is_left_alone(small_tree, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="not empty"):
        prepare(small_tree, tmp_path / "out")
    assert list(contents(tmp_path / "out")) == ["thesis.txt"]


def _cut_metadata(tree) -> None:
    path = tree.images / "mimic-cxr-2.0.0-metadata.csv.gz"
    path.write_bytes(path.read_bytes()[:-50])


def _rename_column(tree) -> None:
    path = tree.images / "mimic-cxr-2.0.0-metadata.csv.gz"
    text = gzip.decompress(path.read_bytes()).replace(b"ViewPosition", b"View")
    path.write_bytes(gzip.compress(text))


def _unknown_split(tree) -> None:
    path = tree.images / "mimic-cxr-2.0.0-split.csv.gz"
    text = gzip.decompress(path.read_bytes()).replace(b"validate", b"holdout")
    path.write_bytes(gzip.compress(text))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (_cut_metadata, "metadata.csv.gz: is damaged or cut off"),
        (_rename_column, "lacks the column 'ViewPosition'"),
        (_unknown_split, r"split.csv.gz, row \d+: the split is 'holdout'"),
        (lambda tree: shutil.rmtree(tree.images / "files"), "holds no folder 'files'"),
        (lambda tree: shutil.rmtree(tree.reports / "files"), "holds no reports"),
        (
            lambda tree: (tree.images / "mimic-cxr-2.0.0-split.csv.gz").unlink(),
            "holds no mimic-cxr-2.0.0-split.csv.gz",
        ),
    ],
)
def test_a_damaged_download_is_named_before_anything_is_written(
    small_tree, tmp_path, harm, message
):
    harm(small_tree)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        prepare(small_tree, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_cut_off_zip_of_reports_is_named(small_tree, mimic_tree, tmp_path):
    mimic_tree.write_tree(tmp_path / "zipped", patients=12, zipped=True)
    archive = tmp_path / "zipped" / "mimic-cxr-reports.zip"
    archive.write_bytes(archive.read_bytes()[:-400])
    with pytest.raises(ValueError, match=r"mimic-cxr-reports\.zip: is damaged or cut off"):
        prepare(small_tree._replace(reports=archive), tmp_path / "out")


def test_when_nothing_is_left_the_counts_show_why(small_tree, tmp_path):
    for report in small_tree.reports.rglob("*.txt"):
        report.write_bytes(b"")
    with pytest.raises(ValueError, match=r"no film is left(.|\n)*no findings or impression"):
        prepare(small_tree, tmp_path / "out")
    assert not (tmp_path / "out" / "manifest.jsonl").exists()


def test_reports_of_the_run_name_no_patient(small_tree, tmp_path, capsys):
    words = ["prepare", "mimic-cxr", "--images", str(small_tree.images), "--workers", "1"]
    words += ["--reports", str(small_tree.reports), "--out", str(tmp_path / "out")]
    main([*words, "--size", "64"])
    shown = capsys.readouterr()
    written = [(tmp_path / "out" / name).read_text() for name in ("prepare_report.json",)]
    written.append((tmp_path / "out" / "dropped.csv").read_text())
    patients = {row.patient for row in read_manifest(tmp_path / "out").rows}
    assert f"= {small_tree.expected['rows']} rows" in shown.out
    for text in (shown.out, shown.err, *written):
        assert not any(patient in text for patient in patients)


@pytest.mark.slow
def test_number_of_workers_changes_nothing(tree, prepared, tmp_path):
    prepare(tree, tmp_path / "out", workers=2)
    assert contents(tmp_path / "out") == contents(prepared)


@pytest.mark.slow
def test_killed_run_resumes_and_equals_an_uninterrupted_one(tree, tmp_path):
    out = tmp_path / "out"
    words = [sys.executable, "-c", "from diffct.cli import main; main()", "prepare", "mimic-cxr"]
    words += ["--images", tree.images, "--reports", tree.reports, "--out", out]
    process = subprocess.Popen(
        [*map(str, words), "--size", "300", "--workers", "2"], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while len(films_in(out)) < 30:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)
    workers = children(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert len(workers) >= 2 and not (out / "manifest.jsonl").exists()
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.05)
    finished = {path: path.stat().st_mtime_ns for path in films_in(out)}
    assert 30 <= len(finished) < sum(tree.expected["images"].values())

    prepare(tree, out, size=300)
    prepare(tree, tmp_path / "uninterrupted", size=300)
    assert contents(out) == contents(tmp_path / "uninterrupted")
    assert all(path.stat().st_mtime_ns == before for path, before in finished.items())


def films_in(out: Path) -> list[Path]:
    """List the written films; unlike `rglob`, safe while other files appear and vanish."""
    return [
        Path(folder, name)
        for folder, _, names in os.walk(out)
        for name in names
        if Path(folder).name.startswith("s") and name.endswith(".png")
    ]


def test_a_full_disk_is_named_and_the_run_resumes_later(small_tree, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a small disk needs root")
    try:
        with pytest.raises(OSError, match=r"disk is full: .*\.png was not written"):
            prepare(small_tree, disk / "out", size=200)
        subprocess.run(["mount", "-o", "remount,size=50m", str(disk)], check=True)
        prepare(small_tree, disk / "out", size=200)
        prepare(small_tree, tmp_path / "roomy", size=200)
        assert contents(disk / "out") == contents(tmp_path / "roomy")
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
