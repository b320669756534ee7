"""The translation of one MR contrast into another by a ControlNet on a latent diffusion model."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from diffusers import AutoencoderKL, ControlNetModel, SchedulerMixin, UNet2DConditionModel
from diffusers.models import MultiControlNetModel
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from diffct.imaging.volume import check_spacing_mm
from diffct.models.latent_space import LatentSpace
from diffct.pipelines.conditions.controlnets import (
    ControlNets,
    ControlSpan,
    check_controlnets,
    condition_channels,
    control_spans,
    controlnets_of,
    images_per_prompt,
    results_per_image,
    run_controlnets,
    warn_of_other_base,
)
from diffct.pipelines.conditions.images import (
    ImageLike,
    crop_images,
    pad_ends,
    read_condition_images,
    read_conditions,
)
from diffct.pipelines.denoising import State, batches, seeded
from diffct.pipelines.latent_diffusion import LatentDiffusionPipeline, OutputType
from diffct.pipelines.outputs import ContrastTranslationPipelineOutput, mean_and_std
from diffct.pipelines.schedulers import PREDICTIONS, Steps, step_options
from diffct.pipelines.volume_translation import translate_volume
from diffct.training.denoising import Denoising, by_image
from diffct.training.steps import Batch


class ContrastTranslationPipeline(LatentDiffusionPipeline):
    """Translate images into another contrast: slices by a call, scans by `translate_volume`.

    Components and arguments are those of diffusers' `StableDiffusionControlNetPipeline`.

    Args:
        vae: The autoencoder; the channels of one that decodes to colours are averaged.
        text_encoder: Any text encoder of transformers, see `diffct.models.text_encoding`.
        tokenizer: Its tokenizer.
        unet: The denoiser of latents.
        controlnet: Steers the denoiser by condition images; the outputs of several are added.
        scheduler: Any diffusers scheduler of the prediction type the network was trained for.
        prediction_type: What the network predicts; None for the `scheduler`'s entry.
        prompt: The constant prompt of the training; None for `usual_prompt`.
        conditions: Names of the condition images, one for each channel of the ControlNets, in
            their order; None for `usual_condition`, or for numbered names if there are several
            channels. The config holds them as a dictionary from names to channels.
        plane: How scans are cut into slices: "axial", "coronal" or "sagittal".
        spacing_mm: Pixel size (row, column) of the training slices; None if it is not known.
        training: Facts for the model card, see `diffct.pipelines.publishing`; its entry "images"
            says what the images show.

    Raises:
        ValueError: The components do not fit each other.

    Source:
        Zhang et al. 2023, "Adding Conditional Control to Text-to-Image Diffusion Models".

    Examples:
        >>> import diffct
        >>> pipeline = diffct.load_pipeline("outputs/brain/controlnet/pipeline")
        >>> isinstance(pipeline, diffct.ContrastTranslationPipeline), pipeline.conditions
        (True, ['FLAIR'])
    """

    controlnet: ControlNetModel | MultiControlNetModel
    modality = "slice"
    guided_by = "image"
    shows_patients = True
    card_task = "image-to-image"
    usual_prompt: ClassVar[str] = ""  # the prompt if none is given
    usual_condition: ClassVar[str] = "condition"  # the name of a single condition if none is given
    # Lists, since diffusers adds lists to them.
    _callback_tensor_inputs: ClassVar[list[str]] = [
        *LatentDiffusionPipeline._callback_tensor_inputs,
        "image",
    ]

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        unet: UNet2DConditionModel,
        controlnet: ControlNets,
        scheduler: SchedulerMixin,
        prediction_type: str | None = None,
        prompt: str | None = None,
        conditions: Sequence[str] | Mapping[str, int] | None = None,
        plane: str = "axial",
        spacing_mm: list[float] | None = None,
        training: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if spacing_mm is not None:
            check_spacing_mm(spacing_mm, "row, column")
        if isinstance(controlnet, list | tuple):
            controlnet = MultiControlNetModel(controlnet)
        components = {
            "vae": vae,
            "text_encoder": text_encoder,
            "tokenizer": tokenizer,
            "unet": unet,
            "controlnet": controlnet,
            "scheduler": scheduler,
        }
        nets = [] if controlnet is None else controlnets_of(controlnet)
        self.register_to_config(
            prompt=self.usual_prompt if prompt is None else prompt,
            # Not a list: loading from the Hub, diffusers mistakes a list of texts for a component.
            conditions=condition_channels(conditions, nets, only=self.usual_condition),
            plane=plane,
            spacing_mm=None if spacing_mm is None else [float(length) for length in spacing_mm],
        )
        self._register(components, prediction_type=prediction_type, training=training)
        warn_of_other_base(nets, unet)

    @property
    def conditions(self) -> list[str]:
        """Names of the condition images, in the order of the ControlNets' channels."""
        return list(self.config.conditions)

    @torch.no_grad()
    def __call__(
        self,
        image: ImageLike | Mapping[str, ImageLike | None],
        *,
        prompt: str | Sequence[str] | None = None,
        negative_prompt: str | Sequence[str] | None = None,
        slice_index: int | Sequence[int] | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 50,
        timesteps: Sequence[int] | None = None,
        sigmas: Sequence[float] | None = None,
        guidance_scale: float = 1.0,
        num_images_per_prompt: int = 1,
        num_samples: int = 1,
        eta: float = 0.0,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        output_type: OutputType = "pil",
        return_dict: bool = True,
        cross_attention_kwargs: dict[str, Any] | None = None,
        controlnet_conditioning_scale: float | Sequence[float] = 1.0,
        control_guidance_start: float | Sequence[float] = 0.0,
        control_guidance_end: float | Sequence[float] = 1.0,
        clip_skip: int | None = None,
        callback_on_step_end: Callable[..., dict[str, Tensor]] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> ContrastTranslationPipelineOutput | tuple:
        """Translate slices.

        Args:
            image: What to translate, with values in [0, 1] and background 0, of any size:
                an array (H, W), (images, H, W) or (images, H, W, channels); a tensor (H, W),
                (channels, H, W) or (images, channels, H, W); a gray picture of 8 or 16 bits; a list
                of these; or a NIfTI file or `Volume`, which is turned to the plane and normalised.
                For several ControlNets a list with an image for each, or, as in diffusers, a list
                of such lists, one for each image. For several conditions also a dictionary
                {"FLAIR": image, "T2w": image or None}; a missing image counts as 0.
            prompt: What the result shows; None for the training prompt.
            negative_prompt: What it does not show, one text or one for each prompt.
            slice_index: Which slices of scans, from 0; None for the middle one.
            height: Pad the images to this height, in pixels; None for the next valid one.
            width: Likewise. The result always has the size of the images.
            num_inference_steps: Denoising steps.
            timesteps: Descending timesteps to use instead, if the scheduler accepts them.
            sigmas: Noise levels to use instead, descending to 0, if the scheduler accepts them.
            guidance_scale: How much to follow the prompt; 1 or less turns guidance off. If all
                slices were learnt with one prompt, guidance adds little and doubles the time.
            num_images_per_prompt: Results for each image; they follow each other.
            num_samples: 2 or more return the mean and standard deviation of that many results.
            eta: η of DDIM, 0 to 1; for schedulers that have it.
            generator: Source of the noise, one or one per result; None for torch's global one.
            latents: Initial noise, (results, channels, latent height, latent width).
            prompt_embeds: Instead of `prompt`, (prompts, tokens, width).
            negative_prompt_embeds: Instead of `negative_prompt`, of the same shape.
            output_type: "pil" for 8-bit pictures, "np" for an array (results, height, width, 1)
                and "pt" for a tensor (results, 1, height, width) in [0, 1], "uint16" for an array
                (results, height, width) in [0, 65535], "latent" for latents of the padded size.
            return_dict: Return a `ContrastTranslationPipelineOutput`, not a tuple of its fields.
            cross_attention_kwargs: For the attention processors; {"scale": s} weakens a LoRA.
            controlnet_conditioning_scale: Weight of the ControlNet, one or one for each.
            control_guidance_start: Fraction of the steps at which it begins, likewise.
            control_guidance_end: Fraction of the steps at which it ends, likewise.
            clip_skip: How many of the text encoder's last layers to skip; None for none.
            callback_on_step_end: Called as (pipeline, step, timestep, tensors) after each step;
                the tensors it returns replace those of the call.
            callback_on_step_end_tensor_inputs: Which of "latents", "prompt_embeds" (with those of
                the negative prompt before them), "negative_prompt_embeds" and "image" (the padded
                condition images, one per result) the callback gets.

        Returns:
            The results, and with `num_samples` their standard deviation.

        Raises:
            ValueError: An argument, or a component, does not fit.
        """
        # 1. check
        steps = Steps.from_arguments(num_inference_steps, timesteps=timesteps, sigmas=sigmas)
        tensor_names = self._start_call(
            steps,
            guidance_scale=guidance_scale,
            clip_skip=clip_skip,
            cross_attention_kwargs=cross_attention_kwargs,
            counts={"num_images_per_prompt": num_images_per_prompt, "num_samples": num_samples},
            eta=eta,
            output_type=output_type,
            callback=callback_on_step_end,
            tensor_names=callback_on_step_end_tensor_inputs,
        )
        spans = control_spans(
            len(controlnets_of(self.controlnet)),
            scale=controlnet_conditioning_scale,
            start=control_guidance_start,
            end=control_guidance_end,
        )
        each = results_per_image(num_images_per_prompt, num_samples, output_type)

        # 2. read the condition images and pad them
        images = self._read(image, slice_index)
        size = tuple(images.shape[-2:])
        _, multiple = self.window()
        images = pad_ends(images, (height, width), multiple=multiple, factor=self.vae_scale_factor)

        # 3. embed the prompts, negative prompts first
        prompt = self.config.prompt if prompt is None and prompt_embeds is None else prompt
        state, results = self._embed_for_call(
            prompt,
            negative_prompt,
            prompt_embeds,
            negative_prompt_embeds,
            repeats=each * images_per_prompt(len(images), prompt, prompt_embeds),
        )
        images = images.repeat_interleave(results // len(images), dim=0)
        state["image"] = images.to(device=self._execution_device, dtype=self.controlnet.dtype)

        # 4. noise
        _, *shape = self.latent_shape(images.shape[-2:])
        state["latents"] = self._noise(results, shape, given=latents, generator=generator)

        # 5. denoise
        latents = self._denoise(
            state,
            lambda step, timestep, state: self._predict(step, timestep, state, spans),
            steps=steps,
            options=step_options(self.scheduler, generator=generator, eta=eta),
            callback=callback_on_step_end,
            tensor_names=tensor_names,
        )

        # 6. decode
        output = ContrastTranslationPipelineOutput(images=latents)
        if output_type != "latent":
            decoded = crop_images(self._decode(latents, generator), size)
            mean, std = mean_and_std(decoded, num_samples, output_type)
            output = ContrastTranslationPipelineOutput(self._as_output(mean, output_type), std)
        self.maybe_free_model_hooks()
        return output if return_dict else output.to_tuple()

    translate_volume = translate_volume  # a function whose first argument is the pipeline
    read_conditions = read_conditions  # likewise

    def sample_many(
        self,
        seeds: Sequence[int],
        *,
        conditions: Sequence[Tensor] | None = None,
        batch_size: int = 1,
        steps: int = 50,
        guidance_scale: float = 1.0,
        conditioning_scale: float = 1.0,
    ) -> Iterator[tuple[range, ContrastTranslationPipelineOutput]]:
        """Translate a slice for each seed, see `DenoisingPipeline.sample_many`.

        Args:
            seeds: One for each slice.
            conditions: The condition images of each, (C, H, W) in [0, 1], all of one size.
            batch_size: Number of slices to translate at once.
            steps: Denoising steps.
            guidance_scale: How much to follow the prompt.
            conditioning_scale: How much to follow the condition images.
        """
        if conditions is None:
            raise ValueError("A translation needs conditions: the images to be translated.")
        for indices in batches(len(seeds), batch_size, description="translating"):
            output = self(
                torch.stack([conditions[index] for index in indices]),
                num_inference_steps=steps,
                guidance_scale=guidance_scale,
                controlnet_conditioning_scale=conditioning_scale,
                generator=seeded(seeds, indices),
                output_type="np",
            )
            assert isinstance(output, ContrastTranslationPipelineOutput)  # as return_dict is True
            yield indices, output

    @torch.no_grad()
    def denoising(self) -> Denoising:
        """Return the task that the pipeline was trained for: latents, by condition images."""
        embeds = [
            self.encode_prompt(prompt, do_classifier_free_guidance=False)[0]
            for prompt in ("", self.config.prompt)
        ]
        condition = by_image(self.unet, self.controlnet, torch.cat(embeds))
        return Denoising(self._training_objective(), LatentSpace(self.vae).encode, condition)

    @torch.no_grad()
    def condition_batch(self, condition: str | Tensor | None) -> Batch:
        """Return the condition images of one slice, (C, H, W) in [0, 1], as a batch."""
        if not isinstance(condition, Tensor):
            raise ValueError("A translation needs the images to be translated.")
        return {"condition": condition[None].to(self._execution_device)}

    def card_summary(self) -> str:
        """Return what the pipeline makes, for the model card."""
        vae, text, unet, control = self._parameters("vae", "text_encoder", "unet", "controlnet")
        predicted = PREDICTIONS.get(self.config.prediction_type, self.config.prediction_type)
        usual, _ = self.window()
        size = f", {usual[0]}×{usual[1]} pixels" if usual else ""
        spacing = self.config.spacing_mm
        size += f" of {spacing[0]:g}×{spacing[1]:g} mm" if spacing else ""
        shown = (self.config.training or {}).get("images")
        return (
            f"A ControlNet that translates {' + '.join(self.conditions)} into what"
            f' "{self.config.prompt}" says{f" ({shown})" if shown else ""}, by latent diffusion, in'
            f" {self.config.plane} slices{size}, one channel. Images of other sizes are padded. The"
            f" ControlNet has {control} parameters; the denoiser has {unet} and predicts"
            f" {predicted}, the autoencoder has {vae}, the text encoder"
            f" ({type(self.text_encoder).__name__}) {text}."
        )

    def card_usage(self, name: str) -> str:
        """Return how to translate, for the model card."""
        files = {condition: f"{condition}.nii.gz" for condition in self.conditions}
        scan = json.dumps(files if len(files) > 1 else next(iter(files.values())))
        return (
            "import diffct\n\n"
            f'pipeline = diffct.load_pipeline("{name}")\n'
            f"scan = {scan}\n"
            'pipeline.translate_volume(scan, out="translated.nii.gz")  # synthetic\n'
            "slices = pipeline(scan, slice_index=[80, 90]).images"
        )

    def _check_fit(self) -> None:
        """Raise a ValueError unless the components that are not None fit each other."""
        super()._check_fit()
        if self.controlnet is not None:
            nets = controlnets_of(self.controlnet)
            check_controlnets(nets, unet=self.unet, vae=self.vae, conditions=self.conditions)

    def _read(
        self,
        image: ImageLike | Mapping[str, ImageLike | None],
        slice_index: int | Sequence[int] | None,
    ) -> Tensor:
        """Read condition images, (images, conditions, H, W) in [0, 1]."""
        return read_condition_images(
            image,
            channels=[net.config.conditioning_channels for net in controlnets_of(self.controlnet)],
            conditions=self.conditions,
            plane=self.config.plane,
            slice_index=slice_index,
        )

    def _predict(
        self, step: int, timestep: Tensor, state: State, spans: Sequence[ControlSpan]
    ) -> Tensor:
        """Run the networks, (results, channels, h, w) in float32."""
        scales = [span.at(step, len(self.scheduler.timesteps)) for span in spans]
        if not any(scales):
            return self._guide(timestep, state)
        image = state["image"]
        image = torch.cat([image] * 2) if self.do_classifier_free_guidance else image
        control = partial(
            run_controlnets,
            self.controlnet,
            timestep=timestep,
            prompt_embeds=state["prompt_embeds"],
            image=image,
            scales=scales,
            dtype=self.unet.dtype,
        )
        return self._guide(timestep, state, control)
