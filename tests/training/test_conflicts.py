"""Following the advice of a message ends a conflict and causes no other."""

from itertools import product

import pytest

from diffct.models.latent_diffusion import TextEncoderConfig
from diffct.training.conflicts import check_text_to_image
from diffct.training.lora import LoRAConfig

FINE = {
    "cached_latents": False,
    "cached_prompts": False,
    "augmented": False,
    "flipped": False,
    "constant_prompt": False,
    "text_encoder": TextEncoderConfig("small", train=True),
    "has_base": False,
    "lora": LoRAConfig(rank=0),
}
FROZEN = TextEncoderConfig("/a/folder", train=False)
LEARNING = TextEncoderConfig("/a/folder", train=True)


@pytest.mark.parametrize(
    ("wrong", "advice", "ways_out"),
    [
        (
            {"cached_latents": True, "augmented": True},
            ["data.cache_latents=false", "augmentation.probability=0"],
            [{"cached_latents": False}, {"augmented": False}],
        ),
        (
            {"flipped": True},
            ["augmentation.flip_probability=0", "prompt.constant"],
            [{"flipped": False}, {"constant_prompt": True}],
        ),
        (
            {"cached_prompts": True},
            ["data.cache_prompts=0", "text_encoder.name=", "text_encoder.train=false"],
            [{"cached_prompts": False}, {"text_encoder": FROZEN}],
        ),
        (
            {"cached_prompts": True, "text_encoder": TextEncoderConfig("small", train=False)},
            ["text_encoder.train=true and data.cache_prompts=0", "text_encoder.name="],
            [
                {"text_encoder": FINE["text_encoder"], "cached_prompts": False},
                {"text_encoder": FROZEN},
            ],
        ),
        (
            {"cached_prompts": True, "text_encoder": LEARNING},
            ["data.cache_prompts=0", "or text_encoder.train=false"],
            [{"cached_prompts": False}, {"text_encoder": FROZEN}],
        ),
        (
            {"lora": LoRAConfig(rank=4)},
            ["initial_pipeline=", "text_encoder.train=false", "lora.rank=0"],
            [{"has_base": True, "text_encoder": FROZEN}, {"lora": LoRAConfig(rank=0)}],
        ),
    ],
)
def test_each_conflict_names_every_way_out(wrong, advice, ways_out):
    with pytest.raises(ValueError) as refused:
        check_text_to_image(**FINE | wrong)
    assert "\n" not in str(refused.value)
    for words in advice:
        assert words in str(refused.value)
    for way in ways_out:
        check_text_to_image(**FINE | wrong | way)


def test_all_conflicts_are_reported_together():
    wrong = {"cached_latents": True, "flipped": True, "cached_prompts": True}
    with pytest.raises(ValueError) as refused:
        check_text_to_image(**FINE | wrong)
    assert str(refused.value).count("\n- ") == 3


def test_compatible_settings_are_accepted():
    for cached, train in product([False, True], repeat=2):
        encoder = TextEncoderConfig("/a/folder", train=train and not cached)
        check_text_to_image(**FINE | {"cached_prompts": cached, "text_encoder": encoder})
