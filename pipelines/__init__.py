"""Diffusion pipelines, inference only."""
