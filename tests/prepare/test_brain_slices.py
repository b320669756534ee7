"""`prepare brain` on a small BIDS tree."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from diffct.cli import main
from diffct.data.condition_rows import BrainSlice
from diffct.data.manifest import SPLITS, Manifest, ManifestRow, read_manifest
from diffct.imaging.slices import put_slice, turn_to_plane
from diffct.imaging.volume import Volume, read_stored, reorient
from diffct.prepare.brain.discovery import find_bids, find_by_patterns
from diffct.prepare.brain.preparation import prepare_brain
from tests.imaging.dicom_files import MR, stored_values, write_series
from tests.prepare import brain_trees
from tests.prepare.runs import children, contents

SIZE = (52, 44)


def prepare(found, out: Path, **options):
    return prepare_brain(found, out, **({"size": SIZE, "show_progress": False} | options))


@pytest.fixture(scope="module")
def prepared(bids, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("prepared") / "out"
    prepare(find_bids(bids[0]), out)
    return out


@pytest.fixture
def small(tmp_path) -> Path:
    """A tree of three subjects, which the test may change."""
    for number in range(3):
        stem = f"sub-{number}/anat/sub-{number}"
        for contrast in ("T1w", "FLAIR"):
            brain_trees.write_head(tmp_path / "small" / f"{stem}_{contrast}.nii.gz", contrast)
    return tmp_path / "small"


def read_png(manifest: Manifest, image: str) -> np.ndarray:
    with Image.open(manifest.folder / image) as opened:
        assert opened.mode == "I;16"
        return (np.asarray(opened) / 65535).astype(np.float32)


def rows_of(manifest: Manifest, patient: str) -> list[ManifestRow]:
    return [row for row in manifest.rows if row.patient == patient]


def test_every_pair_is_kept_or_dropped_for_a_counted_reason(bids, prepared):
    report = json.loads((prepared / "prepare_report.json").read_text())
    assert report["dropped"] == bids[1]
    assert report["kept"] == 7 and report["pairs"] == 7 + sum(bids[1].values())
    assert report["remarks"] == {"FLAIR resampled onto the T1w": 1}
    assert sum(report["slices"].values()) == report["conditions"]["FLAIR"] == 7 * 5
    table = (prepared / "dropped.csv").read_text()
    assert re.search(r"03,,,FLAIR does not cover the T1w,\d\d% of its tissue lie inside", table)
    assert "sub-" not in table and str(bids[0]) not in table
    assert "12,,,FLAIR not there,a link to a file that is not there" in table


def test_subjects_are_split_and_not_their_sessions(prepared):
    manifest = read_manifest(prepared)  # refuses a patient in two splits
    assert [len({row.patient for row in manifest.split(name)}) for name in SPLITS] == [3, 1, 1]
    assert {row.study for row in rows_of(manifest, "01")} == {"a", "b"}
    assert len({Path(row.image).parent for row in rows_of(manifest, "09")}) == 2


def test_file_names_do_not_identify_the_patient(prepared):
    for path in (prepared / "images").rglob("*"):
        pattern = r"images/[0-9a-f]{16}(/\d{4}-(T1w|FLAIR|labels)\.png|/slices\.json)?"
        assert re.fullmatch(pattern, path.relative_to(prepared).as_posix())
        assert b"sub-" not in path.read_bytes() if path.is_file() else True


def test_series_of_magnetic_resonance_are_prepared_and_ct_is_not(tmp_path):
    for number in range(4):
        tags = MR if number < 3 else {}
        for contrast in ("T1", "FLAIR"):
            folder = tmp_path / "scans [MR]" / f"patient {number}" / contrast
            folder.parent.mkdir(parents=True, exist_ok=True)
            values = np.roll(stored_values(), number, axis=1)
            write_series(folder, series=f"1.{number}", values=values, **tags)
    pattern = f"{tmp_path}/scans [[]MR]/*/"
    found = find_by_patterns(f"{pattern}T1", {"FLAIR": f"{pattern}FLAIR"})
    out = tmp_path / "out"
    report = prepare(found, out, size=(12, 12), slices=2)
    assert report.kept == 3 and list(report.dropped) == ["T1w unreadable"]
    assert "holds no MR slice (found 9 CT)" in (out / "dropped.csv").read_text()
    assert all(row.facts["volume_size"] == [9, 12, 10] for row in read_manifest(out).rows)


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_slices_put_back_give_the_stored_intensities_at_their_place(bids, tmp_path, plane):
    root = tmp_path / "tree"
    for name in ("sub-01", "sub-02"):
        shutil.copytree(bids[0] / name, root / name)
    out = tmp_path / "out"
    prepare(find_bids(root, ["FLAIR", "T2w"]), out, plane=plane, slices=None, size=(80, 70))
    manifest = read_manifest(out)
    for path in root.rglob("*.nii*"):
        subject, *session, contrast = path.name.partition(".")[0].split("_")
        if (subject, contrast) == ("sub-02", "FLAIR"):
            continue  # on another grid; see the next test
        stored = read_stored(path)
        turned = turn_to_plane(stored, plane)
        back = Volume(np.full_like(turned.array, np.nan), turned.affine)
        visit = session[0].removeprefix("ses-") if session else ""
        rows = [row for row in rows_of(manifest, subject[4:]) if row.study == visit]
        assert len(rows) > 25
        for row in rows:
            known = BrainSlice.from_row(row)
            assert known.plane == plane and known.volume_size == turned.size
            np.testing.assert_allclose(known.volume_affine, turned.affine, atol=1e-3)
            condition = known.conditions.get(contrast)
            image, span = (row.image, known.intensity_range)
            if condition is not None:
                image, span = condition.image, condition.intensity_range
            unit = read_png(manifest, image)
            low, high = span
            scanned = (unit * (high - low) + low).astype(np.float32)
            put_slice(Volume(scanned[None], known.affine), back)
        result = reorient(back, stored.orientation)
        np.testing.assert_allclose(result.affine, stored.affine, atol=1e-3)
        covered = np.isfinite(result.array)
        assert covered.mean() > 0.5
        expected = np.clip(stored.array, *span)
        step = (span.high - span.low) / 65535
        np.testing.assert_allclose(result.array[covered], expected[covered], atol=0.51 * step)


def test_flair_of_another_grid_shows_the_same_place(bids, tmp_path):
    shutil.copytree(bids[0] / "sub-02", tmp_path / "tree" / "sub-02")
    prepare(find_bids(tmp_path / "tree"), tmp_path / "out", slices=None)
    manifest = read_manifest(tmp_path / "out")
    places = {"T1w": [], "FLAIR": []}
    for row in manifest.rows:
        known = BrainSlice.from_row(row)
        for contrast, image in (("T1w", row.image), ("FLAIR", known.conditions["FLAIR"].image)):
            # Halfway between the tissue and the ball.
            rows, columns = np.nonzero(read_png(manifest, image) > 0.75)
            indices = np.stack([0 * rows, rows, columns, 0 * rows + 1])
            places[contrast].append((known.affine @ indices)[:3])
    for contrast, found in places.items():
        middle = np.concatenate(found, axis=1).mean(axis=1)
        # The FLAIR's voxels measure 2 to 3 mm.
        assert np.linalg.norm(middle - brain_trees.BALL_MM) < 0.4, contrast


def test_axial_slices_are_displayed_upright(prepared):
    row = rows_of(read_manifest(prepared), "14")[2]
    rows, columns = np.nonzero(read_png(read_manifest(prepared), row.image) > 0.9)
    # The ball is to the right and anterior: on the viewer's left, above the middle.
    assert rows.mean() < SIZE[0] / 2 and columns.mean() < SIZE[1] / 2


def test_labels_lie_on_the_voxels_that_they_name(prepared):
    manifest = read_manifest(prepared)
    seen = 0
    for row in manifest.rows:
        known = BrainSlice.from_row(row)
        assert (known.labels is not None) == (row.patient == "11")
        if known.labels is not None:
            with Image.open(manifest.folder / known.labels) as opened:
                labels = np.asarray(opened)
            assert labels.dtype == np.uint8
            ball = read_png(manifest, row.image) > 0.9
            np.testing.assert_array_equal(labels, brain_trees.LABEL * ball)
            seen += ball.sum()
    assert seen > 50


@pytest.mark.parametrize(
    ("change", "remark"),
    [
        (lambda labels: labels + 300.0, "values outside 0 to 255"),
        (lambda labels: labels + 0.5, "values that are not whole numbers"),
        (lambda labels: labels[:2, :, :], "they do not cover the T1w"),
    ],
)
def test_invalid_labels_are_left_out_and_counted(small, tmp_path, change, remark):
    labels = change(brain_trees.draw_labels(brain_trees.make_affine()).astype(np.float32))
    path = small / "sub-1" / "anat" / "sub-1_dseg.nii.gz"
    brain_trees.write_scan(path, labels, brain_trees.make_affine())
    report = prepare(find_bids(small), tmp_path / "out")
    assert report.kept == 3 and report.remarks == {f"labels left out: {remark}": 1}
    assert not any("labels" in row.facts for row in read_manifest(tmp_path / "out").rows)


def test_labels_of_another_grid_are_brought_to_the_nearest_voxel(small, tmp_path):
    affine = brain_trees.make_affine("LSA", spacing=(1, 1, 1), size=(80, 80, 90))
    path = small / "sub-1" / "anat" / "sub-1_dseg.nii.gz"
    brain_trees.write_scan(path, brain_trees.draw_labels(affine, (80, 80, 90)), affine)
    prepare(find_bids(small), tmp_path / "out", slices=None)
    manifest = read_manifest(tmp_path / "out")
    same = []
    for row in rows_of(manifest, "1"):
        with Image.open(manifest.folder / row.facts["labels"]) as opened:
            labels = np.asarray(opened)
        ball = read_png(manifest, row.image) > 0.9
        assert set(np.unique(labels)) <= {0, brain_trees.LABEL}
        same += [np.count_nonzero(ball & (labels > 0)), np.count_nonzero(ball | (labels > 0))]
    assert sum(same[::2]) > 0.8 * sum(same[1::2]) > 50


def test_a_pair_without_one_of_two_conditions_is_kept_without_it(bids, prepared, tmp_path):
    report = prepare(find_bids(bids[0], ["FLAIR", "T2w"]), tmp_path / "out")
    assert report.dropped["FLAIR and T2w missing"] == 1 and report.kept == 7
    assert report.conditions == {"FLAIR": 35, "T2w": 5}
    manifest = read_manifest(tmp_path / "out")
    assert set(rows_of(manifest, "02")[0].facts["conditions"]) == {"FLAIR", "T2w"}
    assert set(rows_of(manifest, "14")[0].facts["conditions"]) == {"FLAIR"}


def test_empty_slices_and_windows_that_cut_tissue_are_counted(small, tmp_path):
    path = small / "sub-1" / "anat" / "sub-1_FLAIR.nii.gz"
    image = nibabel.load(path)
    array = np.asarray(image.dataobj).copy()
    array[:, :, 18] = 0
    nibabel.save(nibabel.Nifti1Image(array, image.affine), path)
    report = prepare(find_bids(small), tmp_path / "out", size=(30, 44))
    assert report.remarks == {"slices left out: empty": 1, "tissue reaches beyond the window": 3}
    assert sum(report.slices.values()) == 14


def test_rows_of_a_tree_marked_as_synthetic_are_synthetic(small, tmp_path):
    described = {"Name": "Phantoms", "DatasetType": "raw", "Synthetic": True}
    (small / "dataset_description.json").write_text(json.dumps(described))
    prepare(find_bids(small), tmp_path / "out")
    rows = read_manifest(tmp_path / "out").rows
    assert all(
        row.facts["synthetic"] is True and BrainSlice.from_row(row).synthetic for row in rows
    )


def test_only_changed_scans_are_sliced_again_and_withdrawn_ones_deleted(small, tmp_path):
    out = tmp_path / "out"
    first = prepare(find_bids(small), out)
    manifest = read_manifest(out)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    brain_trees.write_head(small / "sub-1/anat/sub-1_FLAIR.nii.gz", "FLAIR", degrees=9)
    lost = manifest.path(rows_of(manifest, "2")[0])
    lost.unlink()
    again = prepare(find_bids(small), out)
    assert again.slices == first.slices and again.remarks == {"FLAIR resampled onto the T1w": 1}
    changed = {path.parent.name for path, t in times.items() if path.stat().st_mtime_ns != t}
    expected = {Path(rows_of(manifest, name)[0].image).parent.name for name in "12"}
    assert changed == expected
    shutil.rmtree(small / "sub-0")
    (small / "sub-1/anat/sub-1_T1w.nii.gz").write_bytes(b"damaged")
    last = prepare(find_bids(small), out)
    assert last.dropped == {"T1w unreadable": 1} and last.kept == 1
    assert [path.name for path in (out / "images").iterdir()] == [lost.parent.name]


@pytest.mark.parametrize("stored", ["linked", "another order", "one contrast"])
def test_subjects_who_share_a_scan_are_merged(small, tmp_path, stored):
    """The same T1w and FLAIR as another subject's: one pair, one subject, whatever the seed."""
    for contrast in ("T1w", "FLAIR"):
        source = small / f"sub-0/anat/sub-0_{contrast}.nii.gz"
        copy = small / f"sub-9/anat/sub-9_{contrast}.nii.gz"
        if stored == "one contrast" and contrast == "T1w":
            brain_trees.write_head(copy, contrast)
            continue
        copy.parent.mkdir(parents=True, exist_ok=True)
        if stored == "another order":
            image = nibabel.load(source)
            turn = nibabel.orientations.axcodes2ornt("SPL")
            nibabel.save(image.as_reoriented(turn), copy)
        else:
            copy.symlink_to(source)
    for word in ("first", "from finished slices"):
        report = prepare(find_bids(small), tmp_path / "out")
        assert report.joined_subjects == 1, word
        assert "1 subjects have the same scan as another" in report.format()
        twins = rows_of(read_manifest(tmp_path / "out"), "0")
        if stored == "one contrast":
            assert report.dropped == {} and len(twins) == 10 and report.kept == 4
        else:
            assert report.dropped == {"same scans as another pair's": 1}
            assert len(twins) == 5 and len(list((tmp_path / "out/images").iterdir())) == 3
        assert not rows_of(read_manifest(tmp_path / "out"), "9")
    table = json.loads((tmp_path / "out" / "prepare_report.json").read_text())
    assert table["joined_subjects"] == 1


