"""The measurements of the evaluation commands, each from the same inputs to a section."""

from pathlib import Path

import numpy as np
from diffusers import AutoencoderKL
from torch import nn

from diffct.evaluation.distribution import measure_distribution
from diffct.evaluation.image_sets import ImageSet, check_comparable
from diffct.evaluation.inputs import Inputs
from diffct.evaluation.membership import denoising_losses
from diffct.evaluation.pictures import save_sheet
from diffct.evaluation.privacy import Losses, audit
from diffct.evaluation.protocol import describe_pipeline, protocol_card
from diffct.evaluation.reconstruction import measure_reconstruction, paired_table
from diffct.evaluation.section import Picture, Section, write_section
from diffct.evaluation.translation import measure_translation
from diffct.metrics.paired import PairedAccumulator
from diffct.pipelines import FlairToT1Pipeline

_DRAWS = 8  # noise levels of each image in the membership attack
_MOST_LOSSES = 200  # images of each set in it


def reconstruction(inputs: Inputs) -> Section:
    """Measure the autoencoder of a pipeline, or one alone, on held-out images."""
    return measure_reconstruction(
        _autoencoder(inputs),
        inputs.cohort.held_out.pick(inputs.options.most),
        out=inputs.options.out,
        perceptual=inputs.perceptual(),
        pipeline=describe_pipeline(inputs.source, {}),
        synthetic=inputs.cohort.synthetic,
    )


def fidelity(inputs: Inputs) -> Section:
    """Compare translations with the truth, pair by pair.

    Translations of a pipeline stand beside trivial ones; those of a folder have the names of the
    held-out images.
    """
    if inputs.pipeline is None:
        return _paired_folders(inputs)
    if not isinstance(inputs.pipeline, FlairToT1Pipeline):
        raise ValueError(
            f"{inputs.source} is a {type(inputs.pipeline).__name__}; it translates nothing, so"
            " its samples have no truth. Measure their distribution."
        )
    samples, described = inputs.samples()
    return measure_translation(
        inputs.pipeline,
        samples.stacked(),
        inputs.cohort.held_out.pick(len(samples)),
        inputs.cohort,
        out=inputs.options.out,
        settings={},
        described=described,
        perceptual=inputs.perceptual(),
    )


def distribution(inputs: Inputs) -> Section:
    """Compare samples with held-out images as sets."""
    samples, described = inputs.samples()
    return measure_distribution(
        samples,
        inputs.cohort,
        networks=inputs.networks(),
        out=inputs.options.out,
        most=inputs.options.most,
        pipeline=described,
    )


def privacy(inputs: Inputs) -> Section:
    """Audit samples, and the losses of a pipeline, for what they tell of training images."""
    samples, described = inputs.samples()
    return audit(
        samples,
        inputs.cohort,
        networks=inputs.networks(),
        out=inputs.options.out,
        losses=None if inputs.pipeline is None else _losses(inputs),
        pipeline=described,
        device=inputs.device,
    )


def _losses(inputs: Inputs) -> Losses:
    """Compute a pipeline's denoising losses of training and held-out images."""
    seed = inputs.options.seed
    sets = [images.pick(_MOST_LOSSES) for images in (inputs.cohort.train, inputs.cohort.held_out)]
    return Losses(
        *(denoising_losses(inputs.pipeline, images, draws=_DRAWS, seed=seed) for images in sets),
        *(images.patients for images in sets),
        settings={"draws": _DRAWS, "seed": seed, "most": _MOST_LOSSES},
    )


def suiting(inputs: Inputs) -> list[Section]:
    """Run every measurement that suits the inputs, cheap ones first."""
    pipeline = inputs.pipeline
    found = []
    if getattr(pipeline, "vae", None) is not None:
        found.append(reconstruction(inputs))
    if isinstance(pipeline, FlairToT1Pipeline):
        found.append(fidelity(inputs))
    return [*found, distribution(inputs), privacy(inputs)]


def present(section: Section, out: Path) -> None:
    """Print a section, and write its JSON."""
    print(section.markdown())
    path = write_section(section, out)
    pictures = ", ".join(str(picture.path) for picture in section.pictures)
    print(f"\nFigures with their protocol: {path}; pictures: {pictures}")


def _autoencoder(inputs: Inputs) -> nn.Module:
    """Take the pipeline's autoencoder, or load one alone."""
    if inputs.pipeline is not None:
        vae = getattr(inputs.pipeline, "vae", None)
        if vae is None:
            raise ValueError(f"{inputs.source} has no autoencoder.")
        return vae
    if not (Path(inputs.source) / "config.json").is_file():
        raise ValueError(f"{inputs.source} is no pipeline and no autoencoder.")
    return AutoencoderKL.from_pretrained(inputs.source).to(inputs.device)


def _paired_folders(inputs: Inputs) -> Section:
    """Compare the images of a folder with the held-out images of the same names."""
    samples, _ = inputs.samples()
    truths = inputs.cohort.held_out
    check_comparable(samples, truths)
    samples, truths = _paired_by_name(samples, truths)
    accumulator = PairedAccumulator(
        window_hu=truths.window_hu, perceptual=inputs.perceptual() if truths.unit != "HU" else None
    )
    pairs = zip(samples.images(), truths.images(progress=False), truths.patients, strict=True)
    for made, truth, patient in pairs:
        accumulator.update(made[None], truth[None], groups=[patient])
    figures = accumulator.result()
    path, caption = save_sheet(samples, truths, inputs.options.out / "fidelity.png")
    return Section(
        name="fidelity",
        title="Translation",
        protocol=protocol_card(
            "fidelity",
            sets={"samples": samples, "held_out": truths},
            settings={"pairs": "by file name"},
            synthetic=inputs.cohort.synthetic,
        ),
        figures=dict(figures),
        tables=[paired_table({"samples": figures}, truths)],
        pictures=[Picture(path, caption)],
    )


def _paired_by_name(samples: ImageSet, truths: ImageSet) -> tuple[ImageSet, ImageSet]:
    """Order both sets by file name; every image must have its partner."""
    names = [[path.name for path in images.files] for images in (samples, truths)]
    if len(set(names[0])) < len(names[0]) or sorted(names[0]) != sorted(names[1]):
        alone = len(set(names[0]) ^ set(names[1]))
        raise ValueError(
            f"Images are paired by their file names, and {alone} of them have no partner of the"
            " same name (or a name is there twice)."
        )
    orders = (np.argsort(some).tolist() for some in names)
    first, second = (
        images.of(order) for images, order in zip((samples, truths), orders, strict=True)
    )
    return first, second
