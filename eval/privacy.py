"""Privacy audit: are samples copies of training images, and do losses betray who was trained on.

Four questions, each with real images as the yardstick:

1. Is a sample nearer to a training image than images of other patients are, whatever mirror, zoom
   or shift lies between them, by anatomy or by detail (`diffct.privacy.neighbours`)?
2. The same in the features of a network.
3. Do samples as a set lie nearer to training patients than chance allows?
4. Does the model denoise training images better than held-out ones?
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from diffct.eval.cohorts import Cohort
from diffct.eval.distribution import describe_network
from diffct.eval.image_sets import ImageSet, check_comparable
from diffct.eval.pictures import draw
from diffct.eval.privacy_findings import (
    COMPARISONS,
    Copies,
    answer,
    attack_remarks,
    copy_remarks,
    nearest_table,
    score_table,
    summary,
    weigh,
)
from diffct.eval.protocol import protocol_card
from diffct.eval.same_images import same_images
from diffct.eval.section import Picture, Section
from diffct.metrics.features import FeatureNetwork
from diffct.privacy.memorisation import (
    FALSE_ALARMS,
    FEWEST_REAL,
    MembershipAttack,
    Memorisation,
    NearestDistances,
    membership_attack,
    memorisation,
    training_share,
)
from diffct.privacy.neighbours import Gallery, Neighbours, NeighbourSearch

NO_YARDSTICK = (
    "copies are told from relatives by real images, each compared with those of other patients;"
    f" give images of {FEWEST_REAL} training or held-out patients at least."
)
ONE_TRANSLATED = (
    "a translation is compared with other patients' images than its own, and all held-out images"
    " are of one patient; give images of 2 held-out patients at least."
)
_BATCH = 32
_MOST_REFERENCES = 400  # for the mean image
_PAIRS_DRAWN = 6
Pair = tuple[Neighbours, Neighbours]
"""Nearest training images and nearest held-out images."""


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
    most_real: int = 200,
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
        most_real: How many real images tell the threshold.
        pipeline: What made the samples, for the protocol.
        device: Where neighbours are searched.

    Raises:
        ValueError: The sets cannot be compared, or there are too few real patients.
    """
    check_comparable(samples, cohort.train)
    check_comparable(cohort.train, cohort.held_out)
    real = [images.pick(most_real) for images in yardstick(cohort)]
    # A translation is compared with other patients' images than its own.
    if set(cohort.held_out.patients) == set(samples.patients[:1]):
        raise ValueError(ONE_TRANSLATED)
    if not real:
        raise ValueError(NO_YARDSTICK)
    pixels, patients = _PixelSearch(cohort, device=device), cohort.held_out.patients
    nearest = pixels.of_set(samples)
    fitting = [network for network in networks if network.spatial_dims == len(samples.size)]
    found = _every_comparison(samples, nearest, pixels, networks=fitting, real=real)
    lean = training_share(
        [_nearest_patient(pair, cohort) for pair in nearest],
        train=cohort.train.patients,
        held_out=patients,
    )
    attack = None if losses is None else _attack(losses)
    identical = same_images(samples, cohort.train)
    # A translation should look like the true image of its patient.
    identical = {
        sample: image
        for sample, image in identical.items()
        if samples.patients[sample] != cohort.train.patients[image]
    }
    copies = _weigh(nearest, found, cohort, identical=len(identical))
    named = nearest_table(
        [path.name for path in samples.files],
        found,
        identical,
        enough_patients=copies.enough_patients,
    )
    picture = _draw_pairs(samples, cohort, pixels.search, nearest, found, out)
    return Section(
        name="privacy",
        title="Privacy",
        protocol=protocol_card(
            "privacy",
            sets={"samples": samples, "train": cohort.train, "held_out": cohort.held_out},
            settings={
                "false_alarms": FALSE_ALARMS,
                "real_images": [len(part) for part in real],
                "search": vars(pixels.search.settings),
                "membership": None if losses is None else losses.settings,
            },
            networks=[describe_network(network) for network in fitting],
            pipeline=pipeline,
            synthetic=cohort.synthetic,
        ),
        figures={
            "copies": copies,
            "nearest neighbours": {name: summary(result) for name, result in found.items()},
            "samples nearest to a training patient": lean,
            "membership attack": attack,
        },
        tables=[*([] if named is None else [named]), score_table(found)],
        pictures=[picture],
        remarks=[*copy_remarks(found, copies, lean, patients), *attack_remarks(attack)],
        verdicts=[answer(copies, lean, attack)],
    )


