"""The training script of text-to-image models: its files, and its messages about bad input."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel

import diffct
from diffct.models.small_text_encoder import make_small_text_encoder
from diffct.train.train_diffusion import main
from tests.train.films import TINY, write_autoencoder, write_films


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("sources")
    films, autoencoder = write_films(folder / "films"), write_autoencoder(folder / "autoencoder")
    return [f"data.manifest={films}", f"autoencoder={autoencoder}"]


def train(folder: Path, *words: str) -> Path:
    """Run the script in this process; return its output folder."""
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "tiny.yaml"
    config.write_text(TINY.format(folder=folder / "run"))
    main(["--config", str(config), "train.updates=4", "train.validate_every=2", *words])
    return folder / "run"


def refuse(folder: Path, *words: str) -> str:
    """Return what the script says when it gives up."""
    with pytest.raises(SystemExit) as stop:
        train(folder, *words)
    return str(stop.value)


def weights(folder: Path, part: str = "unet") -> dict[str, torch.Tensor]:
    name = "model" if part == "text_encoder" else "diffusion_pytorch_model"
    return load_file(folder / "pipeline" / part / f"{name}.safetensors")


def test_a_run_leaves_a_pipeline_that_samples_and_pictures(tmp_path, sources):
    output = train(tmp_path, *sources, "train.preview_every=4")
    assert (output / "previews" / "update-00000004.png").stat().st_size > 1000
    assert (output / "pipeline-best" / "model_index.json").is_file()
    pipeline = diffct.load_pipeline(output / "pipeline", device="cpu")
    image = pipeline("No pleural effusion.", num_inference_steps=2).images[0]
    assert (image.mode, image.size) == ("L", (64, 64))
    assert pipeline.vae.config.scaling_factor == 0.7
    card = (output / "pipeline" / "README.md").read_text()
    assert "7.png" not in card
    assert "No pleural effusion" not in card.split("```")[0]


def test_text_encoder_and_unet_both_learn(tmp_path, sources):
    short = train(tmp_path / "short", *sources, "train.updates=1", "optim.warmup_updates=0")
    long = train(tmp_path / "long", *sources, "train.updates=4", "optim.warmup_updates=0")
    for part in ("unet", "text_encoder"):
        before, after = weights(short, part), weights(long, part)
        assert before.keys() == after.keys()
        changed = [name for name in before if not torch.equal(before[name], after[name])]
        assert len(changed) > 0.9 * len(before)


def test_cached_latents_train_as_images_do(tmp_path, sources):
    # Dropout depends on the memory layout of its input, which the cache does not keep.
    words = [*sources, "unet.dropout=0"]
    fresh = train(tmp_path / "fresh", *words)
    cached = train(tmp_path / "cached", *words, "data.cache_latents=true")
    assert len(list((cached / "cache").glob("latents-*.npy"))) == 2
    for name, weight in weights(fresh).items():
        assert torch.allclose(weight, weights(cached)[name], atol=1e-5), name


def write_text_encoder(folder: Path) -> Path:
    tokenizer, text_encoder = make_small_text_encoder(
        ["No pleural effusion."], width=16, layers=1, heads=2, max_length=24
    )
    tokenizer.save_pretrained(folder / "tokenizer")
    text_encoder.save_pretrained(folder / "text_encoder")
    return folder


def test_a_frozen_text_encoder_does_not_change_and_its_embeddings_can_be_cached(tmp_path, sources):
    encoder = write_text_encoder(tmp_path / "encoder")
    words = [*sources, f"text_encoder.name={encoder}", "text_encoder.train=false", "unet.dropout=0"]
    fresh = train(tmp_path / "fresh", *words, "train.updates=3")
    cached = train(tmp_path / "cached", *words, "train.updates=3", "data.cache_prompts=1")
    before = load_file(encoder / "text_encoder" / "model.safetensors")
    for name, weight in weights(fresh, "text_encoder").items():
        assert torch.equal(weight, before[name]), name
    # float16 embeddings of one epoch
    for name, weight in weights(fresh).items():
        assert torch.allclose(weight, weights(cached)[name], atol=2e-3), name


def test_lora_learns_beside_frozen_weights_and_loads_into_the_pipeline(tmp_path, sources):
    pytest.importorskip("peft", reason="peft is not installed")
    base = train(tmp_path / "base", *sources) / "pipeline"
    words = [sources[0], f"initial_pipeline={base}", "text_encoder.train=false", "lora.rank=2"]
    tuned = train(tmp_path / "tuned", *words, "train.preview_every=4", "optim.lr=0.01")
    assert not (tuned / "pipeline").exists()
    low_rank = load_file(tuned / "lora" / "pytorch_lora_weights.safetensors")
    assert all("lora" in name for name in low_rank)
    assert any(weight.abs().max() > 0 for name, weight in low_rank.items() if "lora.up" in name)

    pipeline = diffct.load_pipeline(base, device="cpu")

    def sample():
        generator = torch.Generator().manual_seed(0)
        options = {"num_inference_steps": 2, "output_type": "pt", "generator": generator}
        return pipeline("The heart is normal.", **options).images

    before = sample()
    pipeline.load_lora_weights(tuned / "lora")
    assert not torch.allclose(before, sample(), atol=1e-5)
    pipeline.unload_lora_weights()
    assert torch.equal(before, sample())


def test_a_run_starts_from_another_pipeline(tmp_path, sources):
    base = train(tmp_path / "base", *sources) / "pipeline"
    words = [sources[0], f"initial_pipeline={base}", "optim.lr=0", "optim.weight_decay=0"]
    again = train(tmp_path / "again", *words)
    for part in ("unet", "text_encoder"):
        for name, weight in weights(base.parent, part).items():
            assert torch.allclose(weight, weights(again, part)[name], atol=1e-7), name


def test_films_without_validation_train(tmp_path, sources):
    films = write_films(tmp_path / "films", "ttttt")
    output = train(tmp_path, f"data.manifest={films}", sources[1])
    assert (output / "pipeline").is_dir()
    assert not (output / "pipeline-best").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["augmentation.flip_probability=0.5"], "left or right"),
        (["data.cache_latents=true", "augmentation.probability=0.5"], "augmentation.probability=0"),
        (["data.cache_prompts=2"], "data.cache_prompts=0, or text_encoder.name=FOLDER_OR_ID"),
        (["lora.rank=4"], "initial_pipeline"),
        (["text_encoder.train=false"], "text_encoder.train=true"),
        (["unet.cross_attention_dim=1024"], "unet.cross_attention_dim=1024"),
        (["unet.no_such_argument=1"], "no_such_argument"),
        (["text_encoder.name=/no/such/encoder"], "/no/such/encoder"),
        (["autoencoder=/no/such/autoencoder"], "train_autoencoder.py"),
        (["data.size=[63,64]"], "63"),
        (["data.size=[128,128]"], "Row 1"),
        (["scheduler.prediction_type=flow"], "flow"),
        (["preview.scheduler=none"], "none"),
    ],
)
def test_impossible_settings_are_refused_with_their_name(tmp_path, sources, words, message):
    assert message in refuse(tmp_path, *sources, *words)


def test_a_run_that_stopped_at_bad_input_can_be_corrected_in_the_same_folder(tmp_path, sources):
    assert "no-such" in refuse(tmp_path, sources[0], f"autoencoder={tmp_path}/no-such")
    output = train(tmp_path, *sources)
    assert (output / "pipeline").is_dir()
    assert "--resume" in refuse(tmp_path, *sources)


def test_a_patient_in_two_splits_is_refused_before_training(tmp_path, sources):
    films = write_films(tmp_path / "films")
    file = films / "manifest.jsonl"
    # Film 8 is in the validation split.
    file.write_text(
        file.read_text().replace('"8.png", "patient": "8.png"', '"8.png", "patient": "0.png"')
    )
    said = refuse(tmp_path, f"data.manifest={films}", sources[1])
    assert "1 patient(s) are in two splits (lines 1 and 9)" in said


def test_missing_and_truncated_films_are_refused_before_training(tmp_path, sources):
    films = write_films(tmp_path / "films")
    (films / "2.png").unlink()
    assert "missing" in refuse(tmp_path / "a", f"data.manifest={films}", sources[1])
    shutil.copy(films / "3.png", films / "2.png")
    (films / "3.png").write_bytes((films / "3.png").read_bytes()[:500])
    said = refuse(tmp_path / "b", f"data.manifest={films}", sources[1])
    assert "Row 4" in said


def test_a_text_encoder_that_does_not_fit_its_tokenizer_is_refused(tmp_path, sources):
    encoder = write_text_encoder(tmp_path / "encoder")
    CLIPTextModel(
        CLIPTextConfig(
            vocab_size=7,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
        )
    ).save_pretrained(encoder / "text_encoder")
    words = [f"text_encoder.name={encoder}", "text_encoder.train=false"]
    assert "do not belong together" in refuse(tmp_path, *sources, *words)
