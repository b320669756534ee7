"""The reconstruction section: held-out images through the autoencoder, the limit of its models."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, AutoModel
from torch import Tensor

from diffct.eval.figures import Cell, Figure, Number, Table
from diffct.eval.image_sets import ImageSet
from diffct.eval.inputs import Inputs
from diffct.eval.pictures import inner_pick
from diffct.eval.protocol import protocol_card
from diffct.eval.section import Picture, Section
from diffct.figures.comparison import save_comparison
from diffct.imaging.transforms import from_model_range, unit_to_model_range
from diffct.metrics.intervals import Estimate
from diffct.metrics.paired import PairedAccumulator
from diffct.metrics.similarity import multi_scale

_BATCH = 16
_DRAWN = 4


def measure(inputs: Inputs) -> Section:
    """Compare held-out images with their reconstructions from the mean of the posterior.

    Raises:
        ValueError: There is no autoencoder.
    """
    autoencoder = _autoencoder(inputs)
    images = inputs.cohort.held_out.pick(inputs.config.max_images)
    accumulator = PairedAccumulator(perceptual=inputs.perceptual)
    start = 0
    for batch in images.batches(_BATCH):
        patients = images.patients[start : start + len(batch)]
        accumulator.update(reconstruct(autoencoder, batch), batch, groups=patients)
        start += len(batch)
    found = accumulator.result()
    path = Path(inputs.config.out) / "reconstruction.png"
    drawn = images.select(inner_pick(len(images), _DRAWN)).stacked(progress=False)
    save_comparison(drawn, reconstruct(autoencoder, drawn), path)
    return Section(
        name="reconstruction",
        title="Autoencoder",
        protocol=protocol_card(
            "reconstruction",
            sets={"held_out": images},
            settings={"posterior": "mean"},
            pipeline=inputs.model,
            synthetic=inputs.cohort.synthetic,
        ),
        figures=[Figure(metric, value) for metric, value in found.items()],
        tables=[paired_table({"reconstruction": found}, images)],
        pictures=[Picture(path, "Held-out images, evenly picked, and their reconstructions.")],
        missing=missing_of(accumulator),
    )


def _autoencoder(inputs: Inputs) -> AutoencoderKL:
    """Return the pipeline's autoencoder, or load a single one."""
    if inputs.pipeline is not None:
        vae = getattr(inputs.pipeline, "vae", None)
        if vae is None:
            raise ValueError(f"{inputs.name} has no autoencoder.")
        return vae
    source = str(inputs.source)
    if not (Path(source) / "config.json").is_file():
        raise ValueError(f"{inputs.source} is no pipeline and no autoencoder.")
    found = AutoModel.from_pretrained(source)
    if not hasattr(found.config, "scaling_factor"):
        raise ValueError(f"{source} is a {type(found).__name__}, no autoencoder.")
    return found.to(inputs.device)


@torch.no_grad()
def reconstruct(autoencoder: AutoencoderKL, images: Tensor) -> Tensor:
    """Pass images (B, 1, H, W), or volumes (B, 1, D, H, W), in [0, 1] through an autoencoder."""
    gray = images.expand(-1, autoencoder.config["in_channels"], *images.shape[2:])
    pixels = unit_to_model_range(gray).to(autoencoder.device, autoencoder.dtype)
    latents = autoencoder.encode(pixels).latent_dist.mode()
    return from_model_range(autoencoder.decode(latents).sample.mean(dim=1, keepdim=True)).cpu()


def missing_of(accumulator: PairedAccumulator) -> list[str]:
    """Say which figures of pairs could not be measured."""
    return [] if accumulator.missing is None else [f"MS-SSIM: {accumulator.missing}"]


def paired_table(results: dict[str, dict[str, Estimate]], images: ImageSet) -> Table:
    """Return a table of pairs: a row for each method, or for each figure of a single method."""
    metrics = list(next(iter(results.values())))
    cells = [
        [Number(found[metric], deviation=True) for metric in metrics] for found in results.values()
    ]
    names, methods = [Figure(metric, None).title for metric in metrics], list(results)
    if len(results) == 1:  # transposed, to fit the width of the page
        names, methods, cells = methods, names, [list(row) for row in zip(*cells, strict=True)]
    rows: list[tuple[Cell, ...]] = [
        (method, *row) for method, row in zip(methods, cells, strict=True)
    ]
    patients = len(set(images.patients))
    return Table(
        f"{len(images)} images of {patients} patient(s): mean ± standard deviation over images"
        " [95 % interval over patients]",
        ("", *names),
        rows,
        note=(f"MS-SSIM: {multi_scale(images.size)}. " if "ms_ssim" in metrics else "")
        + "Whole images are compared, background included.",
    )
