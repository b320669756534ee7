"""The privacy section: its tables, its picture, its remarks and its verdict.

The audit itself is in `diffct.privacy`; this module gives it images and presents its findings.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from diffusers import DiffusionPipeline
from torch import Tensor

from diffct import privacy
from diffct.eval.figures import Cell, Figure, Number, Table
from diffct.eval.image_sets import ImageSet, check_comparable
from diffct.eval.inputs import Inputs
from diffct.eval.membership import denoising_losses
from diffct.eval.pictures import draw
from diffct.eval.protocol import describe_network, protocol_card
from diffct.eval.section import PRIVACY, Picture, Section, Verdict
from diffct.pipelines.denoising import shows_patients
from diffct.privacy.alignment import align
from diffct.privacy.auditing import NO_YARDSTICK, ONE_TRANSLATED, choose_yardstick
from diffct.privacy.neighbours import COMPARISONS
from diffct.privacy.thresholds import FALSE_ALARMS, MAX_REAL_IMAGES
from diffct.privacy.words import PatientNaming

_NO_TRAINING = (
    "no training images are known, so nothing can be a copy of them. Give their folder (--train), a"
    " manifest, or the output_dir of the training run."
)
_DRAWS = 8  # noise levels of each image in the membership attack
_MAX_LOSSES = 200  # images of each set in the membership attack
_MAX_NAMED = 50
_MAX_PAIRS = 6
_NAMING = PatientNaming(
    request="name patients by --patient-pattern, or data.patient_pattern in training",
    statement="for folders, --patient-pattern says whose they are",
)


def measure(inputs: Inputs) -> Section:
    """Audit samples, and the losses of a pipeline, for what they reveal of training images.

    Raises:
        ValueError: No training image is known, the sets cannot be compared, or there are too few
            real patients.
    """
    cohort = inputs.cohort
    if cohort.train is None:
        raise ValueError(_NO_TRAINING)
    samples, described = inputs.samples
    check_comparable(samples, cohort.train)
    check_comparable(cohort.train, cohort.held_out)
    networks = [n for n in inputs.networks if n.spatial_dims == len(samples.size)]
    pipeline, seed = inputs.pipeline, inputs.config.seed
    attacked = pipeline is not None
    report = privacy.audit(
        samples,
        cohort.train,
        cohort.held_out,
        value_range=samples.window_hu or (0, 1),
        sample_patients=samples.patients,
        train_patients=cohort.train.patients,
        held_out_patients=cohort.held_out.patients,
        features={network.name: network for network in networks},
        losses=None
        if pipeline is None
        else _losses(pipeline, cohort.train, cohort.held_out, seed=seed),
        max_real=MAX_REAL_IMAGES,
        device=inputs.device,
        progress=True,
    )
    attack = {"draws": _DRAWS, "seed": seed, "most": _MAX_LOSSES}
    suspects = _suspect_table(report, [path.name for path in samples.files])
    return Section(
        name="privacy",
        title="Privacy",
        protocol=protocol_card(
            "privacy",
            sets={"samples": samples, "train": cohort.train, "held_out": cohort.held_out},
            settings={
                "false_alarms": FALSE_ALARMS,
                "real_images": list(report.real_images),
                "search": vars(report.settings),
                "membership": attack if attacked else None,
            },
            networks=[describe_network(network) for network in networks],
            pipeline=described,
            synthetic=cohort.synthetic,
        ),
        figures=[
            Figure("copies", report.copies),
            Figure(
                "nearest neighbours",
                {name: found.summary() for name, found in report.comparisons.items()},
            ),
            Figure("samples nearest to a training patient", report.training_share),
            Figure("membership attack", report.membership),
        ],
        tables=[*([] if suspects is None else [suspects]), _score_table(report)],
        pictures=[
            _draw_pairs(samples, cohort.train, cohort.held_out, report, Path(inputs.config.out))
        ],
        remarks=report.remarks(_NAMING),
        verdicts=[Verdict(PRIVACY, *report.answer)],
    )


def foresee(inputs: Inputs) -> list[str]:
    """Say, before anything is sampled, what will not be measured, and why."""
    cohort = inputs.cohort
    translated = shows_patients(inputs.pipeline)
    if cohort.train is None:
        return [f"Privacy: {_NO_TRAINING}"]
    if translated and len(set(cohort.held_out.patients)) < 2:
        return [f"Privacy: {ONE_TRANSLATED}"]
    known = choose_yardstick(cohort.train.patients, cohort.held_out.patients)
    return [] if known else [f"Privacy: {NO_YARDSTICK}"]


def _losses(
    pipeline: DiffusionPipeline, train: ImageSet, held_out: ImageSet, *, seed: int
) -> privacy.MembershipLosses:
    """Compute a pipeline's denoising losses of training and held-out images."""
    sets = [images.pick(_MAX_LOSSES) for images in (train, held_out)]
    seen, unseen = (
        denoising_losses(pipeline, images, draws=_DRAWS, seed=seed).numpy() for images in sets
    )
    return privacy.MembershipLosses(seen, unseen, *(images.patients for images in sets))


