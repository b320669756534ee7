"""diffct: generative medical imaging on Hugging Face diffusers."""

import importlib
import os
from typing import TYPE_CHECKING, Any

# OpenMP reads these once, when torch is loaded. Waiting threads that spin for long take the cores
# from other work: beside other programs, training was several times slower. Spinning 5000 times
# before they sleep costs little there, and training alone is as fast as before; with 1000 it was
# 3 to 7 % slower.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")

from diffct.registration import register_with_diffusers

if TYPE_CHECKING:
    from diffusers.models.modeling_utils import ModelMixin

    from diffct.eval.config import EvaluationConfig
    from diffct.eval.evaluation import evaluate
    from diffct.hub import load_pipeline
    from diffct.imaging.volume import Volume, read_volume, write_volume
    from diffct.models import UNet3DModel
    from diffct.pipelines import (
        ContrastTranslationPipeline,
        CT3DPipeline,
        CXRTextToImagePipeline,
        FlairToT1Pipeline,
        TextToImagePipeline,
    )

__version__ = "0.1.0"

__all__ = [
    "CT3DPipeline",
    "CXRTextToImagePipeline",
    "ContrastTranslationPipeline",
    "EvaluationConfig",
    "FlairToT1Pipeline",
    "ModelMixin",
    "TextToImagePipeline",
    "UNet3DModel",
    "Volume",
    "__version__",
    "evaluate",
    "load_pipeline",
    "read_volume",
    "write_volume",
]

_CLASSES = {
    "CT3DPipeline": "diffct.pipelines",
    "CXRTextToImagePipeline": "diffct.pipelines",
    "ContrastTranslationPipeline": "diffct.pipelines",
    "FlairToT1Pipeline": "diffct.pipelines",
    "TextToImagePipeline": "diffct.pipelines",
    "UNet3DModel": "diffct.models",
}
"""The pipelines and networks that diffusers' loader finds, and where they are."""
_HOMES = _CLASSES | {
    # diffusers' loader looks for the model classes and their base, ModelMixin, here.
    "ModelMixin": "diffusers.models.modeling_utils",
    "Volume": "diffct.imaging.volume",
    "read_volume": "diffct.imaging.volume",
    "write_volume": "diffct.imaging.volume",
    "load_pipeline": "diffct.hub",
    "evaluate": "diffct.eval.evaluation",
    "EvaluationConfig": "diffct.eval.config",
}
# torch, diffusers and transformers take seconds to import: each name is imported on first use.


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any public name
    if name not in _HOMES:
        raise AttributeError(f"module 'diffct' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


register_with_diffusers(*_CLASSES)
