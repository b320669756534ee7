"""Times of pairwise MS-SSIM of a set, and of MONAI's metric over every ordered pair.

    python benchmarks/pairwise_ms_ssim.py            # MONAI on randomly drawn pairs, extrapolated
    python benchmarks/pairwise_ms_ssim.py --full     # MONAI on every pair: 17 minutes

MONAI's metric runs in a loop over the ordered pairs, one at a time, as in the published evaluation
scripts of diffct's models. Images are smooth noise, since the time does not depend on the content.
Both are timed in one run: quote the ratio, since the speed of machines varies.
"""

import argparse
import itertools
import random
import time

import torch
from monai.metrics import MultiScaleSSIMMetric
from torch import Tensor
from torch.nn import functional
from tqdm.auto import tqdm

from diffct.metrics.diversity import pairwise_ms_ssim
from diffct.metrics.similarity import multi_scale


def main() -> None:
    """Print both times, their ratio and the largest difference, for images and for volumes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=200, help="256x256 images (200; 0 for none)")
    parser.add_argument("--volumes", type=int, default=8, help="64x128x128 volumes (8; 0 for none)")
    parser.add_argument("--sample", type=int, default=40, help="pairs to time MONAI on (40)")
    parser.add_argument("--full", action="store_true", help="run MONAI on every ordered pair")
    options = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    for count, size in ((options.images, (256, 256)), (options.volumes, (64, 128, 128))):
        if count:
            compare(make_set(count, size), sample=None if options.full else options.sample)


def make_set(count: int, size: tuple[int, ...]) -> Tensor:
    """Draw images of smooth noise that have something in common, (count, 1, *size) in [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    coarse = [side // 8 for side in size]
    common = torch.rand(1, 1, *coarse, generator=generator)
    own = torch.rand(count, 1, *coarse, generator=generator)
    mode = "bilinear" if len(size) == 2 else "trilinear"
    return functional.interpolate((common + own) / 2, size, mode=mode)


def compare(images: Tensor, *, sample: int | None) -> None:
    """Time both metrics on a set; MONAI's on a number of sampled pairs, or on all if None."""
    chosen = multi_scale(images.shape[2:])
    metric = MultiScaleSSIMMetric(
        images.ndim - 2, kernel_size=chosen.kernel, weights=chosen.weights, reduction="none"
    )
    pairs = list(itertools.permutations(range(len(images)), 2))
    timed = pairs if sample is None else random.Random(0).sample(pairs, min(sample, len(pairs)))
    metric(images[:1], images[1:2])
    pairwise_ms_ssim(images[:2])

    begun = time.perf_counter()
    similarity = pairwise_ms_ssim(images, show_progress=True)
    ours = time.perf_counter() - begun

    begun = time.perf_counter()
    values = [metric(images[i : i + 1], images[j : j + 1]).item() for i, j in tqdm(timed)]
    theirs = (time.perf_counter() - begun) * len(pairs) / len(timed)

    found = [similarity[i, j].item() for i, j in timed]
    difference = max(abs(a - b) for a, b in zip(values, found, strict=True))
    how = "measured" if len(timed) == len(pairs) else f"EXTRAPOLATED from {len(timed)} pairs"
    print(
        f"{len(images)} of {'x'.join(map(str, images.shape[2:]))} ({chosen}):\n"
        f"  diffct {ours:9.2f} s, {len(pairs) // 2} unordered pairs, all measured\n"
        f"  MONAI  {theirs:9.2f} s, {len(pairs)} ordered pairs, {how}\n"
        f"  {theirs / ours:.0f} times as fast; largest difference {difference:.1e}"
    )


if __name__ == "__main__":
    main()
