"""The shared parts of latent diffusion pipelines: prompts, guidance and decoding."""

import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any, ClassVar, Literal, get_args

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.image_processor import VaeImageProcessor
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from diffusers.pipelines.pipeline_utils import StableDiffusionMixin
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import (
    StableDiffusionPipeline,
    rescale_noise_cfg,
)
from diffusers.utils import scale_lora_layers, unscale_lora_layers
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from diffct.models.text_encoding import embed, tokenize
from diffct.pipelines.checks import as_texts, check_components, check_prompt, latent_size
from diffct.pipelines.denoising import Callback, DenoisingPipeline, Generators, State
from diffct.pipelines.schedulers import Steps

OutputType = Literal["pil", "np", "pt", "uint16", "latent"]


class LatentDiffusionPipeline(
    DenoisingPipeline, StableDiffusionMixin, StableDiffusionLoraLoaderMixin
):
    """The shared parts of a pipeline that denoises latents; subclasses implement the call.

    Source:
        Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models"; Ho &
        Salimans 2022, "Classifier-Free Diffusion Guidance", equation 6 with w = scale - 1; for
        networks into which guidance was distilled (`time_cond_proj_dim` in their config), Meng et
        al. 2023, "On Distillation of Guided Diffusion Models": they get w and run once.
    """

    vae: AutoencoderKL
    text_encoder: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    unet: UNet2DConditionModel
    model_cpu_offload_seq = "text_encoder->unet->vae"  # type: ignore[assignment]  # theirs is None
    # Lists, since diffusers adds lists to them.
    _callback_tensor_inputs: ClassVar[list[str]] = [
        "latents",
        "prompt_embeds",
        "negative_prompt_embeds",
    ]
    _output_types: ClassVar[tuple[str, ...]] = get_args(OutputType)
    get_guidance_scale_embedding = StableDiffusionPipeline.get_guidance_scale_embedding

    def _register(
        self,
        components: dict[str, Any],
        *,
        prediction_type: str | None,
        training: dict[str, Any] | None,
    ) -> None:
        """Register components, some of which may be None, and record what inference needs."""
        # As in StableDiffusionPipeline; latents are not bounded by -1 and 1 as pixels are.
        components["scheduler"], prediction_type = self._own_scheduler(
            components["scheduler"], prediction_type, clip_sample=False, steps_offset=1
        )
        self.register_modules(**components)
        self.register_to_config(prediction_type=prediction_type, training=training)
        self._check_fit()
        blocks = self.vae.config.block_out_channels if self.vae else [None] * 4
        self.vae_scale_factor = 2 ** (len(blocks) - 1)
        self.image_processor = VaeImageProcessor(vae_scale_factor=self.vae_scale_factor)

    @property
    def guidance_scale(self) -> float:
        """Guidance scale of the current or last call."""
        return self._guidance_scale

    @property
    def do_classifier_free_guidance(self) -> bool:
        """Whether the network also runs on the negative prompt."""
        return self._guidance_scale > 1 and self.unet.config.time_cond_proj_dim is None

    @property
    def guidance_rescale(self) -> float:
        """How much of the contrast that guidance adds is removed, 0 to 1."""
        return self._guidance_rescale

    @property
    def clip_skip(self) -> int | None:
        """How many of the text encoder's last layers are skipped; None for none."""
        return self._clip_skip

    @property
    def cross_attention_kwargs(self) -> dict[str, Any] | None:
        """Arguments of the attention processors in the current or last call."""
        return self._cross_attention_kwargs

    def window(self) -> tuple[tuple[int, int] | None, int]:
        """Return the training size (H, W) in pixels (None if unknown) and the divisor of sizes."""
        usual = self.unet.config.sample_size
        if usual is not None:
            height, width = (length * self.vae_scale_factor for length in self._latent_size())
            usual = (height, width)
        return usual, self.vae_scale_factor * 2 ** (len(self.unet.config.block_out_channels) - 1)

    def latent_shape(self, size: Sequence[int]) -> tuple[int, int, int]:
        """Return the shape (C, h, w) of the noise for an image of a valid size (H, W)."""
        height, width = (length // self.vae_scale_factor for length in size)
        return self.unet.config.in_channels, height, width

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
        clip_skip: int | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Embed prompts and negative prompts, as a call does.

        Args:
            prompt: One text or several.
            device: Where the text encoder runs; None for where the pipeline does.
            num_images_per_prompt: How often each embedding is repeated.
            do_classifier_free_guidance: Embed the negative prompt as well.
            negative_prompt: One text for all, or one for each prompt; None for "".
            prompt_embeds: Instead of `prompt`.
            negative_prompt_embeds: Instead of `negative_prompt`.
            lora_scale: Weight of the text encoder's LoRA layers.
            clip_skip: How many of the text encoder's last layers to skip.

        Returns:
            The embeddings, each (prompts x num_images_per_prompt, tokens, width); those of the
            negative prompt are None without guidance.
        """
        if lora_scale is not None and self.text_encoder is not None:
            scale_lora_layers(self.text_encoder, lora_scale)
        if prompt_embeds is None:
            prompt_embeds = self._embed(prompt, device, clip_skip)
        if do_classifier_free_guidance and negative_prompt_embeds is None:
            texts = [""] if negative_prompt is None else as_texts(negative_prompt)
            repeats = len(prompt_embeds) if len(texts) == 1 else 1
            negative_prompt_embeds = self._embed(texts * repeats, device, clip_skip)
        if lora_scale is not None and self.text_encoder is not None:
            unscale_lora_layers(self.text_encoder, lora_scale)
        guided = negative_prompt_embeds if do_classifier_free_guidance else None
        if guided is not None and guided.shape != prompt_embeds.shape:
            raise ValueError(
                f"The prompts give embeddings {tuple(prompt_embeds.shape)}, the negative prompts"
                f" {tuple(guided.shape)}; give one negative prompt for each, or one"
                " for all."
            )
        prompt_embeds = prompt_embeds.repeat_interleave(num_images_per_prompt, dim=0)
        if negative_prompt_embeds is not None:
            negative_prompt_embeds = negative_prompt_embeds.repeat_interleave(
                num_images_per_prompt, dim=0
            )
        return prompt_embeds, negative_prompt_embeds

    def _start_call(
        self,
        steps: Steps,
        *,
        guidance_scale: float,
        guidance_rescale: float = 0.0,
        clip_skip: int | None,
        cross_attention_kwargs: dict[str, Any] | None,
        counts: Mapping[str, int],
        eta: float,
        output_type: str,
        callback: Callback | None,
        tensor_names: Sequence[str],
    ) -> Sequence[str]:
        """Check and store a call's settings; return the names of its callback's tensors."""
        for name, value in (("scale", guidance_scale), ("rescale", guidance_rescale)):
            if not isinstance(value, Real) or not math.isfinite(value):
                raise ValueError(f"guidance_{name} is {value!r}; give a finite number.")
        if not 0 <= guidance_rescale <= 1:
            raise ValueError(f"guidance_rescale={guidance_rescale} must be between 0 and 1.")
        self._guidance_scale = guidance_scale
        self._guidance_rescale = guidance_rescale
        self._clip_skip = clip_skip
        self._cross_attention_kwargs = cross_attention_kwargs
        if self.vae is None:
            raise ValueError("The pipeline has no vae, so it cannot sample.")
        self._check_fit()
        tensor_names = self._check_call(
            steps,
            counts=counts,
            eta=eta,
            output_type=output_type,
            callback=callback,
            tensor_names=tensor_names,
        )
        if output_type != "latent" and self.vae.config.scaling_factor is None:
            raise ValueError(
                "The autoencoder's scaling_factor is not known: its training has not ended. Finish"
                " it (--resume), or take a finished autoencoder."
            )
        return tensor_names

    def _check_fit(self) -> None:
        """Raise a ValueError unless the components that are not None fit each other."""
        check_components(
            vae=self.vae, text_encoder=self.text_encoder, tokenizer=self.tokenizer, unet=self.unet
        )

    def _latent_size(self, height: int | None = None, width: int | None = None) -> tuple[int, int]:
        """Return the latents' size (h, w) for images of a size in pixels, or the training size."""
        usual = self.unet.config.sample_size
        usual = usual if isinstance(usual, Sequence) else (usual, usual)
        return latent_size((height, width), usual, factor=self.vae_scale_factor)

    def _embed(
        self,
        prompt: str | Sequence[str] | None,
        device: torch.device | str | None,
        clip_skip: int | None,
    ) -> Tensor:
        """Embed texts, (texts, tokens, width)."""
        if self.text_encoder is None or self.tokenizer is None:
            raise ValueError(
                "The pipeline has no text_encoder or no tokenizer: give prompt_embeds, and with"
                " guidance negative_prompt_embeds."
            )
        tokens = tokenize(self.tokenizer, as_texts(prompt))
        device = device or self._execution_device
        return embed(self.text_encoder, tokens, device=device, clip_skip=clip_skip)

    def _embed_for_call(
        self,
        prompt: str | Sequence[str] | None,
        negative_prompt: str | Sequence[str] | None,
        prompt_embeds: Tensor | None,
        negative_prompt_embeds: Tensor | None,
        *,
        repeats: int,
    ) -> tuple[State, int]:
        """Check and embed the prompts of a call; return them, and the number of its images."""
        for name, text, embeds in (
            ("prompt", prompt, prompt_embeds),
            ("negative_prompt", negative_prompt, negative_prompt_embeds),
        ):
            check_prompt(text, embeds, unet=self.unet, name=name)
        embeds, negative_embeds = self.encode_prompt(
            prompt,
            self._execution_device,
            num_images_per_prompt=repeats,
            do_classifier_free_guidance=self.do_classifier_free_guidance,
            negative_prompt=negative_prompt,
            prompt_embeds=prompt_embeds,
            negative_prompt_embeds=negative_prompt_embeds,
            lora_scale=(self.cross_attention_kwargs or {}).get("scale"),
            clip_skip=self.clip_skip,
        )
        images = len(embeds)
        if self.do_classifier_free_guidance:
            assert negative_embeds is not None  # since guidance needs them
            embeds = torch.cat([negative_embeds, embeds])
        embeds = embeds.to(device=self._execution_device, dtype=self.unet.dtype)
        return {"prompt_embeds": embeds, "negative_prompt_embeds": negative_embeds}, images

    def _guide(
        self,
        timestep: Tensor,
        state: State,
        control: Callable[[Tensor], dict[str, Any]] | None = None,
    ) -> Tensor:
        """Run the network, with guidance if asked.

        Args:
            timestep: t.
            state: With "latents" and "prompt_embeds".
            control: Maps the network's input to further arguments of the network.

        Returns:
            The prediction, (images, channels, h, w) in float32.
        """
        guided, latents = self.do_classifier_free_guidance, state["latents"]
        inputs = self.scheduler.scale_model_input(
            torch.cat([latents] * 2) if guided else latents, timestep
        )
        prediction = self.unet(
            inputs.to(self.unet.dtype),
            timestep,
            encoder_hidden_states=state["prompt_embeds"],
            timestep_cond=self._guidance_embedding(len(latents)),
            cross_attention_kwargs=self.cross_attention_kwargs,
            **(control(inputs) if control else {}),
        ).sample.float()
        if not guided:
            return prediction
        negative, positive = prediction.chunk(2)
        prediction = negative + self.guidance_scale * (positive - negative)
        if self.guidance_rescale > 0:
            return rescale_noise_cfg(prediction, positive, self.guidance_rescale)
        return prediction

    def _guidance_embedding(self, images: int) -> Tensor | None:
        """Return the extra input of a network into which guidance was distilled, or None."""
        width = self.unet.config.time_cond_proj_dim
        if width is None:
            return None
        scales = torch.tensor(self.guidance_scale - 1).repeat(images)
        embedding = self.get_guidance_scale_embedding(scales, embedding_dim=width)
        return embedding.to(device=self._execution_device, dtype=self.unet.dtype)

    def _decode(self, latents: Tensor, generator: Generators = None) -> Tensor:
        """Decode latents to gray images, (images, 1, H, W) in [0, 1]; some decoders draw noise."""
        latents = (latents / self.vae.config.scaling_factor).to(self.vae.dtype)
        decoded = self.vae.decode(latents, generator=generator).sample
        images = decoded.float().mean(dim=1, keepdim=True)
        return self.image_processor.denormalize(images)

    def _as_output(self, images: Tensor, output_type: OutputType) -> Any:  # noqa: ANN401 - see OutputType
        """Return gray images, (images, 1, H, W) in [0, 1], in the form that was asked for."""
        kind = "np" if output_type == "uint16" else output_type
        shown = self.image_processor.postprocess(images, kind, do_denormalize=[False] * len(images))
        if output_type != "uint16":
            return shown
        return (shown[..., 0] * 65535).round().astype("uint16")

    def _parameters(self, *names: str) -> list[str]:
        """Return how many parameters components have, for the model card."""
        networks = (getattr(self, name) for name in names)
        return [f"{sum(weight.numel() for weight in net.parameters()):,}" for net in networks]
