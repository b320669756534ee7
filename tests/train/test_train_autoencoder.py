"""The training script of autoencoders: its files, and its messages about bad input."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image
from safetensors.torch import load_file

from diffct.data.manifest import ManifestRow, write_manifest
from diffct.imaging.radiograph import write_png
from diffct.train import CONFIGS
from diffct.train.train_autoencoder import AutoencoderConfig, main

TINY = [
    "tracker=none",
    "data.size=[48,64]",
    "autoencoder.down_block_types=[DownEncoderBlock2D,DownEncoderBlock2D]",
    "autoencoder.up_block_types=[UpDecoderBlock2D,UpDecoderBlock2D]",
    "autoencoder.block_out_channels=[4,8]",
    "autoencoder.latent_channels=2",
    "autoencoder.norm_num_groups=2",
    "discriminator.channels=4",
    "discriminator.num_layers_d=1",
    "objective.adversarial_weight=0.005",
    "objective.adversarial_start_updates=2",
    "train.updates=4",
    "train.batch_size=2",
    "train.log_every=1",
    "train.validate_every=2",
    "train.checkpoint_every=1",
    "train.preview_every=4",
    "preview.images=2",
]


def write_films(folder: Path, splits: str = "tttttvve", shape: tuple[int, int] = (50, 64)) -> Path:
    """Make a small data set; each letter is the split of a film."""
    rows, columns = np.mgrid[: shape[0], : shape[1]] / 64
    names = {"t": "train", "v": "validation", "e": "test"}
    manifest = []
    for number, split in enumerate(splits):
        waves = np.random.default_rng(number).uniform(2, 9, size=2)
        film = 0.5 + 0.2 * np.sin(waves[0] * rows) + 0.2 * np.sin(waves[1] * columns + number)
        write_png(film.astype(np.float32), folder / f"{number}.png")
        manifest.append(ManifestRow(f"{number}.png", patient=f"p{number}", split=names[split]))
    write_manifest(manifest, folder / "manifest.jsonl")
    return folder


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> Path:
    return write_films(tmp_path_factory.mktemp("films"))


def train(output: Path, *words: str) -> None:
    config = CONFIGS / "cxr/autoencoder.yaml"
    main(["--config", str(config), f"output_dir={output}", *TINY, *words])


def refuse(output: Path, *words: str) -> str:
    """Return what the script says when it gives up."""
    with pytest.raises(SystemExit) as stop:
        train(output, *words)
    return str(stop.value)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "diffusion_pytorch_model.safetensors")


def test_a_run_leaves_a_measured_autoencoder_figures_and_pictures(tmp_path, films, capsys):
    output = tmp_path / "run"
    train(output, f"data.manifest={films}", "tracker=tensorboard")

    autoencoder = AutoencoderKL.from_pretrained(output / "autoencoder")
    figures = json.loads((output / "reconstruction.json").read_text())
    assert set(figures) == {"autoencoder", "autoencoder-best"}
    for name, found in figures.items():
        config = json.loads((output / name / "config.json").read_text())
        assert config["scaling_factor"] == found["scaling_factor"]
        assert found["scaling_factor"] == round(1 / found["latents"]["overall_std"], 4)
        assert (found["validation"]["images"], found["test"]["images"]) == (2, 1)
        assert found["validation"]["ms_ssim_kernel"] == 3
    # The statistics in the file are those of latents that the autoencoder draws.
    images = [Image.open(films / f"{i}.png") for i in range(5)]
    images = np.stack([np.asarray(image)[1:49] for image in images]) / 65535 * 2 - 1
    with torch.no_grad():
        images = torch.from_numpy(images).float()[:, None]
        posterior = autoencoder.encode(images).latent_dist
        std = torch.cat([posterior.sample() for _ in range(300)]).std().item()
    assert autoencoder.config.scaling_factor == pytest.approx(1 / std, rel=0.02)

    said = capsys.readouterr().out
    assert "scaling_factor" in said and "validation: MS-SSIM" in said and "test: MS-SSIM" in said
    assert {path.name for path in output.glob("*.png")} == {"loss.png", "reconstruction.png"}
    assert [path.name for path in (output / "previews").iterdir()] == ["update-00000004.png"]
    assert list(output.rglob("events.out.tfevents*"))
    # The saved weights are the moving average, not the last weights.
    last = load_file(output / "checkpoints/checkpoint-00000004/model.safetensors")
    published = weights(output / "autoencoder")
    assert {f"autoencoder.{name}" for name in published} == set(last)
    assert any(not torch.equal(last[f"autoencoder.{name}"], published[name]) for name in published)


def test_the_finished_run_can_be_resumed_without_measuring_again(tmp_path, films):
    output = tmp_path / "run"
    train(output, f"data.manifest={films}")
    kept = [output / "autoencoder/config.json", output / "reconstruction.json"]
    before = [(path.stat().st_mtime_ns, path.read_text()) for path in kept]
    train(output, f"data.manifest={films}", "--resume")
    assert before == [(path.stat().st_mtime_ns, path.read_text()) for path in kept]
    message = refuse(output, f"data.manifest={films}", "--resume", "objective.kl_weight=1")
    assert "objective.kl_weight" in message


def test_a_given_scaling_factor_is_written_and_the_latents_are_measured_too(tmp_path, films):
    train(tmp_path / "run", f"data.manifest={films}", "scaling_factor=0.3")
    for name in ("autoencoder", "autoencoder-best"):
        loaded = AutoencoderKL.from_pretrained(tmp_path / "run" / name)
        assert loaded.config.scaling_factor == 0.3
    figures = json.loads((tmp_path / "run" / "reconstruction.json").read_text())
    assert figures["autoencoder"]["latents"]["overall_std"] != pytest.approx(1 / 0.3)


def test_an_autoencoder_whose_training_was_stopped_has_no_scaling_factor(tmp_path, films):
    said = refuse(
        tmp_path / "run",
        f"data.manifest={films}",
        *("optim.lr=1e18", "optim.warmup_updates=0", "train.updates=50", "train.validate_every=0"),
    )
    assert "training stopped" in said
    loaded = AutoencoderKL.from_pretrained(tmp_path / "run" / "autoencoder")
    assert loaded.config.scaling_factor is None
    assert not (tmp_path / "run" / "reconstruction.json").exists()


def test_without_validation_images_it_trains_and_says_so(tmp_path, capsys):
    films = write_films(tmp_path / "films", splits="ttttt")
    train(tmp_path / "run", f"data.manifest={films}")
    assert "no validation is done" in capsys.readouterr().out
    assert not (tmp_path / "run" / "autoencoder-best").exists()
    assert (tmp_path / "run" / "previews").exists()
    figures = json.loads((tmp_path / "run" / "reconstruction.json").read_text())
    assert set(figures) == {"autoencoder"}
    assert set(figures["autoencoder"]) == {"scaling_factor", "latents"}


def test_losses_are_logged_by_name_and_the_adversarial_ones_from_their_start(tmp_path, films):
    train(tmp_path / "run", f"data.manifest={films}")
    last = tmp_path / "run/checkpoints/checkpoint-00000004/custom_checkpoint_3.pkl"
    history = torch.load(last, weights_only=True)["history"]
    rows = {row["update"]: row for row in history if "loss" in row}
    assert set(rows[2]) == {"update", "loss", "l1", "kl"}
    assert set(rows[3]) == {"update", "loss", "l1", "kl", "adversarial", "discriminator"}
    row = rows[4]
    parts = row["l1"] + 1e-8 * row["kl"] + 0.005 * row["adversarial"]
    assert row["loss"] == pytest.approx(parts, rel=1e-5)


def test_without_adversarial_weight_there_is_no_discriminator(tmp_path, films):
    train(tmp_path / "run", f"data.manifest={films}", "objective.adversarial_weight=0")
    saved = {path.name for path in (tmp_path / "run/checkpoints/checkpoint-00000004").iterdir()}
    assert "model.safetensors" in saved and "model_1.safetensors" not in saved


def test_it_learns_with_the_perceptual_loss_from_a_local_file(tmp_path, films):
    pytest.importorskip("lpips", reason="lpips is not installed: pip install lpips")
    import torchvision

    backbone = tmp_path / "squeezenet1_1-random.pth"
    torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), backbone)
    words = ["objective.perceptual=squeeze", f"objective.perceptual_backbone={backbone}"]
    train(tmp_path / "run", f"data.manifest={films}", *words)
    last = tmp_path / "run/checkpoints/checkpoint-00000004"
    history = torch.load(last / "custom_checkpoint_3.pkl", weights_only=True)["history"]
    assert all(row["perceptual"] > 0 for row in history if "loss" in row)
    # The perceptual network is neither checkpointed nor moved with the run.
    assert not any("lpips" in key for key in load_file(last / "model.safetensors"))
    backbone = backbone.rename(tmp_path / "elsewhere.pth")
    words[1] = f"objective.perceptual_backbone={backbone}"
    train(tmp_path / "run", f"data.manifest={films}", *words, "--resume")


@pytest.mark.skipif(
    not torch.cpu._is_avx512_bf16_supported(), reason="this CPU has no bf16 arithmetic"
)
def test_mixed_precision_trains_and_publishes_full_precision_weights(tmp_path, films):
    train(tmp_path / "run", f"data.manifest={films}", "mixed_precision=bf16")
    published = weights(tmp_path / "run" / "autoencoder")
    assert {weight.dtype for weight in published.values()} == {torch.float32}


def test_gradient_checkpointing_learns_the_same(tmp_path, films):
    train(tmp_path / "plain", f"data.manifest={films}")
    train(tmp_path / "saving", f"data.manifest={films}", "train.gradient_checkpointing=true")
    first, second = (weights(tmp_path / name / "autoencoder") for name in ("plain", "saving"))
    assert all(torch.allclose(first[key], second[key], atol=1e-5) for key in first)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("data.size=[49,64]", r"divisible by 2.*\[48, 64\]"),
        ("data.size=[32,64]", "48 pixels"),
        ("data.size=[48,96]", r"8 of 8 images.*Row 1 of the manifest.*\[48, 96\]"),
        ("autoencoder.block_out_chanels=[4,8]", r"autoencoder\.block_out_channels"),
        ("autoencoder.scaling_factor=0.3", "set scaling_factor"),
        ("discriminator.chanels=4", r"discriminator\.channels"),
        ("objective.perceptual=resnet", "squeeze, alex, vgg, none"),
        ("objective.perceptual=squeeze", "https://download.pytorch.org.*perceptual=none"),
        ("data.manifest=/nowhere", "/nowhere"),
        ("mixed_precision=fp16", "fp16 needs a GPU"),
    ],
)
def test_impossible_settings_are_refused_before_training(tmp_path, films, word, message):
    if "perceptual=squeeze" in word:
        pytest.importorskip("lpips", reason="lpips is not installed: pip install lpips")
    if "fp16" in word and torch.cuda.is_available():
        pytest.skip("this machine has fp16")
    said = refuse(tmp_path / "run", f"data.manifest={films}", word)
    assert re.search(message, said, re.DOTALL), said
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_damaged_films_are_all_named_before_training(tmp_path):
    films = write_films(tmp_path / "films")
    for number in (2, 6):
        path = films / f"{number}.png"
        path.write_bytes(path.read_bytes()[:200])
    colour = np.random.default_rng(0).integers(0, 255, (50, 64, 3)).astype(np.uint8)
    Image.fromarray(colour).save(films / "3.png")
    said = refuse(tmp_path / "run", f"data.manifest={films}")
    assert "3 of 8 images" in said
    assert all(f"Row {row} of the manifest" in said for row in (3, 4, 7))
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_the_shipped_configurations_fit_the_schema_and_the_networks():
    from diffct.config import load_config
    from diffct.training.adversarial import make_discriminator
    from diffct.training.reconstruction import make_autoencoder

    for path in CONFIGS.glob("*/autoencoder*.yaml"):
        config = load_config(AutoencoderConfig, path)
        with torch.device("meta"):
            autoencoder = make_autoencoder(config.autoencoder, size=config.data.size, seed=0)
            make_discriminator(config.discriminator, seed=0)
        if path.parent.name == "cxr" and "published" in path.name:
            assert tuple(autoencoder.config.block_out_channels) == (64, 128, 128, 128)
            assert autoencoder.config.latent_channels == 3
            settings = config.objective
            assert (settings.kl_weight, settings.perceptual) == (1e-8, "squeeze")
            assert (settings.perceptual_weight, settings.adversarial_weight) == (0.002, 0.005)
            assert (config.optim.lr, config.discriminator_optim.lr) == (5e-5, 1e-4)
            films_per_update = config.train.batch_size * config.train.gradient_accumulation
            assert films_per_update == 96 and config.data.size == [512, 512]
