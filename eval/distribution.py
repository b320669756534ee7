"""The distribution section: whether samples as a set look like real images and vary as much.

Every figure of samples against held-out images stands beside the same figure of training images
against held-out images. This yardstick is what real images of other patients reach at this number
of images, and what perfect samples would reach.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from diffct.eval.attempts import Attempts
from diffct.eval.cohorts import Cohort
from diffct.eval.figures import Cell, Figure, Number, Table
from diffct.eval.image_sets import ImageSet, check_comparable
from diffct.eval.inputs import Inputs
from diffct.eval.pictures import save_sheet
from diffct.eval.protocol import describe_network, protocol_card
from diffct.eval.realism import measure_realism
from diffct.eval.section import Picture, Section, Verdict
from diffct.eval.verdicts import quality, variety
from diffct.imaging.planes import PLANES
from diffct.metrics.discrepancy import kernel_distance, mmd
from diffct.metrics.distribution import frechet_estimate
from diffct.metrics.diversity import Diversity, ms_ssim_diversity
from diffct.metrics.features import FeatureNetwork
from diffct.metrics.manifold import precision_recall_density_coverage
from diffct.metrics.similarity import multi_scale
from diffct.metrics.slice_features import slice_features

NEIGHBOURS = 5
BANDWIDTH = "MMD bandwidth"
"""Computed from the data, but a setting and no result."""
MANIFOLD, MANIFOLD_FIGURES = "manifold", ("precision", "recall", "density", "coverage")
_COMPARED = ("samples", "train")  # each with held-out images
_SLICES = 16  # of each plane and volume, for networks of slices; fewer in thinner volumes
_BATCH = 16
_MAX_FOR_DIVERSITY = 1000

Features = dict[str, tuple[Tensor, list[str]]]
"""For each plane ("" for whole images): features (n, d), and the patient of each row."""


def measure(inputs: Inputs) -> Section:
    """Compare samples with held-out images as sets.

    All three sets are reduced to the same number of images, as distances shrink with more images.

    Raises:
        ValueError: The sets cannot be compared, or are too small.
    """
    samples, described = inputs.samples
    sets = _sets(samples, inputs.cohort, inputs.config.max_images)
    slices = min(_SLICES, *samples.size)
    figures: list[Figure] = []
    tables = []
    attempts = Attempts()
    for network in inputs.networks:
        features = attempts(
            f"figures of {network.name}", partial(_all_features, network, sets, slices)
        )
        if features is not None:
            found = _compare(network, features, attempts)
            figures += found
            tables.append(_network_table(network, found))
    diversity = {
        role: attempts(f"MS-SSIM of {images.name}", partial(_diversity, images))
        for role, images in sets.items()
    }
    figures += [Figure("MS-SSIM of pairs", found, of=role) for role, found in diversity.items()]
    if any(diversity.values()):
        tables.append(_diversity_table(diversity, samples.size))
    out = Path(inputs.config.out)
    pictures = [Picture(*save_sheet(sets["samples"], sets["held_out"], out / "distribution.png"))]
    realism = None
    if samples.unit == "HU":
        realism = attempts("tissue, noise and continuity", partial(measure_realism, sets, out))
    if realism is not None:
        figures.append(Figure("realism", realism.comparison))
        tables += realism.tables
        pictures.append(realism.picture)
    return Section(
        name="distribution",
        title="Samples as a set",
        protocol=protocol_card(
            "distribution",
            sets=sets,
            settings={
                "neighbours": NEIGHBOURS,
                "slices": slices,
                "most_for_diversity": _MAX_FOR_DIVERSITY,
            },
            networks=[describe_network(network) for network in inputs.networks],
            pipeline=described,
            synthetic=inputs.cohort.synthetic,
        ),
        figures=figures,
        tables=[table for table in tables if table.rows],
        pictures=pictures,
        remarks=[*samples.notes, *_remarks(sets, inputs.networks, samples)],
        missing=attempts.missing,
        verdicts=_verdicts(sets, inputs.networks, figures),
    )


def foresee(inputs: Inputs) -> list[str]:
    """Say, before anything is sampled, what will not be measured, and why."""
    cohort = inputs.cohort
    parts = [cohort.held_out, *([] if cohort.train is None else [cohort.train])]
    samples = len(inputs.samples[0]) if inputs.pipeline is None else inputs.number
    fewest = min(samples, inputs.config.max_images or samples, *map(len, parts))
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


def _sets(samples: ImageSet, cohort: Cohort, max_images: int | None) -> dict[str, ImageSet]:
    """Pick the same number of images from each set."""
    sets = {"samples": samples, "held_out": cohort.held_out}
    if cohort.train is not None:
        sets["train"] = cohort.train
    for images in sets.values():
        check_comparable(images, cohort.held_out)
    number = min(max_images or len(samples), *map(len, sets.values()))
    return {role: images.pick(number) for role, images in sets.items()}


def _verdicts(
    sets: dict[str, ImageSet], networks: Sequence[FeatureNetwork], figures: Sequence[Figure]
) -> list[Verdict]:
    """Answer whether samples are as good and as varied as real images."""
    patients = min(len(set(images.patients)) for images in sets.values())
    random = [network.name for network in networks if network.weights_sha256 is None]
    return [
        quality(figures, patients=patients, random_networks=random),
        variety(figures, patients=patients),
    ]


def _all_features(
    network: FeatureNetwork, sets: dict[str, ImageSet], slices: int
) -> dict[str, Features]:
    return {role: _features(network, images, slices) for role, images in sets.items()}


def _features(network: FeatureNetwork, images: ImageSet, slices: int) -> Features:
    """Extract the features of a set."""
    volumes = len(images.size) == 3
    if not volumes or network.spatial_dims == 3:
        return {"": (network.extract(images.batches(_BATCH)), list(images.patients))}
    spacing_mm, window_hu = images.spacing_and_window()
    pairs = ((image[0].numpy(), spacing_mm) for image in images.images())
    pixel_mm = min(spacing_mm)
    found = slice_features(network, pairs, window_hu=window_hu, slices=slices, pixel_mm=pixel_mm)
    owners = [images.patients[owner] for owner in found.owners.tolist()]
    return {plane: (found.planes[plane], owners) for plane in PLANES}


def _compare(
    network: FeatureNetwork, features: dict[str, Features], attempts: Attempts
) -> list[Figure]:
    """Compute every distance in one feature space, for samples and for training images."""
    figures = []
    for plane in features["samples"]:
        reference, owners = features["held_out"][plane]
        for role in (role for role in features if role != "held_out"):
            rows, groups = features[role][plane]
            both = {"groups_a": groups, "groups_b": owners}
            distances: dict[str, Callable[[], Any]] = {
                "FD": partial(frechet_estimate, rows, reference, **both),
                "KID": partial(kernel_distance, rows, reference, **both),
                "MMD²": partial(mmd, rows, reference, groups_a=groups, groups_reference=owners),
                MANIFOLD: partial(
                    precision_recall_density_coverage, reference, rows, neighbours=NEIGHBOURS
                ),
            }
            for metric, compute in distances.items():
                figure = Figure(metric, None, role, network.name, plane or None)
                found = attempts(f"{figure.name} of {role}", compute)
                if metric == "MMD²":
                    found, width = found or (None, None)
                    figures.append(replace(figure, metric=BANDWIDTH, value=width))
                figures.append(replace(figure, value=found))
    if len(features["samples"]) > 1:
        figures += _means_of_planes(figures)
    return figures


def _means_of_planes(figures: Sequence[Figure]) -> list[Figure]:
    """Average the Fréchet distance over the planes of volumes, for each role that has all three."""
    means = []
    for role in dict.fromkeys(figure.of for figure in figures):
        planes = [figure for figure in figures if figure.metric == "FD" and figure.of == role]
        values = [figure.value for figure in planes]
        known = all(value is not None for value in values)
        mean = float(np.mean([value.value for value in values])) if known else None
        means.append(replace(planes[0], value=mean, plane="mean of planes"))
    return means


def _network_table(network: FeatureNetwork, figures: Sequence[Figure]) -> Table:
    """Show the figures of one network."""
    pairs: dict[tuple[str, str | None], dict[str | None, Figure]] = {}
    for figure in figures:
        if figure.metric != BANDWIDTH:
            pairs.setdefault((figure.metric, figure.plane), {})[figure.of] = figure
    rows: list[tuple[Cell, ...]] = []
    for (metric, plane), sides in pairs.items():
        if all(figure.value is None for figure in sides.values()):
            continue
        names = MANIFOLD_FIGURES if metric == MANIFOLD else (metric,)
        for name in names:
            cells = [
                Number(getattr(side, name, None), digits=3) if metric == MANIFOLD else Number(side)
                for side in (sides[role].value if role in sides else None for role in _COMPARED)
            ]
            rows.append((Figure(name, None, network=network.name, plane=plane).name, *cells))
    random = network.weights_sha256 is None
    return Table(
        f"Distances in the features of {network.name}",
        ("", "samples and held-out", "training and held-out (yardstick)"),
        rows,
        note=(
            "The network's weights are random: compare these figures only with figures of the same"
            " random network; they are no FID."
            if random
            else ""
        ),
        aside=random,
    )


def _diversity(images: ImageSet) -> Diversity:
    """Average MS-SSIM over the pairs of a set."""
    multi_scale(images.size)  # refuses small images before they are read
    picked = images.pick(_MAX_FOR_DIVERSITY)
    return ms_ssim_diversity(
        picked.stacked(progress=False), groups=picked.patients, show_progress=True
    )


def _diversity_table(diversity: dict[str, Diversity | None], size: Sequence[int]) -> Table:
    """Show how alike the images of each set are."""
    names = {"samples": "samples", "held_out": "held-out", "train": "training"}
    rows = [
        (names[role], Number(found), Number(found.pairs if found else None))
        for role, found in diversity.items()
    ]
    return Table(
        "Diversity: mean MS-SSIM of pairs (the lower, the more varied)",
        ("", "MS-SSIM [95 % interval]", "pairs"),
        rows,
        note=f"{multi_scale(size)}.",
    )


def _remarks(
    sets: dict[str, ImageSet], networks: Sequence[FeatureNetwork], samples: ImageSet
) -> list[str]:
    """Say what limits the figures."""
    number = len(sets["samples"])
    remarks = [
        f"{number} images of each set. Distances between sets are above zero even for sets of one"
        " distribution, the more so the fewer images: compare with the yardstick, and with figures"
        " of the same number only."
    ]
    if number < len(samples):
        remarks.append(
            f"{len(samples) - number} samples were left out: no set may be larger than another."
        )
    smallest = min(network.dimensions for network in networks) if networks else 0
    if number < smallest:
        remarks.append(
            f"With fewer images than features ({smallest} and more), a Fréchet distance is mostly"
            " bias; KID is not biased."
        )
    return remarks
