"""Translated slices beside the true ones, and beside translations that learn nothing."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from diffct.data.condition_rows import BrainSlice
from diffct.eval.cohorts import Cohort
from diffct.eval.conditions import read_conditions
from diffct.eval.image_sets import ImageSet
from diffct.eval.pictures import inner_pick
from diffct.eval.protocol import protocol_card
from diffct.eval.reconstruction import missing_of, paired_table, reconstruct
from diffct.eval.section import Picture, Section, Table, show
from diffct.eval.verdicts import truth
from diffct.figures.comparison import save_translation
from diffct.metrics.paired import PairedAccumulator, Perceptual
from diffct.metrics.translation import BASELINES
from diffct.phantoms.brain.anatomy import LESION, WHITE
from diffct.phantoms.brain.lesions import LesionFigures, lesion_figures
from diffct.pipelines import FlairToT1Pipeline

TRUTH = "true T1w"
_TRAINING_SLICES = 400  # that baselines learn from; they have two numbers or one curve to learn
_BATCH = 16
_DRAWN = 6


def measure_translation(
    pipeline: FlairToT1Pipeline,
    translated: Tensor,
    truths: ImageSet,
    cohort: Cohort,
    *,
    out: Path,
    settings: dict[str, Any],
    notes: Sequence[str] = (),
    described: dict[str, Any] | None = None,
    perceptual: Perceptual | None = None,
) -> Section:
    """Compare translations with the truth, as do the autoencoder alone and trivial translations.

    Args:
        pipeline: What translated.
        translated: (N, 1, H, W) in [0, 1].
        truths: Held-out images, in the same order.
        cohort: Whose training slices the baselines learn from, if there are some.
        out: Where the picture goes.
        settings: For the protocol.
        notes: Sentences about translations that are not as they should be.
        described: What translated, and how, for the protocol.
        perceptual: Measures LPIPS; None to leave it out.
    """
    conditions = torch.stack(list(read_conditions(truths, pipeline.conditions)))
    targets = truths.stacked()
    results = {"diffct": translated}
    results["autoencoder alone"] = torch.cat(
        [reconstruct(pipeline.vae, batch) for batch in targets.split(_BATCH)]
    )
    sets = {"held_out": truths}
    if cohort.train is not None:
        sets["train"] = seen = cohort.train.pick(_TRAINING_SLICES)
        examples = torch.stack(list(read_conditions(seen, pipeline.conditions)))[:, :1]
        for name, fit in BASELINES.items():
            results[name] = fit(examples, seen.stacked())(conditions[:, :1])
    compared = {
        name: _compare(images, targets, truths.patients, perceptual)
        for name, images in results.items()
    }
    pairs = {name: accumulator.result() for name, accumulator in compared.items()}
    lesions = _lesions({**results, TRUTH: targets}, truths)
    figures = {
        name: {**pairs.get(name, {}), **({} if lesions is None else {"lesions": lesions[name]})}
        for name in (*results, TRUTH)
    }
    tables = [paired_table(pairs, truths)]
    if lesions is not None and lesions[TRUTH] is not None:
        tables.append(_lesion_table(lesions))
    path = out / "translation.png"
    chosen = inner_pick(len(truths), _DRAWN)
    drawn = (images[chosen] for images in (conditions, translated, targets))
    save_translation(*drawn, path, names=pipeline.conditions)
    return Section(
        name="fidelity",
        title="Translation",
        protocol=protocol_card(
            "fidelity",
            sets=sets,
            settings=settings,
            pipeline=described,
            synthetic=cohort.synthetic,
        ),
        figures=figures,
        tables=tables,
        pictures=[Picture(path, "An even pick of held-out slices.")],
        remarks=list(notes),
        missing=missing_of(compared["diffct"]),
        verdicts=[
            truth(
                pairs,
                method="diffct",
                trivial=BASELINES,
                patients=len(set(truths.patients)),
            )
        ],
    )


def _compare(
    images: Tensor, targets: Tensor, patients: Sequence[str], perceptual: Perceptual | None
) -> PairedAccumulator:
    accumulator = PairedAccumulator(perceptual=perceptual)
    for start in range(0, len(images), _BATCH):
        part = slice(start, start + _BATCH)
        accumulator.update(images[part], targets[part], groups=patients[part])
    return accumulator


def _lesions(
    results: dict[str, Tensor], truths: ImageSet
) -> dict[str, LesionFigures | None] | None:
    """Find lesions on each translation; None for data whose labels mean something else."""
    slices = [BrainSlice.from_row(row) for row in truths.rows]
    if not all(piece.labels and piece.synthetic for piece in slices):
        return None
    labels = [np.asarray(Image.open(truths.manifest.folder / str(s.labels))) for s in slices]
    return {
        name: lesion_figures(
            (plane.numpy(), own == WHITE + 1, own == LESION + 1)
            for plane, own in zip(images[:, 0], labels, strict=True)
        )
        for name, images in results.items()
    }


def _lesion_table(lesions: dict[str, LesionFigures | None]) -> Table:
    rows = [
        (
            name,
            show(found.found, percent=True),
            show(found.dice, digits=3),
            show(found.distance_px, digits=2),
            show(found.false_per_slice, digits=2),
        )
        for name, found in lesions.items()
        if found is not None
    ]
    return Table(
        f"Lesions ({lesions[TRUTH].lesions}, slice by slice)",
        ("", "found", "Dice", "distance (pixels)", "false per slice"),
        rows,
        note="The true T1w shows what reading lesions off an image reaches.",
    )
