"""Scans that `diffct prepare ct` wrote are trained on, and a pipeline is measured on them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import diffct
from diffct.cli import main
from diffct.data.manifest import read_manifest
from diffct.data.splits import read_split
from diffct.eval.cohorts import load_cohort
from diffct.eval.image_sets import check_comparable
from diffct.imaging.volume import read_volume
from diffct.phantoms.pelvis.cohort import write_pelvis_cohort
from diffct.prepare.ct.preparation import prepare_ct
from tests.train.test_train_ct3d import refuse, train

SMALL = ("train.updates=1", "train.preview_every=0", "train.validate_every=1")


@pytest.fixture(scope="module")
def scans(tmp_path_factory) -> Path:
    """A folder of ten small scans."""
    folder = tmp_path_factory.mktemp("scans") / "made"
    size, spacing_mm = (6, 20, 20), (20.0, 16.0, 16.0)
    write_pelvis_cohort(folder, number=10, seed=5, size=size, spacing_mm=spacing_mm)
    return folder / "images"


@pytest.fixture(scope="module")
def data(scans, tmp_path_factory) -> Path:
    """The same scans prepared: six to train on, two for validation and two for the test."""
    out = tmp_path_factory.mktemp("data") / "my data [1]"
    prepare_ct(scans, out, validation_share=0.2, test_share=0.2, show_progress=False)
    return out


@pytest.fixture(scope="module")
def run(data, tmp_path_factory) -> Path:
    """A run on them, while the scans for the test cannot even be read."""
    damaged = tmp_path_factory.mktemp("damaged") / "data"
    shutil.copytree(data, damaged)
    manifest = read_manifest(damaged)
    for row in manifest.split("test"):
        manifest.path(row).write_bytes(b"nothing")
    folder = tmp_path_factory.mktemp("run") / "run"
    train(folder, f"data.manifest={damaged}", *SMALL)
    shutil.rmtree(damaged)
    shutil.copytree(data, damaged)
    return folder


def held_out(cohort) -> set[str]:
    return {row.image for row in cohort.held_out.rows}


def test_a_run_on_a_manifest_trains_on_its_split(run, data):
    facts = diffct.load_pipeline(run / "pipeline", device="cpu").config.training
    counts = [facts["cohort"][f"{side}_scans"] for side in ("train", "validation")]
    assert counts == [6, 2] and facts["synthetic"] is False
    assert not (run / "scans.jsonl").exists()


def test_the_test_split_is_measured_as_the_network_saw_scans(run, data, tmp_path):
    pipeline = diffct.load_pipeline(run / "pipeline", device="cpu")
    arguments = {"source": run / "pipeline", "cache_dir": tmp_path / "cache"}
    cohort = load_cohort(data, pipeline, **arguments)
    manifest = read_manifest(data)
    assert held_out(cohort) == {row.image for row in manifest.split("test")}
    assert (len(cohort.train), len(cohort.held_out), cohort.synthetic) == (6, 2, False)
    assert cohort.held_out.size == (4, 16, 16) and cohort.held_out.unit == "HU"
    assert cohort.held_out.spacing_mm == tuple(pipeline.config.spacing_mm) == (20, 20, 20)
    check_comparable(cohort.train, cohort.held_out)
    validation = load_cohort(data, pipeline, split="validation", **arguments)
    assert held_out(validation) == {row.image for row in manifest.split("validation")}
    with pytest.raises(ValueError, match="--patient-pattern has no meaning here"):
        load_cohort(data, pipeline, patient_pattern="(.)", **arguments)


def test_the_folder_of_the_run_stands_for_its_manifest(run, data, tmp_path):
    cohort = load_cohort(run, None, cache_dir=tmp_path / "cache")
    assert held_out(cohort) == {row.image for row in read_manifest(data).split("test")}
    validation = load_cohort(run, None, split="validation", cache_dir=tmp_path / "cache")
    assert len(validation.held_out) == 2 and not held_out(validation) & held_out(cohort)


def test_a_pipeline_without_its_run_is_measured_at_its_size_and_spacing(run, data, tmp_path):
    shutil.copytree(run / "pipeline", tmp_path / "pipeline")
    pipeline = diffct.load_pipeline(tmp_path / "pipeline", device="cpu")
    first, second = (
        load_cohort(data, pipeline, source=source, cache_dir=tmp_path / f"{number}")
        for number, source in enumerate((run / "pipeline", tmp_path / "pipeline"))
    )
    for one, other in zip(first.held_out.images(), second.held_out.images(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert first.held_out.preparation == second.held_out.preparation


def test_samples_of_any_model_are_measured_at_their_size_and_spacing(data, scans, tmp_path):
    cohort = load_cohort(data, None, source=scans, cache_dir=tmp_path / "cache")
    assert cohort.held_out.size == (6, 20, 20) and cohort.held_out.spacing_mm == (20, 16, 16)
    hu = cohort.held_out.read(cohort.held_out.files[0])
    manifest = read_manifest(data)
    stored = read_volume(manifest.path(manifest.split("test")[0])).array
    np.testing.assert_allclose(hu, stored.clip(-1000, 1000), atol=1e-3)
    with pytest.raises(ValueError, match="Nothing says to which size"):
        load_cohort(data, None, cache_dir=tmp_path / "cache")


def test_phantoms_have_a_manifest_and_are_called_synthetic(scans, tmp_path):
    cohort = load_cohort(scans.parent, None, source=scans, cache_dir=tmp_path / "cache")
    assert (len(cohort.train), len(cohort.held_out), cohort.synthetic) == (8, 1, True)
    assert held_out(cohort) == {"images/pelvis_0009.nii.gz"}


def test_a_run_on_a_folder_saves_a_manifest_and_an_earlier_run_is_read_alike(scans, tmp_path):
    shutil.copytree(scans, tmp_path / "scans")
    output = tmp_path / "run"
    train(output, f"data.folder={tmp_path / 'scans'}", *SMALL)
    (tmp_path / "scans" / "new.nii.gz").write_bytes(b"not looked at by evaluation")
    new = load_cohort(output, None, cache_dir=tmp_path / "cache")
    (tmp_path / "scans" / "new.nii.gz").unlink()
    split = read_split(output / "scans.jsonl")
    sides = {
        side: sorted(key for key, name in split.items() if name == side)
        for side in ("train", "validation")
    }
    (output / "scans.jsonl").unlink()
    with pytest.raises(ValueError, match=r"has no scans\.jsonl, so this run of CT has not begun"):
        load_cohort(output, None, cache_dir=tmp_path / "cache")
    (output / "split.json").write_text(json.dumps({**sides, "seed": 0}))
    old = load_cohort(output, None, cache_dir=tmp_path / "cache")
    for mine, other in ((new.train, old.train), (new.held_out, old.held_out)):
        assert (mine.files, mine.patients) == (other.files, other.patients)
        assert (mine.spacing_mm, mine.preparation) == (other.spacing_mm, other.preparation)
    assert not (tmp_path / "cache").exists()  # the run's own is used
    train(output, f"data.folder={tmp_path / 'scans'}", "--resume", *SMALL)
    assert read_split(output / "scans.jsonl") == split


def test_settings_without_effect_on_a_manifest_are_refused(data, scans, tmp_path):
    for word in (f"data.folder={scans}", "data.exclude=[x]", "data.patient_pattern=(.)"):
        said = refuse(tmp_path / "run", f"data.manifest={data}", word)
        assert f"{word.split('=')[0]} is" in said and "leave it out with a manifest" in said
    (tmp_path / "empty").mkdir()
    assert "no such manifest" in refuse(tmp_path / "run", f"data.manifest={tmp_path / 'empty'}")


def test_a_data_set_without_validation_trains_and_says_so(scans, tmp_path, capsys):
    prepare_ct(scans, tmp_path / "data", validation_share=0, test_share=0, show_progress=False)
    train(tmp_path / "run", f"data.manifest={tmp_path / 'data'}", *SMALL)
    assert "No scans of the split validation" in capsys.readouterr().out
    assert (tmp_path / "run" / "pipeline" / "model_index.json").is_file()


@pytest.mark.slow
def test_one_command_measures_a_pipeline_on_prepared_scans(run, data, tmp_path):
    words = ["evaluate", str(run / "pipeline"), "--data", str(data), "--out", str(tmp_path)]
    network = "random-resnet10-3d-seed0"
    how = ["--only", "distribution", "--number", "2", "--steps", "1", "--device", "cpu"]
    main([*words, *how, "--feature-network", network])
    card = json.loads((tmp_path / "metrics.json").read_text())["measurements"]["distribution"]
    sets = card["protocol"]["sets"]
    assert (sets["held_out"]["images"], sets["train"]["images"]) == (2, 2)  # of 6, as many
    assert sets["held_out"]["formats"] == {".npy": 2}  # prepared once more, for this network
    assert sets["held_out"]["size"] == sets["samples"]["size"] == [4, 16, 16]
