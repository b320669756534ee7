"""Do samples look as real images do, and are they as varied: figures of whole sets.

Every figure of samples against held-out images stands beside the same figure of training images
against held-out ones: that is what real images of other patients reach at this number, and what
perfect samples would.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from diffct.evaluation.cohorts import Cohort
from diffct.evaluation.image_sets import ImageSet, check_comparable
from diffct.evaluation.pictures import save_sheet
from diffct.evaluation.protocol import protocol_card
from diffct.evaluation.realism import measure_realism
from diffct.evaluation.section import Picture, Section, Table, show
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
    check_comparable(cohort.train, cohort.held_out)
    number = min(len(samples), len(cohort.train), len(cohort.held_out), most or len(samples))
    slices = min(slices, *samples.size)
    sets = {
        "samples": samples.pick(number),
        "held_out": cohort.held_out.pick(number),
        "train": cohort.train.pick(number),
    }
    figures: dict[str, Any] = {}
    tables = []
    for network in networks:
        features = {role: _features(network, images, slices) for role, images in sets.items()}
        figures |= _compare(network, features)
        tables.append(_network_table(network, figures))
    diversity = {role: _diversity(images) for role, images in sets.items()}
    figures["MS-SSIM of pairs"] = diversity
    tables.append(_diversity_table(diversity, samples.size))
    pictures = [save_sheet(sets["samples"], sets["held_out"], out / "distribution.png")]
    if samples.unit == "HU":
        realism, more_tables, more_pictures = measure_realism(sets, out)
        figures |= realism
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
        tables=tables,
        pictures=[Picture(path, caption) for path, caption in pictures],
        remarks=_remarks(sets, networks, samples),
    )


def describe_network(network: FeatureNetwork) -> dict[str, Any]:
    """Describe a feature network for the protocol."""
    return {
        "name": network.name,
        "weights_sha256": network.weights_sha256,
        "dimensions": network.dimensions,
        "preprocessing": network.preprocessing,
    }


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


def _compare(network: FeatureNetwork, features: dict[str, Features]) -> dict[str, Any]:
    """Compute every distance in one feature space: of samples, and of training images."""
    figures: dict[str, Any] = {}
    for plane in features["samples"]:
        suffix = f", {plane}" if plane else ""
        reference, owners = features["held_out"][plane]
        for role in ("samples", "train"):
            rows, groups = features[role][plane]
            both = {"groups_a": groups, "groups_b": owners}
            squared, bandwidth = mmd(rows, reference, groups_a=groups, groups_reference=owners)
            found = {
                "FD": frechet_estimate(rows, reference, **both),
                "KID": kernel_distance(rows, reference, **both),
                "MMD²": squared,
                "MMD bandwidth": bandwidth,
            }
            enough = min(len(rows), len(reference)) > NEIGHBOURS
            found["manifold"] = (
                precision_recall_density_coverage(reference, rows, neighbours=NEIGHBOURS)
                if enough
                else None
            )
            for metric, value in found.items():
                figures.setdefault(result_name(metric, network) + suffix, {})[role] = value
    if len(features["samples"]) > 1:
        name = result_name("FD", network)
        figures[f"{name}, mean of planes"] = {
            role: float(np.mean([figures[f"{name}, {plane}"][role].value for plane in PLANES]))
            for role in ("samples", "train")
        }
    return figures


def _network_table(network: FeatureNetwork, figures: dict[str, Any]) -> Table:
    """Show the figures of one network."""
    rows = []
    for name, found in figures.items():
        if f"[{network.name}]" not in name or name.startswith("MMD bandwidth"):
            continue
        pair = (found["samples"], found["train"])
        if name.startswith("manifold"):
            if pair[0] is None:
                continue
            suffix = name.partition("]")[2]
            for figure in ("precision", "recall", "density", "coverage"):
                cells = (show(getattr(side, figure), digits=3) for side in pair)
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
    )


def _diversity(images: ImageSet) -> Diversity | None:
    """Average MS-SSIM over the pairs of a set; None for a single image."""
    if len(images) < 2:
        return None
    return ms_ssim_diversity(
        images.pick(_MOST_FOR_DIVERSITY).stacked(progress=False), show_progress=True
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
