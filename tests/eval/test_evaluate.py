"""`diffct evaluate` on a real, tiny run and on folders; unlike sets are not compared."""

import json
import re

import numpy as np
import pytest

from diffct.atomic import atomic_folder
from diffct.cli import main
from diffct.imaging.radiograph import read_radiograph, write_png
from diffct.phantoms.chest.cohort import write_chest_cohort
from diffct.train.train_ct3d import main as train_ct3d

TINY = """
output_dir: {folder}
tracker: none
data: {{phantom_scans: 14, size: [8, 24, 24], spacing_mm: [16, 16, 16], validation_fraction: 0.45}}
unet:
  down_block_types: [DownBlock2D, DownBlock3D]
  up_block_types: [UpBlock3D, UpBlock2D]
  mid_block_type: UNetMidBlock3D
  block_out_channels: [8, 16]
  layers_per_block: 1
  mid_block_layers: 1
  norm_num_groups: 4
scheduler: {{prediction_type: sample}}
train: {{updates: 2, batch_size: 2, validate_every: 0, preview_every: 0, checkpoint_every: 2}}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a training run of two updates."""
    folder = tmp_path_factory.mktemp("ct")
    (folder / "tiny.yaml").write_text(TINY.format(folder=folder / "run"))
    train_ct3d(["--config", str(folder / "tiny.yaml")])
    return folder / "run"


