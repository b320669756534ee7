"""Options of Stable Diffusion's pipeline: the same films as the stock pipeline makes."""

from collections.abc import Callable

import diffusers
import numpy as np
import pytest
import torch
from diffusers import StableDiffusionControlNetPipeline, StableDiffusionPipeline

from diffct import CXRTextToImagePipeline
from tests.pipelines.tiny_flair import make_controlnet, make_flair_pipeline, make_slices, make_unet

PROMPT = "There is a small left pleural effusion."
SAFE = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
Make = Callable[..., CXRTextToImagePipeline]


def both(pipeline: CXRTextToImagePipeline, **options: object) -> tuple[np.ndarray, np.ndarray]:
    """Sample from diffct's and from the stock pipeline of the same components."""
    stock = StableDiffusionPipeline(**pipeline.components, **SAFE)
    stock.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": 3, "guidance_scale": 6.0, "output_type": "np"} | options
    films = [
        p([PROMPT, ""], generator=torch.Generator().manual_seed(0), **options)[0]
        for p in (pipeline, stock)
    ]
    return films[0], films[1]


@pytest.mark.parametrize("guidance_scale", [1.0, 4.0, 7.0])
def test_a_network_with_distilled_guidance_gets_the_scale_and_runs_once(
    make_cxr_pipeline: Make, guidance_scale: float
):
    pipeline = make_cxr_pipeline(unet_options={"time_cond_proj_dim": 8})
    pipeline.scheduler = diffusers.LCMScheduler.from_config(pipeline.scheduler.config)
    batches = []
    hook = pipeline.unet.register_forward_pre_hook(lambda net, args: batches.append(len(args[0])))
    ours, stock = both(pipeline, guidance_scale=guidance_scale)
    hook.remove()
    assert np.abs(ours - stock).max() < 1e-5
    assert set(batches) == {2}
    assert not pipeline.do_classifier_free_guidance
    other, _ = both(pipeline, guidance_scale=guidance_scale + 1)
    assert np.abs(ours - other).max() > 1e-4


def test_a_controlnet_on_a_network_with_distilled_guidance_agrees_with_the_stock_pipeline():
    unet = make_unet(time_cond_proj_dim=8)
    # A ControlNet shares the blocks, not the embedding of the guidance.
    pipeline = make_flair_pipeline(unet=unet, controlnet=make_controlnet(make_unet()))
    stock = StableDiffusionControlNetPipeline(**pipeline.components, **SAFE)
    stock.set_progress_bar_config(disable=True)
    image = torch.from_numpy(make_slices())[:, None]
    films = [
        p(
            prompt="T1-weighted image of a brain.",
            image=image,
            guidance_scale=5.0,
            num_inference_steps=3,
            generator=torch.Generator().manual_seed(0),
            output_type="np",
        )[0]
        for p in (pipeline, stock)
    ]
    assert np.abs(films[0] - films[1]).max() < 1e-5


@pytest.mark.parametrize(
    "option", [{"guidance_rescale": 2}, {"guidance_scale": "7"}, {"clip_skip": 1.5}]
)
def test_impossible_values_are_refused_by_name(make_cxr_pipeline: Make, option: dict):
    (name,) = option
    with pytest.raises(ValueError, match=name):
        make_cxr_pipeline()(PROMPT, num_inference_steps=1, **option)


def test_guidance_rescale_agrees_with_the_stock_pipeline(make_cxr_pipeline: Make):
    pipeline = make_cxr_pipeline()
    plain, _ = both(pipeline)
    ours, stock = both(pipeline, guidance_rescale=0.7)
    assert np.abs(ours - stock).max() < 1e-5
    assert np.abs(ours - plain).max() > 1e-4


@pytest.mark.parametrize(
    "options", [{"timesteps": [900, 500, 100, 20]}, {"sigmas": [9.0, 3.0, 0.5, 0.1, 0.0]}]
)
def test_timesteps_and_sigmas_agree_with_the_stock_pipeline(make_cxr_pipeline: Make, options):
    pipeline = make_cxr_pipeline()
    pipeline.scheduler = diffusers.EulerDiscreteScheduler.from_config(pipeline.scheduler.config)
    ours, stock = both(pipeline, **options)
    assert np.abs(ours - stock).max() < 1e-5
    assert pipeline.num_timesteps == 4


