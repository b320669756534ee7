"""The shared arguments of the subcommands that run a pipeline, and its loading."""

import argparse
from typing import TYPE_CHECKING

from diffct.arguments import check_counts, folder_or_id
from diffct.cores import share_cores

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

_SCHEDULERS = ("ddpm", "ddim", "dpm++", "unipc", "deis", "euler", "heun")


def add_pipeline_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the pipeline and how it is run."""
    parser.add_argument("pipeline", type=folder_or_id, help="folder or Hub id")
    parser.add_argument("--variant", help="variant of the weights, e.g. fp16 (none)")
    parser.add_argument("--revision", help="branch, tag or commit on the Hub (main)")
    parser.add_argument("--steps", type=int, default=50, help="denoising steps (50)")
    parser.add_argument(
        "--scheduler",
        help=f"{', '.join(_SCHEDULERS)}, or a diffusers class (default: the pipeline's own)",
    )
    parser.add_argument("--device", help="cuda, cpu, ... (a GPU if there is one)")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        default="float32",
        help="type of the weights (float32)",
    )


def load_chosen(options: argparse.Namespace) -> "DiffusionPipeline":
    """Check the options, load the pipeline, and give it the chosen scheduler."""
    check_counts(options, "steps", "batch_size", "number")

    import torch

    from diffct.hub import load_pipeline
    from diffct.pipelines.scheduler_check import replace_scheduler
    from diffct.pipelines.schedulers import find_scheduler

    share_cores()
    if options.scheduler is not None:
        find_scheduler(options.scheduler)  # a wrong name fails before minutes of loading
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
