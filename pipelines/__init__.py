"""Diffusion pipelines, inference only."""

from diffct.pipelines.ct3d import CT3DPipeline
from diffct.pipelines.outputs import CT3DPipelineOutput

__all__ = ["CT3DPipeline", "CT3DPipelineOutput"]
