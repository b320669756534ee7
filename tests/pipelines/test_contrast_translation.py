"""ContrastTranslationPipeline: the translation of FlairToT1Pipeline for any contrasts."""

import json

import diffusers
import numpy as np
import pytest
import torch

import diffct
from diffct import ContrastTranslationPipeline, FlairToT1Pipeline, Volume
from diffct.pipelines import FlairToT1PipelineOutput
from tests.pipelines.tiny_flair import head_affine, make_flair_pipeline, make_slices, write_head

PROMPT = "T2-weighted image of a knee."


def translate(pipeline: ContrastTranslationPipeline, image: object, **options: object):
    options = {"num_inference_steps": 2, "output_type": "np"} | options
    return pipeline(image, generator=torch.Generator().manual_seed(0), **options)


def make_knees(**changed: object) -> ContrastTranslationPipeline:
    parts = make_flair_pipeline(channels=2, conditions=["T1w", "PDw"]).components
    settings = {"prompt": PROMPT, "conditions": ["T1w", "PDw"], "plane": "sagittal"}
    pipeline = ContrastTranslationPipeline(**parts | settings | changed)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_it_translates_what_the_pipeline_of_flair_translates():
    flair = make_flair_pipeline()
    prompt, conditions = flair.config.prompt, flair.conditions
    general = ContrastTranslationPipeline(**flair.components, prompt=prompt, conditions=conditions)
    general.set_progress_bar_config(disable=True)
    output = translate(general, make_slices())
    assert isinstance(output, FlairToT1PipelineOutput)
    assert np.array_equal(output.images, translate(flair, make_slices()).images)
    assert isinstance(flair, ContrastTranslationPipeline) and flair.modality == general.modality


def test_each_has_its_own_words_where_none_are_given():
    parts = make_flair_pipeline().components
    general, flair = ContrastTranslationPipeline(**parts), FlairToT1Pipeline(**parts)
    assert (general.config.prompt, general.conditions) == ("", ["condition"])
    assert flair.config.prompt == "T1-weighted image of a brain."
    assert flair.conditions == ["FLAIR"]


def test_it_loads_as_itself_with_all_it_knows(tmp_path):
    make_knees(spacing_mm=[0.5, 0.4]).save_pretrained(tmp_path)
    for loaded in (
        diffct.load_pipeline(tmp_path, device="cpu"),
        diffusers.DiffusionPipeline.from_pretrained(tmp_path),
    ):
        assert type(loaded) is ContrastTranslationPipeline
        assert (loaded.config.prompt, loaded.conditions) == (PROMPT, ["T1w", "PDw"])
        assert (loaded.config.plane, loaded.config.spacing_mm) == ("sagittal", [0.5, 0.4])
    card = (tmp_path / "README.md").read_text()
    assert f'translates T1w + PDw into what "{PROMPT}" says' in card
    assert "in sagittal slices" in card and "FLAIR" not in card


@pytest.mark.parametrize("name", ["FlairToT1Pipeline", None])
def test_a_folder_saved_as_flair_to_t1_loads_as_that(tmp_path, name):
    make_flair_pipeline().save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["_class_name"].startswith("FlairToT1Pipeline")
    index["_class_name"] = name or index["_class_name"]
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    assert type(diffct.load_pipeline(tmp_path, device="cpu")) is FlairToT1Pipeline


def test_a_scan_is_translated_in_the_plane_and_by_the_names_of_its_conditions(tmp_path):
    pipeline = make_knees()
    first, second = (
        write_head(tmp_path / f"{seed}.nii.gz", head_affine("RAS"), (7, 14, 20), seed=seed)
        for seed in (0, 1)
    )
    translation = pipeline.translate_volume({"T1w": first, "PDw": second}, num_inference_steps=2)
    assert translation.mean.size == (7, 14, 20) and translation.mean.unit == "[0, 1]"
    with pytest.raises(ValueError, match=r"\['FLAIR'\].*\['T1w', 'PDw'\]"):
        pipeline.translate_volume({"FLAIR": first})


def test_labels_are_not_a_condition():
    labels = Volume(np.ones((4, 14, 20), np.uint8), np.eye(4), "labels")
    with pytest.raises(ValueError, match="PDw holds labels; give the scan itself"):
        make_knees().translate_volume({"PDw": labels})
