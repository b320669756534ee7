"""Diffusion pipelines, inference only."""

from diffct.pipelines.ct3d import CT3DPipeline
from diffct.pipelines.cxr_text_to_image import CXRTextToImagePipeline
from diffct.pipelines.outputs import CT3DPipelineOutput, CXRTextToImagePipelineOutput

__all__ = [
    "CT3DPipeline",
    "CT3DPipelineOutput",
    "CXRTextToImagePipeline",
    "CXRTextToImagePipelineOutput",
]
