"""Settings that exclude each other, reported together, each with every way to solve it."""

from collections.abc import Iterable

from diffct.models.latent_diffusion import SMALL, TextEncoderConfig
from diffct.training.lora import LoRAConfig


def check_conflicts(found: Iterable[str | None]) -> None:
    """Raise one ValueError for all conflicts that were found.

    Args:
        found: The result of each check: what is wrong, or None.
    """
    conflicts = [conflict for conflict in found if conflict is not None]
    if len(conflicts) == 1:
        raise ValueError(conflicts[0])
    if conflicts:
        listed = "".join(f"\n- {conflict}" for conflict in conflicts)
        raise ValueError(f"These settings exclude each other:{listed}")


def cached_and_augmented(*, cached: bool, augmented: bool) -> str | None:
    """Describe the conflict of latents that are computed once with images that change, if any."""
    if not (cached and augmented):
        return None
    return (
        "data.cache_latents=true encodes every image once, but augmentation changes it every time:"
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
    """Raise a ValueError if settings of a denoiser that learns from prompts exclude each other.

    Args:
        cached_latents: Whether images are encoded once.
        cached_prompts: Whether prompts are encoded once.
        augmented: Whether images are rotated, shifted or scaled.
        flipped: Whether they are mirrored.
        constant_prompt: Whether all images have the same prompt.
        text_encoder: The `text_encoder` section.
        has_base: Whether the components come from an existing pipeline.
        lora: The `lora` section.

    Raises:
        ValueError: There are conflicts; all are listed.
    """
    conflicts = [cached_and_augmented(cached=cached_latents, augmented=augmented or flipped)]
    if flipped and not constant_prompt:
        conflicts.append(
            "augmentation.flip_probability mirrors images whose prompts may name left or right: set"
            " augmentation.flip_probability=0, or give all images one prompt by prompt.constant."
        )
    random = text_encoder.name == SMALL and not has_base
    conflicts.append(
        _text_encoder_conflict(cached=cached_prompts, learns=text_encoder.train, random=random)
    )
    conflicts.append(_lora_conflict(lora.rank, has_base=has_base, learns=text_encoder.train))
    check_conflicts(conflicts)


def _text_encoder_conflict(*, cached: bool, learns: bool, random: bool) -> str | None:
    """Describe why the text encoder's settings exclude each other, if they do.

    Args:
        cached: Whether prompts are encoded once.
        learns: Whether the text encoder is trained.
        random: Whether its weights are random at the beginning.
    """
    trained = "text_encoder.name=FOLDER_OR_ID of a trained one with text_encoder.train=false"
    if random and not learns:
        also = " and data.cache_prompts=0" if cached else ""
        return (
            "text_encoder.name=small starts from random weights and must be trained: set"
            f" text_encoder.train=true{also}, or {trained}."
        )
    if cached and learns:
        frozen = trained if random else "text_encoder.train=false"
        return (
            "data.cache_prompts encodes prompts once, but a text encoder that is trained changes"
            f" their embeddings: set data.cache_prompts=0, or {frozen}."
        )
    return None


def _lora_conflict(rank: int, *, has_base: bool, learns: bool) -> str | None:
    """Describe what low-rank fine-tuning lacks, if anything."""
    needed = [] if has_base else ["initial_pipeline=FOLDER_OR_ID, from which it starts"]
    if learns:
        needed.append("text_encoder.train=false, since it does not train the text encoder")
    if not rank or not needed:
        return None
    return f"lora.rank={rank} needs {' and '.join(needed)}: set that, or lora.rank=0."
