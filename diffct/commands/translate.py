"""`diffct translate`: the translation of a scan into another contrast, on its own grid."""

import argparse
from collections.abc import Iterable
from pathlib import Path

from diffct.arguments import expand_path, finite_number, path_argument
from diffct.commands.loading import add_pipeline_arguments, load_chosen
from diffct.destination import check_writable


def add_translate(commands: "argparse._SubParsersAction") -> None:
    """Describe `diffct translate`."""
    parser = commands.add_parser("translate", help="translate a scan, e.g. FLAIR to T1w")
    add_pipeline_arguments(parser)
    parser.add_argument(
        "scan",
        type=path_argument,
        help="the scan: NIfTI, NRRD, MetaImage, a DICOM folder or a multi-frame DICOM file",
    )
    parser.add_argument(
        "--out", type=path_argument, required=True, help="file to write, .nii or .nii.gz"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace an earlier translation in --out"
    )
    parser.add_argument(
        "--condition",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="a further scan of the patient, for a pipeline that reads several; repeat for more",
    )
    parser.add_argument(
        "--guidance-scale",
        type=finite_number,
        default=1.0,
        help="how much to follow the prompt (1)",
    )
    parser.add_argument(
        "--number",
        type=int,
        default=1,
        help="number of samples (1); 2 or more give their mean, and a second file with their"
        " standard deviation",
    )
    parser.add_argument("--batch-size", type=int, default=8, help="slices at once (8)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first sample (0)")
    parser.set_defaults(run=_translate)


def _translate(options: argparse.Namespace) -> None:
    """Translate a scan into a file on the same grid."""
    from diffct.pipelines.volume_translation import translation_files

    further = dict(_condition(words) for words in options.condition)
    if len(further) < len(options.condition):
        raise ValueError("--condition: give each name once.")
    _check_out(options, [options.scan, *further.values()])
    pipeline = load_chosen(options)
    if getattr(pipeline, "guided_by", None) != "image":
        raise ValueError(f"{options.pipeline} is a {type(pipeline).__name__}, not a translation.")
    first = pipeline.conditions[0]
    if first in further:
        raise ValueError(f"--condition {first}: give each name once; it is {options.scan} already.")
    pipeline.translate_volume(
        {first: options.scan} | further,
        out=options.out,
        num_samples=options.number,
        batch_size=options.batch_size,
        num_inference_steps=options.steps,
        guidance_scale=options.guidance_scale,
        seed=options.seed,
    )
    if options.number == 1:
        # The standard deviation of an earlier translation, which --overwrite replaces.
        translation_files(options.out)[1].unlink(missing_ok=True)
    also = ", with the standard deviation beside it" if options.number > 1 else ""
    print(f"SYNTHETIC scan, not for diagnosis, on the grid of {options.scan}: {options.out}{also}")


def _condition(words: str) -> tuple[str, Path]:
    """Read NAME=PATH."""
    name, _, path = words.partition("=")
    if not name or not path:
        raise ValueError(f"--condition {words}: give NAME=PATH.")
    return name, Path(expand_path(path))


def _check_out(options: argparse.Namespace, scans: Iterable[Path]) -> None:
    """Check that the translation can be written without replacing a scan or an earlier result."""
    from diffct.pipelines.volume_translation import translation_files

    files = translation_files(options.out)
    for path in files:
        if path.is_dir():
            raise ValueError(f"--out {path} is a folder; give the file to write.")
        if path.exists() and any(path.samefile(scan) for scan in scans if scan.exists()):
            raise ValueError(f"--out {path} is one of the scans to read.")
        if path.exists() and not options.overwrite:
            raise ValueError(f"--out {path} exists already. Give another file, or --overwrite.")
    check_writable(options.out.parent)
