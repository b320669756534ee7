"""Unconditional or class-conditional 3D CT by diffusion."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, Self, get_args

import numpy as np
import torch
from diffusers import AutoencoderKL, DiffusionPipeline, SchedulerMixin
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor

from diffct.imaging.transforms import to_hounsfield
from diffct.imaging.volume import canonical_affine, check_spacing_mm
from diffct.models import UNet3DModel
from diffct.models.latent_space import LatentSpace
from diffct.pipelines.denoising import DenoisingPipeline, Generators, State, batches, seeded
from diffct.pipelines.outputs import CT3DPipelineOutput
from diffct.pipelines.schedulers import PREDICTIONS, Steps, accepted_options, step_options
from diffct.training.denoising import Denoising, unconditional, voxels

OutputType = Literal["np", "pt", "latent"]


class CT3DPipeline(DenoisingPipeline):
    """Sample CT volumes in Hounsfield units.

    Args:
        unet: The denoiser.
        scheduler: Any diffusers scheduler of the prediction type the network was trained for.
        vae: Decoder of a latent model: `decode(latents).sample`, with `scaling_factor` and
            `block_out_channels` in its config. None for a model in voxel space.
        window_hu: The Hounsfield units that -1 and 1 stand for.
        spacing_mm: Voxel size (d, h, w) of the training volumes.
        size: Voxels (D, H, W) of the training volumes, the default size of samples.
        prediction_type: What the network predicts; None for the `scheduler`'s entry.
        training: Facts for the model card, see `diffct.pipelines.publishing`.

    Source:
        Ho et al. 2020, "Denoising Diffusion Probabilistic Models", algorithm 2, with the update
        rule left to the scheduler.

    Examples:
        >>> import diffct
        >>> import torch
        >>> pipeline = diffct.CT3DPipeline.from_pretrained("outputs/ct3d/diffusion/pipeline")
        >>> seed = torch.Generator().manual_seed(7)
        >>> output = pipeline(batch_size=2, num_inference_steps=4, generator=seed)
        >>> output.volumes.shape  # Hounsfield units, (volumes, slices, rows, columns)
        (2, 16, 40, 48)
        >>> paths = output.save("samples")  # NIfTI, and pictures beside it
    """

    unet: UNet3DModel
    vae: AutoencoderKL | None
    modality = "volume"
    model_cpu_offload_seq = "unet->vae"  # type: ignore[assignment]  # diffusers' is None
    # Lists, since diffusers adds lists to them.
    _optional_components: ClassVar[list[str]] = ["vae"]  # type: ignore[misc]  # theirs says no type
    _callback_tensor_inputs: ClassVar[list[str]] = ["latents", "sample"]
    _callback_aliases: ClassVar[Mapping[str, str]] = {"sample": "latents"}
    _output_types: ClassVar[tuple[str, ...]] = get_args(OutputType)

    def __init__(
        self,
        unet: UNet3DModel,
        scheduler: SchedulerMixin,
        vae: ModelMixin | None = None,
        window_hu: list[float] = [-1000.0, 1000.0],  # noqa: B006 - diffusers checks for lists
        spacing_mm: list[float] = [1.0, 1.0, 1.0],  # noqa: B006
        size: list[int] | None = None,
        prediction_type: str | None = None,
        training: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        check_spacing_mm(spacing_mm, "depth, height, width")
        if len(window_hu) != 2 or not -math.inf < window_hu[0] < window_hu[1] < math.inf:
            raise ValueError(f"window_hu is {list(window_hu)}; give two HU, low before high.")
        # Latents are not bounded by -1 and 1 as voxels are, so they must not be clipped.
        settings = {} if vae is None else {"clip_sample": False}
        scheduler, prediction_type = self._own_scheduler(scheduler, prediction_type, **settings)
        self.register_modules(unet=unet, scheduler=scheduler, vae=vae)
        self.register_to_config(
            window_hu=[float(bound) for bound in window_hu],
            spacing_mm=[float(length) for length in spacing_mm],
            size=None if size is None else [int(length) for length in size],
            prediction_type=prediction_type,
            training=training,
        )

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **components: object) -> Self:
        """Make a pipeline of another one's components, as `DiffusionPipeline.from_pipe` does.

        Args:
            pipeline: The pipeline whose components are taken.
            components: What to replace: components, entries of the config, `torch_dtype`.

        Returns:
            The pipeline; both share the networks.
        """
        if isinstance(pipeline, CT3DPipeline):
            # diffusers passes on components of exactly the signature's classes; a vae has any.
            components = {"vae": pipeline.vae} | components
        return super().from_pipe(pipeline, **components)

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int = 1,
        *,
        size: Sequence[int] | None = None,
        num_inference_steps: int = 50,
        timesteps: Sequence[int] | None = None,
        sigmas: Sequence[float] | None = None,
        class_labels: int | Sequence[int] | Tensor | None = None,
        eta: float = 0.0,
        generator: Generators = None,
        latents: Tensor | None = None,
        sample: Tensor | None = None,
        output_type: OutputType = "np",
        return_dict: bool = True,
        callback_on_step_end: Callable[..., dict[str, Tensor]] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents", "sample"),
    ) -> CT3DPipelineOutput | tuple:
        """Sample volumes.

        Args:
            batch_size: Number of volumes.
            size: Voxels (D, H, W); None for the training size. The spacing stays the same.
            num_inference_steps: Denoising steps.
            timesteps: Descending timesteps to use instead, if the scheduler accepts them.
            sigmas: Noise levels to use instead, descending to 0, if the scheduler accepts them.
            class_labels: One class, or one per volume, for a class-conditional network.
            eta: η of DDIM, 0 to 1; for schedulers that have it.
            generator: Source of the noise, one or one per volume; None for torch's global one.
            latents: Initial standard normal noise, (batch, channels, depth, height, width) in the
                network's resolution. Without `size`, it determines the size of the volumes.
            sample: Former name of `latents`.
            output_type: "np" for an array, "pt" for a tensor on the pipeline's device, both in
                Hounsfield units; "latent" for the result of the last step, before decoding,
                (batch, channels, depth, height, width).
            return_dict: Return a `CT3DPipelineOutput`, not a tuple of its first field.
            callback_on_step_end: Called as (pipeline, step, timestep, tensors) after each step; the
                tensors it returns replace those of the call.
            callback_on_step_end_tensor_inputs: Under which names the callback gets x_t: "latents",
                or the former "sample".

        Returns:
            Volumes in Hounsfield units, with their affine and spacing.

        Raises:
            ValueError: The scheduler does not fit the network, no size is known, or an argument
                does not fit.
        """
        # 1. check
        steps = Steps.from_arguments(num_inference_steps, timesteps=timesteps, sigmas=sigmas)
        tensor_names = self._check_call(
            steps,
            counts={"batch_size": batch_size},
            eta=eta,
            output_type=output_type,
            callback=callback_on_step_end,
            tensor_names=callback_on_step_end_tensor_inputs,
        )
        if latents is not None and sample is not None:
            raise ValueError("Give latents or sample, not both: they are the same argument.")
        latents = sample if latents is None else latents
        size = self._size(size, latents)
        labels = self._class_labels(class_labels, batch_size)

        # 2. noise
        noise = self._noise(batch_size, self._latent_size(size), given=latents, generator=generator)

        # 3. denoise; the state stays in float32, also if the network computes in half precision
        def predict(step: int, timestep: Tensor, state: State) -> Tensor:
            scaled = self.scheduler.scale_model_input(state["latents"], timestep)
            scaled = scaled.to(self.unet.dtype)
            return self.unet(scaled, timestep, class_labels=labels).sample.float()

        denoised = self._denoise(
            {"latents": noise},
            predict,
            steps=steps,
            options=step_options(self.scheduler, generator=generator, eta=eta),
            callback=callback_on_step_end,
            tensor_names=tensor_names,
        )

        # 4. decode, to Hounsfield units
        volumes = denoised
        if output_type != "latent":
            volumes = self._decode(denoised, size, generator)
        self.maybe_free_model_hooks()

        shown: Tensor | np.ndarray = volumes.cpu().numpy() if output_type == "np" else volumes
        if not return_dict:
            return (shown,)
        spacing_mm = tuple(self.config.spacing_mm)
        return CT3DPipelineOutput(
            volumes=shown, affine=canonical_affine(size, spacing_mm), spacing_mm=spacing_mm
        )

    def sample_many(
        self,
        seeds: Sequence[int],
        *,
        conditions: None = None,
        batch_size: int = 1,
        steps: int = 50,
        size: Sequence[int] | None = None,
        class_label: int | None = None,
    ) -> Iterator[tuple[range, CT3DPipelineOutput]]:
        """Sample a volume for each seed, see `DenoisingPipeline.sample_many`.

        Args:
            seeds: One for each volume.
            conditions: None, since nothing guides volumes.
            batch_size: Number of volumes to sample at once.
            steps: Denoising steps.
            size: Voxels (D, H, W); None for the training size.
            class_label: The class of all volumes, for a class-conditional network.
        """
        for indices in batches(len(seeds), batch_size):
            output = self(
                len(indices),
                size=size,
                num_inference_steps=steps,
                class_labels=class_label,
                generator=seeded(seeds, indices),
            )
            assert isinstance(output, CT3DPipelineOutput)  # as return_dict is True
            yield indices, output

    def denoising(self) -> Denoising:
        """Return the task that the pipeline was trained for: to denoise voxels, or latents."""
        clean = voxels if self.vae is None else LatentSpace(self.vae).encode
        return Denoising(self._training_objective(), clean, unconditional(self.unet))

    def card_summary(self) -> str:
        """Return what the pipeline makes, for the model card."""
        low, high = self.config.window_hu
        size = "×".join(str(length) for length in self.config.size or ())
        spacing = "×".join(f"{length:g}" for length in self.config.spacing_mm)
        parameters = sum(weight.numel() for weight in self.unet.parameters())
        return (
            f"A 3D diffusion model of CT volumes in Hounsfield units ({low:g} to {high:g} HU)."
            f" Its volumes are {size} voxels (slices × rows × columns) of {spacing} mm. The"
            f" network has {parameters:,} parameters and predicts"
            f" {PREDICTIONS.get(self.config.prediction_type, self.config.prediction_type)}."
        )

    def card_usage(self, name: str) -> str:
        """Return how to sample, for the model card."""
        return (
            "import diffct\n\n"
            f'pipeline = diffct.load_pipeline("{name}")\n'
            "output = pipeline(num_inference_steps=50)\n"
            'output.save("samples")  # NIfTI in Hounsfield units, and pictures'
        )

    def _class_labels(
        self, class_labels: int | Sequence[int] | Tensor | None, batch_size: int
    ) -> Tensor | None:
        """Return one class label per volume, (batch,), or None for an unconditional network."""
        classes = self.unet.config.num_class_embeds
        if classes is None:
            if class_labels is not None:
                raise ValueError("This network is unconditional: class_labels must be None.")
            return None
        if class_labels is None:
            raise ValueError(f"This network needs class_labels, integers in [0, {classes}).")
        labels = torch.as_tensor(class_labels, device=self._execution_device).reshape(-1)
        if len(labels) == 1:
            labels = labels.expand(batch_size)
        whole = not labels.is_floating_point() and labels.dtype != torch.bool
        known = whole and len(labels) == batch_size
        if not known or labels.min() < 0 or labels.max() >= classes:
            raise ValueError(
                f"class_labels must be {batch_size} integers in [0, {classes}), got {class_labels}."
            )
        return labels

    def _size(self, size: Sequence[int] | None, latents: Tensor | None) -> tuple[int, int, int]:
        """Return the voxels (D, H, W) of the volumes to sample."""
        usual = self.config.size
        if size is None and isinstance(latents, Tensor) and latents.ndim == 5:
            given = tuple(latents.shape[2:])
            # Unless the training size is a multiple of the factor, its latents decode to more.
            fits = usual is not None and self._latent_size(usual) == given
            size = usual if fits else [length * self._factor() for length in given]
        size = tuple(usual or () if size is None else size)
        if len(size) != 3 or any(int(length) != length or length < 1 for length in size):
            got = size or "none, and the pipeline records no training size"
            raise ValueError(f"size must be three positive integers (D, H, W), got {got}.")
        depth, height, width = (int(length) for length in size)
        return depth, height, width

    def _latent_size(self, size: Sequence[int]) -> tuple[int, ...]:
        """Return the size that the network works at, large enough to decode to `size`."""
        return tuple(-(-length // self._factor()) for length in size)

    def _factor(self) -> int:
        """Return voxels per latent along each axis."""
        return 1 if self.vae is None else 2 ** (len(self.vae.config.block_out_channels) - 1)

    def _decode(self, sample: Tensor, size: Sequence[int], generator: Generators) -> Tensor:
        """Decode the network's result to Hounsfield units, (batch, D, H, W)."""
        if self.vae is not None:
            latents = sample.to(self.vae.dtype) / self.vae.config.scaling_factor
            options = accepted_options(self.vae.decode, generator=generator)
            sample = self.vae.decode(latents, **options).sample.float()
            sample = sample[..., : size[0], : size[1], : size[2]]
        return to_hounsfield(sample.clamp(-1, 1), self.config.window_hu).squeeze(1)
