"""The folder of a training run: whose it is, and whether the run may go on in it."""

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
    """Tell whether a run's folder holds a checkpoint."""
    return any((folder / "checkpoints").glob("checkpoint-*"))


def claim_folder(folder: Path, config: RunConfig, *, resume: bool, processes: int) -> None:
    """Make the folder this run's, or raise a ValueError if it is another's."""
    check_writable(folder)
    saved, facts_file = folder / "config.yaml", folder / "run.json"
    # Before the first checkpoint nothing is lost: a run that stopped at bad data may be mended.
    begun = has_begun(folder)
    if begun and not saved.is_file():
        raise ValueError(
            f"{folder} holds checkpoints without the {saved.name} of their run. Put it back, or"
            " choose another folder by output_dir=..."
        )
    if begun and not resume:
        raise ValueError(
            f"{folder} already holds a run. Add --resume to go on with it, or choose another folder"
            " by output_dir=..."
        )
    if begun:
        changed = [
            key for key in config_differences(saved, config) if not may_change(type(config), key)
        ]
        if changed:
            raise ValueError(
                f"{folder} holds a run of another configuration; these keys differ:"
                f" {', '.join(changed)}. Restore them or choose another output_dir."
            )
        try:
            before = json.loads(facts_file.read_text())["processes"]
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise ValueError(
                f"{facts_file} cannot be read; write into it by how many processes the run was"
                ' trained, e.g. {"processes": 1}.'
            ) from error
        if before != processes:
            raise ValueError(
                f"{folder} was trained by {before} process(es) and now there are {processes}:"
                " the data order would change. Launch as before or choose another output_dir."
            )
    if folder.is_dir():
        remove_partials(folder)
    with atomic_file(saved) as partial:
        save_config(config, partial)
    with atomic_file(facts_file) as partial:
        partial.write_text(json.dumps({"processes": processes}))


def check_room(folder: Path, models: Iterable[nn.Module], *, keep: int) -> None:
    """Raise an OSError if the run's files cannot fit on the disk."""
    needed = disk_needed(models, keep=keep)
    total, _, free = shutil.disk_usage(folder)
    if total and free < needed:  # some network shares know neither
        raise OSError(
            f"{folder} has {free / 1e6:,.0f} MB free, and this run writes up to"
            f" {math.ceil(needed / 1e6):,} MB: lower train.keep_checkpoints or choose another"
            " output_dir."
        )
