"""The shared parts of pipelines that run a scheduler: checks, noise, steps and callbacks."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from diffusers import DDPMScheduler, DiffusionPipeline, SchedulerMixin
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor
from tqdm.auto import tqdm

from diffct.data.manifest import Manifest, ManifestRow
from diffct.pipelines.checks import check_count
from diffct.pipelines.publishing import PublishedPipeline
from diffct.pipelines.scheduler_check import (
    LATENTS,
    PIXELS,
    TrainedSchedule,
    check_scheduler,
    read_schedule,
    replace_scheduler,
)
from diffct.pipelines.schedulers import Steps, copy_scheduler
from diffct.training.denoising import Denoising
from diffct.training.objectives import DiffusionObjective
from diffct.training.steps import Batch

Generators = torch.Generator | list[torch.Generator] | None
State = dict[str, Any]
"""What changes from step to step, by the names that callbacks know: "latents", "prompt_embeds"
(with guidance, those of the negative prompts before them), "negative_prompt_embeds", ..."""
Callback = Callable[..., State]
Modality = Literal["volume", "film", "image", "slice"]
"""What a pipeline makes: CT volumes, radiographs, other images, slices of another contrast."""
Guide = Literal["prompt", "image"]
"""What guides each sample of a pipeline."""


def guide_of(pipeline: DiffusionPipeline | None) -> Guide | None:
    """Return what guides the samples of a pipeline; None without one, or for one of others."""
    return getattr(pipeline, "guided_by", None)


def shows_patients(pipeline: DiffusionPipeline | None) -> bool:
    """Return whether each sample shows a patient: the one whose image guides it."""
    return getattr(pipeline, "shows_patients", False)


def takes_guidance(pipeline: DiffusionPipeline | None) -> bool:
    """Return whether a pipeline can be told how closely to follow what guides it."""
    many = getattr(pipeline, "sample_many", None)
    return many is not None and "guidance_scale" in signature(many).parameters


def makes_volumes(pipeline: DiffusionPipeline | None) -> bool:
    """Return whether a pipeline, of diffct or not, makes CT volumes."""
    return getattr(pipeline, "modality", None) == "volume"


class DenoisingPipeline(PublishedPipeline):
    """The shared parts of a pipeline that runs a scheduler; subclasses implement the call.

    Attributes:
        modality: What it makes.
        guided_by: What guides each sample: a prompt, a condition image, or nothing (None).
        shows_patients: Whether each sample shows a patient, the one whose image guides it.
    """

    scheduler: SchedulerMixin
    modality: ClassVar[Modality]
    guided_by: ClassVar[Guide | None] = None
    shows_patients: ClassVar[bool] = False

    # Lists, since diffusers adds lists to them.
    _callback_tensor_inputs: ClassVar[list[str]] = ["latents"]
    _callback_aliases: ClassVar[Mapping[str, str]] = {}
    """Further names under which callbacks get tensors."""
    _output_types: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def sample_many(
        self,
        seeds: Sequence[int],
        *,
        conditions: Any = None,  # noqa: ANN401 - prompts, images or None: subclasses say which
        batch_size: int = 1,
        steps: int = 50,
    ) -> Iterator[tuple[range, BaseOutput]]:
        """Sample one image or volume for each seed, independently of the batch size.

        Subclasses have further options; results are arrays in float32.

        Args:
            seeds: One for each sample.
            conditions: What guides each sample, see `guided_by`; None if nothing does.
            batch_size: Number of samples to draw at once.
            steps: Denoising steps.

        Yields:
            The positions of a batch in `seeds`, and its samples.
        """

    @abstractmethod
    def denoising(self) -> Denoising:
        """Return the task that the pipeline was trained for: what it denoises, and by what."""

    def use_scheduler(self, name: str) -> Self:
        """Sample with another scheduler from now on.

        Args:
            name: E.g. ddim, dpm++ or a diffusers class, see `diffct.pipelines.schedulers`.

        Returns:
            The pipeline itself.

        Raises:
            ValueError: There is no such scheduler, or it cannot sample from the network.
        """
        self.scheduler = replace_scheduler(self.scheduler, name)
        return self

    def condition_batch(self, condition: Any) -> Batch:  # noqa: ANN401 - subclasses say which
        """Return the condition of one sample as an entry of a batch, for `denoising`.

        Args:
            condition: One of those that `sample_many` takes; None where nothing guides.
        """
        return {}

    def read_conditions(
        self,
        manifest: Manifest,
        rows: Sequence[ManifestRow],
        *,
        files: Sequence[Path],
        size: Sequence[int],
    ) -> Iterator[Any]:
        """Read what guides the images of a manifest, as `sample_many` takes it.

        Args:
            manifest: Where the rows are from.
            rows: The images.
            files: The image of each row; of CT, as it was prepared.
            size: Pixels or voxels that the model sees, around the centre.

        Raises:
            ValueError: A row names nothing that guides its image.
        """
        return iter([None] * len(rows))

    def _own_scheduler(
        self, scheduler: SchedulerMixin | None, prediction_type: str | None, **settings: bool | int
    ) -> tuple[SchedulerMixin | None, str | None]:
        """Copy the caller's scheduler and note what the network was trained for.

        Args:
            scheduler: The training's scheduler; None for a pipeline that does not sample.
            prediction_type: What the network predicts; None for the scheduler's entry.
            settings: Entries of its config to change.

        Returns:
            The copy, and what the network predicts.
        """
        own = None if scheduler is None else copy_scheduler(scheduler, **settings)
        trained = None if own is None else read_schedule(own, prediction_type)
        self._trained: TrainedSchedule | None = trained
        return own, prediction_type if trained is None else trained.prediction_type

    @property
    def num_timesteps(self) -> int:
        """How many times the network runs in the current or last call."""
        return self._num_timesteps

    @property
    def interrupt(self) -> bool:
        """Whether the remaining steps are skipped; a callback may set `_interrupt`."""
        return self._interrupt

    @property
    def _noise_channels(self) -> int:
        """Channels of what is denoised; fewer than the network reads if it reads a condition."""
        return self.unet.config.in_channels

    def _check_call(
        self,
        steps: Steps,
        *,
        counts: Mapping[str, int],
        eta: float = 0.0,
        output_type: str,
        callback: Callback | None,
        tensor_names: Sequence[str],
    ) -> Sequence[str]:
        """Check the arguments that all calls share; return the names of the callback's tensors."""
        self._interrupt = False
        for name, count in ({"num_inference_steps": steps.number} | dict(counts)).items():
            check_count(name, count)
        if not 0 <= eta <= 1:
            raise ValueError(f"eta={eta!r} must be between 0 and 1.")
        if output_type not in self._output_types:
            accepted = ", ".join(self._output_types)
            raise ValueError(f"output_type={output_type!r} is none of {accepted}.")
        if callback is not None and not callable(callback):
            raise ValueError(f"callback_on_step_end={callback!r} is not callable.")
        if isinstance(callback, PipelineCallback | MultiPipelineCallbacks):
            tensor_names = callback.tensor_inputs
        unknown = set(tensor_names) - set(self._callback_tensor_inputs)
        if unknown:
            raise ValueError(
                f"callback_on_step_end_tensor_inputs: {sorted(unknown)} are none of"
                f" {self._callback_tensor_inputs}."
            )
        for name in ("unet", "scheduler"):
            if getattr(self, name) is None:
                raise ValueError(f"The pipeline has no {name}, so it cannot sample.")
        check_scheduler(
            self.scheduler,
            self._trained or read_schedule(self.scheduler, self.config.prediction_type),
            steps=steps,
            eta=eta,
            largest=PIXELS if self.vae is None else LATENTS,
        )
        return tensor_names

    def _noise(
        self, samples: int, size: Sequence[int], *, given: Tensor | None, generator: Generators
    ) -> Tensor:
        """Return the initial noise, in float32 for networks of every precision.

        Args:
            samples: Number of samples.
            size: Size of each, without channels.
            given: The caller's own noise, or None.
            generator: Source of the noise, one or one for each.

        Raises:
            ValueError: The generators or the noise do not fit, or the noise is not finite.
        """
        shape, device = (samples, self._noise_channels, *size), self._execution_device
        generators = generator if isinstance(generator, list) else [generator]
        if not all(each is None or isinstance(each, torch.Generator) for each in generators):
            kind = type(generators[0]).__name__
            raise ValueError(f"Give one torch.Generator or a list of them, not {kind}.")
        if isinstance(generator, list) and len(generator) != samples:
            raise ValueError(
                f"There are {len(generator)} generators for {samples} samples; give one for each."
            )
        if given is None:
            return randn_tensor(shape, generator=generator, device=device, dtype=torch.float32)
        if not isinstance(given, Tensor) or tuple(given.shape) != shape:
            found = tuple(given.shape) if isinstance(given, Tensor) else type(given).__name__
            raise ValueError(f"latents has the shape {found}, not {shape}.")
        if not given.isfinite().all():
            raise ValueError("latents holds values that are not finite.")
        return given.to(device=device, dtype=torch.float32)

    def _denoise(
        self,
        state: State,
        predict: Callable[[int, Tensor, State], Tensor],
        *,
        steps: Steps,
        options: dict[str, Any],
        callback: Callback | None,
        tensor_names: Sequence[str],
    ) -> Tensor:
        """Run the scheduler.

        Args:
            state: With "latents", noise of unit variance; callbacks may change it.
            predict: Maps (step, timestep, state) to the network's prediction, float32.
            steps: Denoising steps.
            options: Arguments of the scheduler's `step`.
            callback: Called after each step; None for none.
            tensor_names: The entries of the state that it gets.

        Returns:
            The latents.
        """
        timesteps = steps.set_on(self.scheduler, self._execution_device)
        self._num_timesteps = len(timesteps)
        state["latents"] = state["latents"] * self.scheduler.init_noise_sigma
        for step, timestep in enumerate(self.progress_bar(timesteps)):
            if self.interrupt:
                continue
            prediction = predict(step, timestep, state)
            stepped = self.scheduler.step(prediction, timestep, state["latents"], **options)
            state["latents"] = stepped.prev_sample
            if callback is not None:
                self._call_back(callback, step, timestep, state, tensor_names)
        return state["latents"]

    def _call_back(
        self,
        callback: Callback,
        step: int,
        timestep: Tensor,
        state: State,
        tensor_names: Sequence[str],
    ) -> None:
        """Call a callback with the tensors that it asks for, and adopt those that it changed."""
        known = {name: self._callback_aliases.get(name, name) for name in tensor_names}
        asked = {name: state[known[name]] for name in tensor_names}
        returned = callback(self, step, timestep, dict(asked)) or {}
        # Of two names for one tensor, the one that was changed counts.
        changed = {name: value for name, value in returned.items() if value is not asked.get(name)}
        state |= {self._callback_aliases.get(name, name): changed[name] for name in changed}

    def _training_objective(self) -> DiffusionObjective:
        """Return the plain loss that the network was trained for."""
        return DiffusionObjective(DDPMScheduler.from_config(self.scheduler.config))


def batches(number: int, size: int, *, description: str = "sampling") -> Iterator[range]:
    """Split indices 0 ... number - 1 into batches, with a progress bar."""
    for start in tqdm(range(0, number, size), desc=description, unit="batch"):
        yield range(start, min(start + size, number))


def seeded(seeds: Sequence[int], indices: range) -> list[torch.Generator]:
    """Return a generator for each index, on the CPU, so that noise is the same on all devices."""
    return [torch.Generator().manual_seed(seeds[index]) for index in indices]
