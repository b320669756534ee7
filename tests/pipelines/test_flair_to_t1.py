"""FlairToT1Pipeline: it is Stable Diffusion's ControlNet sampler, for slices of any size."""

import json
import logging
import shutil

import diffusers
import numpy as np
import pytest
import torch
from diffusers.callbacks import SDCFGCutoffCallback
from PIL import Image

import diffct
from diffct import FlairToT1Pipeline, TextToImagePipeline
from diffct.imaging.intensity import robust_range, to_unit_range
from diffct.imaging.slices import turn_to_plane
from diffct.models.fingerprint import record_base_unet
from tests.pipelines.tiny_flair import (
    PROMPT,
    head_affine,
    make_controlnet,
    make_flair_pipeline,
    make_slices,
    make_unet,
    write_head,
)


def seeded(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds or (0,)]


def translate(pipeline: FlairToT1Pipeline, image: object, **options: object):
    defaults = {"num_inference_steps": 3, "guidance_scale": 7.0, "output_type": "np"}
    return pipeline(image, **defaults | {"generator": seeded()[0]} | options).images


def stock(pipeline: FlairToT1Pipeline) -> diffusers.StableDiffusionControlNetPipeline:
    twin = diffusers.StableDiffusionControlNetPipeline(
        **pipeline.components,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    twin.set_progress_bar_config(disable=True)
    return twin


def tensor(slices: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(slices)[:, None]


@pytest.mark.parametrize(
    "options",
    [
        {"guidance_scale": 1.0},
        {"guidance_scale": 5.0, "controlnet_conditioning_scale": 0.7},
        {"control_guidance_start": 0.25, "control_guidance_end": 0.75},
        {"negative_prompt": ["No brain.", ""], "num_images_per_prompt": 2},
    ],
)
def test_slices_agree_with_the_stock_controlnet_pipeline(options):
    pipeline = make_flair_pipeline()
    images = tensor(make_slices(2))
    results = 2 * options.get("num_images_per_prompt", 1)
    latents = torch.randn(results, 3, 8, 12, generator=seeded()[0])
    call = {
        "image": images,
        "prompt": [PROMPT, "No brain."],
        "latents": latents,
        "num_inference_steps": 4,
        "guidance_scale": 7.0,
        "output_type": "np",
    } | options
    expected = stock(pipeline)(**call).images
    assert np.abs(pipeline(**call).images - expected).max() < 1e-5
    other = pipeline(**call | {"image": 1 - images}).images
    assert np.abs(other - expected).max() > 1e-3


@pytest.mark.parametrize("name", ["EulerAncestralDiscreteScheduler", "DDPMScheduler"])
def test_two_controlnets_agree_with_the_stock_pipeline_under_any_scheduler(name):
    pipeline = make_flair_pipeline(nets=2)
    pipeline.scheduler = getattr(diffusers, name).from_config(pipeline.scheduler.config)
    images = [tensor(make_slices(seed=1)), tensor(make_slices(seed=2))]
    call = {
        "image": images,
        "prompt": PROMPT,
        "num_inference_steps": 4,
        "guidance_scale": 3.0,
        "output_type": "np",
        "controlnet_conditioning_scale": [1.0, 0.5],
        "control_guidance_start": [0.0, 0.3],
        "control_guidance_end": [0.6, 1.0],
    }
    expected = stock(pipeline)(**call, generator=seeded()[0]).images
    assert np.abs(pipeline(**call, generator=seeded()[0]).images - expected).max() < 1e-5
    swapped = pipeline(**call | {"image": images[::-1]}, generator=seeded()[0]).images
    assert np.abs(swapped - expected).max() > 1e-3


def test_lists_of_several_images_for_two_controlnets_are_read_as_by_the_stock_pipeline():
    pipeline = make_flair_pipeline(nets=2)
    slices = torch.from_numpy(make_slices(4))[:, None]  # (1, H, W) each
    lists = [[slices[0], slices[1]], [slices[2], slices[3]]]
    call = {"prompt": [PROMPT] * 2, "num_inference_steps": 2, "output_type": "np"}

    def run(pipeline: object, image: object) -> np.ndarray:
        return pipeline(image=image, **call, guidance_scale=1.0, generator=seeded(1, 2)).images

    images = run(pipeline, lists)
    assert np.abs(images - run(stock(pipeline), lists)).max() < 1e-5
    assert np.array_equal(images, run(pipeline, [slices[0::2], slices[1::2]]))
    with pytest.raises(ValueError, match="2 ControlNets: give a list with an image for each"):
        run(pipeline, [lists[0], [slices[2]]])


def test_control_that_is_off_leaves_the_text_to_image_pipeline():
    pipeline = make_flair_pipeline()
    parts = {name: part for name, part in pipeline.components.items() if name != "controlnet"}
    base = TextToImagePipeline(**parts)
    base.set_progress_bar_config(disable=True)
    expected = base(PROMPT, num_inference_steps=3, generator=seeded()[0], output_type="np").images
    image = make_slices()
    for off in (
        {"controlnet_conditioning_scale": 0.0},
        {"control_guidance_start": 0.0, "control_guidance_end": 0.0},
        {"control_guidance_start": 0.5, "control_guidance_end": 0.5},
    ):
        assert np.array_equal(translate(pipeline, image, **off), expected)
    assert np.abs(translate(pipeline, image) - expected).max() > 1e-3


def test_nothing_is_guided_unless_asked():
    pipeline = make_flair_pipeline()
    call = {"image": make_slices(), "num_inference_steps": 3, "output_type": "np"}
    plain = pipeline(**call, generator=seeded()[0]).images
    assert not pipeline.do_classifier_free_guidance
    assert np.array_equal(plain, translate(pipeline, make_slices(), guidance_scale=1.0))
    assert np.abs(plain - translate(pipeline, make_slices())).max() > 1e-4


def test_any_size_is_padded_evenly_and_cropped_back():
    pipeline = make_flair_pipeline()
    odd = make_slices(size=(13, 21))
    padded = np.pad(odd, ((0, 0), (1, 2), (1, 2)))  # to 16 x 24, the odd pixel at the far end
    expected = translate(pipeline, padded)[:, 1:14, 1:22]
    assert np.array_equal(translate(pipeline, odd), expected)
    larger = translate(pipeline, odd, height=22, width=24)
    assert larger.shape == (1, 13, 21, 1)
    by_hand = translate(pipeline, np.pad(odd, ((0, 0), (4, 5), (1, 2))), height=22, width=24)
    assert np.array_equal(larger, by_hand[:, 4:17, 1:22])
    latents = translate(pipeline, odd, output_type="latent")
    assert latents.shape == (1, 3, 8, 12)


def test_every_kind_of_image_gives_the_same_result(tmp_path):
    pipeline = make_flair_pipeline()
    image = make_slices()
    image = np.rint(image * 255).astype(np.float32) / 255
    expected = translate(pipeline, image)
    eight = Image.fromarray(np.rint(image[0] * 255).astype(np.uint8))
    sixteen = Image.fromarray(np.rint(image[0] * 65535).astype(np.uint16))
    eight.save(tmp_path / "eight.png")
    kinds = {
        "array (H, W)": image[0],
        "array (B, H, W, C)": image[..., None],
        "tensor (H, W)": torch.from_numpy(image[0]),
        "tensor (C, H, W)": torch.from_numpy(image),
        "tensor (B, C, H, W)": tensor(image),
        "float64": image.astype(np.float64),
        "8 bits": eight,
        "16 bits": sixteen,
        "file": Image.open(tmp_path / "eight.png"),
        "list": [eight],
        "list of arrays": [image[0]],
        "dictionary": {"FLAIR": image},
    }
    for kind, given in kinds.items():
        assert np.abs(translate(pipeline, given) - expected).max() < 1e-5, kind


def test_scans_give_their_slices(tmp_path):
    pipeline = make_flair_pipeline()
    path = write_head(tmp_path / "flair.nii.gz", head_affine("LPS"), (24, 16, 9))
    scan = diffct.read_volume(path)
    unit = to_unit_range(scan.array, robust_range(scan.array, path))
    turned = turn_to_plane(diffct.Volume(unit, scan.affine), "axial").array
    for options, indices in (
        ({}, [4]),
        ({"slice_index": 3}, [3]),
        ({"slice_index": [2, 5]}, [2, 5]),
    ):
        expected = translate(pipeline, turned[indices], guidance_scale=1.0)
        for given in (path, str(path), scan, {"FLAIR": path}):
            result = translate(pipeline, given, guidance_scale=1.0, **options)
            assert np.abs(result - expected).max() < 1e-5
    with pytest.raises(ValueError, match=r"slice_index=9: FLAIR has the axial slices 0 to 8"):
        translate(pipeline, path, slice_index=9)
    with pytest.raises(ValueError, match="slice_index is for scans"):
        translate(pipeline, turned[4], slice_index=4)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        translate(pipeline, tmp_path / "nowhere.nii.gz")


def test_a_missing_condition_is_zero():
    pipeline = make_flair_pipeline(channels=2, conditions=["FLAIR", "T2w"])
    flair, t2w = make_slices(seed=1), make_slices(seed=2)
    both = translate(pipeline, {"T2w": t2w, "FLAIR": flair})
    stacked = np.stack([flair, t2w], axis=-1)
    assert np.array_equal(translate(pipeline, stacked), both)
    stacked[..., 1] = 0
    alone = translate(pipeline, stacked)
    assert np.array_equal(translate(pipeline, {"FLAIR": flair, "T2w": None}), alone)
    assert np.array_equal(translate(pipeline, {"FLAIR": flair}), alone)
    assert np.abs(both - alone).max() > 1e-3
    two = make_flair_pipeline(nets=2, conditions=["FLAIR", "T2w"])
    named = translate(two, {"FLAIR": flair, "T2w": t2w})
    assert np.array_equal(named, translate(two, [flair, t2w]))


def test_a_batch_is_its_parts_and_one_prompt_serves_all():
    pipeline = make_flair_pipeline()
    slices = make_slices(3)
    batch = translate(pipeline, slices, generator=seeded(4, 5, 6))
    for index, seed in enumerate((4, 5, 6)):
        alone = translate(pipeline, slices[index], generator=seeded(seed))
        assert np.abs(batch[index] - alone[0]).max() < 1e-4
    prompts = translate(pipeline, slices, generator=seeded(4, 5, 6), prompt=[PROMPT] * 3)
    assert np.abs(prompts - batch).max() < 1e-5
    many = translate(pipeline, slices[0], prompt=[PROMPT, "No brain."], generator=seeded(4, 4))
    assert np.abs(many[0] - batch[0]).max() < 1e-4
    assert np.abs(many[1] - batch[0]).max() > 1e-3


def test_samples_are_averaged_and_their_standard_deviation_is_returned():
    pipeline = make_flair_pipeline()
    slices = make_slices(2)
    seeds = (1, 2, 3, 4, 5, 6)
    each = translate(pipeline, slices, num_images_per_prompt=3, generator=seeded(*seeds))
    expected = each.reshape(2, 3, *each.shape[1:])
    for kind in ("np", "pt", "pil", "uint16"):
        output = pipeline(
            slices,
            num_samples=3,
            num_inference_steps=3,
            guidance_scale=7.0,
            generator=seeded(*seeds),
            output_type=kind,
        )
        mean = np.stack([film[..., None] for film in output.films()])
        assert np.abs(mean - expected.mean(axis=1)).max() < (0.003 if kind == "pil" else 1e-4)
        std = output.std.permute(0, 2, 3, 1).numpy() if kind == "pt" else output.std
        assert std.shape == (2, 16, 24, 1)
        assert np.abs(std - expected.std(axis=1, ddof=1)).max() < 1e-5
    assert std.max() > 1e-3
    mean, std = pipeline(slices, num_samples=2, num_inference_steps=1, return_dict=False)
    assert len(mean) == len(std) == 2
    assert len(pipeline(slices, num_inference_steps=1, return_dict=False)) == 1


def test_every_output_type_is_the_same_image():
    pipeline = make_flair_pipeline()
    outputs = {kind: translate(pipeline, make_slices(), output_type=kind) for kind in ("np", "pt")}
    array = outputs["np"]
    assert array.dtype == np.float32 and array.min() >= 0 and array.max() <= 1
    assert np.array_equal(outputs["pt"].numpy().transpose(0, 2, 3, 1), array)
    deep = translate(pipeline, make_slices(), output_type="uint16")
    assert np.abs(deep - array[..., 0] * 65535.0).max() <= 0.51
    (picture,) = translate(pipeline, make_slices(), output_type="pil")
    assert picture.mode == "L" and picture.size == (24, 16)


@pytest.mark.parametrize(
    "name", ["DPMSolverMultistepScheduler", "HeunDiscreteScheduler", "UniPCMultistepScheduler"]
)
def test_any_scheduler_samples(name):
    pipeline = make_flair_pipeline()
    pipeline.scheduler = getattr(diffusers, name).from_config(pipeline.scheduler.config)
    images = translate(pipeline, make_slices())
    assert np.isfinite(images).all() and images.std() > 1e-3


def test_callbacks_see_and_change_the_tensors_of_a_call():
    pipeline = make_flair_pipeline()
    seen = []

    def blind(pipeline, step, timestep, tensors):
        seen.append({name: tuple(value.shape) for name, value in tensors.items()})
        return {"image": torch.zeros_like(tensors["image"])}

    names = ["latents", "prompt_embeds", "negative_prompt_embeds", "image"]
    options = {"callback_on_step_end": blind, "callback_on_step_end_tensor_inputs": names}
    changed = translate(pipeline, make_slices(), **options)
    assert seen[0] == {
        "latents": (1, 3, 8, 12),
        "prompt_embeds": (2, 16, 16),
        "negative_prompt_embeds": (1, 16, 16),
        "image": (1, 1, 16, 24),
    }
    assert np.abs(changed - translate(pipeline, make_slices())).max() > 1e-4
    steps = []

    def stop(pipeline, step, timestep, tensors):
        steps.append(step)
        pipeline._interrupt = step == 1
        return tensors

    translate(pipeline, make_slices(), num_inference_steps=5, callback_on_step_end=stop)
    assert steps == [0, 1]
    cut = SDCFGCutoffCallback(cutoff_step_ratio=None, cutoff_step_index=0)
    cut_short = translate(pipeline, make_slices(), callback_on_step_end=cut)
    assert np.abs(cut_short - translate(pipeline, make_slices())).max() > 1e-4


def test_an_empty_slice_is_translated_with_a_warning(caplog):
    pipeline = make_flair_pipeline()
    slices = np.concatenate([make_slices(), np.zeros((1, 16, 24), np.float32)])
    with caplog.at_level(logging.WARNING, "diffct"):
        translate(pipeline, slices[:1])
        assert not caplog.records
        translate(pipeline, slices, generator=seeded(1, 2))
    (record,) = caplog.records
    assert record.getMessage().startswith("1 of 2 condition images are empty")


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (make_slices() * 255, {}, r"not in \[0, 1\].*raw intensities"),
        (np.full((16, 24), 200, np.uint8), {}, "0-255 gray values: divide by 255"),
        (np.full((16, 24), 3000, np.uint16), {}, "0-65535 gray values"),
        (make_slices() * 2 - 1, {}, r"-1 to 1: take x / 2 \+ 0.5"),
        (make_slices() * 812.5, {}, "robust_range"),
        (np.full((16, 24), np.nan), {}, "NaN"),
        (np.zeros((16,)), {}, r"shape \(16,\)"),
        (np.zeros((1, 16, 24, 3)), {}, r"\(1, 16, 24, 3\)"),
        (5, {}, "FLAIR is a int"),
        ([], {}, "list of images is empty"),
        ({"T2w": make_slices()}, {}, r"\['T2w'\].*\['FLAIR'\]"),
        ({"FLAIR": None}, {}, "at least"),
        (make_slices(2), {"prompt": ["a", "b", "c"]}, "3 prompts for 2 images"),
        (make_slices(), {"height": 14}, "height=14: images are padded"),
        (make_slices(), {"width": 25}, "width=25"),
        (make_slices(), {"num_samples": 0}, "num_samples=0"),
        (make_slices(), {"num_samples": 2, "num_images_per_prompt": 2}, "not both"),
        (make_slices(), {"num_samples": 2, "output_type": "latent"}, "no mean"),
        (make_slices(), {"control_guidance_start": 0.7, "control_guidance_end": 0.2}, "start=0.7"),
        (make_slices(), {"control_guidance_end": 1.5}, "end=1.5"),
        (make_slices(), {"controlnet_conditioning_scale": [1.0, 1.0]}, "one for each of 1"),
        (make_slices(), {"latents": torch.zeros(1, 3, 8, 8)}, "latents has the shape"),
        (make_slices(), {"generator": seeded(1, 2)}, "2 generators for 1"),
        (make_slices(), {"callback_on_step_end_tensor_inputs": ["noise"]}, "noise"),
    ],
)
def test_wrong_arguments_are_named(image, options, message):
    with pytest.raises(ValueError, match=message):
        make_flair_pipeline()(image, num_inference_steps=1, **options)


