"""The `diffct` command."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm.auto import tqdm

from diffct.data.inspection import format_reports, inspect_scans
from diffct.hub import load_pipeline
from diffct.pipelines.schedulers import SCHEDULERS, find_scheduler


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one subcommand; what a user can mend ends as one line, not as a traceback."""
    parser = argparse.ArgumentParser(prog="diffct", description="Generative medical imaging.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_sample(commands)
    _add_inspect(commands)
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except (ValueError, OSError) as error:
        sys.exit(f"diffct: {error}")
    except torch.OutOfMemoryError:
        sys.exit("diffct: out of GPU memory. Sample a smaller --size, or use --dtype bfloat16.")


def _add_sample(commands: "argparse._SubParsersAction") -> None:
    """Describe `diffct sample`."""
    parser = commands.add_parser("sample", help="sample volumes from a pipeline")
    parser.add_argument("pipeline", help="folder or Hub id")
    parser.add_argument("--num", type=int, default=1, help="how many (1)")
    parser.add_argument("--steps", type=int, default=50, help="denoising steps (50)")
    parser.add_argument(
        "--scheduler",
        help=f"{', '.join(SCHEDULERS)}, or a diffusers class (default: the pipeline's own)",
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        default=1,
        # torch convolves a single small volume on the CPU by a path several times slower.
        help="volumes sampled at once (1); 2 and more are much faster on a CPU",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the first sample (0)")
    parser.add_argument(
        "--size", type=int, nargs=3, metavar=("D", "H", "W"), help="voxels (the training size)"
    )
    parser.add_argument("--class-label", type=int, help="class, for a class-conditional model")
    parser.add_argument("--device", help="cuda, cpu, ... (a GPU if there is one)")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="weights"
    )
    parser.add_argument("--out", type=Path, default=Path("samples"), help="folder (samples)")
    parser.set_defaults(run=_sample)


def _sample(options: argparse.Namespace) -> None:
    """Sample volumes: number i has the seed `seed + i`, whatever `num` and the batch size are."""
    for name in ("num", "steps", "batch_size"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1.")
    pipeline = load_pipeline(
        options.pipeline, device=options.device, dtype=getattr(torch, options.dtype)
    )
    if options.scheduler is not None:
        scheduler_class = find_scheduler(options.scheduler)
        pipeline.scheduler = scheduler_class.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(leave=False)
    starts = range(0, options.num, options.batch_size)
    for start in tqdm(starts, desc="sampling", unit="batch"):
        indices = range(start, min(start + options.batch_size, options.num))
        output = pipeline(
            len(indices),
            size=options.size,
            num_inference_steps=options.steps,
            class_labels=options.class_label,
            generator=[torch.Generator().manual_seed(options.seed + index) for index in indices],
        )
        output.save(options.out, first_index=start)
    print(f"{options.num} volume(s) as NIfTI (HU) and pictures (PNG) in {options.out}")


def _add_inspect(commands: "argparse._SubParsersAction") -> None:
    """Describe `diffct inspect`."""
    parser = commands.add_parser(
        "inspect", help="show what would be read: size, spacing, orientation, HU, problems"
    )
    parser.add_argument("path", type=Path, help="a file, or a folder of scans")
    parser.set_defaults(run=_inspect)


def _inspect(options: argparse.Namespace) -> None:
    """Print a report and exit with 1 if any scan has a problem."""
    reports = inspect_scans(options.path)
    print(format_reports(reports))
    if any(report.problems for report in reports):
        sys.exit(1)
