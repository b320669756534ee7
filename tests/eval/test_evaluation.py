"""`diffct.evaluate` from Python: the same as the command, and a report that is an object."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from diffusers import DDIMScheduler, StableDiffusionPipeline

import diffct
from diffct.cli import _make_parser, main
from diffct.imaging.radiograph import write_png
from diffct.imaging.volume import Volume, canonical_affine, write_volume
from diffct.pipelines import CT3DPipeline

NETWORK = "random-resnet10-3d-seed0"


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """Folders of four scans each, with a body."""
    folder = tmp_path_factory.mktemp("scans")
    for seed, part in enumerate(("train", "held out", "samples")):
        for number in range(4):
            hu = np.full((8, 12, 12), -1000, np.float32)
            hu[:, 3:9, 3:9] = np.random.default_rng((seed, number)).normal(40, 20, (8, 6, 6))
            affine = canonical_affine(hu.shape, (3, 1.5, 1.5))
            write_volume(Volume(hu, affine), folder / part / f"scan {number}.nii.gz")
    return folder


@pytest.fixture
def pipeline():
    unet = diffct.UNet3DModel(
        down_block_types=["DownBlock2D"],
        up_block_types=["UpBlock2D"],
        block_out_channels=[4],
        norm_num_groups=2,
        attention_head_dim=2,
    )
    return CT3DPipeline(unet, DDIMScheduler(), spacing_mm=[3.0, 1.5, 1.5], size=[8, 12, 12])


def config(out, **settings):
    return diffct.EvaluationConfig(out=out, feature_network=[NETWORK], device="cpu", **settings)


def test_the_command_and_python_have_the_same_defaults():
    options = vars(_make_parser().parse_args(["evaluate", "samples", "--data", "films"]))
    defaults = asdict(diffct.EvaluationConfig())
    assert {name: options[name] for name in defaults} == defaults | {"feature_network": []}


def test_python_finds_what_the_command_finds(scans, tmp_path):
    folders = {"samples": str(scans / "samples"), "data": str(scans / "held out")}
    words = ["--train", str(scans / "train"), "--feature-network", NETWORK, "--device", "cpu"]
    main(
        ["evaluate", folders["samples"], "--data", folders["data"], *words, "--out", str(tmp_path)]
    )
    report = diffct.evaluate(
        folders["samples"], folders["data"], config=config(tmp_path, train=scans / "train")
    )
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert report.json() == written
    figure = report["distribution"][f"FD[{NETWORK}]"]["samples"]
    assert figure.value == report.figures["distribution"][f"FD[{NETWORK}]"]["samples"]["value"]
    with pytest.raises(KeyError, match=r"fidelity: measured are distribution, privacy"):
        report["fidelity"]


def test_a_pipeline_in_memory_is_sampled_anew_when_its_weights_change(scans, pipeline, tmp_path):
    how = config(tmp_path, number=2, steps=1, train=scans / "train")

    def measured():
        found = diffct.evaluate(pipeline, scans / "held out", only=["distribution"], config=how)
        (section,) = found.sections
        return section.protocol["pipeline"]["weights_sha256"], section["realism"].figures

    first, again = measured(), measured()
    assert first == again
    pipeline.unet.conv_out.bias.data += 0.5
    changed = measured()
    assert changed[0] != first[0] and changed[1] != first[1]


def test_the_autoencoder_of_a_foreign_pipeline_is_measured(make_cxr_pipeline, tmp_path):
    parts = make_cxr_pipeline(vae_options={"in_channels": 3, "out_channels": 3}).components
    foreign = StableDiffusionPipeline(
        **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    foreign.save_pretrained(tmp_path / "foreign")
    noise = np.random.default_rng(0)
    for number in range(3):
        write_png(noise.random((40, 40), dtype=np.float32), tmp_path / f"films/{number}.png")
    report = diffct.evaluate(tmp_path / "foreign", tmp_path / "films", config=config(tmp_path))
    assert [section.name for section in report.sections] == [
        "reconstruction",
        "distribution",
        "privacy",
    ]
    assert 0 < report["reconstruction"]["mae"].value < 1
    (reason,) = report["distribution"].missing
    assert "StableDiffusionPipeline is none of diffct's pipelines" in reason


def test_a_report_is_saved_and_shown_in_a_notebook(scans, tmp_path):
    how = config(tmp_path / "work")
    report = diffct.evaluate(
        scans / "samples", scans / "held out", only="distribution", config=how, data_name="Mine"
    )
    page = report.save(tmp_path / "shared")
    names = {path.name for path in page.parent.iterdir()}
    assert names == {"report.html", "metrics.json", "distribution.json"}
    assert "<td>Mine</td>" in page.read_text(encoding="utf-8")
    shown = report._repr_html_()
    assert shown.startswith("<iframe") and "<style" not in shown and "&lt;style&gt;" in shown
    assert str(tmp_path) not in shown


def test_an_unknown_measurement_is_refused_with_the_accepted_names(scans, tmp_path):
    with pytest.raises(ValueError, match=r"no measurement 'quality'; accepted: reconstruction,"):
        diffct.evaluate(
            scans / "samples", scans / "held out", only=["quality"], config=config(tmp_path)
        )
    with pytest.raises(SystemExit):
        main(["evaluate", "samples", "--data", "films", "--only", "quality"])
