"""Times of a training step of the thesis network, and of MONAI's 3D diffusion network.

    python benchmarks/unet3d_step.py                                     # 26×64×64 voxels
    python benchmarks/unet3d_step.py --size 26 256 256 --steps 200       # on a GPU, in bf16

The network is that of Harmuszkiewicz 2023 (thesis); MONAI's has the same channels and levels, with
all blocks volumetric. Quote the ratio of medians within one run, since the speed of machines
varies. If MONAI's network does not fit in the GPU's memory, that is reported. MONAI needs
`pip install einops`.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
from monai.networks.nets import DiffusionModelUNet
from omegaconf import OmegaConf
from torch import nn

from diffct import UNet3DModel

THESIS = Path(__file__).parents[1] / "train" / "configs" / "ct3d/diffusion-published.yaml"


def main() -> None:
    """Print parameters, time per step and peak GPU memory of both networks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, nargs=3, default=(26, 64, 64), metavar=("D", "H", "W"))
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--without-peer", action="store_true")
    options = parser.parse_args()

    config = OmegaConf.to_container(OmegaConf.load(THESIS).unet)
    unet = UNet3DModel(**config)
    if options.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    ours = _measure("diffct UNet3DModel", unet, options.size, options.steps)
    if options.without_peer:
        return
    del unet
    widths = config["block_out_channels"]
    peer = DiffusionModelUNet(
        spatial_dims=3,
        in_channels=1,
        out_channels=1,
        channels=widths,
        attention_levels=[False] * 5 + [True, False],
        num_res_blocks=2,
        num_head_channels=8,
        norm_num_groups=32,
    )
    # MONAI's network accepts only sizes that are multiples of its downsampling factor.
    factor = 2 ** (len(widths) - 1)
    size = [-(-length // factor) * factor for length in options.size]
    try:
        theirs = _measure("MONAI DiffusionModelUNet", peer, size, options.steps)
    except torch.OutOfMemoryError as error:
        raise SystemExit(f"MONAI DiffusionModelUNet at {size}: {error}") from None
    print(f"ratio of medians, ours / MONAI's: {ours / theirs:.2f} (sizes as printed)")


def _measure(name: str, network: nn.Module, size: list[int], steps: int) -> float:
    """Train on noise for a few steps, print the results and return the median in seconds."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    network.to(device).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
    sample = torch.randn(1, 1, *size, device=device)
    seconds = []
    for step in range(steps + 1):  # the first is a warm-up
        start = time.perf_counter()
        timesteps = torch.tensor([step], device=device)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            output = network(sample, timesteps)
        output = output if isinstance(output, torch.Tensor) else output.sample
        output.float().square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    parameters = sum(weight.numel() for weight in network.parameters())
    median = statistics.median(seconds[1:])
    memory = f", peak {torch.cuda.max_memory_allocated() / 1e9:.1f} GB" if device == "cuda" else ""
    shape = "×".join(str(length) for length in size)
    print(f"{name}: {parameters:,} parameters, {shape}, {median:.2f} s per step{memory}")
    return median


if __name__ == "__main__":
    main()
