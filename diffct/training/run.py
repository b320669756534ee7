"""Setting up a training run: its configuration, its folder, its accelerator, its optimiser."""

import importlib.util
import json
import logging
import math
import os
import shutil
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, ProjectConfiguration
from diffusers.optimization import SchedulerType, get_scheduler
from diffusers.training_utils import EMAModel
from torch import nn
from torch.utils.data import DataLoader, Dataset

from diffct.atomic import atomic_file, remove_partials
from diffct.config import config_differences, flat_config, save_config
from diffct.destination import prove_writable
from diffct.training.checkpoints import Checkpoints, Progress
from diffct.training.cpu import use_cpus_well
from diffct.training.interruption import Interrupted
from diffct.training.launcher import find_launcher, traceback_follows
from diffct.training.precision import choose_precision
from diffct.training.settings import EMAConfig, OptimConfig, RunConfig
from diffct.training.steps import GradientStep, Learner, Losses
from diffct.training.summary import disk_needed

logger = logging.getLogger(__name__)

TRACKERS = {"tensorboard": "tensorboard", "mlflow": "mlflow", "wandb": "wandb"}
"""Trackers by name, and the package that each needs."""

SCHEDULES = tuple(
    kind.value for kind in SchedulerType if kind is not SchedulerType.PIECEWISE_CONSTANT
)
"""diffusers' learning rate schedules, but the one that needs rules of its own."""

FREE_TO_CHANGE = (
    "train.",
    "preview.",
    "tracker",
    "output_dir",
    "data.cache_dir",
    "data.folder",  # moved; the split names every scan in it
    "license",
    "objective.perceptual_backbone",
)
"""Keys that may differ on resume, except those in `FIXED`, which decide what is learnt when."""
FIXED = (
    "train.updates",
    "train.batch_size",
    "train.gradient_accumulation",
    "train.channels_last",
    "train.validation_draws",
)


@contextmanager
def plain_errors() -> Iterator[None]:
    """End the script with one line, not a traceback, for what its user can mend.

    Bad data, settings and folders, a full disk, memory that ran out and a loss that diverged; and
    for the user's own wish that it ends.
    """
    try:
        yield
    except Interrupted as interrupted:
        sys.exit(interrupted.exit_code)
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except (ValueError, OSError, FloatingPointError, MemoryError) as error:
        logger.debug("Traceback of the error:", exc_info=True)
        sys.exit(f"ERROR: {error}{traceback_follows()}")


def start_run(config: RunConfig, *, resume: bool) -> Accelerator:
    """Check a configuration, claim its folder and build its accelerator.

    Args:
        config: The run's configuration.
        resume: Whether the folder may already hold this run.

    Returns:
        The accelerator, its trackers started.

    Raises:
        ValueError: A setting is impossible, a tracker is not installed, or the folder holds
            another run.
    """
    if config.tracker != "none":
        if config.tracker not in TRACKERS:
            raise ValueError(f"tracker={config.tracker!r}; accepted: {', '.join(TRACKERS)}, none.")
        if importlib.util.find_spec(TRACKERS[config.tracker]) is None:
            raise ValueError(
                f"tracker={config.tracker} is not installed: pip install {TRACKERS[config.tracker]}"
            )
    if config.optim.schedule not in SCHEDULES:
        raise ValueError(
            f"optim.schedule={config.optim.schedule!r}; accepted: {', '.join(SCHEDULES)}."
        )
    folder = Path(config.output_dir)
    find_launcher()  # while it lives: a run stops when its launcher does
    accelerator = Accelerator(
        mixed_precision=choose_precision(config.mixed_precision),
        gradient_accumulation_steps=config.train.gradient_accumulation,
        log_with=None if config.tracker == "none" else config.tracker,
        project_config=ProjectConfiguration(project_dir=str(folder), logging_dir=str(folder)),
        dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True, data_seed=config.seed),
    )
    launched = int(os.environ.get("WORLD_SIZE", 1))
    if launched != accelerator.num_processes:
        raise ValueError(
            f"{launched} processes were launched, but each trains alone: on CPUs set the"
            " environment variable ACCELERATE_USE_CPU=true."
        )
    with accelerator.main_process_first():
        if accelerator.is_main_process:
            _claim_folder(folder, config, resume=resume, processes=accelerator.num_processes)
    if resume and not has_begun(folder):
        accelerator.print(f"{folder} holds no checkpoint yet: the run begins.")
    if accelerator.device.type == "cpu":
        use_cpus_well(accelerator.num_processes)
    torch.manual_seed(config.seed)
    accelerator.init_trackers(
        "diffct", config=flat_config(config), init_kwargs={"wandb": {"dir": str(folder)}}
    )
    return accelerator


def has_begun(folder: Path) -> bool:
    """Tell whether a run's folder holds a checkpoint."""
    return any((folder / "checkpoints").glob("checkpoint-*"))


def _claim_folder(folder: Path, config: RunConfig, *, resume: bool, processes: int) -> None:
    """Make the folder this run's, or raise a ValueError if it is another's."""
    prove_writable(folder)
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
        changed = [key for key in config_differences(saved, config) if not _may_change(key)]
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


def _may_change(key: str) -> bool:
    """Tell whether a key may differ between a run and its resumption."""
    return key.startswith(FREE_TO_CHANGE) and not key.startswith(FIXED)