def _score_table(report: privacy.PrivacyReport) -> Table:
    """Show the scores of each comparison beside those of real images."""
    rows = [
        (
            name,
            Number(int(result.suspicious.sum()), out_of=len(result.scores)),
            Number(result.threshold, digits=3),
            Number(float(result.scores.min()), digits=3),
            Number(result.median_score, digits=3),
            Number(float(result.real_scores.min()), digits=3),
            Number(float(np.median(result.real_scores)), digits=3),
        )
        for name, result in report.comparisons.items()
    ]
    columns = ("compared by", "suspicious", "threshold", "smallest", "median", "smallest, real")
    return Table(
        "Score: distance to the nearest training image / to the nearest held-out image",
        (*columns, "median, real"),
        rows,
        note=(
            "Below 1: nearer to a training image. Real: training and held-out images, each"
            " compared with all images of other patients; they are no copies. A translation is not"
            " compared with the true image of its patient. Among few held-out images the distance"
            " to the nearest varies randomly; it is shrunk towards the mean over all samples, by a"
            " weight estimated from real images. The threshold is the"
            f" score that {FALSE_ALARMS:.1%} of real images would have or fall below, if the"
            " logarithms of scores are normal. With more training than held-out images, scores are"
            " below 1 without any copy; the threshold takes that into account."
        ),
    )


def _suspect_table(report: privacy.PrivacyReport, names: Sequence[str]) -> Table | None:
    """List the samples that need a look, the nearest first; return None if there are none."""
    suspects = report.suspects()
    if not suspects:
        return None
    rows: list[tuple[Cell, ...]] = [
        (
            names[suspect.sample],
            *(Number(suspect.scores[by], digits=3) for by in COMPARISONS),
            suspect.reason,
        )
        for suspect in suspects[:_MAX_NAMED]
    ]
    more = len(suspects) - len(rows)
    return Table(
        "Samples nearest to training images",
        ("sample", *(f"score by {by}" for by in COMPARISONS), "why"),
        rows,
        note=f"And {more} more." if more else "",
    )


def _draw_pairs(
    samples: ImageSet,
    train: ImageSet,
    held_out: ImageSet,
    report: privacy.PrivacyReport,
    out: Path,
) -> Picture:
    """Draw the samples with the lowest scores, aligned, beside both neighbours."""
    arrays, titles = [], []
    for pair in report.closest(_MAX_PAIRS):
        pictures = [
            align(_unit_image(samples, pair.sample), pair.train.transform),
            _unit_image(train, pair.train.index),
            _unit_image(held_out, pair.held_out.index),
        ]
        arrays += [samples.from_unit(picture)[0].numpy() for picture in pictures]
        titles += [
            f"sample, aligned; score {pair.score:.2f} by {pair.by}",
            f"nearest training image; correlation {pair.train.similarity:.3f}",
            f"nearest held-out image; correlation {pair.held_out.similarity:.3f}",
        ]
    path = out / "privacy.png"
    draw(samples, arrays, path, titles=titles, columns=3)
    return Picture(
        path,
        "The samples with the lowest scores, mirrored, zoomed and shifted onto their nearest"
        " training image. PRIVATE if the training images are: do not publish this picture.",
    )


def _unit_image(images: ImageSet, place: int) -> Tensor:
    """Read one image in [0, 1], (1, *size)."""
    return next(images.select([place]).unit_images(progress=False))
