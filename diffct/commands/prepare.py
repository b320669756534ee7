"""`diffct prepare`: the preparation of a downloaded data set for training."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from diffct.arguments import finite_number, path_argument
from diffct.cores import count_cores
from diffct.imaging.planes import PLANES

if TYPE_CHECKING:
    from diffct.prepare.brain.pairs import FoundPairs

_CONDITIONS = ("FLAIR",)


def add_prepare(commands: "argparse._SubParsersAction") -> None:
    """Describe `diffct prepare`."""
    parser = commands.add_parser("prepare", help="make a data set ready for training")
    parser.set_defaults(run=lambda options: parser.print_help())
    data_sets = parser.add_subparsers(metavar="DATA_SET")
    _add_ct(data_sets)
    _add_mimic_cxr(data_sets)
    _add_radiographs(data_sets)
    _add_brain(data_sets)


def _add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe what all data sets have in common."""
    parser.add_argument(
        "--out",
        type=path_argument,
        required=True,
        metavar="DATA",
        help="folder to write; after an interruption, the same command resumes",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of a drawn split (0)")
    parser.add_argument(
        "--workers",
        type=int,
        default=min(count_cores(), 8),
        help="processes (one per core, at most 8), each of which needs about 1 GB of memory",
    )


def _add_ct(data_sets: "argparse._SubParsersAction") -> None:
    """Describe `diffct prepare ct`."""
    parser = data_sets.add_parser(
        "ct",
        help="any folder of CT scans: NIfTI, NRRD, MetaImage or DICOM",
        description="Read and check every scan of a folder, write it as NIfTI in Hounsfield units,"
        " named by a hash of its path, divide the patients, and list all scans in a manifest, where"
        " numbers replace PatientIDs."
        " Masks, previews, copies and unusable files are left out and counted.",
    )
    parser.add_argument(
        "scans", type=path_argument, help="folder, searched with all folders below it"
    )
    parser.add_argument(
        "--spacing",
        type=finite_number,
        nargs=3,
        metavar=("D", "H", "W"),
        help="resample to this spacing in mm (each scan's own; training can resample as well)",
    )
    for option, words in (("--include", "are the only ones read"), ("--exclude", "are not read")):
        parser.add_argument(
            option,
            nargs="+",
            default=[],
            metavar="PATTERN",
            help=f'paths that {words}, e.g. "ct.nii.gz" or "*/segmentations"; quote patterns',
        )
    parser.add_argument(
        "--patient-pattern",
        metavar="REGEX",
        help="the patient of each scan: a regular expression with one (group) that is found in each"
        " path inside the folder (DICOM's PatientID; otherwise every scan counts as a patient of"
        " its own)",
    )
    for split in ("validation", "test"):
        parser.add_argument(
            f"--{split}-share",
            type=finite_number,
            default=0.1,
            metavar="SHARE",
            help=f"share of the patients held out for {split}; 0 for none (0.1)",
        )
    _add_run_arguments(parser)
    parser.set_defaults(run=_ct)


def _add_mimic_cxr(data_sets: "argparse._SubParsersAction") -> None:
    """Describe `diffct prepare mimic-cxr`."""
    parser = data_sets.add_parser("mimic-cxr", help="PA films of MIMIC-CXR-JPG 2.x, with reports")
    parser.add_argument(
        "--images",
        type=path_argument,
        required=True,
        help="folder of MIMIC-CXR-JPG: files/ beside mimic-cxr-2.0.0-metadata.csv.gz and -split",
    )
    parser.add_argument(
        "--reports",
        type=path_argument,
        required=True,
        help="mimic-cxr-reports.zip, or its unpacked folder",
    )
    parser.add_argument(
        "--split",
        choices=("official", "seeded"),
        default="official",
        help="the official split (default), or one by patient drawn with --seed (80/10/10 %%)",
    )
    _add_film_arguments(parser)
    parser.set_defaults(run=_mimic_cxr)


def _add_radiographs(data_sets: "argparse._SubParsersAction") -> None:
    """Describe `diffct prepare radiographs`."""
    parser = data_sets.add_parser(
        "radiographs", help="any frontal radiographs (PNG, JPEG, TIFF, DICOM) with text"
    )
    parser.add_argument("--images", type=path_argument, required=True, help="folder of the images")
    parser.add_argument(
        "--csv",
        type=path_argument,
        required=True,
        help="table in UTF-8 with the columns image, text, patient and optionally study and split, "
        "separated by commas, semicolons or tabs; nan, N/A and None mean no value",
    )
    parser.add_argument(
        "--one-patient-per-image",
        action="store_true",
        help="the table has no column 'patient', since no two images are of the same person",
    )
    parser.add_argument(
        "--bits", type=int, default=16, help="bits in use in 16-bit PNG and TIFF files (16)"
    )
    _add_film_arguments(parser)
    parser.set_defaults(run=_radiographs)


def _add_film_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe what data sets of real films have in common."""
    parser.add_argument("--size", type=int, default=512, help="pixels of the shorter side (512)")
    _add_run_arguments(parser)


def _add_brain(data_sets: "argparse._SubParsersAction") -> None:
    """Describe `diffct prepare brain`."""
    parser = data_sets.add_parser("brain", help="slices of brains, T1w beside FLAIR and others")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--bids", type=path_argument, metavar="FOLDER", help="root of a BIDS tree")
    source.add_argument(
        "--brats", type=path_argument, metavar="FOLDER", help="folder of BraTS (2018 or later)"
    )
    source.add_argument(
        "--target",
        metavar="PATTERN",
        help='T1w files in another layout, e.g. "DATA/*/T1.nii.gz"; the first * is the subject',
    )
    parser.add_argument(
        "--condition",
        action="extend",
        nargs="+",
        metavar="NAME",
        help="the contrasts beside the T1w, e.g. FLAIR T2w (FLAIR); with --target"
        ' NAME=PATTERN, e.g. FLAIR="DATA/*/FLAIR.nii.gz"',
    )
    parser.add_argument(
        "--plane", choices=PLANES, default="axial", help="how to slice the volumes (axial)"
    )
    parser.add_argument(
        "--slices",
        type=_number_of_slices,
        default=5,
        metavar="N|all",
        help="number of slices, from the middle of those with tissue (5)",
    )
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        metavar=("H", "W"),
        default=(224, 160),
        help="rows and columns of the window around the tissue, in voxels (224 160)",
    )
    _add_run_arguments(parser)
    parser.set_defaults(run=_brain)


def _ct(options: argparse.Namespace) -> None:
    """Prepare CT scans and print how many were kept and why others were left out."""
    from diffct.prepare.ct.preparation import prepare_ct

    report = prepare_ct(
        options.scans,
        options.out,
        spacing_mm=options.spacing,
        include=options.include,
        exclude=options.exclude,
        patient_pattern=options.patient_pattern,
        validation_share=options.validation_share,
        test_share=options.test_share,
        seed=options.seed,
        workers=options.workers,
    )
    print(report.format())


def _mimic_cxr(options: argparse.Namespace) -> None:
    """Prepare MIMIC-CXR and print how many rows were kept and why others were dropped."""
    from diffct.prepare.mimic_cxr import prepare_mimic_cxr

    report = prepare_mimic_cxr(
        options.images,
        options.reports,
        options.out,
        size=options.size,
        split=options.split,
        seed=options.seed,
        workers=options.workers,
    )
    print(report.format())


def _radiographs(options: argparse.Namespace) -> None:
    """Prepare any radiographs and print how many rows were kept and why others were dropped."""
    from diffct.prepare.radiographs import prepare_radiographs

    report = prepare_radiographs(
        options.images,
        options.csv,
        options.out,
        size=options.size,
        seed=options.seed,
        bits=options.bits,
        one_patient_per_image=options.one_patient_per_image,
        workers=options.workers,
    )
    print(report.format())


def _brain(options: argparse.Namespace) -> None:
    """Prepare brains and print how many pairs were kept and why others were dropped."""
    from diffct.prepare.brain.preparation import prepare_brain

    report = prepare_brain(
        _find_pairs(options),
        options.out,
        plane=options.plane,
        slices=options.slices,
        size=options.size,
        seed=options.seed,
        workers=options.workers,
    )
    print(report.format())


def _find_pairs(options: argparse.Namespace) -> "FoundPairs":
    """Find the pairs of brains in the layout asked for."""
    from diffct.prepare.brain.discovery import find_bids, find_brats, find_by_patterns

    if options.target is not None:
        return find_by_patterns(options.target, _patterns(options.condition or ()))
    conditions = options.condition or _CONDITIONS
    for name in conditions:
        if "=" in name:
            raise ValueError(f"--condition {name}: a pattern needs --target; give only the name.")
    if options.bids is not None:
        return find_bids(options.bids, conditions)
    return find_brats(options.brats, conditions)


def _patterns(words: Sequence[str]) -> dict[str, str]:
    """Read NAME=PATTERN words."""
    patterns = {}
    for word in words:
        name, equals, pattern = word.partition("=")
        if not (equals and pattern) or name in patterns:
            raise ValueError(
                f"--condition {word}: give NAME=PATTERN, e.g. FLAIR='DATA/*/FLAIR.nii.gz', with "
                "a different name each time."
            )
        patterns[name] = pattern
    if not patterns:
        raise ValueError("--target needs --condition, e.g. FLAIR='DATA/*/FLAIR.nii.gz'.")
    return patterns


def _number_of_slices(word: str) -> int | None:
    """Read a number, or "all" as None."""
    try:
        return None if word == "all" else int(word)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{word!r} is neither a number nor 'all'") from error
