"""Low-rank fine-tuning (LoRA): small added matrices are trained, the network's weights are frozen.

Source: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models".
"""

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path

from diffusers import UNet2DConditionModel
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from diffusers.utils import convert_state_dict_to_diffusers

from diffct.config import within

ATTENTION_LAYERS = ["to_q", "to_k", "to_v", "to_out.0"]


@dataclass
class LoRAConfig:
    """Low-rank fine-tuning.

    Args:
        rank: Rank of the matrices added to each layer; 0 trains the whole network instead.
        alpha: What the matrices add is scaled by alpha / rank; None for alpha = rank.
        target_modules: The layers that get matrices, by the ends of their names.
    """

    rank: int = field(default=0, metadata=within(0))
    alpha: float | None = None
    target_modules: list[str] = field(default_factory=lambda: list(ATTENTION_LAYERS))


def add_lora(unet: UNet2DConditionModel, config: LoRAConfig) -> None:
    """Freeze a network and add low-rank matrices, which change nothing at first.

    Args:
        unet: The network; changed in place.
        config: Rank and layers.

    Raises:
        ValueError: peft is not installed, or the network has no such layers.
    """
    if importlib.util.find_spec("peft") is None:
        raise ValueError("lora.rank > 0 needs peft: pip install peft")
    from peft import LoraConfig

    unet.requires_grad_(False)
    unet.add_adapter(
        LoraConfig(
            r=config.rank,
            lora_alpha=config.alpha or config.rank,  # type: ignore[arg-type]  # any number will do
            init_lora_weights="gaussian",  # of one matrix; the other is zero, and so their product
            target_modules=list(config.target_modules),
        )
    )


def save_lora(unet: UNet2DConditionModel, folder: Path) -> None:
    """Save the low-rank matrices alone, in the format of `pipeline.load_lora_weights(folder)`.

    Args:
        unet: A network after `add_lora`.
        folder: Where `pytorch_lora_weights.safetensors` is written.
    """
    from peft.utils import get_peft_model_state_dict

    StableDiffusionLoraLoaderMixin.save_lora_weights(
        folder,
        unet_lora_layers=convert_state_dict_to_diffusers(get_peft_model_state_dict(unet)),
        unet_lora_adapter_metadata=unet.peft_config["default"].to_dict(),
    )
