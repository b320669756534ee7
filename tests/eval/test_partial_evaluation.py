"""An impossible figure or measurement leaves the others intact; finished ones are written."""

import json
import os
from pathlib import Path

import nibabel
import numpy as np
import pytest

from diffct.cli import main
from diffct.config import save_config
from diffct.data.manifest import ManifestRow, write_manifest
from diffct.data.volumes import CTDataConfig
from diffct.eval import distribution, privacy
from diffct.eval.cohorts import load_cohort
from diffct.eval.figures import Figure
from diffct.eval.section import Section
from diffct.imaging.radiograph import write_png
from diffct.imaging.volume import Volume, canonical_affine, write_volume
from diffct.phantoms.bootstrap import load_run_volumes
from diffct.train.train_ct3d import CT3DConfig
from tests.train.brains import write_base

SAYS_LITTLE = "random-resnet10-3d-seed0"


def write_scans(folder, number, slices=6, seed=0):
    for index in range(number):
        volume = np.full((slices, 12, 12), -1000, np.float32)
        body = np.random.default_rng((seed, index)).normal(40, 20, (slices, 6, 6))
        volume[:, 3:9, 3:9] = body
        affine = canonical_affine(volume.shape, (3, 1.5, 1.5))
        write_volume(Volume(volume, affine), folder / f"{index}.nii.gz")


@pytest.fixture
def scans(tmp_path):
    """Folders of scans too thin for MS-SSIM."""
    for seed, part in enumerate(("samples", "held out [1]", "train")):
        write_scans(tmp_path / part, 4, slices=4, seed=seed)
    return tmp_path


def evaluate(folder, *words):
    sets = [str(folder / "samples"), "--data", str(folder / "held out [1]")]
    how = ["--out", str(folder / "out"), "--device", "cpu", "--feature-network", SAYS_LITTLE]
    main(["evaluate", *sets, *how, *words])


def results(folder):
    return json.loads((folder / "out" / "metrics.json").read_text())


def test_thin_volumes_without_training_images_are_measured_as_far_as_they_go(scans, capsys):
    evaluate(scans)
    found = results(scans)
    assert set(found["measurements"]) == {"distribution"}
    assert "no training images" in found["not_measured"]["privacy"]
    figures = found["measurements"]["distribution"]["figures"]
    assert figures[f"FD[{SAYS_LITTLE}]"]["samples"]["value"] >= 0
    assert figures["MS-SSIM of pairs"] == {"samples": None, "held_out": None}
    assert figures["realism"]["figures"]["body_ml"]["samples"]["value"] > 0
    missing = " ".join(found["measurements"]["distribution"]["missing"])
    assert "6 voxels or more" in missing and "give 6 or more" in missing
    printed = capsys.readouterr().out
    said_before = printed[: printed.index("## Samples as a set")]
    assert "Will not be measured: MS-SSIM" in said_before
    assert "Will not be measured: Privacy" in said_before
    assert "Privacy is not measured" in printed.strip().splitlines()[-1]
    assert 'id="privacy"' in (scans / "out" / "report.html").read_text()


def test_what_is_finished_is_written_when_the_user_stops(scans, monkeypatch):
    def stop(inputs):
        raise KeyboardInterrupt

    monkeypatch.setattr(privacy, "measure", stop)
    with pytest.raises(SystemExit) as stopped:
        evaluate(scans, "--train", str(scans / "train"))
    assert stopped.value.code == 130
    assert set(results(scans)["measurements"]) == {"distribution"}
    assert 'id="privacy"' in (scans / "out" / "report.html").read_text()


def test_a_failing_measurement_keeps_the_others_and_ends_with_an_error(scans, monkeypatch):
    def fail(inputs):
        raise RuntimeError("the disk is on fire")

    stands = Section("privacy", "Privacy", {}, [Figure("figure", 1.0)])
    monkeypatch.setattr(distribution, "measure", fail)
    monkeypatch.setattr(privacy, "measure", lambda inputs: stands)
    with pytest.raises(SystemExit, match="Samples as a set is not measured: the disk is on fire"):
        evaluate(scans, "--train", str(scans / "train"))
    assert "privacy" in results(scans)["measurements"]