def test_images_for_several_controlnets_are_one_each():
    pipeline = make_flair_pipeline(nets=2)
    with pytest.raises(ValueError, match="There are 2 ControlNets"):
        translate(pipeline, make_slices())
    with pytest.raises(ValueError, match="differ in number or size"):
        translate(pipeline, [make_slices(), make_slices(size=(16, 16))])


def test_pictures_in_colour_are_refused():
    with pytest.raises(ValueError, match="mode RGB is not gray"):
        translate(make_flair_pipeline(), Image.new("RGB", (24, 16)))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"layers_per_block": 2}, r"layers_per_block=2 \(the unet's: 1\)"),
        ({"block_out_channels": (8, 32)}, "block_out_channels"),
        ({"in_channels": 4, "out_channels": 4}, "in_channels=4"),
        ({"attention_head_dim": 2}, "attention_head_dim=2"),
        ({"cross_attention_dim": 24}, "cross_attention_dim=24"),
        (
            {"down_block_types": ("CrossAttnDownBlock2D",) * 2},
            "down_block_types",
        ),
    ],
)
def test_a_controlnet_of_another_unet_is_refused_by_name(changed, message):
    other = make_controlnet(make_unet(**changed))
    with pytest.raises(ValueError, match=f"was not made for this unet: .*{message}"):
        make_flair_pipeline(controlnet=other)