def test_timesteps_that_do_not_fit_are_named(make_cxr_pipeline: Make):
    pipeline = make_cxr_pipeline()
    with pytest.raises(ValueError, match=r"DDIMScheduler .*timesteps \[900, 500\] it fails"):
        pipeline(PROMPT, timesteps=[900, 500])
    with pytest.raises(ValueError, match="timesteps or sigmas"):
        pipeline(PROMPT, timesteps=[900], sigmas=[1.0])
    with pytest.raises(ValueError, match="one step at least"):
        pipeline(PROMPT, timesteps=[])


def test_clip_skip_takes_an_earlier_layer_through_the_final_norm(make_cxr_pipeline: Make):
    pipeline = make_cxr_pipeline()
    encoder = pipeline.text_encoder
    layers = encoder.config.num_hidden_layers
    ids = pipeline.tokenizer(
        PROMPT, padding="max_length", truncation=True, max_length=16, return_tensors="pt"
    ).input_ids
    states = encoder(ids, output_hidden_states=True).hidden_states
    embeds, _ = pipeline.encode_prompt(PROMPT, clip_skip=1)
    assert torch.allclose(embeds, encoder.final_layer_norm(states[-2]), atol=1e-6)
    plain, _ = pipeline.encode_prompt(PROMPT)
    assert torch.allclose(pipeline.encode_prompt(PROMPT, clip_skip=0)[0], plain, atol=1e-6)
    assert not torch.allclose(embeds, plain, atol=1e-3)

    def film(**options: object) -> np.ndarray:
        generator = torch.Generator().manual_seed(0)
        options = {"num_inference_steps": 2, "output_type": "np", "generator": generator} | options
        return pipeline(**options).images

    negative, _ = pipeline.encode_prompt("", clip_skip=1)
    given = film(prompt_embeds=embeds, negative_prompt_embeds=negative)
    assert np.allclose(film(prompt=PROMPT, clip_skip=1), given, atol=1e-5)
    with pytest.raises(ValueError, match=f"clip_skip={layers + 1}: .* has {layers} layers"):
        film(prompt=PROMPT, clip_skip=layers + 1)


def test_the_decoder_gets_the_generator(make_cxr_pipeline: Make, monkeypatch):
    pipeline = make_cxr_pipeline()
    decode, seen = pipeline.vae.decode, []

    def noted(latents: torch.Tensor, **options: object) -> object:
        seen.append(options["generator"])
        return decode(latents, **options)

    monkeypatch.setattr(pipeline.vae, "decode", noted)
    generator = torch.Generator().manual_seed(0)
    pipeline(PROMPT, num_inference_steps=1, generator=generator)
    assert seen == [generator]


def test_numbers_of_steps_and_images_are_checked(make_cxr_pipeline: Make):
    pipeline = make_cxr_pipeline()
    for name in ("num_inference_steps", "num_images_per_prompt"):
        for count in (0, -1, 2.5, None):
            with pytest.raises(ValueError, match=f"{name}={count}"):
                pipeline(PROMPT, **{name: count})


def test_the_callers_scheduler_is_not_changed_and_the_copy_passes_its_settings_on(
    make_cxr_pipeline: Make,
):
    scheduler = diffusers.DDIMScheduler(prediction_type="v_prediction")
    config, steps = dict(scheduler.config), scheduler.num_inference_steps
    pipelines = [
        make_cxr_pipeline(scheduler=scheduler),
        make_flair_pipeline(scheduler=scheduler),
    ]
    pipelines[0](PROMPT, num_inference_steps=2)
    assert dict(scheduler.config) == config and scheduler.num_inference_steps == steps
    for pipeline in pipelines:
        assert pipeline.scheduler is not scheduler
        # Defaults of the class, which diffusers would replace by those of the next class.
        heun = diffusers.HeunDiscreteScheduler.from_config(pipeline.scheduler.config)
        assert heun.config.beta_end == scheduler.config.beta_end == 0.02
        ddpm = diffusers.DDPMScheduler.from_config(pipeline.scheduler.config)
        assert ddpm.config.clip_sample is False and ddpm.config.steps_offset == 1
