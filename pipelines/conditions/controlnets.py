"""ControlNets: their fit to the other components, and their outputs at each step."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from diffusers.models import MultiControlNetModel
from diffusers.utils import logging
from diffusers.utils.torch_utils import is_compiled_module
from torch import Tensor

from diffct.models.fingerprint import is_base_unet
from diffct.pipelines.checks import as_texts

logger = logging.get_logger(__name__)

ControlNets = (
    ControlNetModel | list[ControlNetModel] | tuple[ControlNetModel] | MultiControlNetModel
)
"""What a pipeline takes: one ControlNet, or several, whose outputs are added."""

# The entries of its config in which a ControlNet must agree with its UNet.
_SHARED = (
    "in_channels",
    "down_block_types",
    "block_out_channels",
    "layers_per_block",
    "cross_attention_dim",
    "encoder_hid_dim",
    "transformer_layers_per_block",
    "attention_head_dim",
    "num_attention_heads",
    "norm_num_groups",
)


def controlnets_of(controlnet: ControlNetModel | MultiControlNetModel) -> list[ControlNetModel]:
    """Return the ControlNets of a component, compiled or not, in their order."""
    inner = controlnet._orig_mod if is_compiled_module(controlnet) else controlnet
    # A ModuleList does not state the type of its modules.
    nets: Iterable[Any] = inner.nets if isinstance(inner, MultiControlNetModel) else [inner]
    return [net._orig_mod if is_compiled_module(net) else net for net in nets]


def condition_channels(
    conditions: Sequence[str] | Mapping[str, int] | None,
    nets: Sequence[ControlNetModel],
    *,
    only: str,
) -> dict[str, int]:
    """Return the channel of each condition, in their order.

    Args:
        conditions: Names in the order of the channels, or an earlier result of this function; None
            for `only`, or for numbered names if there are several channels.
        nets: The ControlNets; may be empty.
        only: Name of a single condition if none is given.

    Raises:
        ValueError: The conditions are not distinct names.
    """
    if isinstance(conditions, Mapping):  # as read from JSON, which diffusers sorts by name
        return dict(sorted(conditions.items(), key=lambda item: item[1]))
    if conditions is None:
        channels = sum(net.config.conditioning_channels for net in nets)
        several = [f"condition {number}" for number in range(1, channels + 1)]
        conditions = several if channels > 1 else [only]
    names = [] if isinstance(conditions, str) else list(conditions)
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f'conditions={conditions!r}: give a list of names, e.g. ["FLAIR"].')
    if len(set(names)) != len(names):
        raise ValueError(f"conditions={names} names one of them twice.")
    return {name: channel for channel, name in enumerate(names)}


def warn_of_other_base(nets: Sequence[ControlNetModel], unet: UNet2DConditionModel | None) -> None:
    """Warn of each ControlNet that was trained with another network than the one it steers."""
    for number, net in enumerate(nets):
        if unet is not None and is_base_unet(net, unet) is False:
            logger.warning(
                "ControlNet %d was trained with another unet (or with this one before it was"
                " tuned further): compare results before you rely on them.",
                number,
            )


def check_controlnets(
    nets: Sequence[ControlNetModel],
    *,
    unet: UNet2DConditionModel | None,
    vae: AutoencoderKL | None,
    conditions: Sequence[str],
) -> None:
    """Raise a ValueError unless ControlNets fit the components that are not None.

    Args:
        nets: The ControlNets.
        unet: The network that they steer.
        vae: The autoencoder.
        conditions: Names of the condition images, in the order of the ControlNets' channels.
    """
    factor = None if vae is None else 2 ** (len(vae.config.block_out_channels) - 1)
    channels = sum(net.config.conditioning_channels for net in nets)
    if channels != len(conditions):
        raise ValueError(
            f"The ControlNet reads {channels} channel(s) (conditioning_channels), but conditions"
            f" names {len(conditions)}: {list(conditions)}. Name each channel once."
        )
    for number, net in enumerate(nets):
        name = "The ControlNet" if len(nets) == 1 else f"ControlNet {number}"
        if net.config.global_pool_conditions:
            raise ValueError(f"{name} has global_pool_conditions, which this pipeline cannot use.")
        if unet is not None:
            _check_unet(net, unet, name)
        stride = 2 ** (len(net.config.conditioning_embedding_out_channels) - 1)
        if factor is not None and stride != factor:
            raise ValueError(
                f"{name} shrinks condition images {stride} times"
                f" (conditioning_embedding_out_channels"
                f"={list(net.config.conditioning_embedding_out_channels)}), the autoencoder images"
                f" {factor} times. The two must be equal."
            )


def _check_unet(net: ControlNetModel, unet: UNet2DConditionModel, name: str) -> None:
    """Raise a ValueError unless a ControlNet has the encoder of a UNet."""
    levels = len(unet.config.block_out_channels)
    differing = []
    for entry in _SHARED:
        theirs, its = (_by_level(part.config.get(entry), levels) for part in (unet, net))
        if theirs != its:
            shown = (part.config.get(entry) for part in (net, unet))
            differing.append("{}={} (the unet's: {})".format(entry, *shown))
    if differing:
        raise ValueError(
            f"{name} was not made for this unet: {', '.join(differing)}. Take the unet that it was"
            " trained with."
        )


def _by_level(value: object, levels: int) -> tuple:
    """Return a config entry as one value for each level: 2 and [2, 2] mean the same."""
    return tuple(value) if isinstance(value, list | tuple) else (value,) * levels


class ControlSpan(NamedTuple):
    """The weight of a ControlNet's outputs, and the part of the steps in which they count.

    Args:
        scale: Factor of its outputs.
        start: Where it begins, as a fraction of the steps.
        end: Where it ends.
    """

    scale: float
    start: float
    end: float

    def at(self, step: int, steps: int) -> float:
        """Return the factor at a step, 0 outside the span."""
        outside = step / steps < self.start or (step + 1) / steps > self.end
        return 0.0 if outside else self.scale


def control_spans(
    nets: int,
    *,
    scale: float | Sequence[float],
    start: float | Sequence[float],
    end: float | Sequence[float],
) -> list[ControlSpan]:
    """Return the span of each ControlNet.

    Args:
        nets: Number of ControlNets.
        scale: `controlnet_conditioning_scale`, one for all or one for each.
        start: `control_guidance_start`, likewise, in [0, 1].
        end: `control_guidance_end`, likewise, not before the start.

    Raises:
        ValueError: A list has the wrong length, or a span is impossible.
    """
    given = {
        "controlnet_conditioning_scale": scale,
        "control_guidance_start": start,
        "control_guidance_end": end,
    }
    columns = []
    for name, value in given.items():
        values = list(value) if isinstance(value, list | tuple) else [value] * nets
        numbers = all(isinstance(v, int | float) and math.isfinite(v) for v in values)
        if len(values) != nets or not numbers:
            raise ValueError(f"{name}={value!r}: give one number, or one for each of {nets}.")
        columns.append(values)
    spans = [ControlSpan(*span) for span in zip(*columns, strict=True)]
    for span in spans:
        if not 0 <= span.start <= span.end <= 1:
            raise ValueError(
                f"control_guidance_start={span.start} and control_guidance_end={span.end} must be"
                " fractions of the steps, 0 <= start <= end <= 1."
            )
    return spans


def run_controlnets(
    controlnet: ControlNetModel | MultiControlNetModel,
    sample: Tensor,
    timestep: Tensor,
    *,
    prompt_embeds: Tensor,
    image: Tensor,
    scales: Sequence[float],
    dtype: torch.dtype,
) -> dict[str, Any]:
    """Run ControlNets; return their outputs as arguments of the network that they steer.

    Args:
        controlnet: The component.
        sample: The network's input, (results, channels, h, w).
        timestep: t.
        prompt_embeds: (results, tokens, width).
        image: The condition images, (results, conditions, H, W).
        scales: Weight of each ControlNet's outputs.
        dtype: The network's type.
    """
    nets = controlnets_of(controlnet)
    images = list(image.split([net.config.conditioning_channels for net in nets], dim=1))
    single = len(nets) == 1 and not isinstance(controlnet, MultiControlNetModel)
    down, mid = controlnet(
        sample.to(controlnet.dtype),
        timestep,
        encoder_hidden_states=prompt_embeds.to(controlnet.dtype),
        controlnet_cond=images[0] if single else images,
        conditioning_scale=scales[0] if single else scales,
        return_dict=False,
    )
    return {
        "down_block_additional_residuals": [part.to(dtype) for part in down],
        "mid_block_additional_residual": mid.to(dtype),
    }


def results_per_image(num_images_per_prompt: int, num_samples: int, output_type: str) -> int:
    """Return how many results each image gets.

    Raises:
        ValueError: The two numbers, or samples and latents, exclude each other.
    """
    if num_samples > 1 and num_images_per_prompt > 1:
        raise ValueError(
            "Give num_images_per_prompt or num_samples, not both: samples are averaged."
        )
    if num_samples > 1 and output_type == "latent":
        raise ValueError("num_samples averages images; latents have no mean image.")
    return num_images_per_prompt * num_samples


def images_per_prompt(
    images: int, prompt: str | Sequence[str] | None, prompt_embeds: Tensor | None
) -> int:
    """Return how many condition images each prompt is for."""
    prompts = len(as_texts(prompt) if prompt_embeds is None else prompt_embeds)
    if images != prompts and 1 not in (images, prompts):
        raise ValueError(f"{prompts} prompts for {images} images; give one for each.")
    return images if prompts == 1 else 1
