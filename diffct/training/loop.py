"""The training loop, which decides when a run trains, validates, previews, logs and saves.

It does not depend on networks or losses: a step function learns from a micro-batch, and callables
validate, preview and save. All random numbers are reseeded from (seed, rank, epoch, batch), so that
a resumed run repeats the uninterrupted one bit by bit.
"""

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Protocol

import torch
from accelerate import Accelerator
from tqdm.auto import tqdm

from diffct.config import FREE, within
from diffct.data.epoch import Samples
from diffct.figures.curves import save_loss_curve
from diffct.training.checkpoints import Checkpoints, Progress
from diffct.training.interruption import Interrupted, Interruption
from diffct.training.launcher import resume_command
from diffct.training.randomness import reseed
from diffct.training.steps import Batch

TIMED_UPDATES = 10
"""Number of updates from which the length of a run is estimated."""
OUT_OF_MEMORY = (
    "Out of memory. Lower, in this order of effect: data.size, train.batch_size (raise"
    " train.gradient_accumulation to make up for it); or set train.gradient_checkpointing=true and"
    " mixed_precision=bf16."
)


@dataclass
class LoopConfig:
    """Length and intervals of a run, in optimiser updates. An interval of 0 means never.

    Args:
        updates: Length of the run.
        log_every: Interval of logged losses.
        validate_every: Interval of validations; the run ends with one.
        preview_every: Interval of preview pictures; the run ends with one, unless it is shorter
            than the interval.
        checkpoint_every: Interval of checkpoints and saved models; the run ends with both, even if
            this is 0.
        keep_checkpoints: Number of checkpoints to keep.
    """

    updates: int = field(default=1000, metadata=within(1))
    log_every: int = field(default=10, metadata=within(0) | FREE)
    validate_every: int = field(default=100, metadata=within(0) | FREE)
    preview_every: int = field(default=500, metadata=within(0) | FREE)
    checkpoint_every: int = field(default=100, metadata=within(0) | FREE)
    keep_checkpoints: int = field(default=2, metadata=within(1) | FREE)


class Loader(Protocol):
    """A loader of micro-batches, as Accelerate prepares it."""

    dataset: Samples

    def __len__(self) -> int:
        """Return the number of micro-batches in an epoch."""

    def __iter__(self) -> Iterator[Batch]:
        """Yield the micro-batches of an epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Start an epoch, whose number seeds the order of the data."""


@dataclass(frozen=True)
class Events:
    """Functions that the loop calls at the intervals of `LoopConfig`, in every process.

    Args:
        validate: Returns the validation loss; None if there is no validation data.
        preview: Writes samples into the given PNG file.
        save: Saves the model for inference into the given folder.
        product: The name of that folder.
    """

    validate: Callable[[], float] | None
    preview: Callable[[Path], None]
    save: Callable[[Path], None]
    product: str = "pipeline"


def fit(
    accelerator: Accelerator,
    step: Callable[[Batch, torch.Generator], dict[str, float]],
    *,
    config: LoopConfig,
    loader: Loader,
    progress: Progress,
    checkpoints: Checkpoints,
    events: Events,
    folder: Path,
    seed: int,
) -> None:
    """Train until `config.updates` updates are made.

    Args:
        accelerator: The run's accelerator.
        step: Learns from one micro-batch; its arguments are the batch and a generator.
        config: Length and intervals.
        loader: The prepared training data; its data set has `set_epoch`.
        progress: The progress to start from; it is updated during training.
        checkpoints: The run's checkpoints.
        events: Validation, previews, saving.
        folder: The run's folder: `pipeline/` (last) and `pipeline-best/` (lowest validation loss),
            or `events.product` instead of `pipeline`, and `previews/` and `loss.png`.
        seed: Seed of the run.

    Raises:
        FloatingPointError: A loss became NaN or infinite; the message names the last good
            checkpoint.
        MemoryError: Memory ran out; the message says which settings to lower.
        Interrupted: A signal asked for the end; the run has a checkpoint of its last update.
    """
    log = _TrainingLog(accelerator, config=config, progress=progress, folder=folder)
    with Interruption(accelerator) as interruption:
        # Determined before training, since a launcher may end before its run does.
        resume = resume_command(str(folder))
        for epoch in count(progress.epoch):
            if progress.update >= config.updates:
                break
            for index, batch in _batches(accelerator, loader, epoch=epoch, start=progress.batch):
                position = (seed, accelerator.process_index, epoch, index)
                generator = reseed(*position, device=accelerator.device)
                log.add(_learn(step, batch, generator, progress, checkpoints))
                # The position of the next micro-batch, where a resumed run continues.
                at_end = index + 1 == len(loader)
                progress.epoch, progress.batch = (epoch + 1, 0) if at_end else (epoch, index + 1)
                if accelerator.sync_gradients:
                    progress.update += 1
                    log.count_update()
                    _after_update(accelerator, config, progress, checkpoints, events, log)
                    signal = interruption.requested()
                    if signal is not None and progress.update < config.updates:
                        checkpoints.save(progress.update)
                        events.save(folder / events.product)
                        log.close()
                        accelerator.print(
                            f"Stopped at update {progress.update}, with a checkpoint. Resume with:"
                            f"\n    {resume}",
                            file=sys.stderr,
                        )
                        raise Interrupted(128 + signal)
                if progress.update >= config.updates:
                    break
    log.close()


