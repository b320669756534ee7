"""A few films with reports, an untrained autoencoder, and the settings of a tiny experiment."""

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL

from diffct.data.manifest import ManifestRow, write_manifest
from diffct.imaging.radiograph import write_png

SPLITS = {"t": "train", "v": "validation", "e": "test"}
REPORT = ("No pleural effusion.", "The heart is normal.", "There is a left nodule.")

TINY = """
output_dir: {folder}
tracker: none
data: {{size: [64, 64]}}
augmentation: {{probability: 0.0}}
text_encoder:
  name: small
  train: true
  small: {{width: 16, layers: 1, heads: 2, max_length: 24, alignment_updates: 3}}
unet:
  down_block_types: [DownBlock2D, CrossAttnDownBlock2D]
  up_block_types: [CrossAttnUpBlock2D, UpBlock2D]
  block_out_channels: [8, 16]
  layers_per_block: 1
  norm_num_groups: 4
  attention_head_dim: 2
  dropout: 0.1
scheduler: {{_class_name: DDIMScheduler, prediction_type: v_prediction, clip_sample: false}}
optim: {{lr: 1.0e-3, lr_factors: {{text_encoder: 0.1}}, warmup_updates: 3}}
train:
  updates: 12
  batch_size: 2
  log_every: 1
  validate_every: 3
  preview_every: 0
  checkpoint_every: 2
  validation_draws: 2
preview: {{prompts: ["", No pleural effusion.], steps: 2}}
"""


def write_films(folder: Path, splits: str = "tttttttvv") -> Path:
    """Make a small data set; each letter is the split of a film."""
    rows, rng = [], np.random.default_rng(0)
    for number, split in enumerate(splits):
        name = f"{number}.png"
        write_png(rng.random((64, 64), dtype=np.float32), folder / name)
        rows.append(
            ManifestRow(name, patient=name, split=SPLITS[split], sentences=REPORT[: 1 + number % 3])
        )
    write_manifest(rows, folder / "manifest.jsonl")
    return folder


def write_autoencoder(folder: Path) -> Path:
    """Save an autoencoder with random weights."""
    torch.manual_seed(0)
    AutoencoderKL(
        in_channels=1,
        out_channels=1,
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        block_out_channels=[4, 8],
        latent_channels=2,
        norm_num_groups=2,
        scaling_factor=0.7,
    ).save_pretrained(folder)
    return folder
