"""diffct: generative medical imaging on Hugging Face diffusers."""

import os

# OpenMP reads these once, when torch is loaded. Threads that spin for long while they wait take the
# cores from whoever has work to do: beside other programs, training was several times slower. Five
# thousand turns before they sleep cost little there, and a training alone is as fast as before;
# with a thousand it was 3 to 7 % slower.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")

__version__ = "0.1.0"

# diffusers' loader looks for the model classes and their base, ModelMixin, here.
from diffusers.models.modeling_utils import ModelMixin

from diffct.hub import load_pipeline, register
from diffct.imaging.volume import Volume, read_volume
from diffct.models import UNet3DModel
from diffct.pipelines import (
    CT3DPipeline,
    CXRTextToImagePipeline,
    FlairToT1Pipeline,
    TextToImagePipeline,
)

__all__ = [
    "CT3DPipeline",
    "CXRTextToImagePipeline",
    "FlairToT1Pipeline",
    "ModelMixin",
    "TextToImagePipeline",
    "UNet3DModel",
    "Volume",
    "__version__",
    "load_pipeline",
    "read_volume",
]

register(CT3DPipeline, CXRTextToImagePipeline, FlairToT1Pipeline, TextToImagePipeline, UNet3DModel)