def run_facts(config: RunConfig, history: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Collect what every model card says of its run: length, batch, rate and last losses."""
    losses = {name: row[name] for row in history for name in row}
    return {
        "updates": int(losses.pop("update", 0)),
        "batch_size": config.train.batch_size * config.train.gradient_accumulation,
        "learning_rate": config.optim.lr,
        "losses": losses,
    }


def make_loader(config: RunConfig, dataset: Dataset, *, accelerator: Accelerator) -> DataLoader:
    """Return the loader of shuffled training batches, not yet prepared."""
    return DataLoader(
        dataset,
        batch_size=config.train.batch_size,
        shuffle=True,
        num_workers=config.train.workers,
        pin_memory=accelerator.device.type == "cuda",
    )


def make_gradient_step(
    config: RunConfig, *, accelerator: Accelerator, model: nn.Module, losses: Losses
) -> GradientStep:
    """Build optimiser, learning rate and moving average for a prepared network.

    Args:
        config: The run's configuration.
        accelerator: The run's accelerator.
        model: The network, prepared by the accelerator.
        losses: The objective, closed over `model`.

    Returns:
        The step; its moving average and learning rate are registered for checkpoints.
    """
    learner = make_learner(
        config.optim,
        accelerator=accelerator,
        model=model,
        updates=config.train.updates,
        ema=config.ema,
    )
    return GradientStep(**vars(learner), losses=losses)


def make_learner(
    config: OptimConfig,
    *,
    accelerator: Accelerator,
    model: nn.Module,
    updates: int,
    ema: EMAConfig | None,
) -> Learner:
    """Build what improves a prepared network: its parameters that require gradients learn.

    Args:
        config: Optimiser and learning rate.
        accelerator: The run's accelerator.
        model: The network, prepared by the accelerator.
        updates: Updates that it will learn for.
        ema: The moving average; None for none.

    Returns:
        The learner; moving average, if any, and learning rate are registered for checkpoints.

    Raises:
        ValueError: `config.lr_factors` names what is no part of the network.
    """
    groups = _group_parameters(accelerator.unwrap_model(model), config)
    parameters = [weight for group in groups for weight in group["params"]]
    optimizer = torch.optim.AdamW(
        groups,
        betas=tuple(config.betas),
        weight_decay=config.weight_decay,
        # Exact, and on a CPU several times faster than the default loop.
        fused=accelerator.device.type in ("cpu", "cuda"),
    )
    lr_scheduler = get_scheduler(
        config.schedule,
        optimizer,
        num_warmup_steps=config.warmup_updates,
        num_training_steps=updates,
    )
    average = None
    if ema is not None:
        average = EMAModel(
            parameters, decay=ema.decay, use_ema_warmup=True, power=ema.power, foreach=True
        )
        average.to(accelerator.device)
        accelerator.register_for_checkpointing(average)
    # A prepared scheduler would step once per process: it is only registered.
    accelerator.register_for_checkpointing(lr_scheduler)
    return Learner(
        accelerator=accelerator,
        model=model,
        optimizer=accelerator.prepare(optimizer),
        lr_scheduler=lr_scheduler,
        max_grad_norm=config.max_grad_norm,
        ema=average,
    )


def _group_parameters(network: nn.Module, config: OptimConfig) -> list[dict[str, Any]]:
    """Group the parameters that learn by their learning rate."""
    # A part that this run leaves out, as a frozen text encoder, is None.
    unknown = [part for part in config.lr_factors if not hasattr(network, part)]
    if unknown:
        parts = ", ".join(name for name, _ in network.named_children())
        raise ValueError(f"optim.lr_factors: {', '.join(unknown)}; the parts are {parts}.")
    groups: dict[float, list[nn.Parameter]] = {}
    for name, weight in network.named_parameters():
        if weight.requires_grad:
            rate = config.lr * config.lr_factors.get(name.partition(".")[0], 1.0)
            groups.setdefault(rate, []).append(weight)
    return [{"params": weights, "lr": rate} for rate, weights in groups.items()]


def restore_run(
    config: RunConfig,
    *,
    accelerator: Accelerator,
    step: Learner,
    others: Sequence[Learner] = (),
) -> tuple[Progress, Checkpoints]:
    """Return to the last checkpoint if there is one, else begin.

    Args:
        config: The run's configuration.
        accelerator: The run's accelerator.
        step: The network that the run is about, with its moving average.
        others: Further networks that learn.

    Returns:
        The progress, and the run's checkpoints.

    Raises:
        OSError: The disk has no room for the checkpoints and pipelines of this run.
    """
    progress = Progress()
    accelerator.register_for_checkpointing(progress)
    folder = Path(config.output_dir)
    checkpoints = Checkpoints(
        folder / "checkpoints", accelerator=accelerator, keep=config.train.keep_checkpoints
    )
    if checkpoints.load_last():
        step.ema.to(accelerator.device)
        accelerator.print(f"Resumed at update {progress.update}.")
    elif accelerator.is_main_process:
        models = [learner.model for learner in (step, *others)]
        _check_room(folder, models, keep=config.train.keep_checkpoints)
    return progress, checkpoints


def _check_room(folder: Path, models: Iterable[nn.Module], *, keep: int) -> None:
    """Raise an OSError if the run's files cannot fit on the disk."""
    needed = disk_needed(models, keep=keep)
    total, _, free = shutil.disk_usage(folder)
    if total and free < needed:  # some network shares know neither
        raise OSError(
            f"{folder} has {free / 1e6:,.0f} MB free, and this run writes up to"
            f" {math.ceil(needed / 1e6):,} MB: lower train.keep_checkpoints or choose another"
            " output_dir."
        )


@contextmanager
def averaged_weights(step: Learner) -> Iterator[None]:
    """Let the network hold its moving average, in eval mode, for the length of a block."""
    parameters = step.parameters
    step.ema.store(parameters)
    step.ema.copy_to(parameters)
    step.model.eval()
    try:
        yield
    finally:
        step.ema.restore(parameters)
        step.model.train()
