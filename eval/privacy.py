"""The privacy section: its tables, its picture, its remarks and its verdict.

What is asked and how it is answered is `diffct.privacy`; here it gets images, and is written down.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from diffct import privacy
from diffct.eval.cohorts import Cohort
from diffct.eval.distribution import describe_network
from diffct.eval.image_sets import ImageSet, check_comparable
from diffct.eval.pictures import draw
from diffct.eval.protocol import protocol_card
from diffct.eval.section import PRIVACY, Picture, Section, Table, Verdict, show
from diffct.metrics.features import FeatureNetwork
from diffct.privacy.alignment import align
from diffct.privacy.auditing import NO_YARDSTICK, ONE_TRANSLATED
from diffct.privacy.auditing import yardstick as real_sets
from diffct.privacy.neighbours import COMPARISONS
from diffct.privacy.thresholds import FALSE_ALARMS, MAX_REAL_IMAGES
from diffct.privacy.words import PatientNaming

__all__ = ["NO_YARDSTICK", "ONE_TRANSLATED", "Losses", "audit", "yardstick"]

_MAX_NAMED = 50
_MAX_PAIRS = 6
_NAMING = PatientNaming(
    request="name patients by --patient-pattern, or data.patient_pattern in training",
    statement="for folders, --patient-pattern says whose they are",
)


@dataclass(frozen=True)
class Losses:
    """Denoising losses of training and held-out images, whose images they are, how they came."""

    train: Tensor
    held_out: Tensor
    train_patients: Sequence[str]
    held_out_patients: Sequence[str]
    settings: dict[str, Any]


def audit(
    samples: ImageSet,
    cohort: Cohort,
    *,
    networks: Sequence[FeatureNetwork],
    out: Path,
    losses: Losses | None = None,
    max_real: int = MAX_REAL_IMAGES,
    pipeline: dict[str, Any] | None = None,
    device: str = "cpu",
) -> Section:
    """Audit samples for copies of training images.

    Args:
        samples: Generated images.
        cohort: All training images, and held-out ones.
        networks: Feature networks that take whole images; others are left out.
        out: Where the picture goes.
        losses: For the membership attack; None to leave it out.
        max_real: How many real images of each set tell the threshold.
        pipeline: What made the samples, for the protocol.
        device: Where neighbours are searched.

    Raises:
        ValueError: The sets cannot be compared, or there are too few real patients.
    """
    check_comparable(samples, cohort.train)
    check_comparable(cohort.train, cohort.held_out)
    fitting = [network for network in networks if network.spatial_dims == len(samples.size)]
    report = privacy.audit(
        samples,
        cohort.train,
        cohort.held_out,
        value_range=samples.window_hu or (0, 1),
        sample_patients=samples.patients,
        train_patients=cohort.train.patients,
        held_out_patients=cohort.held_out.patients,
        features={network.name: network for network in fitting},
        losses=None if losses is None else _of_patients(losses),
        max_real=max_real,
        device=device,
        progress=True,
    )
    named = _suspect_table(report, [path.name for path in samples.files])
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
                "membership": None if losses is None else losses.settings,
            },
            networks=[describe_network(network) for network in fitting],
            pipeline=pipeline,
            synthetic=cohort.synthetic,
        ),
        figures={
            "copies": report.copies,
            "nearest neighbours": {
                name: found.summary() for name, found in report.comparisons.items()
            },
            "samples nearest to a training patient": report.training_share,
            "membership attack": report.membership,
        },
        tables=[*([] if named is None else [named]), _score_table(report)],
        pictures=[_draw_pairs(samples, cohort, report, out)],
        remarks=report.remarks(_NAMING),
        verdicts=[Verdict(PRIVACY, *report.answer)],
    )


def yardstick(cohort: Cohort) -> bool:
    """Whether there are real images that can be compared with other patients of their own set."""
    return bool(real_sets(cohort.train.patients, cohort.held_out.patients))


def _of_patients(losses: Losses) -> privacy.MembershipLosses:
    return privacy.MembershipLosses(
        losses.train.numpy(),
        losses.held_out.numpy(),
        losses.train_patients,
        losses.held_out_patients,
    )


def _score_table(report: privacy.PrivacyReport) -> Table:
    """Show the scores of each comparison beside those of real images."""
    rows = [
        (
            name,
            f"{int(result.suspicious.sum())} of {len(result.scores)}",
            show(result.threshold, digits=3),
            show(float(result.scores.min()), digits=3),
            show(result.median_score, digits=3),
            show(float(result.real_scores.min()), digits=3),
            show(float(np.median(result.real_scores)), digits=3),
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
            " compared with all others of other patients, which are no copies. A translation is not"
            " compared with the true image of its patient. Among few held-out images the distance"
            " to the nearest is a matter of luck; it is drawn towards the mean of all samples', as"
            " far as real images tell. The threshold is the"
            f" score that {FALSE_ALARMS:.1%} of real images would have or fall below, if the"
            " logarithms of scores are normal. With more training than held-out images, scores are"
            " below 1 without any copy; the threshold takes that into account."
        ),
    )


def _suspect_table(report: privacy.PrivacyReport, names: Sequence[str]) -> Table | None:
    """Name the samples that somebody should look at, the nearest first; None if there are none."""
    suspects = report.suspects()
    if not suspects:
        return None
    rows = [
        (
            names[suspect.sample],
            *(show(suspect.scores[by], digits=3) for by in COMPARISONS),
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
    samples: ImageSet, cohort: Cohort, report: privacy.PrivacyReport, out: Path
) -> Picture:
    """Draw the samples of the lowest scores, aligned, with both neighbours."""
    arrays, titles = [], []
    for pair in report.closest(_MAX_PAIRS):
        pictures = [
            align(_unit_image(samples, pair.sample), pair.train.transform),
            _unit_image(cohort.train, pair.train.index),
            _unit_image(cohort.held_out, pair.held_out.index),
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
        "The samples of the lowest scores, turned, zoomed and shifted onto their nearest training"
        " image. PRIVATE if the training images are: do not publish this picture.",
    )


def _unit_image(images: ImageSet, place: int) -> Tensor:
    """Read one image in [0, 1], (1, *size)."""
    return next(images.of([place]).unit_images(progress=False))
