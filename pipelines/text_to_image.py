"""Gray images from text, by latent diffusion."""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import torch
from diffusers import AutoencoderKL, SchedulerMixin, UNet2DConditionModel
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from diffct.models.latent_space import LatentSpace
from diffct.models.text_conditioned import TextConditionedUNet
from diffct.pipelines.denoising import Modality, batches, seeded
from diffct.pipelines.latent_diffusion import LatentDiffusionPipeline, OutputType
from diffct.pipelines.outputs import TextToImagePipelineOutput
from diffct.pipelines.schedulers import PREDICTIONS, Steps, step_options
from diffct.training.denoising import Denoising, by_prompt
from diffct.training.steps import Batch


class TextToImagePipeline(LatentDiffusionPipeline):
    """Sample gray images that show what a prompt says.

    Its arguments are named as in diffusers' `StableDiffusionPipeline`, which takes the same
    components.

    Args:
        vae: The autoencoder; the channels of one that decodes to colours are averaged.
        text_encoder: Any text encoder of transformers, see `diffct.models.text_encoding`.
        tokenizer: Its tokenizer.
        unet: The denoiser of latents.
        scheduler: Any diffusers scheduler of the prediction type the network was trained for.
        prediction_type: What the network predicts; None for the `scheduler`'s entry.
        prompt: The one prompt of all training images, which a call without a prompt uses; None
            if each image had a prompt of its own.
        training: Facts for the model card, see `diffct.pipelines.publishing`; its entry "images"
            says what the images show.

    Raises:
        ValueError: The components do not fit each other.

    Examples:
        >>> import diffct
        >>> pipeline = diffct.TextToImagePipeline.from_pretrained("outputs/cxr/diffusion/pipeline")
        >>> output = pipeline(["A large heart.", ""], num_inference_steps=4)
        >>> len(output.images), output.images[0].mode
        (2, 'L')
    """

    modality: ClassVar[Modality] = "image"
    guided_by = "prompt"
    card_task = "text-to-image"
    card_example: ClassVar[str] = ""
    """A prompt for the model card."""

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        unet: UNet2DConditionModel,
        scheduler: SchedulerMixin,
        prediction_type: str | None = None,
        prompt: str | None = None,
        training: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.register_to_config(prompt=prompt)
        components = {
            "vae": vae,
            "text_encoder": text_encoder,
            "tokenizer": tokenizer,
            "unet": unet,
            "scheduler": scheduler,
        }
        self._register(components, prediction_type=prediction_type, training=training)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str] | None = None,
        *,
        negative_prompt: str | Sequence[str] | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 50,
        timesteps: Sequence[int] | None = None,
        sigmas: Sequence[float] | None = None,
        guidance_scale: float = 7.0,
        guidance_rescale: float = 0.0,
        num_images_per_prompt: int = 1,
        eta: float = 0.0,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        output_type: OutputType = "pil",
        return_dict: bool = True,
        cross_attention_kwargs: dict[str, Any] | None = None,
        clip_skip: int | None = None,
        callback_on_step_end: Callable[..., dict[str, Tensor]] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> TextToImagePipelineOutput | tuple:
        """Sample images.

        Args:
            prompt: What the images show, in the words of the training texts; "" for any image.
                None for the training prompt, if there was only one.
            negative_prompt: What they must not show, one text or one for each prompt.
            height: In pixels; None for the training height.
            width: In pixels; None for the training width.
            num_inference_steps: Denoising steps.
            timesteps: Descending timesteps to use instead, if the scheduler accepts them.
            sigmas: Noise levels to use instead, descending to 0, if the scheduler accepts them.
            guidance_scale: How much to follow the prompt; 1 or less turns guidance off.
            guidance_rescale: How much of the contrast that guidance adds is removed, 0 to 1 (Lin
                et al. 2024, "Common Diffusion Noise Schedules and Sample Steps are Flawed").
            num_images_per_prompt: Images of each prompt; they follow each other.
            eta: η of DDIM, 0 to 1; for schedulers that have it.
            generator: Source of the noise, one or one per image; None for torch's global one.
            latents: Initial noise, (images, channels, latent height, latent width).
            prompt_embeds: Instead of `prompt`, (prompts, tokens, width).
            negative_prompt_embeds: Instead of `negative_prompt`, of the same shape.
            output_type: "pil" for 8-bit pictures, "np" for an array (images, height, width, 1) and
                "pt" for a tensor (images, 1, height, width) in [0, 1], "uint16" for an array
                (images, height, width) in [0, 65535], "latent" for latents.
            return_dict: Return a `TextToImagePipelineOutput`, not a tuple of its field.
            cross_attention_kwargs: For the attention processors; {"scale": s} weakens a LoRA.
            clip_skip: How many of the text encoder's last layers to skip; None for none.
            callback_on_step_end: Called as (pipeline, step, timestep, tensors) after each step;
                the tensors it returns replace those of the call.
            callback_on_step_end_tensor_inputs: Which of "latents", "prompt_embeds" (with those of
                the negative prompt before them) and "negative_prompt_embeds" the callback gets.

        Returns:
            The images.

        Raises:
            ValueError: An argument, or a component, does not fit.
        """
        # 1. check
        steps = Steps.from_arguments(num_inference_steps, timesteps=timesteps, sigmas=sigmas)
        tensor_names = self._start_call(
            steps,
            guidance_scale=guidance_scale,
            guidance_rescale=guidance_rescale,
            clip_skip=clip_skip,
            cross_attention_kwargs=cross_attention_kwargs,
            counts={"num_images_per_prompt": num_images_per_prompt},
            eta=eta,
            output_type=output_type,
            callback=callback_on_step_end,
            tensor_names=callback_on_step_end_tensor_inputs,
        )
        size = self._latent_size(height, width)

        # 2. embed the prompts, negative prompts first
        prompt = self.config.prompt if prompt is None and prompt_embeds is None else prompt
        state, images = self._embed_for_call(
            prompt,
            negative_prompt,
            prompt_embeds,
            negative_prompt_embeds,
            repeats=num_images_per_prompt,
        )

        # 3. noise
        state["latents"] = self._noise(images, size, given=latents, generator=generator)

        # 4. denoise
        latents = self._denoise(
            state,
            lambda step, timestep, state: self._guide(timestep, state),
            steps=steps,
            options=step_options(self.scheduler, generator=generator, eta=eta),
            callback=callback_on_step_end,
            tensor_names=tensor_names,
        )

        # 5. decode
        sampled = latents
        if output_type != "latent":
            sampled = self._as_output(self._decode(latents, generator), output_type)
        self.maybe_free_model_hooks()
        output = TextToImagePipelineOutput(images=sampled)
        return output if return_dict else output.to_tuple()

    def sample_many(
        self,
        seeds: Sequence[int],
        *,
        conditions: Sequence[str] | None = None,
        batch_size: int = 1,
        steps: int = 50,
        guidance_scale: float | None = None,
        negative_prompt: str | None = None,
        height: int | None = None,
        width: int | None = None,
    ) -> Iterator[tuple[range, TextToImagePipelineOutput]]:
        """Sample an image for each seed, see `DenoisingPipeline.sample_many`.

        Args:
            seeds: One for each image.
            conditions: The prompt of each; None for the empty prompt.
            batch_size: Number of images to sample at once.
            steps: Denoising steps.
            guidance_scale: How much to follow the prompts; None for the call's default.
            negative_prompt: What the images must not show.
            height: In pixels; None for the training height.
            width: In pixels; None for the training width.
        """
        prompts = [""] * len(seeds) if conditions is None else conditions
        scale: dict[str, Any] = {} if guidance_scale is None else {"guidance_scale": guidance_scale}
        for indices in batches(len(seeds), batch_size):
            output = self(
                [prompts[index] for index in indices],
                negative_prompt=negative_prompt,
                height=height,
                width=width,
                num_inference_steps=steps,
                generator=seeded(seeds, indices),
                output_type="np",
                **scale,
            )
            assert isinstance(output, TextToImagePipelineOutput)  # as return_dict is True
            yield indices, output

    @torch.no_grad()
    def denoising(self) -> Denoising:
        """Return the task that the pipeline was trained for: to denoise latents by prompts."""
        return Denoising(
            self._training_objective(),
            LatentSpace(self.vae).encode,
            by_prompt(TextConditionedUNet(self.unet)),
        )

    @torch.no_grad()
    def condition_batch(self, condition: str | Tensor | None) -> Batch:
        """Return the embedded prompt of one image; None for the empty prompt."""
        assert not isinstance(condition, Tensor)  # since a prompt guides
        embeds, _ = self.encode_prompt(condition or "", do_classifier_free_guidance=False)
        return {"prompt_embeds": embeds}

    def card_subject(self) -> tuple[str, str]:
        """Return what the images show and what the prompts are, for the model card."""
        shown = (self.config.training or {}).get("images")
        return f"gray images of {shown}" if shown else "gray images", "text"

    def card_summary(self) -> str:
        """Return what the pipeline makes, for the model card."""
        height, width = (length * self.vae_scale_factor for length in self._latent_size())
        vae, text, unet = self._parameters("vae", "text_encoder", "unet")
        predicted = PREDICTIONS.get(self.config.prediction_type, self.config.prediction_type)
        images, prompts = self.card_subject()
        return (
            f"A latent diffusion model of {images}, {height}×{width} pixels, one channel,"
            f" from {prompts}. The denoiser has"
            f" {unet} parameters and predicts {predicted}, the autoencoder has {vae}, the text"
            f" encoder ({type(self.text_encoder).__name__}, at most"
            f" {self.tokenizer.model_max_length} tokens) {text}."
        )

    def card_usage(self, name: str) -> str:
        """Return how to sample, for the model card."""
        prompt = json.dumps(self.config.prompt or self.card_example, ensure_ascii=False)
        return (
            "import diffct\n\n"
            f'pipeline = diffct.load_pipeline("{name}")\n'
            f'output = pipeline({prompt}, output_type="uint16")\n'
            'output.save("samples")  # 16-bit PNG\n\n'
            "# Without diffct, diffusers alone samples 8-bit pictures:\n"
            f'# diffusers.StableDiffusionPipeline.from_pretrained("{name}", safety_checker=None,\n'
            "#     requires_safety_checker=False)"
        )
