"""Settings that cannot go together: each conflict names every way out, and all come at once."""

from collections.abc import Iterable

from diffct.models.latent_diffusion import SMALL, TextEncoderConfig
from diffct.training.lora import LoRAConfig


def check_conflicts(found: Iterable[str | None]) -> None:
    """Raise one ValueError for all conflicts that were found.

    Args:
        found: What is wrong, or None for what is not.
    """
    conflicts = [conflict for conflict in found if conflict is not None]
    if len(conflicts) == 1:
        raise ValueError(conflicts[0])
    if conflicts:
        listed = "".join(f"\n- {conflict}" for conflict in conflicts)
        raise ValueError(f"These settings cannot go together:{listed}")


def cached_and_augmented(*, cached: bool, augmented: bool) -> str | None:
    """Say that latents are computed once and images change every time, if so."""
    if not (cached and augmented):
        return None
    return (
        "data.cache_latents=true encodes every image once, and augmentation changes it every time:"
        " set data.cache_latents=false, or augmentation.probability=0 and"
        " augmentation.flip_probability=0."
    )


def check_text_to_image(
    *,
    cached_latents: bool,
    cached_prompts: bool,
    augmented: bool,
    flipped: bool,
    constant_prompt: bool,
    text_encoder: TextEncoderConfig,
    has_base: bool,
    lora: LoRAConfig,
) -> None:
    """Raise a ValueError for what cannot go together when a denoiser learns from prompts.

    Args:
        cached_latents: Whether images are encoded once.
        cached_prompts: Whether prompts are encoded once.
        augmented: Whether images are turned, moved or zoomed.
        flipped: Whether they are mirrored.
        constant_prompt: Whether all have one prompt.
        text_encoder: The `text_encoder` section.
        has_base: Whether the components come from a pipeline.
        lora: The `lora` section.
    """
    conflicts = [cached_and_augmented(cached=cached_latents, augmented=augmented or flipped)]
    if flipped and not constant_prompt:
        conflicts.append(
            "augmentation.flip_probability mirrors films whose reports tell left from right: set"
            " augmentation.flip_probability=0, or give every film one prompt by prompt.constant."
        )
    made = text_encoder.name == SMALL and not has_base
    conflicts.append(
        _text_encoder_conflict(cached=cached_prompts, learns=text_encoder.train, made=made)
    )
    conflicts.append(_lora_conflict(lora.rank, has_base=has_base, learns=text_encoder.train))
    check_conflicts(conflicts)


def _text_encoder_conflict(*, cached: bool, learns: bool, made: bool) -> str | None:
    """Say that a text encoder would have to learn and to stay as it is, if so.

    Args:
        cached: Whether prompts are encoded once.
        learns: Whether the text encoder is trained.
        made: Whether it is made by this run, with random weights.
    """
    trained = "text_encoder.name=FOLDER_OR_ID of a trained one with text_encoder.train=false"
    if made and not learns:
        also = " and data.cache_prompts=0" if cached else ""
        return (
            "text_encoder.name=small begins with random weights and must learn: set"
            f" text_encoder.train=true{also}, or {trained}."
        )
    if cached and learns:
        frozen = trained if made else "text_encoder.train=false"
        return (
            "data.cache_prompts encodes prompts once, and a text encoder that learns changes what"
            f" they become: set data.cache_prompts=0, or {frozen}."
        )
    return None


def _lora_conflict(rank: int, *, has_base: bool, learns: bool) -> str | None:
    """Say what low-rank fine-tuning lacks, if anything."""
    needed = [] if has_base else ["initial_pipeline=FOLDER_OR_ID, from which it starts"]
    if learns:
        needed.append("text_encoder.train=false, as it leaves the text encoder as it is")
    if not rank or not needed:
        return None
    return f"lora.rank={rank} needs {' and '.join(needed)}: set that, or lora.rank=0."
