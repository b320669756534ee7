"""The `diffct` command."""

from pathlib import Path

import diffusers
import nibabel
import numpy as np
import pytest
import torch

import diffct
from diffct.cli import main
from diffct.data.phantoms.pelvis import pelvis_phantom
from diffct.data.volume import write_nifti
from diffct.pipelines.schedulers import SCHEDULERS


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


def test_samples_are_numbered_by_seed_whatever_their_number(pipeline, tmp_path):
    three = sample(pipeline, tmp_path / "three", "--num", "3", "--seed", "5", "--batch-size", "2")
    (last,) = sample(pipeline, tmp_path / "last", "--seed", "7")
    assert len(three) == 3
    assert np.abs(three[2] - last).max() <= 1
    assert np.abs(three[0] - last).max() > 1
    assert len(list((tmp_path / "three").glob("*.png"))) == 3


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
        (["--num", "0"], "--num"),
        (["--class-label", "1"], "unconditional"),
        (["--scheduler", "FlowMatchEulerDiscreteScheduler"], "FlowMatch"),
        (["--size", "0", "8", "8"], "size"),
    ],
)
def test_mistakes_end_in_one_line(pipeline, tmp_path, words, message):
    with pytest.raises(SystemExit, match=f"diffct: .*{message}"):
        sample(pipeline, tmp_path / "out", *words)
    assert not (tmp_path / "out").exists()


def test_a_missing_pipeline_is_named(tmp_path):
    with pytest.raises(SystemExit, match=r"nowhere.*model_index\.json"):
        sample(tmp_path / "nowhere", tmp_path)


def test_inspect_shows_what_would_be_read_and_what_is_wrong(tmp_path, capsys):
    write_nifti(pelvis_phantom(0, size=(4, 16, 16)).volume, tmp_path / "good.nii.gz")
    main(["inspect", str(tmp_path)])
    assert "4x16x16" in capsys.readouterr().out
    (tmp_path / "bad.nii").write_bytes(b"nothing")
    with pytest.raises(SystemExit) as stop:
        main(["inspect", str(tmp_path)])
    assert stop.value.code == 1
    output = capsys.readouterr().out
    assert "bad.nii" in output and "problem" in output
