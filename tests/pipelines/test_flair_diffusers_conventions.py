"""The requirements of diffusers' own tests on every ControlNet pipeline, for FlairToT1Pipeline."""

import inspect

import accelerate
import diffusers
import numpy as np
import pytest
import torch
from diffusers import StableDiffusionControlNetPipeline
from diffusers.hooks import apply_group_offloading
from diffusers.schedulers import KarrasDiffusionSchedulers
from diffusers.utils.source_code_parsing_utils import ReturnNameVisitor

from diffct import FlairToT1Pipeline
from tests.pipelines.tiny_flair import PROMPT, make_flair_pipeline, make_slices


def translate(pipeline: FlairToT1Pipeline, **options: object):
    generator = torch.Generator().manual_seed(0)
    options = {"num_inference_steps": 2, "guidance_scale": 6.0, "output_type": "np"} | options
    return pipeline(**{"image": make_slices(), "generator": generator} | options)[0]


def test_the_call_knows_the_stock_arguments_and_all_but_the_image_are_optional():
    arguments = inspect.signature(FlairToT1Pipeline.__call__).parameters
    known = set(inspect.signature(StableDiffusionControlNetPipeline.__call__).parameters)
    assert set(arguments) - known == {"num_samples", "slice_index"}
    asked = """prompt image height width num_inference_steps guidance_scale negative_prompt
        num_images_per_prompt eta generator latents prompt_embeds negative_prompt_embeds
        output_type return_dict cross_attention_kwargs controlnet_conditioning_scale
        control_guidance_start control_guidance_end callback_on_step_end
        callback_on_step_end_tensor_inputs"""
    assert set(asked.split()) <= set(arguments)
    required = {n for n, a in arguments.items() if a.default is inspect.Parameter.empty}
    assert required == {"self", "image"}


def test_its_components_make_it_again():
    pipeline = make_flair_pipeline()
    names = {"vae", "text_encoder", "tokenizer", "unet", "controlnet", "scheduler"}
    assert set(pipeline.components) == names
    again = FlairToT1Pipeline(**pipeline.components)
    again.set_progress_bar_config(disable=True)
    assert np.array_equal(translate(again), translate(pipeline))


@pytest.mark.parametrize("scheduler", KarrasDiffusionSchedulers, ids=lambda item: item.name)
def test_every_scheduler_of_diffusers_enumeration_translates_or_is_named(scheduler):
    if scheduler.name == "DPMSolverSDEScheduler":
        pytest.importorskip("torchsde", reason="DPMSolverSDEScheduler needs torchsde")
    pipeline = make_flair_pipeline()
    pipeline.scheduler.register_to_config(skip_prk_steps=True)
    scheduler_class = getattr(diffusers, scheduler.name)
    pipeline.scheduler = scheduler_class.from_config(pipeline.scheduler.config)
    if scheduler.name == "EDMEulerScheduler":  # for networks of Karras et al.'s EDM
        with pytest.raises(ValueError, match="EDMEulerScheduler cannot sample"):
            translate(pipeline, num_inference_steps=5)
        return
    images = translate(pipeline, num_inference_steps=5)
    assert images.shape == (1, 16, 24, 1)
    assert np.isfinite(images).all() and images.std() > 1e-3


def test_a_pipeline_of_text_encoder_and_tokenizer_can_embed_prompts():
    whole = make_flair_pipeline()
    parts = whole.components
    text = {name: parts[name] for name in ("text_encoder", "tokenizer")}
    rest = {name: part for name, part in parts.items() if name not in text}
    embedder = FlairToT1Pipeline(**text, **dict.fromkeys(rest))
    visitor = ReturnNameVisitor()
    visitor.visit(visitor.get_ast_tree(cls=FlairToT1Pipeline))
    assert visitor.return_names == ["prompt_embeds", "negative_prompt_embeds"]
    embeds = dict(zip(visitor.return_names, embedder.encode_prompt(PROMPT), strict=True))
    translator = FlairToT1Pipeline(**rest, **dict.fromkeys(text))
    translator.set_progress_bar_config(disable=True)
    assert np.allclose(translate(translator, **embeds), translate(whole), atol=1e-5)


