"""The training script of ControlNets: its files, and its messages about bad input."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel
from PIL import Image
from safetensors.torch import load_file
from skimage.feature import match_template
from skimage.transform import resize

import diffct
from diffct.figures.contact_sheet import _DOTS_PER_INCH, _TILE_INCHES
from diffct.imaging.radiograph import read_radiograph
from diffct.models.fingerprint import is_base_unet
from diffct.train.train_controlnet import main
from tests.train.brains import PROMPT, TINY, write_base, write_pairs


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("sources")
    return [
        f"data.manifest={write_pairs(folder / 'pairs')}",
        f"base={write_base(folder / 'base')}",
    ]


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


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "diffusion_pytorch_model.safetensors")


def test_a_run_leaves_a_pipeline_that_translates(tmp_path, sources):
    output = train(tmp_path, *sources, "train.preview_every=4")
    assert (output / "previews" / "update-00000004.png").stat().st_size > 1000
    pipeline = diffct.load_pipeline(output / "pipeline", device="cpu")
    made = pipeline(torch.rand(2, 1, 64, 48), num_inference_steps=2, output_type="np").images
    assert made.shape == (2, 64, 48, 1)
    assert type(pipeline) is diffct.FlairToT1Pipeline
    assert pipeline.config.prompt == PROMPT
    assert pipeline.conditions == ["FLAIR"]
    assert (pipeline.config.plane, pipeline.config.spacing_mm) == ("axial", [3.0, 2.0])
    card = (output / "pipeline" / "README.md").read_text()
    assert "s0" not in card.split() and "T1w.png" not in card


@pytest.mark.parametrize("cached", [True, False])
def test_preview_shows_the_true_image_and_not_its_reconstruction(tmp_path, sources, cached):
    plain = ["augmentation.probability=0", "augmentation.flip_probability=0"]
    words = [f"data.cache_latents={str(cached).lower()}", *plain, "train.preview_every=4"]
    output = train(tmp_path, *sources, *words)
    with Image.open(output / "previews" / "update-00000004.png") as opened:
        sheet = np.asarray(opened.convert("L")).astype(float)
    pairs = Path(sources[0].removeprefix("data.manifest="))
    truth = read_radiograph(pairs / "7-T1w.png", smallest_side=1)[1:65, 1:49]
    # The autoencoder of this test is untrained: its reconstruction resembles nothing.
    tile = _TILE_INCHES * _DOTS_PER_INCH
    enlarged = resize(truth, (round(tile), round(tile * 48 / 64)), order=0)
    # 0.88 for the true image, drawn a fraction of a pixel off; 0.1 for any other.
    assert match_template(sheet, enlarged).max() > 0.7


def test_only_the_controlnet_learns_and_is_saved(tmp_path, sources):
    output = train(tmp_path, *sources, "optim.warmup_updates=0")
    base = Path(sources[1].removeprefix("base="))
    assert sorted(path.name for path in (output / "controlnet").iterdir()) == [
        "config.json",
        "diffusion_pytorch_model.safetensors",
    ]
    assert (output / "controlnet-best" / "config.json").is_file()
    for part in ("unet", "vae"):
        before, after = weights(base / part), weights(output / "pipeline" / part)
        assert all(after[name].equal(weight) for name, weight in before.items())
    learnt, copied = weights(output / "controlnet"), weights(base / "unet")
    assert not learnt["conv_in.weight"].equal(copied["conv_in.weight"])
    assert learnt["controlnet_mid_block.weight"].any()
    # The checkpoint holds the ControlNet's weights and no others.
    held = load_file(output / "checkpoints" / "checkpoint-00000004" / "model.safetensors")
    assert held.keys() == learnt.keys()
    # The ControlNet saved by itself is that of the pipeline: the moving average.
    together = weights(output / "pipeline" / "controlnet")
    assert all(together[name].equal(weight) for name, weight in learnt.items())


def test_controlnet_records_its_base_model(tmp_path, sources):
    output = train(tmp_path, *sources)
    pipeline = diffct.load_pipeline(output / "pipeline", device="cpu")
    alone = ControlNetModel.from_pretrained(output / "controlnet")
    assert is_base_unet(alone, pipeline.unet)
    other = diffct.load_pipeline(write_base(tmp_path / "other", seed=1), device="cpu")
    assert is_base_unet(alone, other.unet) is False


def test_several_conditions_one_of_them_sometimes_missing(tmp_path, sources):
    pairs = write_pairs(tmp_path / "pairs", conditions=("FLAIR", "T2w"))
    words = [f"data.manifest={pairs}", sources[1], "data.conditions=[FLAIR,T2w]"]
    output = train(tmp_path, *words, "data.condition_dropout=0.5", "train.preview_every=4")
    pipeline = diffct.load_pipeline(output / "pipeline", device="cpu")
    assert type(pipeline) is diffct.ContrastTranslationPipeline
    assert pipeline.controlnet.config.conditioning_channels == 2
    image = torch.rand(1, 1, 64, 48)
    made = pipeline({"FLAIR": image, "T2w": None}, num_inference_steps=2).images
    assert len(made) == 1


def test_cached_latents_learn_the_same_way(tmp_path, sources):
    words = ["augmentation.probability=0", "augmentation.flip_probability=0", "train.updates=2"]
    plain = train(tmp_path / "plain", *sources, *words, "optim.warmup_updates=0")
    cached = train(
        tmp_path / "cached",
        *sources,
        *words,
        "optim.warmup_updates=0",
        "data.cache_latents=true",
        "train.preview_every=2",
    )
    expected, found = weights(plain / "controlnet"), weights(cached / "controlnet")
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, atol=1e-4, rtol=1e-3)


def test_bad_input_is_refused_by_name(tmp_path, sources):
    pairs = Path(sources[0].removeprefix("data.manifest="))
    assert "no such manifest" in refuse(tmp_path / "a", "data.manifest=nowhere", sources[1])
    said = refuse(tmp_path / "b", sources[0], "base=nowhere")
    assert "base=nowhere" in said and "train_diffusion.py" in said
    said = refuse(tmp_path / "c", *sources, "data.conditions=[T2w]")
    assert "names T2w, which no slice" in said and "FLAIR" in said
    said = refuse(tmp_path / "d", *sources, "controlnet.conditioning_embedding_out_channels=[4]")
    assert "give 2 widths" in said
    assert "cache_latents" in refuse(tmp_path / "e", *sources, "data.cache_latents=true")
    assert "once" in refuse(tmp_path / "f", *sources, "data.conditions=[FLAIR,FLAIR]")
    damaged = tmp_path / "damaged"
    shutil.copytree(pairs, damaged)
    (damaged / "3-FLAIR.png").write_bytes(b"nothing")
    assert "3-FLAIR.png" in refuse(tmp_path / "g", f"data.manifest={damaged}", sources[1])
    rows = [json.loads(line) for line in (pairs / "manifest.jsonl").read_text().splitlines()]
    del rows[0]["facts"]["affine"]
    (damaged / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert "affine" in refuse(tmp_path / "h", f"data.manifest={damaged}", sources[1])
