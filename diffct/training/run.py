"""A training run: its accelerator, its start or resumption, and its training."""

import importlib.util
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, ProjectConfiguration
from torch.utils.data import DataLoader, Dataset

from diffct.atomic import atomic_folder
from diffct.config import flat_config
from diffct.training.adversarial import AdversarialStep
from diffct.training.checkpoints import Checkpoints, Progress
from diffct.training.cpu import configure_cpus
from diffct.training.launcher import find_launcher
from diffct.training.learner import SCHEDULES, averaged_weights
from diffct.training.loop import Events, Loader, fit
from diffct.training.precision import choose_precision
from diffct.training.run_folder import check_disk_space, claim_folder, has_begun
from diffct.training.settings import RunConfig
from diffct.training.steps import GradientStep, Learner
from diffct.training.summary import Split, announce

Loaded = TypeVar("Loaded")
TRACKERS = {"tensorboard": "tensorboard", "mlflow": "mlflow", "wandb": "wandb"}
"""The package that each tracker needs, by the tracker's name."""


def start_run(config: RunConfig, *, resume: bool) -> Accelerator:
    """Check a configuration, claim its folder and build its accelerator.

    Args:
        config: The run's configuration.
        resume: Whether the folder may already hold this run.

    Returns:
        The accelerator, with its tracker started.

    Raises:
        ValueError: A setting is not accepted, a tracker is not installed, or the folder holds
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
    find_launcher()  # its answer is kept, so that the run notices when its launcher ends
    accelerator = Accelerator(
        mixed_precision=choose_precision(config.mixed_precision),
        gradient_accumulation_steps=config.train.gradient_accumulation,
        log_with=None if config.tracker == "none" else config.tracker,
        project_config=ProjectConfiguration(project_dir=str(folder), logging_dir=str(folder)),
        # The order of the data depends on seed and epoch alone, so that a run can resume.
        dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True, data_seed=config.seed),
    )
    # On CPUs, accelerate joins the launched processes only if it is told to.
    launched = int(os.environ.get("WORLD_SIZE", 1))
    if launched != accelerator.num_processes:
        raise ValueError(
            f"{launched} processes were launched, but each would train on its own: on CPUs set the"
            " environment variable ACCELERATE_USE_CPU=true."
        )
    with accelerator.main_process_first():
        if accelerator.is_main_process:
            claim_folder(folder, config, resume=resume, processes=accelerator.num_processes)
    if resume and not has_begun(folder):
        accelerator.print(f"{folder} holds no checkpoint yet: the run starts.")
    if accelerator.device.type == "cpu":
        configure_cpus(accelerator.num_processes)
    torch.manual_seed(config.seed)
    accelerator.init_trackers(
        "diffct", config=flat_config(config), init_kwargs={"wandb": {"dir": str(folder)}}
    )
    return accelerator


def load_main_first(
    load: Callable[..., Loaded], data: object, run: RunConfig, accelerator: Accelerator
) -> Loaded:
    """Load the data of a run, first in the main process, whose files the others then read.

    Args:
        load: Takes the `data` section and, by name, the run's folder `output`, its `seed`, and
            whether this is the `main` process, which writes files and messages.
        data: The `data` section.
        run: The run's configuration.
        accelerator: The run's accelerator.
    """
    with accelerator.main_process_first():
        return load(
            data, output=Path(run.output_dir), seed=run.seed, main=accelerator.is_main_process
        )


def make_loader(config: RunConfig, dataset: Dataset, *, accelerator: Accelerator) -> DataLoader:
    """Return the loader of shuffled training batches, not yet prepared."""
    return DataLoader(
        dataset,
        batch_size=config.train.batch_size,
        shuffle=True,
        num_workers=config.train.workers,
        pin_memory=accelerator.device.type == "cuda",
    )


def train_network(
    config: RunConfig,
    *,
    step: GradientStep | AdversarialStep,
    loader: Loader,
    progress: Progress,
    validate: Callable[[], float] | None,
    preview: Callable[[Path], None],
    save: Callable[[Path, str], None],
    product: str,
    splits: Sequence[Split],
    size: Sequence[int],
    images: str,
    others: Sequence[Learner] = (),
) -> None:
    """Start a run, or resume it from its last checkpoint, and train to its end.

    Previews and saved networks hold the moving average.

    Args:
        config: The run's configuration.
        step: The network that is saved; it learns from micro-batches.
        loader: The prepared training data.
        progress: The progress of the run; set to that of the last checkpoint if there is one.
        validate: Returns the validation loss; None if there is no validation data.
        preview: Writes samples of the network into a PNG file.
        save: Saves the network for inference into a folder; its second argument is a name for the
            model card.
        product: The name of that folder.
        splits: The sizes of the splits, for the summary.
        size: Size of an image, in voxels or pixels.
        images: The word for the images in messages, e.g. "scans".
        others: Further networks that are trained.

    Raises:
        OSError: The disk has no room for the checkpoints and models of this run.
    """
    accelerator = step.accelerator
    checkpoints = _restore(config, progress, [step, *others])
    announce(config, [step, *others], splits=splits, size=size, images=images, batches=len(loader))

    def draw_average(path: Path) -> None:
        if accelerator.is_main_process:
            with averaged_weights(step):
                preview(path)
        accelerator.wait_for_everyone()

    fit(
        accelerator,
        step,
        config=config.train,
        loader=loader,
        progress=progress,
        checkpoints=checkpoints,
        events=Events(
            validate=validate,
            preview=draw_average,
            save=lambda folder: save_average(step, folder, save),
            product=product,
        ),
        folder=Path(config.output_dir),
        seed=config.seed,
    )


def save_average(step: Learner, folder: Path, save: Callable[[Path, str], None]) -> None:
    """Save the moving average of a network atomically, in the main process.

    Args:
        step: The network.
        folder: The folder to save into.
        save: Saves the network into a folder; its second argument is a name for the model card.
    """
    if step.accelerator.is_main_process:
        with averaged_weights(step), atomic_folder(folder) as partial:
            save(partial, folder.name)


def _restore(config: RunConfig, progress: Progress, learners: Sequence[Learner]) -> Checkpoints:
    """Load the last checkpoint if there is one; the first learner has the moving average."""
    accelerator = learners[0].accelerator
    accelerator.register_for_checkpointing(progress)
    folder = Path(config.output_dir)
    checkpoints = Checkpoints(
        folder / "checkpoints", accelerator=accelerator, keep=config.train.keep_checkpoints
    )
    if checkpoints.load_last():
        learners[0].average.to(accelerator.device)
        accelerator.print(f"Resumed at update {progress.update}.")
    elif accelerator.is_main_process:
        models = [learner.model for learner in learners]
        check_disk_space(folder, models, keep=config.train.keep_checkpoints)
    return checkpoints


def run_facts(config: RunConfig, history: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Collect what every model card says about its run: length, batch, rate and last losses."""
    losses = {name: row[name] for row in history for name in row}
    return {
        "updates": int(losses.pop("update", 0)),
        "batch_size": config.train.batch_size * config.train.gradient_accumulation,
        "learning_rate": config.optim.lr,
        "losses": losses,
    }
