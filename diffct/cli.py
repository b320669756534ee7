"""The `diffct` command."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from diffct.data.contact_sheet import save_contact_sheet
from diffct.data.inspection import format_reports, inspect_scans
from diffct.hub import load_pipeline
from diffct.pipelines import CT3DPipeline, CXRTextToImagePipeline
from diffct.pipelines.dicom import write_dx
from diffct.pipelines.schedulers import SCHEDULERS, find_scheduler
from diffct.prepare.command import add_arguments

_MOST_SHOWN = 64  # films on a contact sheet


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one subcommand; what a user can mend ends as one line, not as a traceback."""
    parser = argparse.ArgumentParser(prog="diffct", description="Generative medical imaging.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_sample(commands)
    _add_inspect(commands)
    add_arguments(commands.add_parser("prepare", help="make a data set ready for training"))
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except (ValueError, OSError) as error:
        sys.exit(f"diffct: {error}")
    except torch.OutOfMemoryError:
        sys.exit("diffct: out of GPU memory. Sample fewer at once, or with --dtype bfloat16.")


def _add_sample(commands: "argparse._SubParsersAction") -> None:
    """Describe `diffct sample`."""
    parser = commands.add_parser("sample", help="sample volumes or films from a pipeline")
    parser.add_argument("pipeline", help="folder or Hub id")
    parser.add_argument("--num", type=int, default=1, help="how many, of each prompt (1)")
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
        help="samples drawn at once (1); 2 and more are much faster on a CPU",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the first sample (0)")
    parser.add_argument("--device", help="cuda, cpu, ... (a GPU if there is one)")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="weights"
    )
    parser.add_argument("--out", type=Path, default=Path("samples"), help="folder (samples)")
    volumes = parser.add_argument_group("volumes of a CT3DPipeline")
    volumes.add_argument(
        "--size", type=int, nargs=3, metavar=("D", "H", "W"), help="voxels (the training size)"
    )
    volumes.add_argument("--class-label", type=int, help="class, for a class-conditional model")
    films = parser.add_argument_group("films of a CXRTextToImagePipeline")
    films.add_argument(
        "--prompt", action="append", help='what the film shows; give it again for more; "" for any'
    )
    films.add_argument("--negative-prompt", help="what the films shall not show")
    films.add_argument("--guidance-scale", type=float, help="how much to follow the prompt (7)")
    films.add_argument("--height", type=int, help="pixels (the training height)")
    films.add_argument("--width", type=int, help="pixels (the training width)")
    films.add_argument(
        "--dicom", action="store_true", help="DICOM DX files, too; they hold the prompt"
    )
    films.add_argument(
        "--pixel-spacing", type=float, metavar="MM", help="for --dicom (430 mm by the longer side)"
    )
    parser.set_defaults(run=_sample)


# Options that mean something to one kind of pipeline only.
_FITTING = dict.fromkeys(("size", "class_label"), CT3DPipeline) | dict.fromkeys(
    (
        "prompt",
        "negative_prompt",
        "guidance_scale",
        "height",
        "width",
        "dicom",
        "pixel_spacing",
    ),
    CXRTextToImagePipeline,
)


def _sample(options: argparse.Namespace) -> None:
    """Load a pipeline and sample from it."""
    for name in ("num", "steps", "batch_size"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1.")
    pipeline = load_pipeline(
        options.pipeline, device=options.device, dtype=getattr(torch, options.dtype)
    )
    for name, kind in _FITTING.items():
        if getattr(options, name) not in (None, False) and not isinstance(pipeline, kind):
            found = type(pipeline).__name__
            raise ValueError(f"--{name.replace('_', '-')} has no meaning for a {found}.")
    if options.scheduler is not None:
        scheduler_class = find_scheduler(options.scheduler)
        pipeline.scheduler = scheduler_class.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(leave=False)
    if isinstance(pipeline, CT3DPipeline):
        _sample_volumes(pipeline, options)
    elif isinstance(pipeline, CXRTextToImagePipeline):
        _sample_films(pipeline, options)
    else:
        raise ValueError(f"{options.pipeline} is a {type(pipeline).__name__}, not one of diffct's.")


def _sample_volumes(pipeline: CT3DPipeline, options: argparse.Namespace) -> None:
    """Sample volumes: number i has the seed `seed + i`, whatever `num` and the batch size are."""
    for indices in _batches(options.num, options.batch_size):
        output = pipeline(
            len(indices),
            size=options.size,
            num_inference_steps=options.steps,
            class_labels=options.class_label,
            generator=[torch.Generator().manual_seed(options.seed + index) for index in indices],
        )
        output.save(options.out, first_index=indices[0])
    print(f"{options.num} volume(s) as NIfTI (HU) and pictures (PNG) in {options.out}")


def _sample_films(pipeline: CXRTextToImagePipeline, options: argparse.Namespace) -> None:
    """Sample films: number i of every prompt has the seed `seed + i`, so that words compare."""
    if options.prompt is None:
        raise ValueError('Say what the films show by --prompt "..."; --prompt "" for any film.')
    wanted = [(prompt, index) for prompt in options.prompt for index in range(options.num)]
    scale = {} if options.guidance_scale is None else {"guidance_scale": options.guidance_scale}
    shown: list[np.ndarray] = []
    for indices in _batches(len(wanted), options.batch_size):
        prompts, seeds = zip(*(wanted[index] for index in indices), strict=True)
        output = pipeline(
            prompts,
            negative_prompt=options.negative_prompt,
            height=options.height,
            width=options.width,
            num_inference_steps=options.steps,
            generator=[torch.Generator().manual_seed(options.seed + seed) for seed in seeds],
            output_type="np",
            **scale,
        )
        paths = output.save(options.out, first_index=indices[0])
        films = output.films()
        if options.dicom:
            for path, film, prompt in zip(paths, films, prompts, strict=True):
                spacing_mm = options.pixel_spacing
                write_dx(film, path.with_suffix(".dcm"), prompt=prompt, pixel_spacing_mm=spacing_mm)
        shown += films[: _MOST_SHOWN - len(shown)]
    save_contact_sheet(
        shown,
        options.out / "contact-sheet.png",
        titles=[prompt or "(empty prompt)" for prompt, _ in wanted[: len(shown)]],
        columns=options.num if 1 < len(options.prompt) and options.num <= 8 else 4,
    )
    kinds = "16-bit PNG and DICOM" if options.dicom else "16-bit PNG"
    print(f"{len(wanted)} film(s) as {kinds}, and contact-sheet.png, in {options.out}")


def _batches(count: int, size: int) -> Iterator[range]:
    """Split indices 0 ... count - 1 into batches, with a progress bar."""
    for start in tqdm(range(0, count, size), desc="sampling", unit="batch"):
        yield range(start, min(start + size, count))


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