def test_conditions_and_strides_must_fit():
    with pytest.raises(ValueError, match=r"reads 2 channel\(s\).*names 1: \['FLAIR'\]"):
        make_flair_pipeline(channels=2, conditions=["FLAIR"])
    with pytest.raises(ValueError, match="twice"):
        make_flair_pipeline(channels=2, conditions=["FLAIR", "FLAIR"])
    with pytest.raises(ValueError, match="conditions='FLAIR': give a list of names"):
        make_flair_pipeline(conditions="FLAIR")
    deep = make_controlnet(make_unet(), stride=4)
    with pytest.raises(ValueError, match=r"shrinks condition images 4 times.*2 times"):
        make_flair_pipeline(controlnet=deep)
    pipeline = make_flair_pipeline(nets=2, channels=2)
    assert pipeline.conditions == [f"condition {number}" for number in (1, 2, 3, 4)]


def test_another_unet_than_the_trained_one_is_reported(caplog, tmp_path):
    unet = make_unet()
    controlnet = make_controlnet(unet)
    record_base_unet(controlnet, unet)
    with caplog.at_level(logging.WARNING):
        pipeline = make_flair_pipeline(unet=unet, controlnet=controlnet)
        pipeline.save_pretrained(tmp_path)
        caplog.clear()
        FlairToT1Pipeline.from_pretrained(tmp_path)
        make_flair_pipeline(unet=make_unet(7))
        half = make_unet(7).to(torch.bfloat16)
        make_flair_pipeline(unet=half, controlnet=controlnet)
        assert not [r for r in caplog.records if "another unet" in r.getMessage()]
        make_flair_pipeline(unet=make_unet(7), controlnet=controlnet)
    assert len([r for r in caplog.records if "another unet" in r.getMessage()]) == 1


