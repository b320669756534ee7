"""Pipelines without some of their components, as for prompts that are embedded elsewhere."""

from collections.abc import Callable

import diffusers
import numpy as np
import pytest
import torch

from diffct import CT3DPipeline, CXRTextToImagePipeline, UNet3DModel
from tests.pipelines.tiny_flair import make_flair_pipeline, make_slices


def make_ct_pipeline() -> CT3DPipeline:
    torch.manual_seed(0)
    unet = UNet3DModel(block_out_channels=(8, 8, 8), norm_num_groups=4).eval()
    return CT3DPipeline(unet, diffusers.DDIMScheduler(), size=[2, 8, 8])


@pytest.mark.parametrize(
    ("system", "part"),
    [("ct", name) for name in ("unet", "scheduler")]
    + [
        (system, name)
        for system in ("films", "brains")
        for name in ("vae", "text_encoder", "tokenizer", "unet", "scheduler")
    ]
    + [("brains", "controlnet")],
)
def test_a_pipeline_without_a_part_is_saved_and_loads_with_it(
    system: str,
    part: str,
    make_cxr_pipeline: Callable[..., CXRTextToImagePipeline],
    tmp_path,
):
    make = {"ct": make_ct_pipeline, "films": make_cxr_pipeline, "brains": make_flair_pipeline}
    given = {"ct": {}, "films": {"prompt": "heart"}, "brains": {"image": make_slices()[0]}}[system]
    whole = make[system]()
    parts = whole.components
    without = type(whole)(**parts | {part: None})
    without.save_pretrained(tmp_path / "a pipeline [part]")
    card = (tmp_path / "a pipeline [part]" / "README.md").read_text()
    assert f"{type(whole).__name__} without some of its parts: load it with {part}=..." in card
    with pytest.raises(FileNotFoundError, match=rf"it lacks {part}\. .* or give {part}=\.\.\."):
        type(whole).from_pretrained(tmp_path / "a pipeline [part]")
    loaded = type(whole).from_pretrained(tmp_path / "a pipeline [part]", **{part: parts[part]})

    def sample(pipeline: diffusers.DiffusionPipeline) -> np.ndarray:
        pipeline.set_progress_bar_config(disable=True)
        options = {"num_inference_steps": 2, "output_type": "np"} | given
        if system == "ct":
            options["size"] = (2, 8, 8)
        return pipeline(**options, generator=torch.Generator().manual_seed(0))[0]

    assert np.allclose(sample(loaded), sample(whole), rtol=1e-4, atol=1e-4)
