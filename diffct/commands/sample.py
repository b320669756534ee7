"""`diffct sample`: volumes, films or images from a pipeline."""

import argparse
from pathlib import Path

import numpy as np

from diffct.arguments import finite_number, path_argument
from diffct.commands.loading import add_pipeline_arguments, load_chosen
from diffct.destination import prove_writable, refuse_earlier_samples, replace_samples
from diffct.figures.contact_sheet import save_contact_sheet
from diffct.imaging.ct_export import write_ct_series
from diffct.imaging.dx_export import check_pixel_spacing, write_dx
from diffct.imaging.volume import Volume
from diffct.imaging.windows import WINDOWS, parse_window
from diffct.pipelines import (
    CT3DPipeline,
    CXRTextToImagePipeline,
    FlairToT1Pipeline,
    TextToImagePipeline,
)

_MOST_SHOWN = 64  # films on a contact sheet
# Options that mean something to one kind of pipeline only.
_FITTING = (
    dict.fromkeys(("size", "class_label", "window"), CT3DPipeline)
    | dict.fromkeys(
        ("prompt", "negative_prompt", "guidance_scale", "height", "width"), TextToImagePipeline
    )
    | {"dicom": (CT3DPipeline, CXRTextToImagePipeline), "pixel_spacing": CXRTextToImagePipeline}
)


def add_sample(commands: "argparse._SubParsersAction") -> None:
    """Describe `diffct sample`."""
    parser = commands.add_parser("sample", help="sample volumes, films or images from a pipeline")
    add_pipeline_arguments(parser)
    parser.add_argument("--num", type=int, default=1, help="how many, of each prompt (1)")
    parser.add_argument(
        "--batch-size",
        type=int,
        default=1,
        # torch convolves a single small volume on the CPU by a path several times slower.
        help="samples drawn at once (1); 2 and more are much faster on a CPU",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the first sample (0)")
    parser.add_argument(
        "--out", type=path_argument, default=Path("samples"), help="folder (samples)"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace all earlier samples in --out"
    )
    parser.add_argument(
        "--dicom",
        action="store_true",
        help="DICOM, too, marked synthetic: a folder with a CT series for each volume, a DX file "
        "for each film, which holds the prompt",
    )
    volumes = parser.add_argument_group("volumes of a CT3DPipeline")
    volumes.add_argument(
        "--size", type=int, nargs=3, metavar=("D", "H", "W"), help="voxels (the training size)"
    )
    volumes.add_argument("--class-label", type=int, help="class, for a class-conditional model")
    volumes.add_argument(
        "--window",
        nargs="+",
        metavar=("NAME|LEVEL", "WIDTH"),
        help=f"of the pictures and of DICOM: {', '.join(WINDOWS)}, or level and width in HU "
        "(what the volume holds)",
    )
    films = parser.add_argument_group("films, or other images of a TextToImagePipeline")
    films.add_argument(
        "--prompt", action="append", help='what the image shows; give it again for more; "" for any'
    )
    films.add_argument("--negative-prompt", help="what the images shall not show")
    films.add_argument(
        "--guidance-scale", type=finite_number, help="how much to follow the prompt (7)"
    )
    films.add_argument("--height", type=int, help="pixels (the training height)")
    films.add_argument("--width", type=int, help="pixels (the training width)")
    films.add_argument(
        "--pixel-spacing",
        type=finite_number,
        metavar="MM",
        help="for --dicom (430 mm by the longer side)",
    )
    parser.set_defaults(run=_sample)


def _sample(options: argparse.Namespace) -> None:
    """Load a pipeline and sample from it."""
    window_hu = None if options.window is None else parse_window(options.window)
    if options.pixel_spacing is not None:
        check_pixel_spacing(options.pixel_spacing)
    prove_writable(options.out)
    if not options.overwrite:
        refuse_earlier_samples(options.out)
    pipeline = load_chosen(options, counts=["num"])
    for name, kind in _FITTING.items():
        if getattr(options, name) not in (None, False) and not isinstance(pipeline, kind):
            found = type(pipeline).__name__
            raise ValueError(f"--{name.replace('_', '-')} has no meaning for a {found}.")
    if options.pixel_spacing is not None and not options.dicom:
        raise ValueError("--pixel-spacing is written into DICOM files only: add --dicom.")
    pipeline.set_progress_bar_config(leave=False)
    if isinstance(pipeline, CT3DPipeline):
        _sample_volumes(pipeline, options, window_hu)
    elif isinstance(pipeline, TextToImagePipeline):
        _sample_images(pipeline, options)
    elif isinstance(pipeline, FlairToT1Pipeline):
        raise ValueError(f"{options.pipeline} translates scans: use `diffct translate`.")
    else:
        raise ValueError(f"{options.pipeline} is a {type(pipeline).__name__}, not one of diffct's.")


def _sample_volumes(
    pipeline: CT3DPipeline, options: argparse.Namespace, window_hu: tuple[float, float] | None
) -> None:
    """Sample volumes: number i has the seed `seed + i`, whatever `num` and the batch size are."""
    made = pipeline.sample_many(
        range(options.seed, options.seed + options.num),
        batch_size=options.batch_size,
        steps=options.steps,
        size=options.size,
        class_label=options.class_label,
    )
    for indices, output in replace_samples(made, options.out):
        paths = output.save(options.out, first_index=indices[0], window_hu=window_hu)
        if options.dicom:
            for path, array in zip(paths, output.volumes, strict=True):
                folder = path.with_name(path.name.removesuffix(".nii.gz"))
                write_ct_series(Volume(array, output.affine), folder, window_hu=window_hu)
    kinds = "NIfTI (HU), DICOM series" if options.dicom else "NIfTI (HU)"
    print(f"{options.num} volume(s) as {kinds} and pictures (PNG) in {options.out}")


def _sample_images(pipeline: TextToImagePipeline, options: argparse.Namespace) -> None:
    """Sample images: number i of every prompt has the seed `seed + i`, so that words compare."""
    if options.prompt is None:
        raise ValueError('Say what the images show by --prompt "..."; --prompt "" for any.')
    wanted = [(prompt, index) for prompt in options.prompt for index in range(options.num)]
    made = pipeline.sample_many(
        [options.seed + index for _, index in wanted],
        conditions=[prompt for prompt, _ in wanted],
        batch_size=options.batch_size,
        steps=options.steps,
        guidance_scale=options.guidance_scale,
        negative_prompt=options.negative_prompt,
        height=options.height,
        width=options.width,
    )
    shown: list[np.ndarray] = []
    for indices, output in replace_samples(made, options.out):
        paths = output.save(options.out, first_index=indices[0])
        films = output.films()
        if options.dicom:
            for index, path, film in zip(indices, paths, films, strict=True):
                write_dx(
                    film,
                    path.with_suffix(".dcm"),
                    prompt=wanted[index][0],
                    pixel_spacing_mm=options.pixel_spacing,
                )
        shown += films[: _MOST_SHOWN - len(shown)]
    save_contact_sheet(
        shown,
        options.out / "contact-sheet.png",
        titles=[prompt or "(empty prompt)" for prompt, _ in wanted[: len(shown)]],
        columns=options.num if 1 < len(options.prompt) and options.num <= 8 else 4,
    )
    kinds = "16-bit PNG and DICOM" if options.dicom else "16-bit PNG"
    what = "film" if isinstance(pipeline, CXRTextToImagePipeline) else "image"
    print(f"{len(wanted)} {what}(s) as {kinds}, and contact-sheet.png, in {options.out}")
