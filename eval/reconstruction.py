"""What an autoencoder keeps of held-out images: the best that any model in its latents can do."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffct.eval.image_sets import ImageSet
from diffct.eval.pictures import inner_pick
from diffct.eval.protocol import protocol_card
from diffct.eval.section import Picture, Section, Table
from diffct.figures.comparison import save_comparison
from diffct.metrics.intervals import Estimate
from diffct.metrics.paired import PairedAccumulator, Perceptual
from diffct.metrics.similarity import multi_scale, to_film

_BATCH = 16
_DRAWN = 4

NAMES = {
    "mae": "MAE",
    "rmse": "RMSE",
    "mae_hu": "MAE (HU)",
    "rmse_hu": "RMSE (HU)",
    "psnr": "PSNR (dB)",
    "ssim": "SSIM",
    "ms_ssim": "MS-SSIM",
    "lpips": "LPIPS",
}


def measure_reconstruction(
    autoencoder: nn.Module,
    images: ImageSet,
    *,
    out: Path,
    perceptual: Perceptual | None = None,
    pipeline: dict[str, Any] | None = None,
    synthetic: bool,
) -> Section:
    """Compare images with what an autoencoder makes of them, by the mean of its posterior.

    Args:
        autoencoder: A diffusers `AutoencoderKL`.
        images: Held-out images.
        out: Where the picture goes.
        perceptual: Measures LPIPS; None to leave it out.
        pipeline: What the autoencoder is of, for the protocol.
        synthetic: Whether the images are phantoms.
    """
    accumulator = PairedAccumulator(perceptual=perceptual)
    start = 0
    for batch in images.batches(_BATCH):
        patients = images.patients[start : start + len(batch)]
        accumulator.update(reconstruct(autoencoder, batch), batch, groups=patients)
        start += len(batch)
    figures = accumulator.result()
    path = out / "reconstruction.png"
    drawn = images.of(inner_pick(len(images), _DRAWN)).stacked(progress=False)
    save_comparison(drawn, reconstruct(autoencoder, drawn), path)
    return Section(
        name="reconstruction",
        title="Autoencoder",
        protocol=protocol_card(
            "reconstruction",
            sets={"held_out": images},
            settings={"posterior": "mean"},
            pipeline=pipeline,
            synthetic=synthetic,
        ),
        figures=dict(figures),
        tables=[paired_table({"reconstruction": figures}, images)],
        pictures=[Picture(path, "An even pick of held-out images, and their reconstructions.")],
        missing=missing_of(accumulator),
    )


@torch.no_grad()
def reconstruct(autoencoder: nn.Module, images: Tensor) -> Tensor:
    """Pass images (B, 1, H, W) in [0, 1] through an autoencoder."""
    latents = autoencoder.encode((images * 2 - 1).to(autoencoder.device)).latent_dist.mode()
    return to_film(autoencoder.decode(latents).sample.mean(dim=1, keepdim=True)).cpu()


def missing_of(accumulator: PairedAccumulator) -> list[str]:
    """Say what could not be measured of pairs."""
    return [] if accumulator.missing is None else [f"MS-SSIM: {accumulator.missing}"]


def paired_table(results: dict[str, dict[str, Estimate]], images: ImageSet) -> Table:
    """Show figures of pairs, a row for each method, or for each figure of a single one."""
    figures = list(next(iter(results.values())))
    cells = [[_with_deviation(found[figure]) for figure in figures] for found in results.values()]
    names, methods = [NAMES.get(figure, figure) for figure in figures], list(results)
    if len(results) == 1:  # as wide as the page
        names, methods, cells = methods, names, list(zip(*cells, strict=True))
    rows = [(method, *row) for method, row in zip(methods, cells, strict=True)]
    patients = len(set(images.patients))
    return Table(
        f"{len(images)} images of {patients} patient(s): mean ± standard deviation over images"
        " [95 % interval over patients]",
        ("", *names),
        rows,
        note=(f"MS-SSIM: {multi_scale(images.size)}. " if "ms_ssim" in figures else "")
        + "Whole images count, background included.",
    )


def _with_deviation(figure: Estimate) -> str:
    """Write mean, deviation and interval."""
    text = f"{figure.value:.4g}" if figure.sd is None else f"{figure.value:.4g} ± {figure.sd:.2g}"
    if figure.interval is None:
        return text
    low, high = figure.interval
    return f"{text} [{low:.4g}, {high:.4g}]"
