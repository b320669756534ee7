"""The training loop: it owns time.

It knows neither networks nor losses: a step function learns from a micro-batch, and callables
validate, preview and save. Everything random is reseeded from (seed, rank, epoch, batch), so that a
resumed run repeats the uninterrupted one bit by bit, and needs no luck to do so.
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
"""How many updates tell how long a run takes."""
OUT_OF_MEMORY = (
    "Out of memory. Lower, in this order of effect: data.size, train.batch_size (raise"
    " train.gradient_accumulation to make up for it); or set train.gradient_checkpointing=true and"
    " mixed_precision=bf16."
)


@dataclass
class LoopConfig:
    """When things happen, in optimiser updates. An interval of 0 means never.

    Args:
        updates: Length of the run.
        log_every: Interval of logged losses.
        validate_every: Interval of validations; one more ends the run.
        preview_every: Interval of preview pictures; one more ends the run, unless the run is
            shorter than that.
        checkpoint_every: Interval of checkpoints and saved models; one more ends the run in any
            case.
        keep_checkpoints: How many checkpoints to keep.
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
        """Return the number of micro-batches of an epoch."""

    def __iter__(self) -> Iterator[Batch]:
        """Draw the micro-batches of an epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Begin an epoch."""


@dataclass(frozen=True)
class Events:
    """What the loop calls at the intervals of `LoopConfig`, in every process.

    Args:
        validate: Returns the validation loss; None if there is nothing to validate on.
        preview: Draws samples into the given PNG file.
        save: Saves the model for inference into the given folder.
        product: What is saved, as the name of its folder.
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
        config: When things happen.
        loader: The prepared training data; its data set has `set_epoch`.
        progress: Where to begin; kept up to date.
        checkpoints: The run's checkpoints.
        events: Validation, previews, saving.
        folder: The run's folder: `pipeline/` (last) and `pipeline-best/` (lowest validation loss),
            or what `events.product` says, `previews/`, `loss.png`.
        seed: Seed of the run.

    Raises:
        FloatingPointError: A loss turned NaN or infinite; the message names the last good
            checkpoint.
        MemoryError: Memory ran out; the message says which settings to lower.
        Interrupted: A signal asked for the end; the run has a checkpoint of its last update.
    """
    clock = _Clock(accelerator, config=config, progress=progress, folder=folder)
    with Interruption(accelerator) as interruption:
        # Asked for early: a launcher may end before its run does.
        go_on = resume_command(str(folder))
        for epoch in count(progress.epoch):
            if progress.update >= config.updates:
                break
            for index, batch in _batches(accelerator, loader, epoch=epoch, start=progress.batch):
                place = (seed, accelerator.process_index, epoch, index)
                generator = reseed(*place, device=accelerator.device)
                clock.losses(_learn(step, batch, generator, progress, checkpoints))
                at_end = index + 1 == len(loader)
                progress.epoch, progress.batch = (epoch + 1, 0) if at_end else (epoch, index + 1)
                if accelerator.sync_gradients:
                    progress.update += 1
                    clock.tick()
                    _after_update(accelerator, config, progress, checkpoints, events, clock)
                    number = interruption.requested()
                    if number is not None and progress.update < config.updates:
                        checkpoints.save(progress.update)
                        events.save(clock.folder / events.product)
                        clock.close()
                        accelerator.print(
                            f"Stopped at update {progress.update}, with a checkpoint. Go on with:"
                            f"\n    {go_on}",
                            file=sys.stderr,
                        )
                        raise Interrupted(128 + number)
                if progress.update >= config.updates:
                    break
    clock.close()


def _learn(
    step: Callable[[Batch, torch.Generator], dict[str, float]],
    batch: Batch,
    generator: torch.Generator,
    progress: Progress,
    checkpoints: Checkpoints,
) -> dict[str, float]:
    """Learn from a micro-batch; trouble says what to do about it."""
    try:
        return step(batch, generator)
    except FloatingPointError as error:
        raise FloatingPointError(_diverged(error, progress, checkpoints)) from error
    except RuntimeError as error:
        if _is_out_of_memory(error):
            raise MemoryError(OUT_OF_MEMORY) from error
        raise


