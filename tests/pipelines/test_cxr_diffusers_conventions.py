"""The requirements of diffusers' own tests on every text-to-image pipeline, for diffct's."""

import inspect

import diffusers
import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.hooks import apply_group_offloading
from diffusers.schedulers import KarrasDiffusionSchedulers
from diffusers.utils.source_code_parsing_utils import ReturnNameVisitor

from diffct import CXRTextToImagePipeline

PROMPT = "There is a small left pleural effusion."
SAFE = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}


def sample(pipeline: diffusers.DiffusionPipeline, **options: object):
    generator = torch.Generator().manual_seed(0)
    options = {"num_inference_steps": 2, "guidance_scale": 6.0, "output_type": "np"} | options
    return pipeline(**{"prompt": PROMPT, "generator": generator} | options)[0]


def test_the_call_knows_stable_diffusions_arguments_and_all_are_optional():
    arguments = inspect.signature(CXRTextToImagePipeline.__call__).parameters
    known = set(inspect.signature(StableDiffusionPipeline.__call__).parameters)
    assert set(arguments) <= known
    asked = """prompt negative_prompt height width num_inference_steps guidance_scale
        num_images_per_prompt generator latents prompt_embeds negative_prompt_embeds output_type
        return_dict callback_on_step_end callback_on_step_end_tensor_inputs
        cross_attention_kwargs"""
    assert set(asked.split()) <= set(arguments)
    optional = [
        a.default is not inspect.Parameter.empty for n, a in arguments.items() if n != "self"
    ]
    assert all(optional)
    assert arguments["guidance_scale"].default == 7.0


def test_its_components_make_it_again(make_cxr_pipeline):
    pipeline = make_cxr_pipeline()
    assert set(pipeline.components) == {"vae", "text_encoder", "tokenizer", "unet", "scheduler"}
    again = CXRTextToImagePipeline(**pipeline.components)
    again.set_progress_bar_config(disable=True)
    assert np.array_equal(sample(again), sample(pipeline))


@pytest.mark.parametrize("scheduler", KarrasDiffusionSchedulers, ids=lambda item: item.name)
def test_every_scheduler_of_diffusers_enumeration_samples_or_is_named(make_cxr_pipeline, scheduler):
    if scheduler.name == "DPMSolverSDEScheduler":
        pytest.importorskip("torchsde", reason="DPMSolverSDEScheduler needs torchsde")
    pipeline = make_cxr_pipeline()
    pipeline.scheduler.register_to_config(skip_prk_steps=True)
    scheduler_class = getattr(diffusers, scheduler.name)
    pipeline.scheduler = scheduler_class.from_config(pipeline.scheduler.config)
    if scheduler.name == "EDMEulerScheduler":  # for networks of Karras et al.'s EDM
        with pytest.raises(ValueError, match="EDMEulerScheduler cannot sample"):
            sample(pipeline, num_inference_steps=5)
        return
    films = sample(pipeline, num_inference_steps=5)
    assert films.shape == (1, 32, 32, 1)
    assert np.isfinite(films).all() and films.std() > 1e-3


def test_a_pipeline_of_text_encoder_and_tokenizer_can_embed_prompts(make_cxr_pipeline):
    whole = make_cxr_pipeline()
    parts = whole.components
    text = {name: parts[name] for name in ("text_encoder", "tokenizer")}
    rest = {name: parts[name] for name in ("vae", "unet", "scheduler")}
    embedder = CXRTextToImagePipeline(**text, **dict.fromkeys(rest))
    # diffusers' tests read the names of what is returned from the source.
    visitor = ReturnNameVisitor()
    visitor.visit(visitor.get_ast_tree(cls=CXRTextToImagePipeline))
    assert visitor.return_names == ["prompt_embeds", "negative_prompt_embeds"]
    embeds = dict(zip(visitor.return_names, embedder.encode_prompt(PROMPT), strict=True))
    sampler = CXRTextToImagePipeline(**rest, **dict.fromkeys(text))
    assert np.allclose(sample(sampler, prompt=None, **embeds), sample(whole), atol=1e-5)


def test_it_turns_into_the_stock_pipeline_and_back(make_cxr_pipeline):
    original = StableDiffusionPipeline(**make_cxr_pipeline().components, **SAFE)
    ours = CXRTextToImagePipeline.from_pipe(original)
    ours.set_progress_bar_config(disable=True)
    assert np.abs(sample(ours) - sample(original)).max() < 1e-5
    again = StableDiffusionPipeline.from_pipe(ours, safety_checker=None, feature_extractor=None)
    assert again.config["requires_safety_checker"] is False
    assert np.abs(sample(again) - sample(original)).max() < 1e-5


