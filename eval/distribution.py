"""Do samples look as real images do, and are they as varied: figures of whole sets.

Every figure of samples against held-out images stands beside the same figure of training images
against held-out ones: that is what real images of other patients reach at this number, and what
perfect samples would.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from diffct.eval.attempts import Attempts
from diffct.eval.cohorts import Cohort
from diffct.eval.image_sets import ImageSet, check_comparable
from diffct.eval.pictures import save_sheet
from diffct.eval.protocol import protocol_card
from diffct.eval.realism import measure_realism
from diffct.eval.section import Picture, Section, Table, Verdict, show
from diffct.eval.verdicts import quality, variety
from diffct.metrics.discrepancy import kernel_distance, mmd
from diffct.metrics.distribution import frechet_estimate
from diffct.metrics.diversity import Diversity, ms_ssim_diversity
from diffct.metrics.features import FeatureNetwork, result_name
from diffct.metrics.manifold import precision_recall_density_coverage
from diffct.metrics.similarity import multi_scale
from diffct.metrics.slice_features import PLANES, slice_features

NEIGHBOURS = 5
_BATCH = 16
_MOST_FOR_DIVERSITY = 1000

Features = dict[str, tuple[Tensor, list[str]]]
"""For each plane ("" for whole images): features (n, d), and whose image each row is of."""


def measure_distribution(
    samples: ImageSet,
    cohort: Cohort,
    *,
    networks: Sequence[FeatureNetwork],
    out: Path,
    most: int | None = None,
    slices: int = 16,
    pipeline: dict[str, Any] | None = None,
) -> Section:
    """Measure a set of samples as a whole.

    The three sets are cut to one number, since distances shrink as numbers grow.

    Args:
        samples: Generated images.
        cohort: Training and held-out images.
        networks: Feature networks; 2D ones see slices of volumes in three planes.
        out: Where pictures go.
        most: Use so many images of each set at most.
        slices: Slices of each plane and volume for 2D networks; fewer for thinner volumes.
        pipeline: What made the samples, for the protocol.

    Raises:
        ValueError: The sets cannot be compared, or are too small.
    """
    check_comparable(samples, cohort.held_out)
    sets = {"samples": samples, "held_out": cohort.held_out}
    if cohort.train is not None:
        check_comparable(cohort.train, cohort.held_out)
        sets["train"] = cohort.train
    number = min(most or len(samples), *map(len, sets.values()))
    sets = {role: images.pick(number) for role, images in sets.items()}
    slices = min(slices, *samples.size)
    figures: dict[str, Any] = {}
    tables = []
    attempts = Attempts()
    for network in networks:
        features = attempts(
            f"figures of {network.name}", partial(_all_features, network, sets, slices)
        )
        if features is not None:
            figures |= _compare(network, features, attempts)
            tables.append(_network_table(network, figures))
    diversity = {
        role: attempts(f"MS-SSIM of {images.name}", partial(_diversity, images))
        for role, images in sets.items()
    }
    figures["MS-SSIM of pairs"] = diversity
    if any(diversity.values()):
        tables.append(_diversity_table(diversity, samples.size))
    pictures = [save_sheet(sets["samples"], sets["held_out"], out / "distribution.png")]
    realism = (
        attempts("tissue, noise and continuity", partial(measure_realism, sets, out))
        if samples.unit == "HU"
        else None
    )
    if realism is not None:
        more_figures, more_tables, more_pictures = realism
        figures |= more_figures
        tables += more_tables
        pictures += more_pictures
    return Section(
        name="distribution",
        title="Samples as a set",
        protocol=protocol_card(
            "distribution",
            sets=sets,
            settings={
                "neighbours": NEIGHBOURS,
                "slices": slices,
                "most_for_diversity": _MOST_FOR_DIVERSITY,
            },
            networks=[describe_network(network) for network in networks],
            pipeline=pipeline,
            synthetic=cohort.synthetic,
        ),
        figures=figures,
        tables=[table for table in tables if table.rows],
        pictures=[Picture(path, caption) for path, caption in pictures],
        remarks=[*samples.notes, *_remarks(sets, networks, samples)],
        missing=attempts.missing,
        verdicts=_verdicts(sets, networks, figures),
    )


def _verdicts(
    sets: dict[str, ImageSet], networks: Sequence[FeatureNetwork], figures: dict[str, Any]
) -> list[Verdict]:
    """Answer whether samples are as good and as varied as real images."""
    patients = min(len(set(images.patients)) for images in sets.values())
    random = [network.name for network in networks if network.weights_sha256 is None]
    return [
        quality(figures, patients=patients, random_networks=random),
        variety(figures["MS-SSIM of pairs"], patients=patients),
    ]


def describe_network(network: FeatureNetwork) -> dict[str, Any]:
    """Describe a feature network for the protocol."""
    return {
        "name": network.name,
        "weights_sha256": network.weights_sha256,
        "dimensions": network.dimensions,
        "preprocessing": network.preprocessing,
    }


def _all_features(
    network: FeatureNetwork, sets: dict[str, ImageSet], slices: int
) -> dict[str, Features]:
    return {role: _features(network, images, slices) for role, images in sets.items()}


def _features(network: FeatureNetwork, images: ImageSet, slices: int) -> Features:
    """Extract the features of a set."""
    volumes = len(images.size) == 3
    if not volumes or network.spatial_dims == 3:
        return {"": (network.extract(images.batches(_BATCH)), list(images.patients))}
    pairs = ((image[0].numpy(), images.spacing_mm) for image in images.images())
    pixel_mm = min(images.spacing_mm)
    found = slice_features(
        network, pairs, window_hu=images.window_hu, slices=slices, pixel_mm=pixel_mm
    )
    owners = [images.patients[owner] for owner in found.owners.tolist()]
    return {plane: (found.planes[plane], owners) for plane in PLANES}


def _compare(
    network: FeatureNetwork, features: dict[str, Features], attempts: Attempts
) -> dict[str, Any]:
    """Compute every distance in one feature space: of samples, and of training images."""
    figures: dict[str, Any] = {}
    for plane in features["samples"]:
        reference, owners = features["held_out"][plane]
        for role in (role for role in features if role != "held_out"):
            rows, groups = features[role][plane]
            both = {"groups_a": groups, "groups_b": owners}
            distances = {
                "FD": partial(frechet_estimate, rows, reference, **both),
                "KID": partial(kernel_distance, rows, reference, **both),
                "MMD²": partial(mmd, rows, reference, groups_a=groups, groups_reference=owners),
                "manifold": partial(
                    precision_recall_density_coverage, reference, rows, neighbours=NEIGHBOURS
                ),
            }
            for metric, compute in distances.items():
                name = result_name(metric, network) + (f", {plane}" if plane else "")
                found = attempts(f"{name} of {role}", compute)
                if metric == "MMD²":
                    bandwidth = name.replace(metric, "MMD bandwidth")
                    found, width = found or (None, None)
                    figures.setdefault(bandwidth, {})[role] = width
                figures.setdefault(name, {})[role] = found
    if len(features["samples"]) > 1:
        name = result_name("FD", network)
        figures[f"{name}, mean of planes"] = _mean_of_planes(figures, name)
    return figures


def _mean_of_planes(figures: dict[str, Any], name: str) -> dict[str, float | None]:
    """Average a figure over the planes of a volume, for each role that has all of them."""
    planes = [figures[f"{name}, {plane}"] for plane in PLANES]
    return {
        role: None
        if any(found[role] is None for found in planes)
        else float(np.mean([found[role].value for found in planes]))
        for role in planes[0]
    }


def _network_table(network: FeatureNetwork, figures: dict[str, Any]) -> Table:
    """Show the figures of one network."""
    rows = []
    for name, found in figures.items():
        if f"[{network.name}]" not in name or name.startswith("MMD bandwidth"):
            continue
        pair = (found["samples"], found.get("train"))
        if pair == (None, None):
            continue
        if name.startswith("manifold"):
            suffix = name.partition("]")[2]
            for figure in ("precision", "recall", "density", "coverage"):
                cells = (show(getattr(side, figure, None), digits=3) for side in pair)
                rows.append((f"{figure}[{network.name}]{suffix}", *cells))
        else:
            rows.append((name, *(show(side) for side in pair)))
    random = network.weights_sha256 is None
    return Table(
        f"Distances in the features of {network.name}",
        ("", "samples and held-out", "training and held-out (yardstick)"),
        rows,
        note=(
            "The network's weights are random: these figures compare with figures of the same"
            " random network only, and are no FID."
            if random
            else ""
        ),
        aside=random,
    )


def _diversity(images: ImageSet) -> Diversity:
    """Average MS-SSIM over the pairs of a set."""
    multi_scale(images.size)  # refuses small images before they are read
    picked = images.pick(_MOST_FOR_DIVERSITY)
    return ms_ssim_diversity(
        picked.stacked(progress=False), groups=picked.patients, show_progress=True
    )


def _diversity_table(diversity: dict[str, Diversity | None], size: Sequence[int]) -> Table:
    """Show how alike the images of each set are."""
    names = {"samples": "samples", "held_out": "held-out", "train": "training"}
    rows = [
        (names[role], show(found), str(found.pairs) if found else "–")
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