def _learn(
    step: Callable[[Batch, torch.Generator], dict[str, float]],
    batch: Batch,
    generator: torch.Generator,
    progress: Progress,
    checkpoints: Checkpoints,
) -> dict[str, float]:
    """Learn from a micro-batch; errors say what to do about them."""
    try:
        return step(batch, generator)
    except FloatingPointError as error:
        raise FloatingPointError(_divergence_message(error, progress, checkpoints)) from error
    except RuntimeError as error:
        if _is_out_of_memory(error):
            raise MemoryError(OUT_OF_MEMORY) from error
        raise


def _batches(
    accelerator: Accelerator, loader: Loader, *, epoch: int, start: int
) -> "enumerate[Batch]":
    """Return the micro-batches of an epoch with their indices, from `start` on."""
    # Accelerate sets the epoch of the data set or of the sampler, depending on the sampler's type.
    loader.dataset.set_epoch(epoch)
    remaining = accelerator.skip_first_batches(loader, start) if start else loader
    remaining.set_epoch(epoch)
    return enumerate(remaining, start=start)


def _after_update(
    accelerator: Accelerator,
    config: LoopConfig,
    progress: Progress,
    checkpoints: Checkpoints,
    events: Events,
    log: "_TrainingLog",
) -> None:
    """Log, validate, preview and save, as far as this is due after an update."""
    last = progress.update == config.updates

    def due(interval: int) -> bool:
        return bool(interval) and (last or progress.update % interval == 0)

    if due(config.log_every):
        log.write()
    if events.validate is not None and due(config.validate_every):
        validation = events.validate()
        progress.history.append({"update": progress.update, "validation_loss": validation})
        accelerator.log({"validation_loss": validation}, step=progress.update)
        if validation < progress.best:
            progress.best = validation
            events.save(log.folder / f"{events.product}-best")
    if config.updates >= config.preview_every and due(config.preview_every):
        events.preview(log.folder / "previews" / f"update-{progress.update:08d}.png")
    if last or due(config.checkpoint_every):
        # The checkpoint comes last: a run killed before it is whole saves the model again.
        events.save(log.folder / events.product)
        checkpoints.save(progress.update)
        log.draw_curve()


class _TrainingLog:
    """Progress bar, logged losses and the loss curve."""

    def __init__(
        self, accelerator: Accelerator, *, config: LoopConfig, progress: Progress, folder: Path
    ) -> None:
        self.accelerator = accelerator
        self.progress = progress
        self.folder = folder
        self.logged_at = time.perf_counter()
        self.logged_update = progress.update
        self.start_update = progress.update
        self.total = config.updates
        self.bar = tqdm(
            total=config.updates,
            initial=progress.update,
            unit="update",
            desc="training",
            disable=not accelerator.is_main_process,
        )

    def add(self, losses: dict[str, float]) -> None:
        """Add the losses of a micro-batch."""
        self.progress.pending.append(losses)

    def count_update(self) -> None:
        """Count an update; after the first ones, print how long the rest will take."""
        self.bar.update()
        made = self.progress.update - self.start_update
        if made == 1:
            # The first update is not timed: it is slower, since buffers are allocated in it.
            self.timed_from = time.perf_counter()
        left = self.total - self.progress.update
        if made == 1 + TIMED_UPDATES and left > TIMED_UPDATES:
            seconds = (time.perf_counter() - self.timed_from) / TIMED_UPDATES
            self.accelerator.print(
                f"Expected: {describe_seconds(seconds * left)} for {left} more updates, besides"
                " validation, previews and saving."
            )

    def write(self) -> None:
        """Log the mean losses since the last call."""
        seconds = time.perf_counter() - self.logged_at
        updates = self.progress.update - self.logged_update
        self.logged_at, self.logged_update = time.perf_counter(), self.progress.update
        pending = self.progress.pending
        # Early rows may lack a loss, e.g. the adversarial one: the mean is over rows that have it.
        means = {
            name: sum(row[name] for row in pending if name in row)
            / sum(name in row for row in pending)
            for name in dict.fromkeys(name for row in pending for name in row)
        }
        self.progress.pending = []
        self.progress.history.append({"update": self.progress.update, **means})
        self.bar.set_postfix(loss=f"{means['loss']:.4f}", refresh=False)
        self.accelerator.log(
            means | {"epoch": self.progress.epoch, "updates_per_second": updates / seconds},
            step=self.progress.update,
        )

    def draw_curve(self) -> None:
        """Write the loss curve."""
        if self.accelerator.is_main_process:
            save_loss_curve(self.progress.history, self.folder / "loss.png")

    def close(self) -> None:
        """Write the loss curve and end the progress bar."""
        self.draw_curve()
        self.bar.close()


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether memory ran out; the CPU's allocator raises a plain RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _divergence_message(
    error: FloatingPointError, progress: Progress, checkpoints: Checkpoints
) -> str:
    """Return a message that says what happened and which checkpoint is the last good one."""
    kept = checkpoints.all()
    last = f"The last good checkpoint is {kept[-1]}." if kept else "No checkpoint was due before."
    return (
        f"{error} at update {progress.update + 1}; training stopped. {last} Try a lower optim.lr, a"
        " longer optim.warmup_updates, or mixed_precision=no."
    )


def describe_seconds(seconds: float) -> str:
    """Return a length of time in words, e.g. "14 minutes"."""
    for length, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * length:
            return f"{seconds / length:.2g} {unit}"
    return f"{seconds:.0f} seconds"
