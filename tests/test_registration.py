"""diffusers finds diffct's classes, whichever of the two is imported first."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler

import diffct

ORDERS = {
    "diffct first": "import diffct; from diffusers import AutoModel, DiffusionPipeline",
    "diffusers first": "from diffusers import AutoModel, DiffusionPipeline; import diffct",
    "diffusers unused": "import diffusers, diffct; from diffusers import AutoModel,"
    " DiffusionPipeline",
}
LOAD = """
pipeline = DiffusionPipeline.from_pretrained(FOLDER)
assert type(pipeline) is diffct.CT3DPipeline, type(pipeline)
assert type(pipeline.unet) is diffct.UNet3DModel
unet = AutoModel.from_pretrained(FOLDER + "/unet")
assert type(unet) is diffct.UNet3DModel, type(unet)
import diffusers
for package in (diffusers, diffusers.pipelines):
    assert package.CT3DPipeline is diffct.CT3DPipeline
    for name in ("CT4DPipeline", "read_volume", "ModelMixin (pip install diffct)"):
        assert not hasattr(package, name)
assert diffusers.UNet2DModel.__name__ == "UNet2DModel"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Save a tiny pipeline."""
    torch.manual_seed(0)
    unet = diffct.UNet3DModel(
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        block_out_channels=(8,),
        layers_per_block=1,
        norm_num_groups=4,
    )
    folder = tmp_path_factory.mktemp("pipeline")
    diffct.CT3DPipeline(unet, DDPMScheduler(), size=[4, 8, 8]).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("order", ORDERS)
def test_diffusers_loads_our_classes_whichever_is_imported_first(folder, order):
    code = f"FOLDER = {str(folder)!r}\n{ORDERS[order]}\n{LOAD}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_importing_diffct_imports_nothing_slow_until_a_name_is_used():
    code = """
import sys, diffct
slow = {"torch", "diffusers", "transformers", "numpy", "omegaconf"}
assert not slow & set(sys.modules), slow & set(sys.modules)
assert {"CT3DPipeline", "read_volume", "hub"} - set(dir(diffct)) == {"hub"}
assert diffct.read_volume.__module__ == "diffct.imaging.volume"
assert "torch" not in sys.modules
from diffct import *
assert CT3DPipeline.__name__ == "CT3DPipeline" and "torch" in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_public_name_is_there_and_others_are_not():
    for name in diffct.__all__:
        assert getattr(diffct, name) is not None
    assert set(diffct.__all__) == {*diffct._HOMES, "__version__"}
    with pytest.raises(AttributeError, match="module 'diffct' has no attribute 'CT4DPipeline'"):
        diffct.CT4DPipeline  # noqa: B018 - looks it up
