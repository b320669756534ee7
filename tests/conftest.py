"""Fixtures shared by all tests."""

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import diffusers
import pytest
import torch

from diffct import CXRTextToImagePipeline
from diffct.models.small_text_encoder import make_small_text_encoder

if "PYTEST_XDIST_WORKER" in os.environ and hasattr(os, "sched_setaffinity"):
    # A core for each worker: training takes all cores that it may use, and threads of several
    # processes on the same cores wait for each other (measured: 4 times slower).
    _cores = sorted(os.sched_getaffinity(0))
    _number = int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw"))
    os.sched_setaffinity(0, {_cores[_number % len(_cores)]})


def _load_hub_server() -> ModuleType:
    # Under --import-mode=importlib the tests folder is not on sys.path.
    name = "diffct_tests_hub_server"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            name, Path(__file__).with_name("hub_server.py")
        )
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses look their module up here
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[object]:
    """A running stand-in for the Hugging Face Hub (see tests/hub_server.py) in `tmp_path/hub`.

    `hub.run(source)` runs Python source in a process that talks to it; then look at
    `hub.repo_files(repo_id)` and `hub.requests`.
    """
    with _load_hub_server().hub_server(tmp_path / "hub") as server:
        yield server


@pytest.fixture(scope="session")
def make_cxr_pipeline() -> Callable[..., CXRTextToImagePipeline]:
    """A function that makes a tiny pipeline of films; keywords replace components.

    `unet_options` and `vae_options` go to their constructors.
    """

    def make(
        *,
        unet_options: dict[str, object] | None = None,
        vae_options: dict[str, object] | None = None,
        **components: object,
    ) -> CXRTextToImagePipeline:
        sentences = ["There is a small left pleural effusion.", "The heart is not enlarged."]
        tokenizer, text_encoder = make_small_text_encoder(
            sentences * 3, width=16, heads=2, max_length=16
        )
        torch.manual_seed(0)
        unet = {
            "sample_size": 16,
            "in_channels": 3,
            "out_channels": 3,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "block_out_channels": (8, 16),
            "layers_per_block": 1,
            "cross_attention_dim": 16,
            "attention_head_dim": 1,
            "norm_num_groups": 4,
        }
        vae = {
            "in_channels": 1,
            "out_channels": 1,
            "down_block_types": ("DownEncoderBlock2D",) * 2,
            "up_block_types": ("UpDecoderBlock2D",) * 2,
            "block_out_channels": (8, 8),
            "latent_channels": 3,
            "norm_num_groups": 4,
            "scaling_factor": 0.5,
        }
        parts = {
            "vae": diffusers.AutoencoderKL(**vae | (vae_options or {})).eval(),
            "unet": diffusers.UNet2DConditionModel(**unet | (unet_options or {})).eval(),
            "text_encoder": text_encoder,
            "tokenizer": tokenizer,
            "scheduler": diffusers.DDIMScheduler(
                beta_schedule="scaled_linear",
                prediction_type="v_prediction",
                clip_sample=False,
                steps_offset=1,
            ),
        }
        pipeline = CXRTextToImagePipeline(**parts | components)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    return make
