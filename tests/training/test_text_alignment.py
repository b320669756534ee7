"""The warm-up of a text encoder: words of one meaning get similar embeddings."""

import pytest
import torch
from diffusers import AutoencoderKL

from diffct.data.prompts import PromptConfig, Prompts
from diffct.models.latent_space import LatentSpace
from diffct.models.small_text_encoder import make_small_text_encoder
from diffct.models.text_encoding import embed, tokenize
from diffct.training.latent_cache import CachedLatents
from diffct.training.text_alignment import align_text_encoder

REPORTS = {
    "left": ("An effusion on the left.", "Left effusion.", "The right lung is clear."),
    "right": ("An effusion on the right.", "Right effusion.", "The left lung is clear."),
}


def pairs_and_encoder(films: int = 64):
    """Return latents that are bright on one side, and reports that name it or the clear side.

    Exposure differs far more, as between films, and no report mentions it.
    """
    sides = ["left", "right"] * (films // 2) or ["left"]
    generator = torch.Generator().manual_seed(0)
    latents = 0.1 * torch.randn(len(sides), 1, 4, 8, 8, generator=generator)
    latents += 5.0 * torch.randn(len(sides), 1, 1, 1, 1, generator=generator)
    for latent, side in zip(latents, sides, strict=True):
        half = slice(4, None) if side == "left" else slice(None, 4)
        latent[..., half] += 1.0
    moments = torch.cat([latents, torch.full_like(latents, 0.1)], dim=1).numpy()
    reports = [REPORTS[side] for side in sides]
    tokenizer, encoder = make_small_text_encoder(
        [sentence for report in reports for sentence in report], width=32, layers=1, max_length=24
    )
    prompts = Prompts(
        reports, PromptConfig(), tokenize=lambda texts: tokenize(tokenizer, texts), seed=0
    )
    return (CachedLatents(moments, images=latents), prompts), tokenizer, encoder


def space() -> LatentSpace:
    return LatentSpace(AutoencoderKL(block_out_channels=(8,), norm_num_groups=2))


def agreement(tokenizer, encoder) -> float:
    """Return the cosine between left minus right as named by findings and by the clear lung."""
    texts = [
        "Left effusion.",
        "Right effusion.",
        "The right lung is clear.",
        "The left lung is clear.",
    ]
    with torch.no_grad():
        left, right, left_too, right_too = embed(encoder, tokenize(tokenizer, texts)).mean(dim=1)
    return torch.cosine_similarity(left - right, left_too - right_too, dim=0).item()


def test_different_wordings_for_one_side_get_similar_embeddings():
    pairs, tokenizer, encoder = pairs_and_encoder()
    # The same word names opposite sides in the two kinds of sentences.
    assert agreement(tokenizer, encoder) < 0
    align_text_encoder(encoder, *pairs, space=space(), updates=200, seed=0)
    assert agreement(tokenizer, encoder) > 0.5


def test_equal_warm_ups_give_equal_encoders_whatever_the_global_random_state():
    learnt = []
    for noise in range(2):
        torch.manual_seed(noise)
        pairs, _, encoder = pairs_and_encoder()
        align_text_encoder(encoder, *pairs, space=space(), updates=3, seed=0)
        learnt.append(encoder.state_dict())
    for name, weight in learnt[0].items():
        assert torch.equal(weight, learnt[1][name]), name
    assert not encoder.training


@pytest.mark.parametrize(("films", "updates"), [(1, 2), (64, 0)])
def test_one_film_or_no_update_leaves_finite_weights(films, updates):
    pairs, _, encoder = pairs_and_encoder(films)
    before = {name: weight.clone() for name, weight in encoder.state_dict().items()}
    align_text_encoder(encoder, *pairs, space=space(), updates=updates, seed=0)
    for name, weight in encoder.state_dict().items():
        assert weight.isfinite().all(), name
        assert updates or torch.equal(weight, before[name])