@pytest.fixture(scope="module")
def evaluated(run, tmp_path_factory):
    """Its evaluation."""
    out = tmp_path_factory.mktemp("evaluation") / "first"
    evaluate(run, out, "--model-card")
    return out


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Folders of phantom films: train and held-out, and samples of which every fifth is a copy."""
    folder = tmp_path_factory.mktemp("films")
    write_chest_cohort(
        folder / "cohort", number=52, seed=3, size=(64, 64), workers=1, show_progress=False
    )
    made = [read_radiograph(p) for p in sorted((folder / "cohort" / "images").glob("*.png"))]
    rng = np.random.default_rng(0)
    copies = [made[index][:, ::-1] + 0.01 * rng.standard_normal((64, 64)) for index in (3, 8, 17)]
    parts = {"train": made[:20], "held_out": made[20:40], "samples": [*made[40:], *copies]}
    for name, images in parts.items():
        for number, image in enumerate(images):
            write_png(np.clip(image, 0, 1).astype(np.float32), folder / name / f"{number:03d}.png")
    return folder


def evaluate(run, out, *words, network="random-resnet10-3d-seed0"):
    measured = ["evaluate", str(run / "pipeline"), "--data", str(run), "--out", str(out)]
    sampled = ["--number", "6", "--steps", "2", "--batch-size", "3", "--feature-network", network]
    main([*measured, *sampled, *words])


@pytest.mark.parametrize(
    "words",
    [
        *(["--train", "."], ["--split", "test"], ["--window-hu", "0", "80"], ["--size", "8", "8"]),
        *(["--guidance-scale", "4"], ["--empty-prompt"], ["--lpips", "vgg"]),
    ],
)
def test_options_without_effect_on_a_run_of_ct_are_refused(run, tmp_path, words):
    with pytest.raises(SystemExit, match=f"{words[0]} (has no meaning|cuts pictures|needs)"):
        evaluate(run, tmp_path, *words)


@pytest.mark.parametrize(
    "words",
    [
        *(["--split", "test"], ["--window-hu", "0", "80"], ["--number", "3"], ["--empty-prompt"]),
        *(["--variant", "fp16"], ["--revision", "main"]),
    ],
)
def test_options_without_effect_on_folders_of_films_are_refused(films, tmp_path, words):
    folders = [str(films / "samples"), "--data", str(films / "held_out"), "--out", str(tmp_path)]
    with pytest.raises(SystemExit, match=f"{words[0]} (has no meaning|is for CT)"):
        main(["evaluate", *folders, *words])


@pytest.mark.parametrize("bounds", [("5", "5"), ("80", "0")])
def test_an_empty_window_is_refused(films, tmp_path, bounds):
    folders = [str(films / "samples"), "--data", str(films / "held_out"), "--out", str(tmp_path)]
    with pytest.raises(SystemExit, match=r"--window-hu .*: give the lower HU first"):
        main(["evaluate", *folders, "--window-hu", *bounds])


@pytest.mark.parametrize("measurement", ["distribution", "privacy"])
@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--feature-network", "resnet-50"], "no feature network 'resnet-50'"),
        (["--lpips-weights", "missing.pth"], "missing.pth"),
    ],
)
def test_networks_that_cannot_be_loaded_are_reported_before_sampling(
    run, tmp_path, measurement, words, reason
):
    source = [str(run / "pipeline"), "--data", str(run), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit, match=reason):
        main(["evaluate", *source, "--only", measurement, "--number", "1", "--steps", "1", *words])
    assert not list((tmp_path / "out").rglob("*.nii.gz"))


def test_one_command_measures_a_pipeline_and_writes_the_report(evaluated, run):
    found = json.loads((evaluated / "metrics.json").read_text())["measurements"]
    assert set(found) == {"distribution", "privacy"}
    card = found["distribution"]["protocol"]
    assert card["sets"]["samples"]["images"] == card["sets"]["held_out"]["images"] == 6
    assert card["sets"]["held_out"]["size"] == [8, 24, 24]
    assert card["sets"]["held_out"]["spacing_mm"] == [16, 16, 16]
    assert card["sets"]["held_out"]["range"][0] == pytest.approx(-1000, abs=1)
    assert card["phantoms"] is True and card["pipeline"]["seed"] == 0
    assert "guidance_scale" not in card["pipeline"] and "prompts" not in card["pipeline"]
    figures = found["distribution"]["figures"]
    assert figures["FD[random-resnet10-3d-seed0]"]["samples"]["value"] > 0
    # Two updates make noise: its HU are further from the phantoms' than other phantoms' are.
    realism = figures["realism"]
    assert realism["window_distance_hu"]["whole"] > 3 * realism["window_yardstick_hu"]["whole"]
    page = (evaluated / "report.html").read_text()
    assert "SYNTHETIC phantoms" in page and page.count("data:image/png;base64,") == 3
    assert "model-index" in (run / "pipeline" / "README.md").read_text()


def test_a_report_names_no_patient_and_paths_only_in_its_command(evaluated, run):
    report = (evaluated / "report.html").read_text()
    figures = (evaluated / "metrics.json").read_text()
    assert '"image": "pelvis_0' in (run / "scans.jsonl").read_text()
    assert "pelvis_0" not in report + figures and str(run) not in figures
    (command,) = re.findall(r"<dt>Command</dt><dd>(.*?)</dd>", report)
    assert command.startswith(f"diffct evaluate {run / 'pipeline'} --data {run}")
    assert str(run) not in report.replace(command, "")


def test_a_report_answers_each_question(evaluated):
    found = json.loads((evaluated / "metrics.json").read_text())["measurements"]
    told = {v["question"]: v["state"] for part in found.values() for v in part["verdicts"]}
    # Noise is unlike phantoms, and six scans cannot tell a copy from a relative.
    assert told["As good as real?"] == "bad" and told["Private?"] == "in doubt"
    report = (evaluated / "report.html").read_text()
    assert report.index("Private?") < report.index("<img") < report.index("<h3>")


def test_an_undertrained_model_is_no_copier(evaluated):
    found = json.loads((evaluated / "metrics.json").read_text())["measurements"]["privacy"]
    nearest = found["figures"]["nearest neighbours"]
    assert nearest["anatomy"]["suspicious"] == nearest["detail"]["suspicious"] == 0
    assert "No copies found" in found["remarks"][0]
    assert found["figures"]["membership attack"]["chance"] > 0.01


@pytest.mark.slow
def test_results_of_other_protocols_are_compared_only_with_force(evaluated, run, tmp_path, capsys):
    evaluate(run, tmp_path, network="random-resnet10-3d-seed1")
    files = [str(folder / "metrics.json") for folder in (evaluated, tmp_path)]
    capsys.readouterr()
    with pytest.raises(SystemExit, match="protocols of distribution differ"):
        main(["compare", *files])
    main(["compare", *files, "--force"])
    printed = capsys.readouterr().out
    assert "DIFFERENT PROTOCOLS" in printed and "MS-SSIM of pairs" in printed
    main(["compare", files[0], files[0]])
    assert "DIFFERENT" not in capsys.readouterr().out


def test_planted_copies_among_films_are_found_and_new_patients_are_not(films, tmp_path, capsys):
    out = tmp_path / "privacy"
    words = ["--data", str(films / "held_out"), "--train", str(films / "train")]
    main(["evaluate", "--only", "privacy", str(films / "samples"), *words, "--out", str(out)])
    found = json.loads((out / "privacy.json").read_text())
    found_by = [found["figures"]["nearest neighbours"][by] for by in ("anatomy", "detail")]
    assert max(result["suspicious"] for result in found_by) == 3
    assert "Copies found: 3 of 15" in capsys.readouterr().out
    assert (out / "privacy.png").stat().st_size > 1000


def test_sets_of_other_size_or_compression_are_refused(films, tmp_path):
    from PIL import Image

    words = ["--data", str(films / "held_out"), "--train", str(films / "train")]
    for name, change in (
        ("small", lambda image: image[:48, :48]),
        ("jpeg", None),
    ):
        with atomic_folder(tmp_path / name) as folder:
            for path in sorted((films / "samples").glob("*.png"))[:8]:
                image = read_radiograph(path)
                if change is not None:
                    write_png(np.ascontiguousarray(change(image)), folder / path.name)
                else:
                    gray = Image.fromarray((image * 255).astype(np.uint8))
                    gray.save(folder / f"{path.stem}.jpg")
    only = ["--only", "distribution", "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit, match="size differs"):
        main(["evaluate", str(tmp_path / "small"), *words, *only])
    with pytest.raises(SystemExit, match="JPEG"):
        main(["evaluate", str(tmp_path / "jpeg"), *words, *only])


def test_films_are_measured_as_a_set_at_one_number(films, tmp_path, capsys):
    words = ["--data", str(films / "held_out"), "--train", str(films / "train")]
    main(
        [
            "evaluate",
            str(films / "samples"),
            *words,
            "--max-images",
            "7",
            "--only",
            "distribution",
            "--out",
            str(tmp_path),
        ]
    )
    found = json.loads((tmp_path / "distribution.json").read_text())
    counts = {role: facts["images"] for role, facts in found["protocol"]["sets"].items()}
    assert counts == {"samples": 7, "held_out": 7, "train": 7}
    printed = capsys.readouterr().out
    assert "FD[random-densenet121-seed0]" in printed and "are no FID" in printed


def test_what_cannot_be_measured_ends_in_one_line(run, films, tmp_path):
    words = ["--data", str(run), "--out", str(tmp_path)]
    with pytest.raises(SystemExit, match="has no autoencoder"):
        main(["evaluate", "--only", "reconstruction", str(run / "pipeline"), *words])
    with pytest.raises(SystemExit, match="is no training run of CT"):
        main(["evaluate", str(run / "pipeline"), "--data", str(films), "--out", str(tmp_path)])
    unweighted = [
        "--number",
        "6",
        "--steps",
        "2",
        "--feature-network",
        "medicalnet-resnet10=no.pth",
    ]
    with pytest.raises(SystemExit, match="needs its weights"):
        main(["evaluate", "--only", "distribution", str(run / "pipeline"), *words, *unweighted])