def yardstick(cohort: Cohort) -> list[ImageSet]:
    """Return the sets of real images that can be compared with other patients of their own set.

    Together they are of three patients or more; fewer tell no threshold, and none is returned.
    """
    sets = [cohort.train, cohort.held_out]
    found = [images for images in sets if len(set(images.patients)) > 1]
    patients = sum(len(set(images.patients)) for images in found)
    return found if patients >= FEWEST_REAL else []


class _PixelSearch:
    """Neighbours of images among training and held-out images."""

    def __init__(self, cohort: Cohort, *, device: str) -> None:
        self.cohort = cohort
        part = _MOST_REFERENCES // 2
        references = [*_read(cohort.train.pick(part)), *_read(cohort.held_out.pick(part))]
        self.search = NeighbourSearch(torch.stack(references), device=device)
        self.train, self.held_out = (
            _gallery(self.search, images) for images in (cohort.train, cohort.held_out)
        )

    def nearest(self, image: Tensor, patient: str) -> Pair:
        """Find the nearest training and the nearest held-out image of other patients."""
        train, held_out = (
            self.search.nearest(image, gallery, excluded=_own(images, patient))
            for images, gallery in (
                (self.cohort.train, self.train),
                (self.cohort.held_out, self.held_out),
            )
        )
        return train, held_out

    def of_set(self, images: ImageSet) -> list[Pair]:
        """Compare images with all real ones, without those of their own patient.

        A translation's patient is that of its condition: it should look like the true image.
        """
        read = _read(images, images.name)
        return [self.nearest(*each) for each in zip(read, images.patients, strict=True)]


def _read(images: ImageSet, description: str | None = None) -> "list[Tensor] | tqdm":
    """Read images, with a progress bar for those that are searched for."""
    read = images.unit_images(progress=False)
    if description is None:
        return list(read)
    return tqdm(read, f"neighbours of {description}", len(images), unit="image")


def _gallery(search: NeighbourSearch, images: ImageSet) -> Gallery:
    """Prepare a whole set to be searched, batch by batch."""
    parts = [search.gallery(batch) for batch in images.batches(_BATCH)]
    return Gallery(*(torch.cat(grids) for grids in zip(*parts, strict=True)))


def _own(images: ImageSet, patient: str) -> Tensor:
    """Say which images are of a patient."""
    return torch.tensor([owner == patient for owner in images.patients])


def _every_comparison(
    samples: ImageSet,
    nearest: Sequence[Pair],
    pixels: _PixelSearch,
    *,
    networks: Sequence[FeatureNetwork],
    real: Sequence[ImageSet],
) -> dict[str, Memorisation]:
    """Score samples by pixels and by each network, with real images as the yardstick."""
    yardstick = [pair for part in real for pair in pixels.of_set(part)]
    patients = [patient for part in real for patient in part.patients]
    found = {
        by: memorisation(_distances(nearest, by), _distances(yardstick, by), patients=patients)
        for by in COMPARISONS
    }
    for network in networks:
        found[network.name] = _in_features(network, samples, pixels.cohort, real)
    return found


def _distances(pairs: Sequence[Pair], by: str) -> NearestDistances:
    train, held_out = (
        np.array([getattr(pair[side], by).distance for pair in pairs]) for side in (0, 1)
    )
    return NearestDistances(train, held_out)