@pytest.mark.parametrize("nets", [1, 2])
@pytest.mark.parametrize("loader", ["own class", "load_pipeline", "DiffusionPipeline"])
def test_every_way_of_loading_gives_the_same_images(tmp_path, loader, nets):
    pipeline = make_flair_pipeline(nets=nets, spacing_mm=[1, 1.5], plane="coronal")
    pipeline.save_pretrained(tmp_path)
    assert not list(tmp_path.rglob("*.bin"))
    load = {
        "own class": FlairToT1Pipeline.from_pretrained,
        "load_pipeline": lambda path: diffct.load_pipeline(path, device="cpu"),
        "DiffusionPipeline": diffusers.DiffusionPipeline.from_pretrained,
    }[loader]
    loaded = load(tmp_path)
    assert type(loaded) is FlairToT1Pipeline
    for name in ("prompt", "conditions", "plane", "spacing_mm", "prediction_type"):
        assert loaded.config[name] == pipeline.config[name]
    image = [make_slices(seed=seed) for seed in range(nets)] if nets > 1 else make_slices()
    assert np.abs(translate(loaded, image) - translate(pipeline, image)).max() < 1e-5
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["controlnet"][0] == "diffusers"


def test_the_order_of_the_conditions_survives_saving(tmp_path):
    pipeline = make_flair_pipeline(channels=2, conditions=["T2w", "FLAIR"])
    assert pipeline.conditions == ["T2w", "FLAIR"]
    pipeline.save_pretrained(tmp_path)
    assert FlairToT1Pipeline.from_pretrained(tmp_path).conditions == ["T2w", "FLAIR"]
    assert FlairToT1Pipeline.from_pipe(pipeline).conditions == ["T2w", "FLAIR"]