def _batches(
    accelerator: Accelerator, loader: Loader, *, epoch: int, start: int
) -> "enumerate[Batch]":
    """Return the numbered micro-batches of an epoch, from `start` on."""
    # Accelerate keeps one of both in step, which one depends on the sampler.
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
    clock: "_Clock",
) -> None:
    """Do what is due after an update."""
    last = progress.update == config.updates

    def due(interval: int) -> bool:
        return bool(interval) and (last or progress.update % interval == 0)

    if due(config.log_every):
        clock.log()
    if events.validate is not None and due(config.validate_every):
        validation = events.validate()
        progress.history.append({"update": progress.update, "validation_loss": validation})
        accelerator.log({"validation_loss": validation}, step=progress.update)
        if validation < progress.best:
            progress.best = validation
            events.save(clock.folder / f"{events.product}-best")
    if config.updates >= config.preview_every and due(config.preview_every):
        events.preview(clock.folder / "previews" / f"update-{progress.update:08d}.png")
    if last or due(config.checkpoint_every):
        events.save(clock.folder / events.product)
        checkpoints.save(progress.update)
        clock.draw()


class _Clock:
    """Progress bar, logged losses and the loss curve."""

    def __init__(
        self, accelerator: Accelerator, *, config: LoopConfig, progress: Progress, folder: Path
    ) -> None:
        self.accelerator = accelerator
        self.progress = progress
        self.folder = folder
        self.since = time.perf_counter()
        self.updates_since = progress.update
        self.began = progress.update
        self.total = config.updates
        self.bar = tqdm(
            total=config.updates,
            initial=progress.update,
            unit="update",
            desc="training",
            disable=not accelerator.is_main_process,
        )

    def losses(self, losses: dict[str, float]) -> None:
        """Take the losses of a micro-batch."""
        self.progress.pending.append(losses)

    def tick(self) -> None:
        """Count an update; after the first ones, say how long the rest will take."""
        self.bar.update()
        made = self.progress.update - self.began
        if made == 1:
            self.first = time.perf_counter()  # slower than the others, as all is set up in it
        left = self.total - self.progress.update
        if made == 1 + TIMED_UPDATES and left > TIMED_UPDATES:
            seconds = (time.perf_counter() - self.first) / TIMED_UPDATES
            self.accelerator.print(
                f"Expected: {describe_seconds(seconds * left)} for {left} more updates, besides"
                " validation, previews and saving."
            )

    def log(self) -> None:
        """Log the mean losses since the last call."""
        seconds = time.perf_counter() - self.since
        updates = self.progress.update - self.updates_since
        self.since, self.updates_since = time.perf_counter(), self.progress.update
        pending = self.progress.pending
        # A loss may begin late, as the adversarial one does; its mean is over the rows with it.
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

    def draw(self) -> None:
        """Write the loss curve."""
        if self.accelerator.is_main_process:
            save_loss_curve(self.progress.history, self.folder / "loss.png")

    def close(self) -> None:
        """End the progress bar."""
        self.draw()
        self.bar.close()


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Tell whether memory ran out; the CPU's allocator raises a plain RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _diverged(error: FloatingPointError, progress: Progress, checkpoints: Checkpoints) -> str:
    """Say what happened and where to go on from."""
    kept = checkpoints.all()
    last = f"The last good checkpoint is {kept[-1]}." if kept else "No checkpoint was due before."
    return (
        f"{error} at update {progress.update + 1}; training stopped. {last} Try a lower optim.lr, a"
        " longer optim.warmup_updates, or mixed_precision=no."
    )


def describe_seconds(seconds: float) -> str:
    """Return a length of time as one would say it, e.g. "14 minutes"."""
    for length, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * length:
            return f"{seconds / length:.2g} {unit}"
    return f"{seconds:.0f} seconds"
