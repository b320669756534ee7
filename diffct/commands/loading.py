"""What the subcommands that run a pipeline have in common."""

import argparse
from collections.abc import Sequence

import torch
from diffusers import DiffusionPipeline

from diffct.config import folder_or_id
from diffct.hub import load_pipeline
from diffct.pipelines.scheduler_check import replace_scheduler
from diffct.pipelines.schedulers import SCHEDULERS, find_scheduler


def add_pipeline_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe which pipeline runs, and how."""
    parser.add_argument("pipeline", type=folder_or_id, help="folder or Hub id")
    parser.add_argument("--variant", help="of the weights, e.g. fp16 (none)")
    parser.add_argument("--revision", help="branch, tag or commit on the Hub (main)")
    parser.add_argument("--steps", type=int, default=50, help="denoising steps (50)")
    parser.add_argument(
        "--scheduler",
        help=f"{', '.join(SCHEDULERS)}, or a diffusers class (default: the pipeline's own)",
    )
    parser.add_argument("--device", help="cuda, cpu, ... (a GPU if there is one)")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="weights"
    )


def load_chosen(options: argparse.Namespace, counts: Sequence[str]) -> DiffusionPipeline:
    """Check what can be checked before, load the pipeline, and give it the chosen scheduler."""
    for name in ("steps", "batch_size", *counts):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1.")
    if options.scheduler is not None:
        find_scheduler(options.scheduler)  # a wrong name is said before minutes of loading
    pipeline = load_pipeline(
        options.pipeline,
        device=options.device,
        dtype=getattr(torch, options.dtype),
        variant=options.variant,
        revision=options.revision,
    )
    if options.scheduler is not None:
        pipeline.scheduler = replace_scheduler(pipeline.scheduler, options.scheduler)
    return pipeline