def test_a_folder_without_its_controlnet_is_refused(tmp_path):
    make_flair_pipeline().save_pretrained(tmp_path)
    shutil.rmtree(tmp_path / "controlnet")
    with pytest.raises(FileNotFoundError, match="lacks controlnet"):
        FlairToT1Pipeline.from_pretrained(tmp_path)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_translates(dtype):
    pipeline = make_flair_pipeline(nets=2).to(dtype=dtype)
    images = translate(pipeline, [make_slices(seed=1), make_slices(seed=2)])
    assert images.dtype == np.float32 and np.isfinite(images).all()


def test_it_turns_into_the_stock_pipeline_and_back():
    pipeline = make_flair_pipeline()
    again = FlairToT1Pipeline.from_pipe(stock(pipeline), conditions=["FLAIR"])
    again.set_progress_bar_config(disable=True)
    assert np.array_equal(translate(again, make_slices()), translate(pipeline, make_slices()))


def test_the_card_says_what_is_translated_and_how(tmp_path):
    facts = {"data": "phantom heads", "synthetic": True, "images": "axial slices of heads"}
    pipeline = make_flair_pipeline(spacing_mm=[1.0, 1.5], training=facts)
    pipeline.save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text()
    for phrase in (
        "pipeline_tag: image-to-image",
        "translates FLAIR",
        PROMPT,
        "axial slices of heads",
        "16×24 pixels of 1×1.5 mm",
        "predicts the velocity",
        'scan = "FLAIR.nii.gz"',
        "translate_volume(scan",
    ):
        assert phrase in card
    assert "| images |" not in card
    two = make_flair_pipeline(channels=2, conditions=["FLAIR", "T2w"])
    assert '{"FLAIR": "FLAIR.nii.gz", "T2w": "T2w.nii.gz"}' in two.card_usage("x")