def test_the_guidance_can_grow_from_step_to_step(make_cxr_pipeline):
    pipeline = make_cxr_pipeline()

    def grow(pipeline, step, timestep, tensors):
        pipeline._guidance_scale += 1.0
        return tensors

    sample(
        pipeline,
        guidance_scale=2.0,
        callback_on_step_end=grow,
        callback_on_step_end_tensor_inputs=pipeline._callback_tensor_inputs,
    )
    assert pipeline.guidance_scale == 2.0 + pipeline.num_timesteps


def test_variants_are_written_and_a_missing_one_is_named(make_cxr_pipeline, tmp_path):
    pipeline = make_cxr_pipeline()
    # diffusers' tests save like this; diffct writes safetensors all the same.
    pipeline.save_pretrained(tmp_path / "fp16", variant="fp16", safe_serialization=False)
    assert not list(tmp_path.rglob("*.bin"))
    for name in ("unet", "vae", "text_encoder"):
        assert list((tmp_path / "fp16" / name).glob("*.fp16.safetensors"))
    CXRTextToImagePipeline.from_pretrained(tmp_path / "fp16", variant="fp16")
    pipeline.save_pretrained(tmp_path / "plain")
    with pytest.raises(ValueError, match="`variant=fp16`"):
        CXRTextToImagePipeline.from_pretrained(tmp_path / "plain", variant="fp16")


def test_each_component_can_have_a_type_of_its_own(make_cxr_pipeline, tmp_path):
    make_cxr_pipeline().save_pretrained(tmp_path)
    types = {"vae": torch.bfloat16, "default": torch.float16}
    loaded = CXRTextToImagePipeline.from_pretrained(tmp_path, dtype=types)
    assert loaded.vae.dtype == torch.bfloat16
    assert {loaded.unet.dtype, loaded.text_encoder.dtype} == {torch.float16}


@pytest.mark.parametrize("saving", ["attention slices", "vae slices", "vae tiles", "fused qkv"])
def test_ways_to_save_memory_change_nothing(make_cxr_pipeline, saving):
    pipeline = make_cxr_pipeline()
    expected = sample(pipeline, prompt=[PROMPT, ""])
    if saving == "attention slices":
        pipeline.unet.set_default_attn_processor()
        pipeline.enable_attention_slicing(slice_size=1)
    elif saving == "vae slices":
        pipeline.vae.enable_slicing()
    elif saving == "vae tiles":
        pipeline.vae.enable_tiling()
    else:
        pipeline.fuse_qkv_projections()
    assert np.abs(sample(pipeline, prompt=[PROMPT, ""]) - expected).max() < 1e-4


def test_freeu_can_be_switched_on_and_off(make_cxr_pipeline):
    pipeline = make_cxr_pipeline()
    plain = sample(pipeline)
    pipeline.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4)
    assert np.abs(sample(pipeline) - plain).max() > 1e-4
    pipeline.disable_freeu()
    assert np.abs(sample(pipeline) - plain).max() < 1e-5


def test_groups_of_layers_can_be_offloaded(make_cxr_pipeline):
    expected = sample(make_cxr_pipeline())
    for level in ({"offload_type": "leaf_level"}, {"offload_type": "block_level"}):
        options = level | ({"num_blocks_per_group": 1} if "block" in level["offload_type"] else {})
        pipeline = make_cxr_pipeline()
        pipeline.unet.enable_group_offload(torch.device("cpu"), **options)
        apply_group_offloading(pipeline.text_encoder, onload_device=torch.device("cpu"), **options)
        assert np.abs(sample(pipeline) - expected).max() < 1e-4


def test_weights_stored_in_eight_bits_still_sample(make_cxr_pipeline):
    pipeline = make_cxr_pipeline().to(dtype=torch.bfloat16)
    pipeline.unet.enable_layerwise_casting(
        storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.bfloat16
    )
    assert np.isfinite(sample(pipeline)).all()


def test_the_progress_bar_counts_the_steps_and_can_be_silenced(make_cxr_pipeline, capsys):
    pipeline = make_cxr_pipeline()
    sample(pipeline)
    assert capsys.readouterr().err == ""
    pipeline.set_progress_bar_config(disable=False)
    sample(pipeline)
    assert "2/2" in capsys.readouterr().err
