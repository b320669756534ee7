"""A killed and resumed autoencoder equals the one that was never interrupted, bit by bit."""

import json
from pathlib import Path

import numpy as np
import pytest

from diffct.data.manifest import ManifestRow, write_manifest
from diffct.imaging.radiograph import write_png
from tests.train.resumption import LAST, MOMENTS, prepare_rerun

pytestmark = pytest.mark.slow

# Adversarial training starts after update 5; the discriminator has batch normalisation.
TINY = """
output_dir: {folder}
tracker: none
data: {{size: [48, 64]}}
autoencoder:
  down_block_types: [DownEncoderBlock2D, DownEncoderBlock2D]
  up_block_types: [UpDecoderBlock2D, UpDecoderBlock2D]
  block_out_channels: [4, 8]
  latent_channels: 2
  norm_num_groups: 2
  mid_block_add_attention: false
objective: {{perceptual: none, adversarial_start_updates: 5}}
discriminator: {{channels: 4, num_layers_d: 2}}
optim: {{lr: 1.0e-3, warmup_updates: 3}}
discriminator_optim: {{lr: 1.0e-3, warmup_updates: 3}}
train:
  updates: 12
  batch_size: 2
  log_every: 1
  validate_every: 3
  preview_every: 0
  checkpoint_every: 2
"""
SETTINGS = {
    "one process": (1, []),
    "two processes and accumulation": (2, ["train.gradient_accumulation=3"]),
}


@pytest.fixture
def films(tmp_path) -> Path:
    """Make a small data set."""
    rows, rng = [], np.random.default_rng(0)
    for number in range(12):
        name, split = f"{number}.png", "train" if number < 9 else "validation"
        write_png(rng.random((48, 64), dtype=np.float32), tmp_path / "films" / name)
        rows.append(ManifestRow(name, patient=name, split=split))
    write_manifest(rows, tmp_path / "films" / "manifest.jsonl")
    return tmp_path / "films"


@pytest.mark.parametrize("name", SETTINGS)
def test_killed_and_resumed_run_equals_uninterrupted_run(experiment_factory, films, name):
    processes, overrides = SETTINGS[name]
    rerun = prepare_rerun(
        experiment_factory,
        f"data.manifest={films}",
        *overrides,
        script="train_autoencoder.py",
        yaml=TINY,
        processes=processes,
    )
    # While a checkpoint is being written before adversarial training starts, after it has started,
    # and when training has ended but nothing is measured.
    rerun.kill_at(*MOMENTS, LAST)
    killed, whole = rerun.killed.folder, rerun.whole.folder
    config = json.loads((killed / "autoencoder/config.json").read_text())
    assert config["scaling_factor"] is None
    assert not (killed / "reconstruction.json").exists()
    rerun.finish()
    rerun.check_equal(["autoencoder", "autoencoder-best"])
    measured = (
        "reconstruction.json",
        "autoencoder/config.json",  # the scaling factor
        "autoencoder-best/config.json",
    )
    for name in measured:
        assert (killed / name).read_text() == (whole / name).read_text()