def test_different_or_impossible_settings_are_refused(small, tmp_path):
    prepare(find_bids(small), tmp_path / "out")
    before = contents(tmp_path / "out")
    with pytest.raises(ValueError, match="out: was prepared with plane axial, not coronal"):
        prepare(find_bids(small), tmp_path / "out", plane="coronal")
    assert contents(tmp_path / "out") == before
    for wrong in ({"plane": "oblique"}, {"slices": 0}, {"size": (0, 3)}, {"workers": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            prepare(find_bids(small), tmp_path / "other", **wrong)
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
def test_killed_run_resumes_and_equals_an_uninterrupted_one(tmp_path):
    brain_trees.write_many(tmp_path / "tree", subjects=60)
    out = tmp_path / "out"
    code = "from diffct.cli import main; main()"
    words = [sys.executable, "-c", code, "prepare", "brain", "--bids", str(tmp_path / "tree")]
    words += ["--out", str(out), "--size", *map(str, SIZE), "--workers", "2"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while len(finished_pairs(out)) < 5:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.005)
    workers = children(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stderr.close()
    assert len(workers) >= 2 and not (out / "manifest.jsonl").exists()
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.05)
    before = {path: path.stat().st_mtime_ns for path in finished_pairs(out)}
    assert 5 <= len(before) < 60
    # As if the run had been killed in the middle of a file.
    (out / "images" / ".0123456789abcdef.partial-x").mkdir()
    prepare(find_bids(tmp_path / "tree"), out)
    prepare(find_bids(tmp_path / "tree"), tmp_path / "uninterrupted")
    assert contents(out) == contents(tmp_path / "uninterrupted")
    assert all(path.stat().st_mtime_ns == t for path, t in before.items())
    assert not list((out / "images").glob(".*"))


def finished_pairs(out: Path) -> list[Path]:
    """List the complete folders of slices."""
    return [path for path in out.glob("images/*") if not path.name.startswith(".")]


@pytest.mark.slow
def test_number_of_workers_changes_nothing(bids, prepared, tmp_path):
    prepare(find_bids(bids[0]), tmp_path / "out", workers=2)
    assert contents(tmp_path / "out") == contents(prepared)


def test_the_command_prints_the_counts_and_names_mistakes(small, tmp_path, capsys):
    out = ["--out", str(tmp_path / "out"), "--size", "52", "44", "--workers", "1"]
    main(["prepare", "brain", "--bids", str(small), "--slices", "all", *out])
    shown = capsys.readouterr()
    assert "3 pairs kept + 0 dropped = 3 pairs" in shown.out
    assert "sub-" not in shown.out + shown.err
    target = ["--target", f"{small}/*/anat/*_T1w.nii.gz"]
    flair = ["--condition", f"FLAIR={small}/*/anat/*_FLAIR.nii.gz"]
    other = ["--out", str(tmp_path / "other"), "--size", "52", "44", "--workers", "1"]
    main(["prepare", "brain", *target, *flair, *other])
    assert {row.patient for row in read_manifest(tmp_path / "other").rows} == {
        *("sub-0", "sub-1", "sub-2")
    }
    for words, message in (
        (target, "--target needs --condition"),
        ([*target, *flair, *flair], "a different name each time"),
        ([*target, *flair, "T2w"], "--condition T2w: give NAME=PATTERN"),
        (["--bids", str(small), *flair], "a pattern needs --target"),
        (["--bids", str(tmp_path / "nowhere")], "nowhere: there is no such folder"),
        (["--bids", str(small / "sub-1")], "Give the root of a BIDS tree"),
        (["--brats", str(small)], "as BraTS does"),
        (["--bids", str(small), "--condition", "T2w"], "no pair is left(.|\n)*3  T2w missing"),
        (["--bids", str(small), "--condition", "T1w"], "'T1w' has no valid name"),
    ):
        with pytest.raises(SystemExit, match=f"diffct: .*{message}"):
            main(["prepare", "brain", *words, "--out", str(tmp_path / "none")])
