"""A small CLIP text encoder with a vocabulary learnt from the training texts."""

import json
from collections.abc import Iterable

import torch
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

_END_OF_WORD = "</w>"
_SPECIAL_TOKENS = ("<|startoftext|>", "<|endoftext|>")
_MAX_MERGES = 4096
_TOKEN_STD, _POSITION_STD = 0.5, 0.15  # standard deviations of the initial embeddings


def make_small_text_encoder(
    sentences: Iterable[str],
    *,
    width: int = 128,
    layers: int = 2,
    heads: int = 4,
    max_length: int = 77,
    seed: int = 0,
) -> tuple[CLIPTokenizer, CLIPTextModel]:
    """Make a CLIP text encoder with random weights and a vocabulary learnt from sentences.

    It has CLIP's architecture and file format, so that diffusers' own pipelines accept it. Words
    that are not in the sentences are split into pieces, down to single bytes.

    Args:
        sentences: The texts from which the vocabulary is learnt.
        width: Length of an embedding.
        layers: Number of transformer layers.
        heads: Number of attention heads.
        max_length: Tokens per prompt, including the start and end tokens.
        seed: Seed of the weights.

    Returns:
        The tokenizer and the encoder, in evaluation mode; equal arguments give equal results.

    Source:
        Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword Units"
        (byte pair encoding); Radford et al. 2021, "Learning Transferable Visual Models From
        Natural Language Supervision" (CLIP).
    """
    tokenizer = _train_tokenizer(sentences, max_length=max_length)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        text_encoder = CLIPTextModel(config).eval()
        # CLIP's own initialisation gives the position of a token as much weight as the token, and
        # both are small compared with the output of the first layer.
        embeddings = text_encoder.get_input_embeddings(), text_encoder.embeddings.position_embedding
        for table, std in zip(embeddings, (_TOKEN_STD, _POSITION_STD), strict=True):
            nn.init.normal_(table.weight, std=std)
    return tokenizer, text_encoder


def _train_tokenizer(sentences: Iterable[str], *, max_length: int) -> CLIPTokenizer:
    """Learn the merges of byte pair encoding from sentences."""
    # CLIP's own splitting of a text into words, before any merge.
    clip = CLIPTokenizer().backend_tokenizer
    trained = Tokenizer(BPE(end_of_word_suffix=_END_OF_WORD))
    trained.normalizer, trained.pre_tokenizer = clip.normalizer, clip.pre_tokenizer
    # Every byte is a token, inside a word and at its end, so that every text can be encoded.
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    letters += [letter + _END_OF_WORD for letter in letters]
    trainer = BpeTrainer(
        vocab_size=len(letters) + _MAX_MERGES,
        # Numbered beforehand: otherwise merges of equal counts would come in random order.
        special_tokens=letters,
        end_of_word_suffix=_END_OF_WORD,
        show_progress=False,
    )
    trained.train_from_iterator(sentences, trainer)
    merges = [tuple(merge) for merge in json.loads(trained.to_str())["model"]["merges"]]
    # The order of CLIP's vocabulary: bytes, merges, special tokens.
    tokens = [*letters, *("".join(merge) for merge in merges), *_SPECIAL_TOKENS]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(
        vocab=vocabulary,
        merges=merges,  # type: ignore[arg-type]  # its `list[str]` means pairs of strings
        model_max_length=max_length,
    )
