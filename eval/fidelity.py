"""The translation section: translated images beside the true ones, and beside baselines."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from torch import Tensor

from diffct.data.condition_rows import BrainSlice
from diffct.eval.conditions import read_conditions
from diffct.eval.figures import OWN_METHOD, Figure, Number, Table
from diffct.eval.image_sets import ImageSet, check_comparable
from diffct.eval.inputs import Inputs
from diffct.eval.pictures import inner_pick, save_sheet
from diffct.eval.protocol import protocol_card
from diffct.eval.reconstruction import missing_of, paired_table, reconstruct
from diffct.eval.section import Picture, Section
from diffct.eval.verdicts import truth
from diffct.figures.comparison import save_translation
from diffct.metrics.intervals import Estimate
from diffct.metrics.paired import PairedAccumulator, Perceptual
from diffct.metrics.translation import BASELINES
from diffct.phantoms.brain.anatomy import LESION, WHITE
from diffct.phantoms.brain.lesions import LesionFigures, lesion_figures
from diffct.pipelines.denoising import guide_of

TRUTH = "true T1w"
_TRAINING_SLICES = 400  # to fit baselines, which have two numbers or one curve to learn
_BATCH = 16
_DRAWN = 6


def measure(inputs: Inputs) -> Section:
    """Compare translations with the truth, pair by pair.

    Translations by a pipeline stand beside those of the autoencoder alone and of the baselines.
    Translations in a folder have the file names of the held-out images.

    Raises:
        ValueError: The pipeline does not translate, or samples have no partner.
    """
    if inputs.pipeline is None:
        return _paired_folders(inputs)
    if guide_of(inputs.pipeline) != "image":
        raise ValueError(
            f"{inputs.name} is a {type(inputs.pipeline).__name__}; it translates nothing, so its"
            " samples have no truth. Measure their distribution."
        )
    samples, described = inputs.samples
    held_out = inputs.cohort.held_out
    places = {row.image: place for place, row in enumerate(held_out.rows)}
    truths = held_out.select([places[row.image] for row in samples.rows])
    conditions = torch.stack(list(read_conditions(inputs.pipeline, truths)))
    targets = truths.stacked()
    results = {OWN_METHOD: samples.stacked()}
    results["autoencoder alone"] = torch.cat(
        [reconstruct(inputs.pipeline.vae, batch) for batch in targets.split(_BATCH)]
    )
    sets = {"held_out": truths}
    if inputs.cohort.train is not None:
        sets["train"] = seen = inputs.cohort.train.pick(_TRAINING_SLICES)
        results |= _baselines(seen, conditions, inputs.pipeline)
    compared = {
        name: _compare(images, targets, truths.patients, inputs.perceptual)
        for name, images in results.items()
    }
    pairs = {name: accumulator.result() for name, accumulator in compared.items()}
    lesions = _lesions({**results, TRUTH: targets}, truths)
    tables = [paired_table(pairs, truths)]
    known = lesions.get(TRUTH)
    if known is not None:
        tables.append(_lesion_table(lesions, known.lesions))
    path = Path(inputs.config.out) / "translation.png"
    chosen = inner_pick(len(truths), _DRAWN)
    shown, made, true = (part[chosen] for part in (conditions, results[OWN_METHOD], targets))
    save_translation(shown, made, true, path, names=inputs.pipeline.conditions)
    return Section(
        name="fidelity",
        title="Translation",
        protocol=protocol_card(
            "fidelity",
            sets=sets,
            settings={},
            pipeline=described,
            synthetic=inputs.cohort.synthetic,
        ),
        figures=_figures(pairs, lesions),
        tables=tables,
        pictures=[Picture(path, "Held-out slices, evenly picked.")],
        remarks=list(samples.notes),
        missing=missing_of(compared[OWN_METHOD]),
        verdicts=[
            truth(
                pairs,
                method=OWN_METHOD,
                baselines=BASELINES,
                patients=len(set(truths.patients)),
            )
        ],
    )


def _baselines(
    seen: ImageSet, conditions: Tensor, pipeline: DiffusionPipeline
) -> dict[str, Tensor]:
    """Translate by the baselines, fitted to training slices."""
    examples = torch.stack(list(read_conditions(pipeline, seen)))[:, :1]
    targets = seen.stacked()
    return {name: fit(examples, targets)(conditions[:, :1]) for name, fit in BASELINES.items()}


def _figures(
    pairs: Mapping[str, Mapping[str, Estimate]], lesions: Mapping[str, LesionFigures | None]
) -> list[Figure]:
    """List the figures of each method, with those of lesions last."""
    found = []
    for method in dict.fromkeys([*pairs, *lesions]):
        found += [
            Figure(metric, value, of=method) for metric, value in pairs.get(method, {}).items()
        ]
        if method in lesions:
            found.append(Figure("lesions", lesions[method], of=method))
    return found


def _compare(
    images: Tensor, targets: Tensor, patients: Sequence[str], perceptual: Perceptual | None
) -> PairedAccumulator:
    accumulator = PairedAccumulator(perceptual=perceptual)
    for start in range(0, len(images), _BATCH):
        part = slice(start, start + _BATCH)
        accumulator.update(images[part], targets[part], groups=patients[part])
    return accumulator


def _lesions(results: dict[str, Tensor], truths: ImageSet) -> dict[str, LesionFigures | None]:
    """Find lesions on each translation; return nothing unless all data are labelled phantoms."""
    slices = [BrainSlice.from_row(row) for row in truths.rows]
    manifest = truths.manifest
    if manifest is None or not all(piece.labels and piece.synthetic for piece in slices):
        return {}
    labels = [np.asarray(Image.open(manifest.folder / str(s.labels))) for s in slices]
    return {
        name: lesion_figures(
            (plane.numpy(), own == WHITE + 1, own == LESION + 1)
            for plane, own in zip(images[:, 0], labels, strict=True)
        )
        for name, images in results.items()
    }


def _lesion_table(lesions: dict[str, LesionFigures | None], number: int) -> Table:
    rows = [
        (
            name,
            Number(found.found, percent=True),
            Number(found.dice, digits=3),
            Number(found.distance_px, digits=2),
            Number(found.false_per_slice, digits=2),
        )
        for name, found in lesions.items()
        if found is not None
    ]
    return Table(
        f"Lesions ({number}, slice by slice)",
        ("", "found", "Dice", "distance (pixels)", "false per slice"),
        rows,
        note="The true T1w shows how well lesions can be found on an image.",
    )


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
    for made, true, patient in pairs:
        accumulator.update(made[None], true[None], groups=[patient])
    found = accumulator.result()
    path, caption = save_sheet(samples, truths, Path(inputs.config.out) / "fidelity.png")
    return Section(
        name="fidelity",
        title="Translation",
        protocol=protocol_card(
            "fidelity",
            sets={"samples": samples, "held_out": truths},
            settings={"pairs": "by file name"},
            synthetic=inputs.cohort.synthetic,
        ),
        figures=[Figure(metric, value) for metric, value in found.items()],
        tables=[paired_table({"samples": found}, truths)],
        pictures=[Picture(path, caption)],
        remarks=[*samples.notes, *([] if alone is None else [alone])],
        missing=missing_of(accumulator),
    )


def _true_images(samples: ImageSet, truths: ImageSet) -> ImageSet:
    """Return the held-out image of each sample: the one of the same file name, less its ending."""
    places = {_stem(path): place for place, path in enumerate(truths.files)}
    names = [_stem(path) for path in samples.files]
    alone = sum(name not in places for name in names)
    if alone or len(set(names)) < len(names) or len(places) < len(truths):
        raise ValueError(
            f"Samples are paired with held-out images by their file names, and {alone} of"
            f" {len(names)} samples have no partner of the same name (or a name is there twice)."
        )
    return truths.select([places[name] for name in names])


def _stem(path: Path) -> str:
    """Return a file's name without its ending: 001.nii.gz and 001.nrrd are the same scan."""
    return path.name.removesuffix(".gz").rpartition(".")[0] or path.name
