"""A tiny FlairToT1Pipeline of real components, and a small scan."""

from pathlib import Path

import diffusers
import nibabel
import numpy as np
import torch
from scipy import ndimage

from diffct import FlairToT1Pipeline
from diffct.models.small_text_encoder import make_small_text_encoder

PROMPT = "T1-weighted image of a brain."


def make_unet(seed: int = 0, **options: object) -> diffusers.UNet2DConditionModel:
    torch.manual_seed(seed)
    settings = {
        "sample_size": [8, 12],
        "in_channels": 3,
        "out_channels": 3,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "cross_attention_dim": 16,
        "attention_head_dim": 1,
        "norm_num_groups": 4,
    }
    return diffusers.UNet2DConditionModel(**settings | options).eval()


def make_controlnet(
    unet: diffusers.UNet2DConditionModel, *, channels: int = 1, seed: int = 1, stride: int = 2
) -> diffusers.ControlNetModel:
    """Make a ControlNet that says something, as after training."""
    torch.manual_seed(seed)
    net = diffusers.ControlNetModel.from_unet(
        unet,
        conditioning_channels=channels,
        conditioning_embedding_out_channels=(4,) * stride.bit_length(),
    )
    spoken = (*net.controlnet_down_blocks, net.controlnet_mid_block)
    for layer in (*spoken, net.controlnet_cond_embedding.conv_out):
        torch.nn.init.normal_(layer.weight, std=0.3)
    return net.eval()


def make_flair_pipeline(
    *, nets: int = 1, channels: int = 1, sample_size: object = (8, 12), **changed: object
) -> FlairToT1Pipeline:
    """Make a pipeline; keywords replace components and config entries."""
    tokenizer, text_encoder = make_small_text_encoder(
        [PROMPT, "No brain."] * 3, width=16, heads=2, max_length=16
    )
    unet = make_unet(sample_size=sample_size)
    controlnets = [make_controlnet(unet, channels=channels, seed=1 + n) for n in range(nets)]
    torch.manual_seed(0)
    vae = diffusers.AutoencoderKL(
        in_channels=1,
        out_channels=1,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        latent_channels=3,
        norm_num_groups=4,
        scaling_factor=0.5,
    ).eval()
    parts = {
        "vae": vae,
        "text_encoder": text_encoder,
        "tokenizer": tokenizer,
        "unet": unet,
        "controlnet": controlnets[0] if nets == 1 else controlnets,
        "scheduler": diffusers.DDIMScheduler(
            beta_schedule="scaled_linear",
            prediction_type="v_prediction",
            clip_sample=False,
            steps_offset=1,
        ),
    }
    pipeline = FlairToT1Pipeline(**parts | changed)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def make_slices(count: int = 1, size: tuple[int, int] = (16, 24), seed: int = 0) -> np.ndarray:
    """Make smooth random slices (count, H, W) in [0, 1]."""
    noise = np.random.default_rng(seed).random((count, *size))
    smooth = ndimage.gaussian_filter(noise, (0, 1.5, 1.5))
    low, high = smooth.min(), smooth.max()
    return ((smooth - low) / (high - low)).astype(np.float32)


def head_affine(orientation: str, spacing_mm: float = 1.0, *, tilt: float = 0.0) -> np.ndarray:
    """Return an affine whose axes grow to an orientation, tilted about the first world axis."""
    affine = np.zeros((4, 4))
    for column, code in enumerate(orientation):
        row = next(i for i, pair in enumerate(("RL", "AP", "SI")) if code in pair)
        affine[row, column] = spacing_mm * (1 if code in "RAS" else -1)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]]
    affine = turn @ affine
    affine[:, 3] = [-7, 11, 23, 1]
    return affine


def write_head(path: Path, affine: np.ndarray, size: tuple[int, int, int], seed: int = 0) -> Path:
    """Write a blob of tissue in air, in raw intensities, with its axes as the affine has them."""
    rng = np.random.default_rng(seed)
    places = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in size), indexing="ij"))
    inside = (places**2).sum(axis=0) < 0.5
    texture = ndimage.gaussian_filter(rng.random(size), 1)
    array = np.where(inside, 300 + 4000 * (texture - texture.min()), 0).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(array, affine), path)
    return path
