"""Figures on the model card of a real pipeline, read back by the Hub's own classes."""

import math
from pathlib import Path

import diffusers
import pytest
import torch
from huggingface_hub import EvalResult, ModelCard
from numpy import float64

from diffct import CT3DPipeline, UNet3DModel
from diffct.eval.figures import Figure
from diffct.eval.model_index import add_to_model_card
from diffct.eval.section import Section
from diffct.metrics.diversity import Diversity
from diffct.metrics.intervals import Estimate
from diffct.metrics.manifold import ManifoldFigures
from diffct.metrics.similarity import multi_scale
from diffct.phantoms.brain.lesions import LesionFigures

FD = "FD[xrv-densenet121-all]"
FOREIGN = EvalResult(
    task_type="image-classification",
    dataset_type="beans",
    dataset_name="Beans",
    metric_type="accuracy",
    metric_value=0.9,
    source_name="Someone else",
    source_url="https://example.org",
)


def save_pipeline(folder: Path) -> Path:
    torch.manual_seed(0)
    unet = UNet3DModel(
        down_block_types=("DownBlock2D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "UpBlock2D"),
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
    )
    facts = {"data": "synthetic phantoms", "synthetic": True, "losses": {"loss": 0.5}}
    size = [4, 8, 8]
    pipeline = CT3DPipeline(unet, diffusers.DDPMScheduler(), size=size, training=facts)
    pipeline.save_pretrained(folder)
    return folder


def make_sections(fd: float = 12.5) -> list[Section]:
    card = {
        "sets": {"samples": {"images": 24}, "held_out": {"images": 20}},
        "phantoms": True,
        "versions": {"diffct": "1.2.3"},
    }
    diversity = Diversity(0.4, images=24, pairs=276, scales=multi_scale((64, 64)))
    bandwidth = {"metric": "MMD bandwidth", "value": 7.0, "network": "net"}
    planes = {"metric": "FD", "network": "net", "plane": "mean of planes"}
    manifold = ManifoldFigures(0.5, 0.25, math.inf, 0.75)
    distribution = [
        Figure("FD", Estimate(fd, 1.0, (10.5, 14.5)), "samples", "xrv-densenet121-all"),
        Figure("FD", Estimate(3.0), "train", "xrv-densenet121-all"),
        Figure("KID", Estimate(math.nan), "samples", "net"),
        Figure("KID", Estimate(0.1), "train", "net"),
        *(Figure(of=role, **bandwidth) for role in ("samples", "train")),
        Figure("manifold", manifold, "samples", "net", "axial"),
        *(Figure("MS-SSIM of pairs", diversity, role) for role in ("samples", "held_out", "train")),
        Figure(value=float64(2.5), of="samples", **planes),
        Figure(value=1.0, of="train", **planes),
    ]
    privacy = [
        Figure("nearest neighbours", {"pixels": {"samples": 24, "threshold": 0.5}}),
        Figure("membership AUC", Estimate(0.55, 0.1, (0.35, math.nan))),
        Figure("findings", {"effusion": 0.5, "images": 24, "none": None, "copies": False}),
    ]
    pairs = {"mae_hu": Estimate(20.0, sd=3.0), "psnr": Estimate(30.0, sd=2.0)}
    lesions = LesionFigures(0.75, found=0.5, lesions=9, distance_px=1.5, false_per_slice=0.25)
    translation = [
        *(Figure(metric, value, "diffct") for metric, value in pairs.items()),
        Figure("lesions", lesions, "diffct"),
        *(Figure(metric, value, "mean") for metric, value in pairs.items()),
        Figure("lesions", lesions, "true T1w"),
    ]
    found = {
        "distribution": distribution,
        "privacy": privacy,
        "reconstruction": [Figure(metric, value) for metric, value in pairs.items()],
        "translation": translation,
    }
    return [Section(name, name, card, figures) for name, figures in found.items()]


def add(folder: Path, fd: float = 12.5, data_name: str = "Phantoms of the pelvis (CT)") -> int:
    task = "unconditional-image-generation"
    return add_to_model_card(folder, make_sections(fd), data_name=data_name, task=task)


def read(path: Path) -> list[EvalResult]:
    return ModelCard.load(path / "README.md").data.eval_results or []


def test_card_has_every_figure_under_its_name(tmp_path):
    folder = save_pipeline(tmp_path / "pelvis")
    before = ModelCard.load(folder / "README.md")
    count = add(folder)
    results = read(folder)
    assert count == len(results)
    assert {result.metric_name: result.metric_value for result in results} == {
        f"{FD}, samples and held-out": 12.5,
        "precision[net], axial, samples and held-out": 0.5,
        "recall[net], axial, samples and held-out": 0.25,
        "coverage[net], axial, samples and held-out": 0.75,
        "MS-SSIM of pairs, samples": 0.4,
        "FD[net], mean of planes, samples and held-out": 2.5,
        "membership AUC, privacy": 0.55,
        "findings, effusion, privacy": 0.5,
        "MAE (HU), reconstruction": 20.0,
        "PSNR (dB), reconstruction": 30.0,
        "MAE (HU), translation": 20.0,
        "PSNR (dB), translation": 30.0,
        "lesions, found, translation": 0.5,
        "lesions, dice, translation": 0.75,
        "lesions, distance_px, translation": 1.5,
        "lesions, false_per_slice, translation": 0.25,
    }
    card = ModelCard.load(folder / "README.md")
    assert card.text == before.text and card.data.tags == before.data.tags
    assert card.data.model_name == "pelvis"


def test_result_says_data_number_and_interval(tmp_path):
    folder = save_pipeline(tmp_path / "pelvis")
    add(folder)
    first = read(folder)[0]
    assert first.metric_type == FD
    assert first.task_type == "unconditional-image-generation"
    assert first.dataset_name == "Phantoms of the pelvis (CT)"
    assert first.dataset_type == "diffct-phantoms-of-the-pelvis-ct"
    assert first.dataset_split == "held-out"
    assert first.verified is None and first.source_url is None
    assert first.metric_args == {
        "measured_by": "diffct",
        "version": "1.2.3",
        "measurement": "distribution",
        "images": {"samples": 24, "held_out": 20},
        "phantoms": True,
        "interval_95": [10.5, 14.5],
    }
    (attack,) = [result for result in read(folder) if result.metric_type == "membership AUC"]
    assert "interval_95" not in attack.metric_args, "half an interval is none"


def test_adding_twice_equals_adding_once(tmp_path):
    folder = save_pipeline(tmp_path / "pelvis")
    add(folder)
    once = [(folder / name).read_bytes() for name in ("README.md", "model_index.json")]
    add(folder)
    assert [(folder / name).read_bytes() for name in ("README.md", "model_index.json")] == once
    add(folder, fd=99.0, data_name="Other phantoms")
    assert read(folder)[0].metric_value == 99.0
    assert {result.dataset_name for result in read(folder)} == {"Other phantoms"}


def test_results_and_words_of_others_are_kept(tmp_path):
    folder = save_pipeline(tmp_path / "pelvis")
    card = ModelCard.load(folder / "README.md")
    card.data.model_name, card.data.eval_results = "Their name", [FOREIGN]
    card.data.language = "en"
    card.text += "\nWritten by hand.\n"
    card.save(folder / "README.md")
    count = add(folder)
    add(folder)
    assert read(folder)[0] == FOREIGN and len(read(folder)) == 1 + count
    after = ModelCard.load(folder / "README.md")
    assert after.text == card.text and after.data.language == "en"
    assert after.data.model_name == "Their name"


def test_a_loaded_pipeline_brings_its_figures_to_its_next_card(tmp_path):
    folder = save_pipeline(tmp_path / "pelvis")
    add(folder)
    pipeline = CT3DPipeline.from_pretrained(folder)
    pipeline.save_pretrained(tmp_path / "copy", repo_id="me/copy")
    assert read(tmp_path / "copy") == read(folder)
    copy = ModelCard.load(tmp_path / "copy" / "README.md")
    text = ModelCard.load(folder / "README.md").text
    assert copy.text == text.replace("# pelvis", "# copy").replace('"pelvis"', '"me/copy"')
    assert copy.data.model_name == "copy"
    pipeline.save_pretrained(folder)
    assert read(folder) == read(tmp_path / "copy")
    add(tmp_path / "copy")
    assert read(tmp_path / "copy") == read(folder)


def test_without_figures_there_is_no_model_index(tmp_path):
    folder = save_pipeline(tmp_path / "pelvis")
    before = (folder / "README.md").read_text()
    add(folder)
    nothing = {"data_name": "Phantoms", "task": "text-to-image"}
    assert add_to_model_card(folder, [], **nothing) == 0
    assert (folder / "README.md").read_text() == before
    CT3DPipeline.from_pretrained(folder).save_pretrained(folder)
    assert (folder / "README.md").read_text() == before


def test_a_folder_without_card_or_pipeline_is_named(tmp_path):
    folder = save_pipeline(tmp_path / "pelvis")
    (folder / "README.md").unlink()
    with pytest.raises(FileNotFoundError, match=r"pelvis has no README\.md"):
        add(folder)
    with pytest.raises(FileNotFoundError, match=r"nowhere has no README\.md"):
        add(tmp_path / "nowhere")
