"""`diffct sample`: volumes, films or images from a pipeline."""

import argparse
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffct.arguments import finite_number, path_argument
from diffct.commands.loading import add_pipeline_arguments, load_chosen
from diffct.destination import check_writable, refuse_earlier_samples, replace_samples

if TYPE_CHECKING:
    import numpy as np
    from diffusers import DiffusionPipeline

_WINDOWS = ("soft", "lung", "bone", "brain")
_MAX_SHOWN = 64  # images on a contact sheet
# Options that only pipelines of some modalities have.
_MODALITIES = {"window": {"volume"}, "dicom": {"volume", "film"}, "spacing": {"film"}}


def add_sample(commands: "argparse._SubParsersAction") -> None:
    """Describe `diffct sample`."""
    parser = commands.add_parser("sample", help="sample volumes, films or images from a pipeline")
    add_pipeline_arguments(parser)
    parser.add_argument(
        "--number", type=int, default=1, help="number of samples, of each prompt (1)"
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        default=1,
        # On the CPU, torch's convolution of a single small volume is several times slower.
        help="samples drawn at once (1); 2 or more are much faster on a CPU",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the first sample (0)")
    parser.add_argument(
        "--size",
        type=int,
        nargs="+",
        metavar="N",
        help="D H W in voxels, or H W in pixels (the training size)",
    )
    parser.add_argument(
        "--out", type=path_argument, default=Path("samples"), help="folder (samples)"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace all earlier samples in --out"
    )
    parser.add_argument(
        "--dicom",
        action="store_true",
        help="also write DICOM, marked synthetic: a folder with a CT series for each volume, or a "
        "DX file for each film, which includes the prompt",
    )
    volumes = parser.add_argument_group("volumes")
    volumes.add_argument("--class-label", type=int, help="class, for a class-conditional model")
    volumes.add_argument(
        "--window",
        nargs="+",
        metavar=("NAME|LEVEL", "WIDTH"),
        help=f"window of the pictures and of DICOM: {', '.join(_WINDOWS)}, or level and width in "
        "HU (a window that fits the volume)",
    )
    films = parser.add_argument_group("films and other images")
    films.add_argument(
        "--prompt", action="append", help='what the image shows; repeat for more; "" for any image'
    )
    films.add_argument("--negative-prompt", help="what the images must not show")
    films.add_argument(
        "--guidance-scale", type=finite_number, help="how much to follow the prompt (7)"
    )
    films.add_argument(
        "--spacing",
        type=finite_number,
        metavar="MM",
        help="pixel spacing for --dicom (430 mm divided by the pixels of the longer side)",
    )
    parser.set_defaults(run=_sample)


def _sample(options: argparse.Namespace) -> None:
    """Load a pipeline, sample from it and save the samples as they come."""
    from diffct.imaging.dx_export import check_pixel_spacing
    from diffct.imaging.windows import parse_window

    window_hu = None if options.window is None else parse_window(options.window)
    if options.spacing is not None:
        check_pixel_spacing(options.spacing)
    check_writable(options.out)
    if not options.overwrite:
        refuse_earlier_samples(options.out)
    pipeline = load_chosen(options)
    asked = _pipeline_options(options, pipeline)
    prompts = [None] if options.prompt is None else options.prompt
    # Sample i of every prompt has the seed `seed + i`, so that prompts can be compared.
    wanted = [(prompt, index) for prompt in prompts for index in range(options.number)]
    pipeline.set_progress_bar_config(leave=False)
    made = pipeline.sample_many(
        [options.seed + index for _, index in wanted],
        conditions=None if options.prompt is None else [prompt for prompt, _ in wanted],
        batch_size=options.batch_size,
        steps=options.steps,
        **asked,
    )
    shown: list[np.ndarray] = []
    for indices, output in replace_samples(made, options.out):
        if pipeline.modality == "volume":
            output.save(
                options.out, first_index=indices[0], window_hu=window_hu, dicom=options.dicom
            )
        else:
            output.save(
                options.out,
                first_index=indices[0],
                dicom=options.dicom,
                prompts=[wanted[index][0] for index in indices],
                pixel_spacing_mm=options.spacing,
            )
            shown += output.films()[: _MAX_SHOWN - len(shown)]
    if pipeline.modality == "volume":
        kinds = "NIfTI (HU), DICOM series" if options.dicom else "NIfTI (HU)"
        print(f"{len(wanted)} volume(s) as {kinds} and pictures (PNG) in {options.out}")
    else:
        _save_contact_sheet(shown, [prompt for prompt, _ in wanted], options)
        kinds = "16-bit PNG and DICOM" if options.dicom else "16-bit PNG"
        what = f"{len(wanted)} {pipeline.modality}(s)"
        print(f"{what} as {kinds}, and contact-sheet.png, in {options.out}")


def _pipeline_options(options: argparse.Namespace, pipeline: "DiffusionPipeline") -> dict[str, Any]:
    """Return the options for the pipeline; refuse those that it does not have."""
    name = type(pipeline).__name__
    if getattr(pipeline, "modality", None) is None:
        raise ValueError(f"{options.pipeline} is a {name}, not a pipeline of diffct.")
    if pipeline.guided_by == "image":
        raise ValueError(f"{options.pipeline} translates scans: use `diffct translate`.")
    known = signature(pipeline.sample_many).parameters
    own = ("class_label", "negative_prompt", "guidance_scale")
    asked = {option: getattr(options, option) for option in own}
    asked = {option: value for option, value in asked.items() if value is not None}
    idle = [option for option in asked if option not in known]
    idle += [
        option
        for option, fitting in _MODALITIES.items()
        if getattr(options, option) not in (None, False) and pipeline.modality not in fitting
    ]
    if options.prompt is not None and pipeline.guided_by != "prompt":
        idle.append("prompt")
    if idle:
        raise ValueError(f"--{idle[0].replace('_', '-')} has no meaning for a {name}.")
    if options.prompt is None and pipeline.guided_by == "prompt":
        raise ValueError(
            'Give --prompt "..." with what the images show; --prompt "" for any image.'
        )
    if options.spacing is not None and not options.dicom:
        raise ValueError("--spacing is written into DICOM files only: add --dicom.")
    if options.size is None:
        return asked
    if "size" in known:
        return asked | {"size": options.size}
    if len(options.size) != 2:
        raise ValueError(f"--size {' '.join(map(str, options.size))}: a {name} takes H W.")
    return asked | dict(zip(("height", "width"), options.size, strict=True))


def _save_contact_sheet(
    shown: "list[np.ndarray]", prompts: list[str | None], options: argparse.Namespace
) -> None:
    """Save the first images side by side, a row for each prompt if that fits."""
    from diffct.figures.contact_sheet import save_contact_sheet

    save_contact_sheet(
        shown,
        options.out / "contact-sheet.png",
        titles=[prompt or "(empty prompt)" for prompt in prompts[: len(shown)]],
        columns=options.number if 1 < len(options.prompt) and options.number <= 8 else 4,
    )
