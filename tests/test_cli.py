"""The `diffct` command."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import diffusers
import nibabel
import numpy as np
import pydicom
import pytest
import torch
from PIL import Image

import diffct
from diffct.cli import _make_parser, main
from diffct.commands import loading
from diffct.commands import sample as sample_command
from diffct.data.manifest import read_manifest
from diffct.imaging.image_folder import find_images
from diffct.imaging.volume import write_volume
from diffct.imaging.windows import WINDOWS
from diffct.phantoms.brain.cohort import AnatomySource
from diffct.phantoms.brain.signal import SEQUENCES
from diffct.phantoms.chest import cohort as chest_cohort
from diffct.phantoms.pelvis import cohort as pelvis_cohort
from diffct.phantoms.pelvis.cohort import pelvis_phantom
from diffct.pipelines.schedulers import SCHEDULERS
from tests.pipelines.tiny_flair import head_affine, make_flair_pipeline, write_head


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory) -> Path:
    """Save a tiny pipeline."""
    torch.manual_seed(0)
    unet = diffct.UNet3DModel(
        down_block_types=("DownBlock2D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "UpBlock2D"),
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
    )
    folder = tmp_path_factory.mktemp("pipeline")
    scheduler = diffusers.DDPMScheduler(timestep_spacing="trailing")
    diffct.CT3DPipeline(
        unet, scheduler, spacing_mm=[3.0, 2.0, 1.0], size=[4, 8, 8]
    ).save_pretrained(folder)
    return folder


def sample(pipeline: Path, out: Path, *words: str) -> list[np.ndarray]:
    main(["sample", str(pipeline), "--steps", "2", "--out", str(out), "--device", "cpu", *words])
    return [diffct.read_volume(path).array for path in sorted(out.glob("*.nii.gz"))]


def test_samples_have_consecutive_seeds_for_any_number_of_samples(pipeline, tmp_path):
    three = sample(
        pipeline, tmp_path / "three", "--number", "3", "--seed", "5", "--batch-size", "2"
    )
    (last,) = sample(pipeline, tmp_path / "last", "--seed", "7")
    assert len(three) == 3
    assert np.abs(three[2] - last).max() <= 1
    assert np.abs(three[0] - last).max() > 1
    assert len(list((tmp_path / "three").glob("*.png"))) == 3


def test_a_volume_is_written_as_a_ct_series_in_the_window_that_was_asked_for(pipeline, tmp_path):
    words = ["--dicom", "--number", "2", "--window", "-600", "1500"]
    volumes = sample(pipeline, tmp_path, *words)
    for number, volume in enumerate(volumes):
        series = tmp_path / f"sample-{number:04d}"
        assert np.array_equal(diffct.read_volume(series).array, volume)
        image = pydicom.dcmread(series / "0001.dcm")
        assert (image.WindowCenter, image.WindowWidth) == (-600, 1500)
        assert image.SyntheticData == "YES" and list(image.PixelSpacing) == [2, 1]
    assert len(find_images(tmp_path).images) == 2
    plain = sample(pipeline, tmp_path / "plain", "--number", "2")
    assert np.array_equal(plain[1], volumes[1])
    pictures = [path / "sample-0000.png" for path in (tmp_path, tmp_path / "plain")]
    assert not np.array_equal(*(np.asarray(Image.open(path)) for path in pictures))


def test_new_samples_are_not_mixed_with_earlier_ones(pipeline, tmp_path):
    out = tmp_path / "a [b] c"
    sample(pipeline, out, "--number", "2")
    (out / "sample notes.txt").write_text("mine")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(SystemExit, match=r"holds earlier samples.*--overwrite"):
        sample(pipeline, out, "--seed", "1")
    with pytest.raises(SystemExit, match="size"):
        sample(pipeline, out, "--seed", "1", "--overwrite", "--size", "0", "8", "8")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    sample(pipeline, out, "--seed", "1", "--overwrite")
    assert {path.name for path in out.iterdir()} == {
        "sample-0000.nii.gz",
        "sample-0000.png",
        "sample notes.txt",
    }
    assert (out / "sample-0000.nii.gz").read_bytes() != before["sample-0000.nii.gz"]


def test_out_is_proved_before_the_pipeline_is_loaded(tmp_path):
    (tmp_path / "file").write_text("mine")
    for out, reason in (("file", "file is in its way"), ("file/inner", "Not a directory")):
        with pytest.raises(SystemExit, match=rf"{out}.*{reason}"):
            sample(tmp_path / "no pipeline here", tmp_path / out)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("device", ["gpu", "meta", "mps", "cuda:77", "cpu,cuda"])
def test_a_device_that_is_not_there_is_named_with_those_that_are(tmp_path, device):
    with pytest.raises(SystemExit, match=f"diffct: device {device}: not .* which has cpu"):
        sample(tmp_path / "no pipeline here", tmp_path / "out", "--device", device)
    words = ["evaluate", str(tmp_path), "--data", str(tmp_path), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit, match=f"diffct: device {device}: not .* which has cpu"):
        main([*words, "--device", device])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", [*SCHEDULERS, "EulerAncestralDiscreteScheduler"])
def test_every_scheduler_name_samples_at_any_size(pipeline, tmp_path, name):
    (volume,) = sample(pipeline, tmp_path, "--scheduler", name, "--size", "3", "5", "7")
    assert volume.shape == (3, 5, 7)
    header = nibabel.load(tmp_path / "sample-0000.nii.gz").header
    assert header.get_zooms() == (1.0, 2.0, 3.0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--scheduler", "magic"], "magic"),
        (["--number", "0"], "--number must be at least 1, not 0"),
        (["--class-label", "1"], "unconditional"),
        (["--scheduler", "FlowMatchEulerDiscreteScheduler"], "FlowMatch"),
        (["--size", "0", "8", "8"], "size"),
        (["--prompt", "left effusion"], "--prompt has no meaning for a CT3DPipeline"),
        (["--spacing", "0.2"], "--spacing has no meaning"),
        (["--spacing", "3000"], "pixel spacing is 3000 mm; give 0.01 to 20 mm"),
        (["--window", "liver"], "There is no window 'liver'. Give soft, lung, bone, brain"),
        (["--window", "40"], "There is no window '40'"),
        (["--window", "40", "0"], "positive width"),
    ],
)
def test_mistakes_end_in_one_line(pipeline, tmp_path, words, message):
    with pytest.raises(SystemExit, match=f"diffct: .*{message}"):
        sample(pipeline, tmp_path / "out", *words)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def films(make_cxr_pipeline, tmp_path) -> Path:
    """Save a tiny pipeline of films."""
    make_cxr_pipeline().save_pretrained(tmp_path / "films")
    return tmp_path / "films"


def sample_films(pipeline: Path, out: Path, *words: str) -> list[np.ndarray]:
    main(["sample", str(pipeline), "--steps", "2", "--out", str(out), "--device", "cpu", *words])
    return [np.asarray(Image.open(path)) / 65535 for path in sorted(out.glob("sample-*.png"))]


def test_films_of_several_prompts_share_their_seeds_and_a_sheet(films, tmp_path, capsys):
    prompts = ["--prompt", "small left effusion", "--prompt", "", "--number", "2", "--seed", "5"]
    four = sample_films(films, tmp_path / "four", *prompts, "--batch-size", "3")
    assert len(four) == 4 and four[0].shape == (32, 32)
    assert "4 film(s) as 16-bit PNG" in capsys.readouterr().out
    with Image.open(tmp_path / "four" / "contact-sheet.png") as sheet:
        assert min(sheet.size) > 100
    assert not list((tmp_path / "four").glob("*.dcm"))
    for index, (prompt, seed) in enumerate(
        [("small left effusion", "5"), ("small left effusion", "6"), ("", "5"), ("", "6")]
    ):
        out = tmp_path / str(index)
        (alone,) = sample_films(films, out, "--prompt", prompt, "--seed", seed)
        assert np.abs(alone - four[index]).max() < 1e-3
    assert np.abs(four[0] - four[2]).max() > 1e-3


def test_options_of_films_reach_the_pipeline(films, tmp_path):
    prompt = ["--prompt", "small left effusion"]
    (plain,) = sample_films(films, tmp_path / "plain", *prompt)
    (same,) = sample_films(films, tmp_path / "same", *prompt, "--guidance-scale", "7")
    assert np.abs(plain - same).max() < 1e-4
    changes = (
        ["--guidance-scale", "1"],
        ["--negative-prompt", "pneumothorax"],
        ["--scheduler", "ddpm"],
    )
    for index, change in enumerate(changes):
        (film,) = sample_films(films, tmp_path / f"changed-{index}", *prompt, *change)
        assert np.abs(film - plain).max() > 1e-4
    size = ["--size", "24", "48"]
    assert sample_films(films, tmp_path / "size", *prompt, *size)[0].shape == (24, 48)


def test_films_are_written_as_dicom_beside_their_pictures(films, tmp_path):
    words = ["--prompt", "small left effusion", "--number", "2", "--dicom", "--spacing", "0.3"]
    pictures = sample_films(films, tmp_path / "out", *words)
    for index, picture in enumerate(pictures):
        dataset = pydicom.dcmread(tmp_path / "out" / f"sample-{index:04d}.dcm")
        assert np.array_equal(dataset.pixel_array, np.rint(picture * 65535))
        assert dataset.ImageComments.endswith("small left effusion")
        assert dataset.ImagerPixelSpacing[0] == 0.3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--prompt"),
        (
            ["--prompt", "left", "--size", "4", "8", "8"],
            "--size 4 8 8: a CXR.* takes H W",
        ),
        (["--prompt", "left", "--class-label", "1"], "--class-label has no meaning"),
        (["--prompt", "left", "--spacing", "0.2"], "add --dicom"),
        (["--prompt", "left", "--dicom", "--spacing", "-1"], "pixel spacing is -1 mm"),
        (["--prompt", "left", "--size", "33", "32"], "height=33"),
        (["--prompt", "left", "--scheduler", "FlowMatchEulerDiscreteScheduler"], "FlowMatch"),
    ],
)
def test_mistakes_with_films_end_in_one_line(films, tmp_path, words, message):
    with pytest.raises(SystemExit, match=f"diffct: .*{message}"):
        sample_films(films, tmp_path / "out", *words)
    assert not (tmp_path / "out").exists()


def test_an_incomplete_pipeline_is_refused_by_name(films, tmp_path):
    (films / "vae" / "config.json").unlink()
    with pytest.raises(SystemExit, match="it lacks vae"):
        sample_films(films, tmp_path, "--prompt", "left")


def test_a_pipeline_of_another_library_is_not_sampled(make_cxr_pipeline, tmp_path):
    foreign = diffusers.StableDiffusionPipeline(
        **make_cxr_pipeline().components,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    foreign.save_pretrained(tmp_path / "foreign")
    with pytest.raises(SystemExit, match="StableDiffusionPipeline, not a pipeline of diffct"):
        sample_films(tmp_path / "foreign", tmp_path)


def test_images_of_other_things_than_films_are_sampled(make_cxr_pipeline, tmp_path, capsys):
    images = diffct.TextToImagePipeline(**make_cxr_pipeline().components)
    images.save_pretrained(tmp_path / "images")
    (picture,) = sample_films(tmp_path / "images", tmp_path / "out", "--prompt", "")
    assert picture.shape == (32, 32)
    assert "1 image(s) as 16-bit PNG" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="--dicom has no meaning for a TextToImagePipeline"):
        sample_films(tmp_path / "images", tmp_path / "other", "--prompt", "", "--dicom")


def translate(pipeline: Path, scan: Path, out: Path, *words: str) -> np.ndarray:
    options = ["--steps", "2", "--device", "cpu", "--overwrite", *words]
    main(["translate", str(pipeline), str(scan), "--out", str(out), *options])
    return nibabel.load(out).get_fdata()


def test_a_scan_is_translated_onto_its_own_grid(tmp_path, capsys):
    folder = tmp_path / "translation"
    make_flair_pipeline(channels=2, conditions=["FLAIR", "T2w"]).save_pretrained(folder)
    affine = head_affine("LPS", 1.2, tilt=0.2)
    flair = write_head(tmp_path / "flair.nii.gz", affine, (20, 14, 6))
    t2w = write_head(tmp_path / "t2w.nii.gz", affine, (20, 14, 6), seed=1)
    out = tmp_path / "t1.nii.gz"
    alone = translate(folder, flair, out)
    printed = capsys.readouterr().out
    assert "SYNTHETIC" in printed and str(out) in printed
    assert alone.shape == (20, 14, 6) and np.allclose(nibabel.load(out).affine, affine, atol=1e-5)
    words = ["--condition", f"T2w={t2w}", "--number", "2", "--batch-size", "3"]
    both = translate(folder, flair, out, *words)
    assert np.abs(both - alone).max() > 1e-3
    assert nibabel.load(tmp_path / "t1_std.nii.gz").shape == alone.shape
    for change in (["--seed", "3"], ["--scheduler", "ddpm"], ["--guidance-scale", "7"]):
        assert np.abs(translate(folder, flair, out, *change) - alone).max() > 1e-4
    for words, message in (
        (["--condition", "T2w"], "give NAME=PATH"),
        (["--condition", f"FLAIR={t2w}"], "each name once"),
        (["--condition", f"PD={t2w}"], "PD"),
        (["--number", "0"], "--number must be at least 1"),
    ):
        with pytest.raises(SystemExit, match=f"diffct: .*{message}"):
            translate(folder, flair, out, *words)
    with pytest.raises(SystemExit, match="use `diffct translate`"):
        sample(folder, tmp_path / "samples")


def test_a_translation_overwrites_files_only_on_request(tmp_path):
    folder = tmp_path / "translation"
    make_flair_pipeline().save_pretrained(folder)
    flair = write_head(tmp_path / "flair.nii.gz", head_affine("LPS"), (20, 14, 4))
    before, out = flair.read_bytes(), tmp_path / "new" / "t1.nii.gz"
    translate(folder, flair, out, "--number", "2")
    words = ["translate", str(folder), str(flair), "--steps", "2", "--device", "cpu", "--out"]
    with pytest.raises(SystemExit, match=r"t1\.nii\.gz exists already.*--overwrite"):
        main([*words, str(out)])
    with pytest.raises(SystemExit, match="one of the scans to read"):
        main([*words, str(flair), "--overwrite"])
    with pytest.raises(SystemExit, match=r"ends in \.nii"):
        main([*words, str(tmp_path / "t1.png")])
    with pytest.raises(SystemExit, match="is a folder"):
        (tmp_path / "folder.nii").mkdir()
        main([*words, str(tmp_path / "folder.nii")])
    assert flair.read_bytes() == before
    translate(folder, flair, out)
    assert not out.with_name("t1_std.nii.gz").exists()


def test_only_translations_translate(films, tmp_path):
    scan = write_head(tmp_path / "flair.nii.gz", head_affine("RAS"), (8, 8, 4))
    with pytest.raises(SystemExit, match="CXRTextToImagePipeline, not a translation"):
        translate(films, scan, tmp_path / "t1.nii.gz")


def test_a_missing_pipeline_is_named(tmp_path):
    with pytest.raises(SystemExit, match="nowhere: there is no such folder"):
        sample(tmp_path / "nowhere", tmp_path)


def test_names_that_no_terminal_can_write_are_written_all_the_same(tmp_path, monkeypatch):
    write_volume(pelvis_phantom(0, size=(4, 16, 16)).volume, tmp_path / "é日.nii.gz")
    os.rename(tmp_path / "é日.nii.gz", os.fsencode(tmp_path) + b"/caf\xe9 \xe6\x97\xa5.nii.gz")
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding="ascii"))
    main(["inspect", str(tmp_path)])
    assert rb"caf\udce9 \u65e5.nii.gz" in written.getvalue()
    written.truncate(written.seek(0))
    main(["inspect", str(tmp_path), "--json"])
    path = json.loads(written.getvalue())["images"][0]["path"]
    assert Path(path).is_file()


def test_inspect_shows_what_would_be_read_and_what_is_wrong(tmp_path, capsys):
    write_volume(pelvis_phantom(0, size=(4, 16, 16)).volume, tmp_path / "good.nii.gz")
    main(["inspect", str(tmp_path)])
    assert "4x16x16" in capsys.readouterr().out
    (tmp_path / "bad.nii").write_bytes(b"nothing")
    with pytest.raises(SystemExit) as stop:
        main(["inspect", str(tmp_path)])
    assert stop.value.code == 1
    output = capsys.readouterr().out
    assert "bad.nii" in output and "problem" in output
    main(["inspect", str(tmp_path), "--exclude", "bad*", "--kind", "ct", "--json"])
    printed = capsys.readouterr()
    inspected = json.loads(printed.out)
    assert len(inspected["images"]) == 1 and inspected["left_out"][0]["path"].endswith("bad.nii")
    assert "Reading" in printed.err


@pytest.mark.parametrize("words", [["--include", "a"], ["--exclude", "a"], ["--kind", "ct"]])
def test_inspect_refuses_options_that_would_do_nothing(tmp_path, words):
    (tmp_path / "manifest.jsonl").write_text("")
    with pytest.raises(SystemExit, match=f"{words[0]} has no meaning for a manifest"):
        main(["inspect", str(tmp_path), *words])


def test_phantom_scans_are_written_with_a_manifest_and_label_maps(tmp_path, capsys):
    words = ["--number", "10", "--size", "3", "12", "14", "--spacing", "20", "20", "20"]
    main(["phantom", "pelvis", *words, "--out", str(tmp_path / "data")])
    assert "8 train, 1 validation, 1 test" in capsys.readouterr().out
    manifest = read_manifest(tmp_path / "data")
    for row in manifest.rows:
        scan = diffct.read_volume(manifest.path(row))
        labels = diffct.read_volume(tmp_path / "data" / row.facts["labels"])
        assert scan.size == labels.size == (3, 12, 14)
    with pytest.raises(SystemExit, match="diffct: --number must be at least 1, not 0"):
        main(["phantom", "pelvis", "--number", "0", "--out", str(tmp_path / "none")])


def test_phantom_brains_are_written_and_sliced(tmp_path, capsys):
    tree, slices = tmp_path / "bids", tmp_path / "slices"
    main(["phantom", "brain", "--number", "3", "--spacing", "4", "--out", str(tree)])
    words = ["prepare", "brain", "--bids", str(tree), "--size", "56", "40", "--slices", "2"]
    main([*words, "--workers", "1", "--out", str(slices)])
    assert "3 synthetic brains" in capsys.readouterr().out
    rows = read_manifest(slices).rows
    assert len(rows) == 6 and all(row.facts["synthetic"] for row in rows)


def test_help_that_imports_nothing_slow_names_all_that_there_is():
    assert loading._SCHEDULERS == tuple(SCHEDULERS)
    assert sample_command._WINDOWS == tuple(WINDOWS)
    words = ["--number", "1", "--out", "x"]
    brain, pelvis, chest = (
        _make_parser().read(["phantom", kind, *words]).parser
        for kind in ("brain", "pelvis", "chest")
    )
    choices = {action.dest: action.choices for action in brain._actions}
    assert choices["anatomy"] == get_args(AnatomySource)
    assert choices["contrasts"] == tuple(SEQUENCES)
    assert pelvis.get_default("size") == pelvis_cohort.DEFAULT_SIZE
    assert pelvis.get_default("spacing") == pelvis_cohort.DEFAULT_SPACING_MM
    assert chest.get_default("size") == chest_cohort.DEFAULT_SIZE


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], "translate"),
        (["prepare"], "mimic-cxr"),
        (["phantom"], "pelvis"),
        (["train"], "ct3d, autoencoder, diffusion or controlnet"),
    ],
)
def test_a_command_without_its_subcommand_shows_help(words, named, capsys):
    main(words)
    shown = capsys.readouterr().out
    assert shown.startswith(" ".join(["usage: diffct", *words])) and "--debug" in shown
    assert named in shown


def test_the_version_names_the_libraries_too(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"diffct {diffct.__version__} (torch {torch.__version__.split('+')[0]}")
    assert f"diffusers {diffusers.__version__}" in shown and shown.count("\n") == 1


def fail_by(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(options: object) -> None:
        raise error

    monkeypatch.setattr("diffct.commands.inspect._inspect", fail)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("a scan of 3 m"), "diffct: a scan of 3 m"),
        (ImportError("pip install lpips"), "diffct: pip install lpips"),
        (OSError("403\n\nCannot access"), "diffct: 403 Cannot access"),
        (KeyError("spacing\nmore"), "diffct: unexpected KeyError: 'spacing\\nmore' (--debug"),
        (RuntimeError("first\nsecond"), "diffct: unexpected RuntimeError: first (--debug"),
        (ValueError(), "diffct: unexpected ValueError:  (--debug"),
        (torch.OutOfMemoryError("CUDA\n..."), "diffct: out of memory."),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "diffct: out of memory."),
    ],
)
def test_every_error_is_one_line_and_a_traceback_with_debug(error, line, monkeypatch):
    fail_by(error, monkeypatch)
    with pytest.raises(SystemExit) as stop:
        main(["inspect", "x"])
    assert str(stop.value.code).startswith(line) and "\n" not in str(stop.value.code)
    for words in (["--debug", "inspect", "x"], ["inspect", "x", "--debug"]):
        with pytest.raises(type(error)) as shown:
            main(words)
        assert shown.value is error


def test_an_interrupted_command_ends_without_a_word(monkeypatch, capsys):
    fail_by(KeyboardInterrupt(), monkeypatch)
    with pytest.raises(SystemExit) as stop:
        main(["inspect", "x"])
    assert stop.value.code == 130
    assert capsys.readouterr() == ("", "")


@pytest.mark.slow
def test_a_reader_that_leaves_ends_the_command_without_a_word(tmp_path):
    write_volume(pelvis_phantom(0, size=(4, 16, 16)).volume, tmp_path / "good.nii.gz")
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "diffct", "inspect", str(tmp_path)]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=300)
    os.close(writing)
    assert done.returncode == 141
    assert "Traceback" not in done.stderr and "Broken pipe" not in done.stderr
