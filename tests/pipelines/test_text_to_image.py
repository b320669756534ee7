"""TextToImagePipeline: the sampler of CXRTextToImagePipeline for any gray images."""

import diffusers
import numpy as np
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
