"""TextToImagePipeline: the sampler of CXRTextToImagePipeline for any gray images."""

import json

import diffusers
import numpy as np
import pytest
import torch

import diffct
from diffct import CXRTextToImagePipeline, TextToImagePipeline
from diffct.pipelines import TextToImagePipelineOutput


def sample(pipeline: TextToImagePipeline):
    generator = torch.Generator().manual_seed(0)
    options = {"num_inference_steps": 2, "output_type": "np", "generator": generator}
    return pipeline("Left effusion.", **options)


def test_it_samples_what_the_pipeline_of_films_samples(make_cxr_pipeline):
    films = make_cxr_pipeline()
    images = TextToImagePipeline(**films.components)
    images.set_progress_bar_config(disable=True)
    output = sample(images)
    assert isinstance(output, TextToImagePipelineOutput)
    assert np.array_equal(output.images, sample(films).images)
    assert isinstance(films, TextToImagePipeline)


def test_it_loads_as_itself(make_cxr_pipeline, tmp_path):
    TextToImagePipeline(**make_cxr_pipeline().components).save_pretrained(tmp_path)
    for loaded in (
        diffct.load_pipeline(tmp_path, device="cpu"),
        diffusers.DiffusionPipeline.from_pretrained(tmp_path),
    ):
        assert type(loaded) is TextToImagePipeline
    assert type(CXRTextToImagePipeline.from_pipe(loaded)) is CXRTextToImagePipeline


def test_its_card_says_what_the_images_show(make_cxr_pipeline):
    parts = make_cxr_pipeline().components
    facts = {"data": "brains", "images": "axial T1-weighted slices of brains", "updates": 7}
    card = str(TextToImagePipeline(**parts, training=facts).model_card("me/brains"))
    assert "model of gray images of axial T1-weighted slices of brains, 32×32 pixels" in card
    assert "| updates | 7 |" in card and "| images |" not in card
    assert "radiograph" not in card
    card = str(TextToImagePipeline(**parts).model_card("me/brains"))
    assert "model of gray images, 32×32 pixels" in card


def test_the_constant_prompt_of_the_training_need_not_be_given_again(make_cxr_pipeline, tmp_path):
    parts = make_cxr_pipeline().components
    learnt = TextToImagePipeline(**parts, prompt="Left effusion.")
    learnt.save_pretrained(tmp_path)
    loaded = diffct.load_pipeline(tmp_path, device="cpu")
    loaded.set_progress_bar_config(disable=True)
    assert loaded.config.prompt == "Left effusion."
    options = {"num_inference_steps": 2, "output_type": "np"}
    again = loaded(**options, generator=torch.Generator().manual_seed(0)).images
    assert np.array_equal(again, sample(loaded).images)
    embeds, _ = loaded.encode_prompt("")
    other = loaded(**options, prompt_embeds=embeds, generator=torch.Generator().manual_seed(0))
    assert not np.array_equal(again, other.images)
    assert 'pipeline("Left effusion.", ' in (tmp_path / "README.md").read_text()


def test_a_pipeline_saved_before_prompts_were_kept_asks_for_one(make_cxr_pipeline, tmp_path):
    TextToImagePipeline(**make_cxr_pipeline().components).save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    del index["prompt"]
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    loaded = diffct.load_pipeline(tmp_path, device="cpu")
    assert loaded.config.prompt is None
    with pytest.raises(ValueError, match="Give a prompt"):
        loaded(num_inference_steps=1)
