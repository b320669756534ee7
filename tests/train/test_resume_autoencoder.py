"""A killed and resumed autoencoder equals the one that was never interrupted, bit by bit."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from diffct.data.manifest import ManifestRow, write_manifest
from diffct.data.radiograph import write_png

pytestmark = pytest.mark.slow

LAST = "checkpoints/checkpoint-00000012"
# The discriminator joins in after update 5, and has batch normalisation.
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


def everything_learnt(folder: Path) -> dict[str, torch.Tensor]:
    """Return what the last checkpoint and the saved autoencoders hold."""
    last, state = folder / LAST, {}
    for name in ("model", "model_1"):
        weights = load_file(last / f"{name}.safetensors")
        state |= {f"{name}.{key}": value for key, value in weights.items()}
    ema = torch.load(last / "custom_checkpoint_0.pkl", weights_only=True)
    state |= {f"ema.{i}": shadow for i, shadow in enumerate(ema["shadow_params"])}
    for name in ("optimizer", "optimizer_1"):
        for number, moments in torch.load(last / f"{name}.bin", weights_only=True)["state"].items():
            state |= {f"{name}.{number}.{key}": value for key, value in moments.items()}
    for number in (1, 2):
        schedule = torch.load(last / f"custom_checkpoint_{number}.pkl", weights_only=True)
        facts = [schedule["last_epoch"], *schedule["_last_lr"]]
        state[f"schedule.{number}"] = torch.tensor(facts, dtype=torch.float64)
    for name in ("autoencoder", "autoencoder-best"):
        saved = load_file(folder / name / "diffusion_pytorch_model.safetensors")
        state |= {f"{name}.{key}": value for key, value in saved.items()}
        factor = json.loads((folder / name / "config.json").read_text())["scaling_factor"]
        state[f"{name}.scaling_factor"] = torch.tensor(factor)
    return state


def appears(folder: Path, pattern: str) -> Callable[[], bool]:
    return lambda: any(folder.glob(pattern))


@pytest.mark.parametrize("name", SETTINGS)
def test_killed_and_resumed_run_equals_uninterrupted_run(experiment_factory, films, name):
    processes, overrides = SETTINGS[name]
    overrides = [f"data.manifest={films}", *overrides]
    options = {"script": "train_autoencoder.py", "yaml": TINY}
    whole, killed = experiment_factory("whole", **options), experiment_factory("killed", **options)

    finished = whole.run(*overrides, processes=processes)
    assert finished.returncode == 0, finished.stderr

    # While a checkpoint is being written before the discriminator joins in, after it has joined in,
    # and when everything is learnt but nothing measured.
    moments = [
        "checkpoints/.checkpoint-00000004.partial-*/optimizer.bin",
        "checkpoints/checkpoint-00000008",
        LAST,
    ]
    for moment in moments:
        killed.kill_when(
            appears(killed.folder, moment), "--resume", *overrides, processes=processes
        )
    config = json.loads((killed.folder / "autoencoder/config.json").read_text())
    assert config["scaling_factor"] is None
    assert not (killed.folder / "reconstruction.json").exists()
    resumed = killed.run("--resume", *overrides, processes=processes)
    assert resumed.returncode == 0, resumed.stderr
    assert "Resumed at update 12" in resumed.stdout

    expected, found = everything_learnt(whole.folder), everything_learnt(killed.folder)
    assert expected.keys() == found.keys()
    different = [key for key in expected if not torch.equal(expected[key], found[key])]
    assert different == []
    reports = [(run.folder / "reconstruction.json").read_text() for run in (whole, killed)]
    assert reports[0] == reports[1]
    assert list(killed.folder.rglob(".*.partial-*")) == []
