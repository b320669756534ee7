"""A few pairs of slices, an untrained T1w model, and the settings of a tiny translation."""

from pathlib import Path

import numpy as np
from diffusers import AutoencoderKL, DDIMScheduler

from diffct.data.manifest import ManifestRow, write_manifest
from diffct.imaging.radiograph import write_png
from diffct.models.latent_diffusion import make_unet
from diffct.models.latent_space import LatentSpace
from diffct.models.small_text_encoder import make_small_text_encoder
from diffct.pipelines import TextToImagePipeline
from tests.train.films import SPLITS, write_autoencoder

PROMPT = "T1-weighted image of a brain."

TINY = """
output_dir: {folder}
tracker: none
data: {{size: [64, 48], validation_slices: 2}}
augmentation: {{probability: 0.5, flip_probability: 0.5}}
controlnet: {{conditioning_embedding_out_channels: [4, 8]}}
optim: {{lr: 1.0e-2, warmup_updates: 3}}
train:
  updates: 12
  batch_size: 2
  log_every: 1
  validate_every: 3
  preview_every: 0
  checkpoint_every: 2
  validation_draws: 2
preview: {{images: 2, steps: 2}}
"""


def write_pairs(
    folder: Path, splits: str = "tttttttvv", conditions: tuple[str, ...] = ("FLAIR",)
) -> Path:
    """Make pairs whose condition is the negative of the target; each letter is a subject's split.

    Every other row lacks all conditions but the first.
    """
    rows, rng = [], np.random.default_rng(0)
    for number, split in enumerate(splits):
        target = rng.random((66, 50), dtype=np.float32)
        write_png(target, folder / f"{number}-T1w.png")
        listed = {}
        for name in conditions[: 1 if number % 2 else None]:
            listed[name] = {"image": f"{number}-{name}.png", "intensity_range": [0.0, 500.0]}
            write_png(1 - target, folder / f"{number}-{name}.png")
        facts = {
            "synthetic": True,
            "plane": "axial",
            "slice_index": 3,
            "affine": [[0, 0, -2.0, 50], [0, -3.0, 0, 60], [2.5, 0, 0, -10], [0, 0, 0, 1]],
            "volume_size": [9, 66, 50],
            "volume_affine": [[0, 0, -2.0, 50], [0, -3.0, 0, 60], [2.5, 0, 0, -17.5], [0, 0, 0, 1]],
            "intensity_range": [0.0, 800.0],
            "conditions": listed,
        }
        rows.append(ManifestRow(f"{number}-T1w.png", f"s{number}", SPLITS[split], facts=facts))
    write_manifest(rows, folder / "manifest.jsonl")
    return folder


def write_base(folder: Path, *, seed: int = 0) -> Path:
    """Save a text-to-image pipeline with random weights."""
    vae = AutoencoderKL.from_pretrained(write_autoencoder(folder / "autoencoder"))
    tokenizer, text_encoder = make_small_text_encoder(
        [PROMPT], width=16, layers=1, heads=2, max_length=12, seed=seed
    )
    unet = make_unet(
        {
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
            "block_out_channels": [8, 16],
            "layers_per_block": 1,
            "norm_num_groups": 4,
            "attention_head_dim": 2,
        },
        space=LatentSpace(vae),
        size=[64, 48],
        width=16,
        seed=seed,
    )
    scheduler = DDIMScheduler(prediction_type="v_prediction", clip_sample=False)
    TextToImagePipeline(
        vae, text_encoder, tokenizer, unet, scheduler, prompt="T1-weighted image of a brain."
    ).save_pretrained(folder)
    return folder
