"""The folder of a training run: which run it belongs to, and whether that run may resume in it."""

import json
import math
import shutil
from collections.abc import Iterable
from pathlib import Path

from torch import nn

from diffct.atomic import atomic_file, remove_partials
from diffct.config import config_differences, may_change, save_config
from diffct.destination import check_writable
from diffct.training.settings import RunConfig
from diffct.training.summary import disk_needed


def has_begun(folder: Path) -> bool:
    """Return whether a run's folder holds a checkpoint."""
    return any((folder / "checkpoints").glob("checkpoint-*"))


def claim_folder(folder: Path, config: RunConfig, *, resume: bool, processes: int) -> None:
    """Write a run's configuration into its folder.

    Raises:
        ValueError: The folder holds another run, or this one and `resume` is false.
    """
    check_writable(folder)
    saved, facts_file = folder / "config.yaml", folder / "run.json"
    # Without a checkpoint nothing is lost: a run that stopped early, e.g. at bad data, may start
    # again with other settings.
    begun = has_begun(folder)
    if begun and not saved.is_file():
        raise ValueError(
            f"{folder} holds checkpoints, but not the {saved.name} of their run. Put it back, or"
            " choose another folder by output_dir=..."
        )
    if begun and not resume:
        raise ValueError(
            f"{folder} already holds a run. Add --resume to continue it, or choose another folder"
            " by output_dir=..."
        )
    if begun:
        changed = [
            key for key in config_differences(saved, config) if not may_change(type(config), key)
        ]
        if changed:
            raise ValueError(
                f"{folder} holds a run with another configuration; these keys differ:"
                f" {', '.join(changed)}. Restore them or choose another output_dir."
            )
        try:
            before = json.loads(facts_file.read_text())["processes"]
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise ValueError(
                f"{facts_file} cannot be read; write into it how many processes trained the run,"
                ' e.g. {"processes": 1}.'
            ) from error
        if before != processes:
            raise ValueError(
                f"{folder} was trained by {before} process(es) and now there are {processes}:"
                " the order of the data would change. Launch as before or choose another"
                " output_dir."
            )
    if folder.is_dir():
        remove_partials(folder)
    with atomic_file(saved) as partial:
        save_config(config, partial)
    with atomic_file(facts_file) as partial:
        partial.write_text(json.dumps({"processes": processes}))


def check_disk_space(folder: Path, models: Iterable[nn.Module], *, keep: int) -> None:
    """Raise an OSError if the run's files do not fit on the disk."""
    needed = disk_needed(models, keep=keep)
    total, _, free = shutil.disk_usage(folder)
    if total and free < needed:  # some network shares report 0 for both
        raise OSError(
            f"{folder} has {free / 1e6:,.0f} MB free, and this run writes up to"
            f" {math.ceil(needed / 1e6):,} MB: lower train.keep_checkpoints or choose another"
            " output_dir."
        )