def test_the_guidance_can_grow_from_step_to_step():
    pipeline = make_flair_pipeline()

    def grow(pipeline, step, timestep, tensors):
        pipeline._guidance_scale += 1.0
        return tensors

    names = pipeline._callback_tensor_inputs
    options = {"callback_on_step_end": grow, "callback_on_step_end_tensor_inputs": names}
    translate(pipeline, guidance_scale=2.0, **options)
    assert pipeline.guidance_scale == 2.0 + pipeline.num_timesteps


@pytest.mark.parametrize("saving", ["attention slices", "vae slices", "vae tiles", "fused qkv"])
def test_ways_to_save_memory_change_nothing(saving):
    pipeline = make_flair_pipeline()
    expected = translate(pipeline)
    if saving == "attention slices":
        pipeline.unet.set_default_attn_processor()
        pipeline.controlnet.set_default_attn_processor()
        pipeline.enable_attention_slicing(slice_size=1)
    elif saving == "vae slices":
        pipeline.vae.enable_slicing()
    elif saving == "vae tiles":
        pipeline.vae.enable_tiling()
    else:
        pipeline.fuse_qkv_projections()
    assert np.abs(translate(pipeline) - expected).max() < 1e-4


def test_offloaded_weights_give_the_same_images():
    expected = translate(make_flair_pipeline())
    pipeline = make_flair_pipeline()
    for name in ("text_encoder", "unet", "controlnet", "vae"):
        accelerate.cpu_offload(getattr(pipeline, name), torch.device("cpu"))
    assert pipeline.controlnet.device.type == "meta"
    assert np.abs(translate(pipeline) - expected).max() < 1e-5
    pipeline = make_flair_pipeline()
    for name in ("unet", "controlnet"):
        apply_group_offloading(
            getattr(pipeline, name), onload_device=torch.device("cpu"), offload_type="leaf_level"
        )
    assert np.abs(translate(pipeline) - expected).max() < 1e-4


def test_weights_stored_in_eight_bits_still_translate():
    pipeline = make_flair_pipeline().to(dtype=torch.bfloat16)
    for name in ("unet", "controlnet"):
        getattr(pipeline, name).enable_layerwise_casting(
            storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.bfloat16
        )
    assert np.isfinite(translate(pipeline)).all()


def test_each_component_can_have_a_type_of_its_own(tmp_path):
    make_flair_pipeline().save_pretrained(tmp_path)
    types = {"controlnet": torch.float32, "default": torch.bfloat16}
    loaded = FlairToT1Pipeline.from_pretrained(tmp_path, dtype=types)
    loaded.set_progress_bar_config(disable=True)
    assert loaded.controlnet.dtype == torch.float32 and loaded.unet.dtype == torch.bfloat16
    assert np.isfinite(translate(loaded)).all()


def test_variants_are_written_and_loaded_also_of_several_controlnets(tmp_path):
    pipeline = make_flair_pipeline(nets=2)
    pipeline.save_pretrained(tmp_path, variant="fp16", safe_serialization=False)
    assert not list(tmp_path.rglob("*.bin"))
    for name in ("unet", "controlnet", "controlnet_1"):
        assert list((tmp_path / name).glob("*.fp16.safetensors"))
    loaded = FlairToT1Pipeline.from_pretrained(tmp_path, variant="fp16")
    assert len(loaded.controlnet.nets) == 2


def test_the_progress_bar_counts_the_steps(capsys):
    pipeline = make_flair_pipeline()
    translate(pipeline)
    assert capsys.readouterr().err == ""
    pipeline.set_progress_bar_config(disable=False)
    translate(pipeline)
    assert "2/2" in capsys.readouterr().err