def _weigh(
    nearest: Sequence[Pair], found: dict[str, Memorisation], cohort: Cohort, *, identical: int
) -> Copies:
    """Count near pairs, and the training patients whom they are near to."""
    sources = {
        cohort.train.patients[getattr(nearest[index][0], by).index]
        for by in COMPARISONS
        for index in np.flatnonzero(found[by].suspicious)
    }
    return weigh(
        [found[by] for by in COMPARISONS],
        sources=len(sources),
        held_out_patients=len(set(cohort.held_out.patients)),
        identical=identical,
    )


def _nearest_patient(pair: Pair, cohort: Cohort) -> str:
    """Return whose image is the nearest of all, by anatomy."""
    train, held_out = (neighbours.anatomy for neighbours in pair)
    if train.distance < held_out.distance:
        return cohort.train.patients[train.index]
    return cohort.held_out.patients[held_out.index]


def _in_features(
    network: FeatureNetwork, samples: ImageSet, cohort: Cohort, real: Sequence[ImageSet]
) -> Memorisation:
    """Find nearest neighbours in a feature space, by Euclidean distance."""
    sets = (cohort.train, cohort.held_out)
    train, held_out = (network.extract(images.batches(_BATCH)) for images in sets)

    def distances(rows: Tensor, patients: Sequence[str]) -> NearestDistances:
        nearest = []
        for images, gallery in zip(sets, (train, held_out), strict=True):
            table = torch.cdist(rows, gallery)
            same = np.array(patients)[:, None] == np.array(images.patients)[None, :]
            table = table.masked_fill(torch.from_numpy(same), torch.inf)
            # Equal features have a distance, too, so that ratios exist.
            nearest.append(table.min(dim=1).values.clamp_min(1e-9).numpy())
        return NearestDistances(*nearest)

    rows = [network.extract(images.batches(_BATCH)) for images in real]
    patients = [patient for images in real for patient in images.patients]
    return memorisation(
        distances(network.extract(samples.batches(_BATCH)), samples.patients),
        distances(torch.cat(rows), patients),
        patients=patients,
    )


def _attack(losses: Losses) -> MembershipAttack:
    return membership_attack(
        losses.train.numpy(),
        losses.held_out.numpy(),
        train_groups=losses.train_patients,
        held_out_groups=losses.held_out_patients,
    )


def _draw_pairs(
    samples: ImageSet,
    cohort: Cohort,
    search: NeighbourSearch,
    nearest: Sequence[Pair],
    found: dict[str, Memorisation],
    out: Path,
) -> Picture:
    """Draw the samples of the lowest scores, aligned, with both neighbours."""
    # Whichever comparison is nearer to its threshold.
    ratios = np.array([found[by].scores / found[by].threshold for by in COMPARISONS])
    chosen = np.argsort(ratios.min(axis=0))[: min(_PAIRS_DRAWN, len(samples))]
    arrays, titles = [], []
    for index in chosen:
        by = COMPARISONS[ratios[:, index].argmin()]
        train, held_out = (getattr(neighbours, by) for neighbours in nearest[index])
        image = next(samples.of([int(index)]).unit_images(progress=False))
        pictures = [
            search.align(image, train.transform),
            next(cohort.train.of([train.index]).unit_images(progress=False)),
            next(cohort.held_out.of([held_out.index]).unit_images(progress=False)),
        ]
        arrays += [samples.from_unit(picture)[0].numpy() for picture in pictures]
        titles += [
            f"sample, aligned; score {found[by].scores[index]:.2f} by {by}",
            f"nearest training image; correlation {train.similarity:.3f}",
            f"nearest held-out image; correlation {held_out.similarity:.3f}",
        ]
    path = out / "privacy.png"
    draw(samples, arrays, path, titles=titles, columns=3)
    return Picture(
        path,
        "The samples of the lowest scores, turned, zoomed and shifted onto their nearest training"
        " image. PRIVATE if the training images are: do not publish this picture.",
    )
