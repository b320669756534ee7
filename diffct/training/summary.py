"""The summary of a run that is printed before it trains."""

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from accelerate import Accelerator
from torch import nn

from diffct.training.settings import RunConfig
from diffct.training.steps import Learner


class Row(Protocol):
    """A row of a manifest."""

    @property
    def patient(self) -> str:
        """The patient that the row belongs to."""


@dataclass(frozen=True)
class Split:
    """The size of a split.

    Args:
        name: Name of the split, e.g. train or validation.
        images: Number of images or scans.
        patients: Number of patients.
    """

    name: str
    images: int
    patients: int

    @classmethod
    def count(cls, name: str, rows: Sequence[Row]) -> "Split":
        """Count rows and their patients."""
        return cls(name, len(rows), len({row.patient for row in rows}))


def announce(
    config: RunConfig,
    learners: Sequence[Learner],
    *,
    splits: Iterable[Split],
    size: Sequence[int],
    images: str,
    batches: int,
) -> None:
    """Print the summary of a run: hardware, data, networks, length and disk space.

    Args:
        config: The run's configuration.
        learners: The networks that are trained.
        splits: The sizes of the splits.
        size: Size of an image, in voxels (depth, height, width) or pixels (height, width).
        images: The word for the images, e.g. "scans".
        batches: Number of micro-batches in an epoch, per process.
    """
    train, accelerator = config.train, learners[0].accelerator
    counted = list(splits)
    unit = "voxels" if len(size) == 3 else "pixels"
    samples = train.batch_size * train.gradient_accumulation * accelerator.num_processes
    epochs = train.updates * train.gradient_accumulation / max(1, batches)
    models = [learner.model for learner in learners]
    lines = [
        f"On: {describe_device(accelerator)}",
        f"Data: {describe_splits(counted, images)}, {' x '.join(map(str, size))} {unit} each",
        f"Networks: {describe_networks(models)}",
        f"Length: {train.updates} updates, batches of {samples}, {epochs:.3g} epochs",
        f"Disk: {describe_disk(config, models)}",
        *(
            f"No {images} of the split {split.name}: {_WITHOUT.get(split.name, 'none is used')}."
            for split in counted
            if not split.images
        ),
    ]
    if train.updates < train.preview_every:
        lines.append(
            f"No preview: the run is shorter than train.preview_every={train.preview_every}."
        )
    accelerator.print("\n".join(lines))


_WITHOUT = {
    "validation": "no validation is done, and no best model is kept",
    "test": "no errors are reported for it",
}
"""What a run leaves out if a split is empty."""


def describe_device(accelerator: Accelerator) -> str:
    """Return the hardware and the precision, e.g. "CPU, 2 threads, full precision"."""
    device = accelerator.device
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        threads = torch.get_num_threads()
        name = f"{device.type.upper()}, {threads} thread{'s' * (threads > 1)}"
    if accelerator.num_processes > 1:
        name = f"{accelerator.num_processes} processes of {name}"
    precision = accelerator.mixed_precision
    return f"{name}, {'full' if precision == 'no' else f'mixed {precision}'} precision"


def describe_splits(splits: Iterable[Split], images: str) -> str:
    """Return e.g. "22 scans of 20 patients (train), 6 of 5 (validation)"."""
    # The nouns are inserted into the first count alone.
    counts = [f"{split.images} of {split.patients} ({split.name})" for split in splits]
    return ", ".join(counts).replace(" of ", f" {images} of ", 1).replace(" (", " patients (", 1)


def describe_networks(models: Iterable[nn.Module]) -> str:
    """Return the number of parameters of networks, and how many of them are trained."""
    weights = [weight for model in models for weight in model.parameters()]
    learning = sum(weight.numel() for weight in weights if weight.requires_grad)
    everything = sum(weight.numel() for weight in weights)
    frozen = "" if learning == everything else f", of which {learning:,} are trained"
    return f"{everything:,} parameters{frozen}"


def describe_disk(config: RunConfig, models: Iterable[nn.Module]) -> str:
    """Return the disk space that the run's files take at most, and what is free."""
    needed = disk_needed(models, keep=config.train.keep_checkpoints)
    free = shutil.disk_usage(Path(config.output_dir)).free
    return (
        f"up to {max(1, round(needed / 1e6)):,} MB in {config.output_dir} for checkpoints and"
        f" models, besides prepared data; {free / 1e6:,.0f} MB are free"
    )


def disk_needed(models: Iterable[nn.Module], *, keep: int) -> int:
    """Return the bytes that checkpoints and models of a run take at most."""
    parameters = (weight for model in models for weight in model.parameters())
    weights = sum(weight.numel() * weight.element_size() for weight in parameters)
    # A checkpoint holds weights, average and two moments of AdamW, and one more exists while it is
    # written. The other three are the last model, the best one and one that is being written.
    return weights * (4 * (keep + 1) + 3)
