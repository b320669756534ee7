"""Diffusion pipelines, inference only."""

from diffct.pipelines.contrast_translation import ContrastTranslationPipeline
from diffct.pipelines.ct3d import CT3DPipeline
from diffct.pipelines.cxr_text_to_image import CXRTextToImagePipeline
from diffct.pipelines.flair_to_t1 import FlairToT1Pipeline
from diffct.pipelines.outputs import (
    ContrastTranslationPipelineOutput,
    CT3DPipelineOutput,
    CXRTextToImagePipelineOutput,
    FlairToT1PipelineOutput,
    TextToImagePipelineOutput,
)
from diffct.pipelines.text_to_image import TextToImagePipeline
from diffct.pipelines.volume_translation import VolumeTranslation

__all__ = [
    "CT3DPipeline",
    "CT3DPipelineOutput",
    "CXRTextToImagePipeline",
    "CXRTextToImagePipelineOutput",
    "ContrastTranslationPipeline",
    "ContrastTranslationPipelineOutput",
    "FlairToT1Pipeline",
    "FlairToT1PipelineOutput",
    "TextToImagePipeline",
    "TextToImagePipelineOutput",
    "VolumeTranslation",
]
