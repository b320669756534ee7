"""Chest radiographs from sentences of a radiology report, by latent diffusion."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import torch
from diffusers import AutoencoderKL, SchedulerMixin, UNet2DConditionModel
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.image_processor import VaeImageProcessor
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from diffusers.pipelines.pipeline_utils import StableDiffusionMixin
from diffusers.utils import scale_lora_layers, unscale_lora_layers
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from diffct.models.text_encoding import embed, tokenize
from diffct.pipelines.checks import check_components, check_prompt, latent_size
from diffct.pipelines.outputs import CXRTextToImagePipelineOutput
from diffct.pipelines.publishing import PublishedPipeline
from diffct.pipelines.schedulers import (
    PREDICTIONS,
    check_prediction_type,
    read_prediction_type,
    step_options,
)

OutputType = Literal["pil", "np", "pt", "uint16", "latent"]


class CXRTextToImagePipeline(
    PublishedPipeline, StableDiffusionMixin, StableDiffusionLoraLoaderMixin
):
    """Sample radiographs that show what a prompt says.

    It speaks the vocabulary of diffusers' `StableDiffusionPipeline`, which takes the same
    components. Films have one channel, bright where the body is dense, with the patient's left on
    the viewer's right.

    Args:
        vae: The autoencoder; one that decodes to colours is averaged to gray.
        text_encoder: Any text encoder of transformers, see `diffct.models.text_encoding`.
        tokenizer: Its tokenizer.
        unet: The denoiser of latents.
        scheduler: Any diffusers scheduler of the prediction type the network was trained for.
        prediction_type: What the network predicts; None for what `scheduler` says.
        training: Facts for the model card, see `diffct.pipelines.publishing`.

    Raises:
        ValueError: The components do not fit each other.

    Source:
        Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models"; Ho &
        Salimans 2022, "Classifier-Free Diffusion Guidance", equation 6 with w = scale - 1.
    """

    model_cpu_offload_seq = "text_encoder->unet->vae"
    card_task = "text-to-image"
    # Lists, since diffusers adds lists to them.
    _callback_tensor_inputs: ClassVar[list[str]] = [
        "latents",
        "prompt_embeds",
        "negative_prompt_embeds",
    ]

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        unet: UNet2DConditionModel,
        scheduler: SchedulerMixin,
        prediction_type: str | None = None,
        training: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(
            vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler
        )
        # diffusers makes pipelines without some components, e.g. to embed prompts only.
        if scheduler is not None:
            prediction_type = prediction_type or read_prediction_type(scheduler)
            # As the stock pipeline has it: latents are no pixels, their bounds are not -1 and 1.
            # Schedulers made from this one's config inherit it.
            scheduler.register_to_config(clip_sample=False, steps_offset=1)
        self.register_to_config(prediction_type=prediction_type, training=training)
        check_components(vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet)
        self.vae_scale_factor = 2 ** (len(vae.config.block_out_channels) - 1) if vae else 8
        self.image_processor = VaeImageProcessor(vae_scale_factor=self.vae_scale_factor)

    @property
    def guidance_scale(self) -> float:
        """Guidance scale of the running or last call."""
        return self._guidance_scale

    @property
    def do_classifier_free_guidance(self) -> bool:
        """Whether the network runs on the negative prompt, too."""
        return self._guidance_scale > 1

    @property
    def cross_attention_kwargs(self) -> dict[str, Any] | None:
        """Arguments of the attention processors in the running or last call."""
        return self._cross_attention_kwargs

    @property
    def num_timesteps(self) -> int:
        """How often the network runs in the running or last call."""
        return self._num_timesteps

    @property
    def interrupt(self) -> bool:
        """Whether the remaining steps are left out; a callback may set `_interrupt`."""
        return self._interrupt

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str] | None = None,
        *,
        negative_prompt: str | Sequence[str] | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 50,
        guidance_scale: float = 7.0,
        num_images_per_prompt: int = 1,
        eta: float = 0.0,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        output_type: OutputType = "pil",
        return_dict: bool = True,
        cross_attention_kwargs: dict[str, Any] | None = None,
        callback_on_step_end: Callable[..., dict[str, Tensor]] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> CXRTextToImagePipelineOutput | tuple:
        """Sample films.

        Args:
            prompt: What the films show, in the words of a report; "" for any film.
            negative_prompt: What they shall not show, one text or one for each prompt.
            height: In pixels; None for the training height.
            width: In pixels; None for the training width.
            num_inference_steps: Denoising steps.
            guidance_scale: How much to follow the prompt; 1 or less is without guidance.
            num_images_per_prompt: Films of each prompt; they come one after the other.
            eta: η of DDIM, 0 to 1; for schedulers that have it.
            generator: Source of the noise, one or one per film; None for torch's global one.
            latents: Initial noise, (films, channels, latent height, latent width).
            prompt_embeds: Instead of `prompt`, (prompts, tokens, width).
            negative_prompt_embeds: Instead of `negative_prompt`, of the same shape.
            output_type: "pil" for 8-bit pictures, "np" for an array (films, height, width, 1) and
                "pt" for a tensor (films, 1, height, width) in [0, 1], "uint16" for an array
                (films, height, width) in [0, 65535], "latent" for latents.
            return_dict: Return a `CXRTextToImagePipelineOutput`, not a tuple of its field.
            cross_attention_kwargs: For the attention processors; {"scale": s} weakens a LoRA.
            callback_on_step_end: Called as (pipeline, step, timestep, tensors) after each step;
                the tensors it returns go on.
            callback_on_step_end_tensor_inputs: Which of "latents", "prompt_embeds" (with those of
                the negative prompt before them) and "negative_prompt_embeds" the callback gets.

        Returns:
            The films.

        Raises:
            ValueError: An argument, or a component, does not fit.
        """
        if isinstance(callback_on_step_end, PipelineCallback | MultiPipelineCallbacks):
            callback_on_step_end_tensor_inputs = callback_on_step_end.tensor_inputs
        self._guidance_scale = guidance_scale
        self._cross_attention_kwargs = cross_attention_kwargs
        self._interrupt = False

        # 1. check
        self._check_ready(output_type, callback_on_step_end_tensor_inputs)
        check_prompt(prompt, prompt_embeds, unet=self.unet, name="prompt")
        check_prompt(
            negative_prompt, negative_prompt_embeds, unet=self.unet, name="negative_prompt"
        )
        size = self._latent_size(height, width)

        # 2. embed the prompts, those of the negative prompt first
        device, dtype = self._execution_device, self.unet.dtype
        prompt_embeds, negative_prompt_embeds = self.encode_prompt(
            prompt,
            device,
            num_images_per_prompt=num_images_per_prompt,
            do_classifier_free_guidance=self.do_classifier_free_guidance,
            negative_prompt=negative_prompt,
            prompt_embeds=prompt_embeds,
            negative_prompt_embeds=negative_prompt_embeds,
            lora_scale=(cross_attention_kwargs or {}).get("scale"),
        )
        films = len(prompt_embeds)
        if self.do_classifier_free_guidance:
            prompt_embeds = torch.cat([negative_prompt_embeds, prompt_embeds])
        prompt_embeds = prompt_embeds.to(device=device, dtype=dtype)

        # 3. noise; the state stays in float32 whatever the network computes in
        shape = (films, self.unet.config.in_channels, *size)
        latents = _noise(shape, latents, generator=generator, device=device)
        self.scheduler.set_timesteps(num_inference_steps, device=device)
        latents = latents * self.scheduler.init_noise_sigma
        self._num_timesteps = len(self.scheduler.timesteps)

        # 4. denoise
        options = step_options(self.scheduler, generator=generator, eta=eta)
        for step, timestep in enumerate(self.progress_bar(self.scheduler.timesteps)):
            if self.interrupt:
                continue
            prediction = self._predict(latents, timestep, prompt_embeds)
            latents = self.scheduler.step(prediction, timestep, latents, **options).prev_sample
            if callback_on_step_end is not None:
                tensors = {
                    "latents": latents,
                    "prompt_embeds": prompt_embeds,
                    "negative_prompt_embeds": negative_prompt_embeds,
                }
                asked = {name: tensors[name] for name in callback_on_step_end_tensor_inputs}
                tensors |= callback_on_step_end(self, step, timestep, asked) or {}
                latents, prompt_embeds = tensors["latents"], tensors["prompt_embeds"]

        # 5. decode
        images = latents if output_type == "latent" else self._decode(latents, output_type)
        self.maybe_free_model_hooks()
        return CXRTextToImagePipelineOutput(images=images) if return_dict else (images,)

    def encode_prompt(
        self,
        prompt: str | Sequence[str] | None,
        device: torch.device | str | None = None,
        *,
        num_images_per_prompt: int = 1,
        do_classifier_free_guidance: bool = True,
        negative_prompt: str | Sequence[str] | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        lora_scale: float | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Embed prompts and negative prompts, as a call does.

        Args:
            prompt: One text or several.
            device: Where the text encoder runs; None for where the pipeline does.
            num_images_per_prompt: How often each embedding is repeated.
            do_classifier_free_guidance: Embed the negative prompt, too.
            negative_prompt: One text for all, or one for each prompt; None for "".
            prompt_embeds: Instead of `prompt`.
            negative_prompt_embeds: Instead of `negative_prompt`.
            lora_scale: Weight of the text encoder's LoRA layers.

        Returns:
            The embeddings, each (prompts x num_images_per_prompt, tokens, width); those of the
            negative prompt are None without guidance.
        """
        if lora_scale is not None and self.text_encoder is not None:
            scale_lora_layers(self.text_encoder, lora_scale)
        if prompt_embeds is None:
            prompt_embeds = self._embed(prompt, device)
        if do_classifier_free_guidance and negative_prompt_embeds is None:
            texts = [""] if negative_prompt is None else _texts(negative_prompt)
            repeats = len(prompt_embeds) if len(texts) == 1 else 1
            negative_prompt_embeds = self._embed(texts * repeats, device)
        if lora_scale is not None and self.text_encoder is not None:
            unscale_lora_layers(self.text_encoder, lora_scale)
        if do_classifier_free_guidance and negative_prompt_embeds.shape != prompt_embeds.shape:
            raise ValueError(
                f"The prompts give embeddings {tuple(prompt_embeds.shape)}, the negative prompts"
                f" {tuple(negative_prompt_embeds.shape)}; give one negative prompt for each, or one"
                " for all."
            )
        prompt_embeds = prompt_embeds.repeat_interleave(num_images_per_prompt, dim=0)
        if negative_prompt_embeds is not None:
            negative_prompt_embeds = negative_prompt_embeds.repeat_interleave(
                num_images_per_prompt, dim=0
            )
        return prompt_embeds, negative_prompt_embeds

    def card_summary(self) -> str:
        """Return what the pipeline makes, for the model card."""
        height, width = (length * self.vae_scale_factor for length in self._latent_size())
        networks = (self.vae, self.text_encoder, self.unet)
        vae, text, unet = (f"{sum(w.numel() for w in net.parameters()):,}" for net in networks)
        predicted = PREDICTIONS.get(self.config.prediction_type, self.config.prediction_type)
        return (
            f"A latent diffusion model of chest radiographs, {height}×{width} pixels, one channel,"
            " from sentences as radiologists write them. The denoiser has"
            f" {unet} parameters and predicts {predicted}, the autoencoder has {vae}, the text"
            f" encoder ({type(self.text_encoder).__name__}, at most"
            f" {self.tokenizer.model_max_length} tokens) {text}."
        )

    def card_usage(self, name: str) -> str:
        """Return how to sample, for the model card."""
        return (
            "import diffct\n\n"
            f'pipeline = diffct.load_pipeline("{name}")\n'
            'output = pipeline("Small left pleural effusion.", output_type="uint16")\n'
            'output.save("samples")  # 16-bit PNG'
        )

    def _check_ready(self, output_type: str, tensor_names: Sequence[str]) -> None:
        """Raise a ValueError unless the pipeline can sample."""
        for name in ("vae", "unet", "scheduler"):
            if getattr(self, name) is None:
                raise ValueError(f"The pipeline has no {name}, so it cannot sample.")
        check_components(
            vae=self.vae,
            text_encoder=self.text_encoder,
            tokenizer=self.tokenizer,
            unet=self.unet,
        )
        check_prediction_type(self.scheduler, self.config.prediction_type)
        if output_type not in OutputType.__args__:
            accepted = ", ".join(OutputType.__args__)
            raise ValueError(f"output_type={output_type!r} is none of {accepted}.")
        if output_type != "latent" and self.vae.config.scaling_factor is None:
            raise ValueError(
                "The autoencoder's scaling_factor is not known: its training has not ended. Finish"
                " it (--resume), or take a finished autoencoder."
            )
        unknown = set(tensor_names) - set(self._callback_tensor_inputs)
        if unknown:
            raise ValueError(
                f"callback_on_step_end_tensor_inputs: {sorted(unknown)} are none of"
                f" {self._callback_tensor_inputs}."
            )

    def _latent_size(self, height: int | None = None, width: int | None = None) -> tuple[int, int]:
        """Return the latents' size (h, w) for films of a size in pixels, or of the usual one."""
        usual = self.unet.config.sample_size
        usual = usual if isinstance(usual, Sequence) else (usual, usual)
        return latent_size((height, width), usual, factor=self.vae_scale_factor)

    def _embed(self, prompt: str | Sequence[str], device: torch.device | str | None) -> Tensor:
        """Embed texts, (texts, tokens, width)."""
        if self.text_encoder is None or self.tokenizer is None:
            raise ValueError(
                "The pipeline has no text_encoder or no tokenizer: give prompt_embeds, and with"
                " guidance negative_prompt_embeds."
            )
        tokens = tokenize(self.tokenizer, _texts(prompt))
        return embed(self.text_encoder, tokens, device=device or self._execution_device)

    def _predict(self, latents: Tensor, timestep: Tensor, prompt_embeds: Tensor) -> Tensor:
        """Run the network, with guidance if asked, (films, channels, h, w) in float32."""
        guided = self.do_classifier_free_guidance
        inputs = self.scheduler.scale_model_input(
            torch.cat([latents] * 2) if guided else latents, timestep
        )
        prediction = self.unet(
            inputs.to(self.unet.dtype),
            timestep,
            encoder_hidden_states=prompt_embeds,
            cross_attention_kwargs=self.cross_attention_kwargs,
        ).sample.float()
        if not guided:
            return prediction
        negative, positive = prediction.chunk(2)
        return negative + self.guidance_scale * (positive - negative)

    def _decode(self, latents: Tensor, output_type: OutputType) -> Any:  # noqa: ANN401 - see OutputType
        """Decode latents to films of one channel."""
        latents = (latents / self.vae.config.scaling_factor).to(self.vae.dtype)
        images = self.vae.decode(latents).sample.float().mean(dim=1, keepdim=True)
        if output_type != "uint16":
            return self.image_processor.postprocess(images, output_type=output_type)
        films = self.image_processor.postprocess(images, output_type="np")[..., 0]
        return (films * 65535).round().astype("uint16")


def _texts(prompt: str | Sequence[str]) -> list[str]:
    """Return one text, or several, as a list."""
    texts = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(texts, Sequence) or not texts or not all(isinstance(t, str) for t in texts):
        raise ValueError("A prompt is a text or a list of texts.")
    return list(texts)


def _noise(
    shape: tuple[int, ...],
    given: Tensor | None,
    *,
    generator: torch.Generator | list[torch.Generator] | None,
    device: torch.device,
) -> Tensor:
    """Return the initial noise in float32."""
    if isinstance(generator, list) and len(generator) != shape[0]:
        raise ValueError(f"{len(generator)} generators for {shape[0]} films; give one for each.")
    if given is None:
        return randn_tensor(shape, generator=generator, device=device, dtype=torch.float32)
    if given.shape != shape:
        raise ValueError(f"latents has the shape {tuple(given.shape)}, not {shape}.")
    return given.to(device=device, dtype=torch.float32)
