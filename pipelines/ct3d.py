"""Unconditional or class-conditional 3D CT by diffusion."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import torch
from diffusers import SchedulerMixin
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from diffct.data.transforms import to_hounsfield
from diffct.data.volume import canonical_affine
from diffct.models import UNet3DModel
from diffct.pipelines.outputs import CT3DPipelineOutput
from diffct.pipelines.publishing import PublishedPipeline
from diffct.pipelines.schedulers import (
    PREDICTIONS,
    check_prediction_type,
    read_prediction_type,
    step_options,
)


class CT3DPipeline(PublishedPipeline):
    """Sample CT volumes in Hounsfield units.

    Args:
        unet: The denoiser.
        scheduler: Any diffusers scheduler of the prediction type the network was trained for.
        vae: Decoder of a latent model: `decode(latents).sample`, with `scaling_factor` and
            `block_out_channels` in its config. None for a model in voxel space.
        window_hu: The Hounsfield units that -1 and 1 stand for.
        spacing_mm: Voxel size (d, h, w) of the training volumes.
        size: Voxels (D, H, W) of the training volumes, the default size of samples.
        prediction_type: What the network predicts; None for what `scheduler` says.
        training: Facts for the model card, see `diffct.pipelines.publishing`.

    Source:
        Ho et al. 2020, "Denoising Diffusion Probabilistic Models", algorithm 2, with the update
        rule left to the scheduler.
    """

    model_cpu_offload_seq = "unet->vae"
    # Lists, since diffusers adds lists to them.
    _optional_components: ClassVar[list[str]] = ["vae"]
    _callback_tensor_inputs: ClassVar[list[str]] = ["sample"]

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
        self.register_modules(unet=unet, scheduler=scheduler, vae=vae)
        self.register_to_config(
            window_hu=[float(bound) for bound in window_hu],
            spacing_mm=[float(length) for length in spacing_mm],
            size=None if size is None else [int(length) for length in size],
            prediction_type=prediction_type or read_prediction_type(scheduler),
            training=training,
        )

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int = 1,
        *,
        size: Sequence[int] | None = None,
        num_inference_steps: int = 50,
        class_labels: int | Sequence[int] | Tensor | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        sample: Tensor | None = None,
        output_type: Literal["np", "pt"] = "np",
        return_dict: bool = True,
        callback_on_step_end: Callable[..., dict[str, Tensor]] | None = None,
    ) -> CT3DPipelineOutput | tuple:
        """Sample volumes.

        Args:
            batch_size: How many volumes.
            size: Voxels (D, H, W); None for the training size. The spacing stays the same.
            num_inference_steps: Denoising steps.
            class_labels: One class, or one per volume, for a class-conditional network.
            generator: Source of the noise, one or one per volume; None for torch's global one.
            sample: Initial noise, (batch, channels, depth, height, width), instead of `size`.
            output_type: "np" for an array, "pt" for a tensor on the pipeline's device.
            return_dict: Return a `CT3DPipelineOutput`, not a tuple of its first field.
            callback_on_step_end: Called as (pipeline, step, timestep, {"sample": x_t}) after each
                step; what it returns under "sample" goes on.

        Returns:
            Volumes in Hounsfield units, with their affine and spacing.

        Raises:
            ValueError: The scheduler does not fit the network, no size is known, or the class
                labels do not fit.
        """
        # 1. check
        check_prediction_type(self.scheduler, self.config.prediction_type)
        size = tuple(size or self.config.size or ())
        if len(size) != 3 or any(int(length) != length or length < 1 for length in size):
            raise ValueError(f"size must be three positive integers (D, H, W), got {size}.")
        labels = self._class_labels(class_labels, batch_size)

        # 2. noise
        device = self._execution_device
        if sample is None:
            shape = (batch_size, self.unet.config.in_channels, *self._latent_size(size))
            sample = randn_tensor(shape, generator=generator, device=device, dtype=torch.float32)
        sample = sample.to(device=device, dtype=torch.float32)
        self.scheduler.set_timesteps(num_inference_steps, device=device)
        sample = sample * self.scheduler.init_noise_sigma

        # 3. denoise; the state stays in float32 whatever the network computes in
        options = step_options(self.scheduler, generator=generator)
        for step, timestep in enumerate(self.progress_bar(self.scheduler.timesteps)):
            scaled = self.scheduler.scale_model_input(sample, timestep).to(self.unet.dtype)
            prediction = self.unet(scaled, timestep, class_labels=labels).sample.float()
            sample = self.scheduler.step(prediction, timestep, sample, **options).prev_sample
            if callback_on_step_end is not None:
                returned = callback_on_step_end(self, step, timestep, {"sample": sample})
                sample = (returned or {}).get("sample", sample)

        # 4. decode, to Hounsfield units
        if self.vae is not None:
            latents = sample.to(self.vae.dtype) / self.vae.config.scaling_factor
            sample = self.vae.decode(latents).sample.float()[..., : size[0], : size[1], : size[2]]
        volumes = to_hounsfield(sample.clamp(-1, 1), self.config.window_hu).squeeze(1)
        self.maybe_free_model_hooks()

        if output_type == "np":
            volumes = volumes.cpu().numpy()
        if not return_dict:
            return (volumes,)
        spacing_mm = tuple(self.config.spacing_mm)
        affine = canonical_affine(tuple(volumes.shape[1:]), spacing_mm)
        return CT3DPipelineOutput(volumes=volumes, affine=affine, spacing_mm=spacing_mm)

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
        if len(labels) != batch_size or labels.min() < 0 or labels.max() >= classes:
            raise ValueError(
                f"class_labels must be {batch_size} integers in [0, {classes}), got {class_labels}."
            )
        return labels

    def _latent_size(self, size: Sequence[int]) -> tuple[int, ...]:
        """Return the size that the network works at, large enough to decode to `size`."""
        if self.vae is None:
            return tuple(size)
        factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
        return tuple(-(-length // factor) for length in size)
