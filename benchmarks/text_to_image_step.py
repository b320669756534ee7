"""Times of one training step of text-to-image latent diffusion, with and without caches.

    python benchmarks/text_to_image_step.py
    python benchmarks/text_to_image_step.py --size 512 --batch-size 4 --source   # needs a GPU

A step is encoding, forward, backward and AdamW. The text encoder is frozen here and has CLIP's
architecture with random weights, on which the time does not depend. The three variants are timed
alternately within one run, and the ratios are relative to encoding everything in every step.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from omegaconf import OmegaConf
from transformers import CLIPTextConfig, CLIPTextModel

from diffct.models.latent_space import LatentSpace
from diffct.models.text_conditioned import TextConditionedUNet
from diffct.models.text_encoding import embed
from diffct.training.denoising import Denoising, by_prompt
from diffct.training.objectives import DiffusionObjective

CONFIGS = Path(__file__).parents[1] / "train" / "configs" / "cxr"
SMALL_TEXT = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
SD21_TEXT = {"hidden_size": 1024, "num_hidden_layers": 23, "num_attention_heads": 16}
TOKENS = {True: 77, False: 64}


def main() -> None:
    """Print seconds per step and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", action="store_true", help="sizes of Pinaya 2023")
    parser.add_argument("--size", type=int, default=128, help="pixels per side (128)")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args()

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind = "-published" if options.source else ""
    autoencoder = OmegaConf.load(CONFIGS / f"autoencoder{kind}.yaml").autoencoder
    unet = OmegaConf.load(CONFIGS / f"diffusion{kind}.yaml").unet
    text = SD21_TEXT if options.source else SMALL_TEXT
    tokens = TOKENS[options.source]
    encoder = CLIPTextModel(CLIPTextConfig(**text, intermediate_size=4 * text["hidden_size"])).to(
        device
    )
    encoder.requires_grad_(False).eval()
    settings = OmegaConf.to_container(autoencoder) | {"scaling_factor": 1.0}
    space = LatentSpace(AutoencoderKL(**settings).to(device))
    network = UNet2DConditionModel(
        **OmegaConf.to_container(unet),
        in_channels=space.channels,
        out_channels=space.channels,
        cross_attention_dim=text["hidden_size"],
        sample_size=options.size // space.factor,
    )
    model = TextConditionedUNet(network).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    losses = Denoising(
        DiffusionObjective(DDIMScheduler(prediction_type="v_prediction")),
        space.encode,
        by_prompt(model, encoder),
        lambda: torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"),
    )

    images = torch.rand(options.batch_size, 1, options.size, options.size, device=device) * 2 - 1
    ids = torch.randint(1000, (options.batch_size, tokens), device=device)
    words = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    mean, std = space.moments(images)
    latents = {"latent_mean": mean, "latent_std": std}
    with torch.no_grad():
        embeddings = {"prompt_embeds": embed(encoder, words)}
    ways = {
        "nothing cached": {"image": images} | words,
        "latents cached": latents | words,
        "latents and prompts cached": latents | embeddings,
    }
    seconds = {way: [] for way in ways}
    for _ in range(options.steps + 2):
        for way, batch in ways.items():
            begun = time.perf_counter()
            with losses.autocast():
                loss = losses(batch, torch.Generator(device).manual_seed(0))["loss"]
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds[way].append(time.perf_counter() - begun)
    slowest = statistics.median(seconds["nothing cached"][2:])
    for way, times in seconds.items():
        median = statistics.median(times[2:])
        print(f"{way:>28}: {median:.3f} s per step, {slowest / median:.2f} times as fast")
    if device.type == "cuda":
        print(f"peak memory {torch.cuda.max_memory_allocated() / 1e9:.1f} GB")


if __name__ == "__main__":
    main()