def test_one_sample_and_one_held_out_scan_have_a_report(tmp_path):
    for part in ("samples", "held out [1]"):
        write_scans(tmp_path / part, 1, seed=len(part))
    evaluate(tmp_path)
    missing = " ".join(results(tmp_path)["measurements"]["distribution"]["missing"])
    assert "give 2 or more" in missing


def test_samples_of_another_kind_are_refused_in_one_line(scans):
    picture = np.random.default_rng(0).random((64, 64), dtype=np.float32)
    write_png(picture, scans / "pictures" / "0.png")
    sets = [str(scans / "samples"), "--data", str(scans / "pictures")]
    with pytest.raises(SystemExit, match="volumes in HU and pictures"):
        main(["evaluate", *sets, "--out", str(scans / "out")])


def test_a_run_with_relative_paths_is_evaluated_from_elsewhere(tmp_path, monkeypatch):
    (tmp_path / "scans").mkdir()
    for number in range(4):
        body = np.full((16, 14, 12), -1000, np.int16)
        body[4:12, 4:10] = 40 + number
        nibabel.save(nibabel.Nifti1Image(body, np.eye(4)), tmp_path / "scans" / f"{number}.nii.gz")
    monkeypatch.chdir(tmp_path)
    config = CT3DConfig(
        output_dir="runs/ct", data=CTDataConfig(folder="scans", size=[4, 14, 16], cache_dir="kept")
    )
    load_run_volumes(config.data, output=Path("runs/ct"), seed=0, main=True)
    save_config(config, Path("runs/ct/config.yaml"))
    prepared = sorted(os.listdir("kept"))
    monkeypatch.chdir("/")
    found = load_cohort(tmp_path / "runs" / "ct", None, cache_dir=tmp_path / "again")
    assert len(found.held_out) == 1 and len(found.train) == 3
    assert sorted(os.listdir(tmp_path / "kept")) == prepared and not (tmp_path / "again").exists()
    (tmp_path / "scans").rename(tmp_path / "moved")
    with pytest.raises(FileNotFoundError, match=r"names scans, and there is no such"):
        load_cohort(tmp_path / "runs" / "ct", None, cache_dir=tmp_path / "again")


def test_samples_are_paired_with_the_images_of_their_names_alone(tmp_path, capsys):
    for number in range(4):
        film = np.random.default_rng(number).random((64, 64), dtype=np.float32)
        write_png(film, tmp_path / "true" / f"{number} (a).png")
        if number < 3:
            write_png(film, tmp_path / "made" / f"{number} (a).png")
    words = ["--data", str(tmp_path / "true"), "--out", str(tmp_path / "out")]
    main(["evaluate", str(tmp_path / "made"), *words, "--only", "fidelity"])
    found = json.loads((tmp_path / "out" / "fidelity.json").read_text())
    assert found["figures"]["mae"]["value"] == 0
    assert found["protocol"]["sets"]["held_out"]["images"] == 3
    assert "1 held-out images have no sample" in capsys.readouterr().out


@pytest.mark.slow
def test_a_pipeline_is_evaluated_on_real_films_of_several_widths(tmp_path):
    rows, rng = [], np.random.default_rng(0)
    for number, size in enumerate(((64, 50), (80, 48), (64, 64), (66, 48)) * 2):
        write_png(rng.random(size, dtype=np.float32), tmp_path / "films" / f"{number}.png")
        split = "test" if number % 2 else "train"
        rows.append(ManifestRow(f"{number}.png", f"{number}", split, sentences=("Clear.",)))
    write_manifest(rows, tmp_path / "films" / "manifest.jsonl")
    sets = [str(write_base(tmp_path / "base")), "--data", str(tmp_path / "films")]
    how = ["--number", "2", "--steps", "1", "--out", str(tmp_path / "out"), "--device", "cpu"]
    main(["evaluate", *sets, *how])
    found = results(tmp_path)["measurements"]
    assert found["reconstruction"]["protocol"]["sets"]["held_out"]["size"] == [64, 48]
    for part in ("held_out", "train"):
        card = found["distribution"]["protocol"]["sets"][part]
        assert card["preparation"] == "cut to 64x48 pixels around the centre"
