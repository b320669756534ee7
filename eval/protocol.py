"""Protocol cards: the conditions of a figure, so that only like is compared with like.

A card names the measurement, every set of images (number, patients, size, unit, range, preparation,
and a hash of all their bytes), every network with the hash of its weights, the settings, the seed
and the versions of the libraries. It holds no file name and no patient.
"""

import hashlib
import platform
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import nn

from diffct import __version__
from diffct.eval.image_sets import SAMPLES, ImageSet
from diffct.imaging.volume import source_files
from diffct.metrics.features import FeatureNetwork

CARD_FORMAT = 1
UNDER_TEST = ("samples", "pipeline")
"""The entries that may differ between two cards: those of the model or samples under test."""

_COMPUTING = ("torch", "numpy", "scipy", "monai", "diffusers", "torchxrayvision")


def protocol_card(
    measurement: str,
    *,
    sets: dict[str, ImageSet],
    settings: dict[str, Any],
    networks: Iterable[dict[str, Any]] = (),
    pipeline: dict[str, Any] | None = None,
    synthetic: bool | None,
) -> dict[str, Any]:
    """Write the card of a measurement.

    Args:
        measurement: Name of the measurement.
        sets: The images by role; "samples" are those under test.
        settings: All settings, the seed included, as JSON values.
        networks: Descriptions of the feature networks.
        pipeline: The model that made the samples, and its settings; None for other samples.
        synthetic: Whether the real images are phantoms; None if that is not known.

    Returns:
        JSON values.
    """
    return {
        "format": CARD_FORMAT,
        "measurement": measurement,
        "sets": {role: describe_set(images) for role, images in sets.items()},
        "phantoms": synthetic,
        "settings": settings,
        "networks": list(networks),
        "pipeline": pipeline,
        "versions": {
            "diffct": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in _COMPUTING},
        },
    }


def describe_set(images: ImageSet) -> dict[str, Any]:
    """Describe a set without naming a file or a patient."""
    low, high, digest = float("inf"), float("-inf"), hashlib.sha256()
    for image in images.images(progress=False):
        low, high = min(low, image.min().item()), max(high, image.max().item())
    # Sorted, so that the hash does not depend on the order of the files, and so on their names.
    for line in sorted(file_hash(path) for path in images.files):
        digest.update(line.encode())
    return {
        "images": len(images),
        "patients": len(set(images.patients)) if images.title != SAMPLES else None,
        "size": list(images.size),
        "unit": images.unit,
        "spacing_mm": None if images.spacing_mm is None else list(images.spacing_mm),
        "range": [low, high],
        "preparation": images.preparation,
        "formats": images.endings,
        "left_out": dict(images.left_out),
        "files_sha256": digest.hexdigest(),
    }


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a scan's bytes: one file, or all files of a DICOM series."""
    digest = hashlib.sha256()
    for file in source_files(path):
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def describe_model(source: str | Path | DiffusionPipeline) -> dict[str, Any]:
    """Return the name of a model and the hash of its weights.

    Args:
        source: Its folder, the pipeline itself, or a Hub id, which is named without a hash.
    """
    if isinstance(source, DiffusionPipeline):
        return {"name": type(source).__name__, "weights_sha256": _hash_in_memory(source)}
    folder = Path(source)
    if not folder.is_dir():
        return {"name": str(folder), "weights_sha256": None}
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.safetensors")):
        digest.update(file_hash(file).encode())
    return {"name": folder.name, "weights_sha256": digest.hexdigest()}


def describe_network(network: FeatureNetwork) -> dict[str, Any]:
    """Describe a feature network: the hash of its weights, and its preprocessing."""
    return {
        "name": network.name,
        "weights_sha256": network.weights_sha256,
        "dimensions": network.dimensions,
        "preprocessing": network.preprocessing,
    }


def _hash_in_memory(pipeline: DiffusionPipeline) -> str:
    """Hash the weights of all networks of a pipeline, in any precision."""
    digest = hashlib.sha256()
    for name, network in sorted(pipeline.components.items()):
        weights = network.state_dict() if isinstance(network, nn.Module) else {}
        for key, weight in sorted(weights.items()):
            digest.update(f"{name}.{key}".encode())
            digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def differences(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """List the differences of two cards, except in what is under test.

    Samples may have other files and values, but not another number, size, unit or preparation.

    Returns:
        One line for each difference: its place, and both values.
    """
    mine, other = (dict(_flatten(_comparable(card))) for card in (first, second))
    return [
        f"{place}: {mine.get(place)} and {other.get(place)}"
        for place in sorted(mine.keys() | other.keys())
        if mine.get(place) != other.get(place)
    ]


def _comparable(card: dict[str, Any]) -> dict[str, Any]:
    """Return a card without the entries under test."""
    kept = {name: part for name, part in card.items() if name not in UNDER_TEST}
    # Files that were not read have no influence.
    kept["sets"] = {
        role: {
            name: value
            for name, value in facts.items()
            if name != "left_out"
            and (role not in UNDER_TEST or name not in ("range", "files_sha256", "formats"))
        }
        for role, facts in card["sets"].items()
    }
    return kept


def _flatten(value: object, place: str = "") -> Iterable[tuple[str, object]]:
    """List every value of a card with its place."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flatten(inner, f"{place}.{name}" if place else name)
    else:
        yield place, value
