"""The evaluation of translations by a real pipeline, with baselines that can win."""

import json

import numpy as np
import pytest

from diffct.cli import main
from diffct.eval.config import EvaluationConfig
from diffct.eval.inputs import read_inputs
from diffct.eval.privacy import foresee
from diffct.eval.volume import compare
from diffct.imaging.volume import write_volume
from diffct.phantoms.brain.cohort import draw_brain, write_brain_cohort
from diffct.prepare.brain.discovery import find_bids
from diffct.prepare.brain.preparation import prepare_brain
from diffct.train.train_controlnet import main as train_controlnet
from tests.train.brains import TINY, write_base


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Slices of ten small phantoms and a pipeline that has learnt next to nothing."""
    folder = tmp_path_factory.mktemp("brains")
    tree = write_brain_cohort(
        folder / "bids", number=10, seed=0, spacing_mm=3.0, workers=1, show_progress=False
    )
    slices = folder / "slices"
    prepare_brain(find_bids(tree), slices, slices=3, size=(64, 48), workers=1, show_progress=False)
    (folder / "tiny.yaml").write_text(TINY.format(folder=folder / "run"))
    base = write_base(folder / "base")
    train_controlnet(
        [
            "--config",
            str(folder / "tiny.yaml"),
            f"data.manifest={slices}",
            f"base={base}",
            "train.updates=2",
            "train.validate_every=0",
        ]
    )
    return slices, folder / "run" / "pipeline"


def test_table_names_the_better_one(trained, tmp_path, capsys):
    slices, pipeline = trained
    out = tmp_path / "fidelity"
    words = [str(pipeline), "--data", str(slices), "--steps", "2", "--out", str(out)]
    main(["evaluate", *words, "--only", "fidelity"])
    printed = capsys.readouterr().out
    report = json.loads((out / "fidelity.json").read_text())
    figures, protocol = report["figures"], report["protocol"]
    assert protocol["sets"]["held_out"]["images"] == 3 and protocol["phantoms"] is True
    assert protocol["pipeline"]["guidance_scale"] == 1
    assert "3 images of 1 patient(s)" in printed
    # An untrained model loses against the line, and the table says so.
    assert figures["diffct"]["psnr"]["value"] < figures["linear regression"]["psnr"]["value"]
    for name in ("diffct", "copied input", "linear regression", "histogram matching"):
        assert f"| {name} |" in printed
    assert (out / "translation.png").stat().st_size > 1000


def test_one_held_out_patient_cannot_show_copies_which_is_said_before_sampling(trained, tmp_path):
    slices, pipeline = trained
    gaps = foresee(read_inputs(pipeline, slices, EvaluationConfig(out=tmp_path)))
    assert any("Privacy" in gap and "of 2 held-out patients" in gap for gap in gaps)


def test_whole_volume_is_measured_against_the_truth(trained, tmp_path, capsys):
    slices, pipeline = trained
    brain = draw_brain((7, 7), spacing_mm=3.0)
    for name, volume in brain.images.items():
        write_volume(volume, tmp_path / f"{name}.nii.gz")
    scans = ["--scan", str(tmp_path / "FLAIR.nii.gz"), "--truth", str(tmp_path / "T1w.nii.gz")]
    words = [str(pipeline), "--data", str(slices), "--number", "2", "--steps", "2"]
    main(["evaluate", *words, "--only", "volume", *scans, "--out", str(tmp_path / "out")])
    written = json.loads((tmp_path / "out" / "volume.json").read_text())
    figures = written["figures"]
    assert written["protocol"]["pipeline"]["steps"] == 2
    assert figures["same shape"] is True
    assert figures["largest difference of the affines (mm)"] < 1e-5
    assert np.isfinite(figures["ratio"]) and -1 <= figures["uncertainty and error, tissue"] <= 1
    assert "| ratio |" in capsys.readouterr().out
    assert (tmp_path / "out" / "translated_volume_across.png").stat().st_size > 1000
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 2 and "A whole translated scan" in page


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--only", "volume"], "volume needs --scan"),
        (["--only", "volume", "--scan", "."], "volume needs --truth"),
        (["--scan", "."], "--scan has no meaning without --only volume"),
        (["--only", "volume", "--scan", ".", "--truth", "gone.nii"], "no such file"),
    ],
)
def test_a_scan_without_its_truth_is_refused_before_anything_is_measured(
    trained, tmp_path, words, reason
):
    slices, pipeline = trained
    folders = [str(pipeline), "--data", str(slices), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit, match=reason):
        main(["evaluate", *folders, *words])


def test_perfect_volume_has_ratio_one():
    rng = np.random.default_rng(0)
    truth = 0.3 + 0.4 * rng.random((6, 20, 20))
    figures = {figure.name: figure.value for figure in compare(truth, truth, truth + 0.01)}
    assert figures["ratio"] == pytest.approx(1)
    assert figures["MAE"] == pytest.approx(0.01)
    assert figures["PSNR (dB)"] == pytest.approx(40)
