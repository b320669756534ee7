"""The measurements of the evaluation commands, each from the same inputs to a section."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from diffusers import AutoencoderKL
from torch import nn

from diffct.eval.attempts import IMPOSSIBLE
from diffct.eval.distribution import NEIGHBOURS, measure_distribution
from diffct.eval.image_sets import ImageSet, check_comparable
from diffct.eval.inputs import Inputs
from diffct.eval.membership import denoising_losses
from diffct.eval.pictures import save_sheet
from diffct.eval.privacy import NO_YARDSTICK, ONE_TRANSLATED, Losses, audit, yardstick
from diffct.eval.protocol import describe_pipeline, protocol_card
from diffct.eval.reconstruction import measure_reconstruction, missing_of, paired_table
from diffct.eval.section import (
    PRIVACY,
    QUALITY,
    TRUTH,
    VARIETY,
    Picture,
    Section,
    not_measured,
)
from diffct.eval.translation import measure_translation
from diffct.metrics.paired import PairedAccumulator
from diffct.metrics.similarity import multi_scale
from diffct.pipelines import FlairToT1Pipeline

_DRAWS = 8  # noise levels of each image in the membership attack
_MOST_LOSSES = 200  # images of each set in it
_NO_TRAINING = (
    "no training images are known, so nothing can be a copy of them. Give their folder (--train), a"
    " manifest, or the output_dir of the training run."
)


def reconstruction(inputs: Inputs) -> Section:
    """Measure the autoencoder of a pipeline, or one alone, on held-out images."""
    return measure_reconstruction(
        _autoencoder(inputs),
        inputs.cohort.held_out.pick(inputs.options.most),
        out=inputs.options.out,
        perceptual=inputs.perceptual,
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
    samples, described = inputs.samples
    held_out = inputs.cohort.held_out
    places = {row.image: place for place, row in enumerate(held_out.rows)}
    return measure_translation(
        inputs.pipeline,
        samples.stacked(),
        held_out.of([places[row.image] for row in samples.rows]),
        inputs.cohort,
        out=inputs.options.out,
        settings={},
        notes=samples.notes,
        described=described,
        perceptual=inputs.perceptual,
    )


def distribution(inputs: Inputs) -> Section:
    """Compare samples with held-out images as sets."""
    samples, described = inputs.samples
    return measure_distribution(
        samples,
        inputs.cohort,
        networks=inputs.networks,
        out=inputs.options.out,
        most=inputs.options.most,
        pipeline=described,
    )


def privacy(inputs: Inputs) -> Section:
    """Audit samples, and the losses of a pipeline, for what they tell of training images."""
    if inputs.cohort.train is None:
        raise ValueError(_NO_TRAINING)
    samples, described = inputs.samples
    return audit(
        samples,
        inputs.cohort,
        networks=inputs.networks,
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


@dataclass(frozen=True)
class Measurement:
    """One of the measurements of `diffct evaluate`.

    Attributes:
        name: Of its section.
        title: For readers.
        run: Makes the section.
        questions: Of a reader, that it answers.
    """

    name: str
    title: str
    run: Callable[[Inputs], Section]
    questions: tuple[str, ...] = ()

    def missing(self, reason: str) -> Section:
        """Return its section if it cannot be made."""
        return not_measured(self.name, self.title, reason, questions=self.questions)

    def attempt(self, inputs: Inputs) -> Section:
        """Make its section, or one that says why there is none."""
        try:
            return self.run(inputs)
        except IMPOSSIBLE as error:
            return self.missing(str(error) or type(error).__name__)


_ALL = (
    Measurement("reconstruction", "Autoencoder", lambda inputs: reconstruction(inputs)),
    Measurement("fidelity", "Translation", lambda inputs: fidelity(inputs), (TRUTH,)),
    Measurement(
        "distribution", "Samples as a set", lambda inputs: distribution(inputs), (QUALITY, VARIETY)
    ),
    Measurement("privacy", "Privacy", lambda inputs: privacy(inputs), (PRIVACY,)),
)
NAMES = tuple(measurement.name for measurement in _ALL)


def suiting(inputs: Inputs, only: Collection[str] | None = None) -> list[Measurement]:
    """List the measurements that were asked for, or every one that suits the inputs."""
    if only:
        return [measurement for measurement in _ALL if measurement.name in only]
    pipeline = inputs.pipeline
    unfit = set()
    if getattr(pipeline, "vae", None) is None:
        unfit.add("reconstruction")
    if not isinstance(pipeline, FlairToT1Pipeline):
        unfit.add("fidelity")
    return [measurement for measurement in _ALL if measurement.name not in unfit]


def foresee(inputs: Inputs, planned: Collection[str] = NAMES) -> list[str]:
    """Say, before anything is sampled, what of the planned will not be measured and why."""
    found = _foresee_distribution(inputs) if "distribution" in planned else []
    if "privacy" not in planned:
        return found
    cohort = inputs.cohort
    if cohort.train is None:
        found.append(f"Privacy: {_NO_TRAINING}")
    elif isinstance(inputs.pipeline, FlairToT1Pipeline) and len(set(cohort.held_out.patients)) < 2:
        found.append(f"Privacy: {ONE_TRANSLATED}")
    elif not yardstick(cohort):
        found.append(f"Privacy: {NO_YARDSTICK}")
    return found


def _foresee_distribution(inputs: Inputs) -> list[str]:
    cohort, options = inputs.cohort, inputs.options
    parts = [cohort.held_out, *([] if cohort.train is None else [cohort.train])]
    samples = len(inputs.samples[0]) if inputs.pipeline is None else inputs.number
    fewest = min(samples, options.most or samples, *map(len, parts))
    found = []
    try:
        multi_scale(cohort.held_out.size)
    except ValueError as error:
        found.append(f"MS-SSIM: {error}")
    if fewest < 2:
        found.append("Diversity and distances of whole images: they need 2 images of each set.")
    if fewest <= NEIGHBOURS:
        found.append(
            f"Precision, recall, density and coverage of whole images: they need more than"
            f" {NEIGHBOURS} images of each set, and there are {fewest}."
        )
    if cohort.train is None:
        found.append("The yardstick of figures: it is the same figure of training images.")
    return found


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
    samples, _ = inputs.samples
    truths = inputs.cohort.held_out
    check_comparable(samples, truths)
    truths = _true_images(samples, truths)
    left = len(inputs.cohort.held_out) - len(truths)
    alone = f"{left} held-out images have no sample of their name." if left else None
    accumulator = PairedAccumulator(
        window_hu=truths.window_hu, perceptual=inputs.perceptual if truths.unit != "HU" else None
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
        remarks=[*samples.notes, *([] if alone is None else [alone])],
        missing=missing_of(accumulator),
    )


def _true_images(samples: ImageSet, truths: ImageSet) -> ImageSet:
    """Return the held-out image of each sample, which has its file name, but for the ending."""
    places = {_stem(path): place for place, path in enumerate(truths.files)}
    names = [_stem(path) for path in samples.files]
    alone = sum(name not in places for name in names)
    if alone or len(set(names)) < len(names) or len(places) < len(truths):
        raise ValueError(
            f"Samples are paired with held-out images by their file names, and {alone} of"
            f" {len(names)} samples have no partner of the same name (or a name is there twice)."
        )
    return truths.of([places[name] for name in names])


def _stem(path: Path) -> str:
    """Return a file's name without its ending; 001.nii.gz and 001.nrrd are of one scan."""
    return path.name.removesuffix(".gz").rpartition(".")[0] or path.name
