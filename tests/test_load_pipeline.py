"""Loading a pipeline: types of its components, and names that are not pipelines."""

import json
import time
from pathlib import Path

import diffusers
import pytest
import torch

import diffct
from diffct.device import find_device
from diffct.models.latent_diffusion import load_autoencoder, load_parts
from diffct.models.text_encoding import load_text_encoder


@pytest.fixture
def films(make_cxr_pipeline, tmp_path: Path) -> Path:
    """Save a tiny pipeline of films whose text encoder and denoiser are bfloat16."""
    pipeline = make_cxr_pipeline()
    pipeline.text_encoder.to(torch.bfloat16)
    pipeline.unet.to(torch.bfloat16)
    folder = tmp_path / "outputs" / "run 1 [a]" / "pipeline"
    pipeline.save_pretrained(folder)
    return folder


def types(pipeline: diffusers.DiffusionPipeline) -> dict[str, torch.dtype]:
    """Return the type of each network's weights."""
    parts = pipeline.components.items()
    return {name: part.dtype for name, part in parts if isinstance(part, torch.nn.Module)}


def test_every_part_is_float32_unless_another_type_is_asked_for(films):
    alike = dict.fromkeys(("vae", "text_encoder", "unet"), torch.float32)
    loaded = diffct.load_pipeline(films, device="cpu")
    assert types(loaded) == alike
    assert types(diffct.CXRTextToImagePipeline.from_pretrained(films)) == alike
    loaded.set_progress_bar_config(disable=True)
    loaded("left", num_inference_steps=1)
    for given in ({"dtype": torch.float16}, {"torch_dtype": torch.float16}):
        half = diffct.CXRTextToImagePipeline.from_pretrained(films, **given)
        assert set(types(half).values()) == {torch.float16}
    parts = load_parts(str(films))
    assert {part.dtype for part in (parts.vae, parts.text_encoder, parts.unet)} == {torch.float32}
    chosen = {"unet": torch.float16, "default": torch.float32}
    mixed = diffct.load_pipeline(films, device="cpu", dtype=chosen)
    assert types(mixed) == alike | {"unet": torch.float16}
    with pytest.raises(ValueError, match="'float16' is no"):
        diffct.load_pipeline(films, device="cpu", dtype="float16")


def test_variants_device_maps_and_quantisation_reach_diffusers(films, tmp_path):
    pipeline = diffct.load_pipeline(films, device="cpu")
    pipeline.save_pretrained(tmp_path / "half", variant="fp16")
    loaded = diffct.load_pipeline(tmp_path / "half", device="cpu", variant="fp16")
    assert torch.equal(loaded.unet.conv_in.weight, pipeline.unet.conv_in.weight)
    with pytest.raises(ValueError, match="fp8"):
        diffct.load_pipeline(tmp_path / "half", device="cpu", variant="fp8")
    mapped = diffct.load_pipeline(films, device_map="cpu")
    assert mapped.hf_device_map == "cpu" or set(mapped.hf_device_map.values()) == {"cpu"}
    with pytest.raises(ValueError, match="give one of them"):
        diffct.load_pipeline(films, device="cpu", device_map="balanced")
    with pytest.raises(ValueError, match="PipelineQuantizationConfig"):
        diffct.load_pipeline(films, device="cpu", quantization_config="int8")


@pytest.mark.parametrize("name", ["outputs/run 1 [a]/pipelin", "output/run 1 [a]/pipeline"])
def test_a_mistyped_folder_is_not_a_hub_id_and_a_similar_one_is_named(films, monkeypatch, name):
    monkeypatch.chdir(films.parents[2])
    begun = time.monotonic()
    with pytest.raises(FileNotFoundError, match=r"no such folder\. Did you mean .*1 \[a\]/pipel"):
        diffct.load_pipeline(name, device="cpu")
    for load in (load_parts, load_autoencoder, load_text_encoder):
        with pytest.raises(OSError, match="no such folder"):
            load(name)
    assert time.monotonic() - begun < 1


def test_names_that_are_not_pipelines_are_refused_with_the_reason(films, monkeypatch):
    monkeypatch.chdir(films.parents[2])
    run, file = films.parent, films / "model_index.json"
    (run / "checkpoint-1").mkdir()
    for name, message in (
        ("outputs/pipelin", r"outputs/pipelin: there is no such folder\. A model on the Hub is"),
        ("pipelin", r"pipelin: there is no such folder\."),
        ("~/no such folder", "there is no such folder"),
        (run, r"holds no pipeline \(no model_index\.json\)\. Did you mean .*/pipeline\?"),
        (run / "checkpoint-1", r"A training run saves one in <output_dir>/pipeline\."),
        (file, "is a file"),
    ):
        with pytest.raises(FileNotFoundError, match=message):
            diffct.load_pipeline(name, device="cpu")


def test_devices_are_those_of_this_machine():
    assert find_device("cpu").type == find_device("cpu:0").type == "cpu"
    assert find_device().type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ValueError, match="device tpu9: not on this machine, which has cpu"):
        find_device("tpu9")


def test_a_pipeline_recorded_as_it_was_once_still_loads(tmp_path):
    unet = diffct.UNet3DModel(
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        block_out_channels=(8,),
        layers_per_block=1,
        norm_num_groups=4,
    )
    scheduler = diffusers.DDPMScheduler()
    diffct.CT3DPipeline(unet, scheduler, size=[4, 8, 8]).save_pretrained(tmp_path)
    path = tmp_path / "model_index.json"
    index = json.loads(path.read_text())
    index |= {"_class_name": "CT3DPipeline", "unet": ["diffct", "UNet3DModel"]}
    path.write_text(json.dumps(index))
    for load in (diffct.load_pipeline, diffusers.DiffusionPipeline.from_pretrained):
        assert type(load(tmp_path)) is diffct.CT3DPipeline
