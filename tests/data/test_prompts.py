"""Prompts drawn from reports, and cached latents of films."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from diffct.data.pairs import PairedDataset
from diffct.data.prompts import PromptConfig, Prompts, draw_prompt
from diffct.training.latent_cache import cache_embeddings, cache_latents, fingerprint

REPORT = ("Heart size is normal.", "No pleural effusion.", "There is a left nodule.", "Old.")


def words_as_tokens(prompts):
    ids = torch.tensor([[len(prompt)] * 4 for prompt in prompts])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def prompts(config: PromptConfig, reports=(REPORT,) * 5, **options) -> Prompts:
    return Prompts(reports, config, tokenize=words_as_tokens, seed=3, **options)


def test_every_number_of_sentences_up_to_all_of_them_is_drawn_equally_often():
    config = PromptConfig(max_sentences=4, empty_probability=0.0)
    drawn = [
        draw_prompt(REPORT, config, place=(0, 0, index), may_be_empty=True) for index in range(2000)
    ]
    numbers = Counter(sum(text.count(sentence) for sentence in REPORT) for text in drawn)
    assert set(numbers) == {1, 2, 3, 4}
    assert all(abs(count - 500) < 80 for count in numbers.values())
    assert all(text.count(sentence) <= 1 for text in drawn for sentence in REPORT)


def test_no_limit_draws_from_the_whole_report_and_a_short_report_is_used_whole():
    config = PromptConfig(max_sentences=None, empty_probability=0.0)
    long = tuple(f"Sentence {number}." for number in range(9))
    texts = [draw_prompt(long, config, place=(0, i), may_be_empty=True) for i in range(300)]
    assert max(text.count("Sentence") for text in texts) == 9
    assert draw_prompt(("Only this.",), config, place=(1,), may_be_empty=True) == "Only this."
    assert draw_prompt((), config, place=(1,), may_be_empty=True) == ""


def test_a_tenth_of_the_training_prompts_is_empty_and_no_validation_prompt():
    reports = (REPORT,) * 3000
    empty = [prompts(PromptConfig(), reports).text(index) == "" for index in range(3000)]
    assert 0.08 < np.mean(empty) < 0.12
    fixed = prompts(PromptConfig(), reports, fixed=True)
    assert all(fixed.text(index) for index in range(300))


def test_prompts_change_with_the_epoch_and_repeat_with_it_but_validation_stays():
    reports = (REPORT,) * 50
    training = prompts(PromptConfig(), reports)
    validation = prompts(PromptConfig(), reports, fixed=True)

    def texts(of: Prompts, epoch: int) -> list[str]:
        of.set_epoch(epoch)
        return [of.text(index) for index in range(50)]

    assert texts(training, 0) != texts(training, 1)
    assert texts(training, 1) == texts(training, 1)
    assert texts(validation, 0) == texts(validation, 1)


def test_a_constant_prompt_replaces_reports_but_leaves_room_for_the_empty_one():
    config = PromptConfig(constant="T1-weighted image of a brain.", empty_probability=0.5)
    texts = {draw_prompt(REPORT, config, place=(i,), may_be_empty=True) for i in range(50)}
    assert texts == {"", "T1-weighted image of a brain."}


def test_images_and_prompts_of_different_numbers_are_refused():
    with pytest.raises(ValueError, match="5 and 4 items"):
        PairedDataset([0] * 5, prompts(PromptConfig(), (REPORT,) * 4))


class Films(torch.utils.data.Dataset):
    def __init__(self, number: int) -> None:
        self.films = torch.randn(number, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.films)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"image": self.films[index]}


def halve(images):
    mean = torch.nn.functional.avg_pool2d(images, 2)
    return mean, mean.abs() + 1


def cache(path: Path, number: int = 5, encode=halve):
    options = {"batch_size": 2, "workers": 0, "show_progress": False}
    return cache_latents(Films(number), encode, path, **options)


def test_cached_latents_are_what_the_encoder_gives(tmp_path):
    films = Films(5)
    cached = cache(tmp_path / "latents-a.npy")
    assert len(cached) == 5
    for index in range(5):
        mean, std = halve(films[index]["image"][None])
        item = cached[index]
        assert torch.equal(item["latent_mean"], mean[0])
        assert torch.equal(item["latent_std"], std[0])


def test_an_empty_set_of_held_out_films_can_be_cached(tmp_path):
    assert len(cache(tmp_path / "latents-none.npy", 0)) == 0
    assert len(cache(tmp_path / "latents-none.npy", 0)) == 0


def test_a_cache_is_written_once_and_never_half(tmp_path):
    path = tmp_path / "latents-a.npy"
    calls = []

    def failing(images):
        calls.append(len(images))
        if len(calls) == 2:
            raise RuntimeError("the encoder broke")
        return halve(images)

    with pytest.raises(RuntimeError):
        cache(path, encode=failing)
    assert list(tmp_path.iterdir()) == []
    cache(path, encode=failing)
    encoded = len(calls)
    cache(path, encode=failing)
    assert len(calls) == encoded


def test_a_fingerprint_distinguishes_weights_files_and_texts(tmp_path):
    network = torch.nn.Linear(2, 2)
    film = tmp_path / "film.png"
    film.write_bytes(b"one")
    before = fingerprint(network, [film], "128")
    assert before == fingerprint(network, [film], "128")
    assert before != fingerprint(network, [film], "256")
    film.write_bytes(b"three")
    assert before != fingerprint(network, [film], "128")
    before = fingerprint(network)
    with torch.no_grad():
        network.bias[0] += 1
    assert before != fingerprint(network)


def test_cached_embeddings_follow_the_prompts_of_each_epoch_and_keep_each_text_once(tmp_path):
    texts = prompts(PromptConfig(max_sentences=1), (REPORT,) * 40)
    embedded = []

    def embed(batch):
        embedded.extend(batch)
        return torch.tensor([[[float(len(text))]] for text in batch])

    draws = texts.draws(3)
    cached = cache_embeddings(
        draws, embed, tmp_path / "prompts-a.npy", batch_size=4, show_progress=False
    )
    assert sorted(embedded) == sorted(set(REPORT) | {""})
    for epoch in range(7):
        cached.set_epoch(epoch)
        for index in range(40):
            expected = len(draws[epoch % 3][index])
            assert cached[index]["prompt_embeds"].item() == expected
