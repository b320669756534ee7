"""`diffct prepare`: a data set, as it is downloaded, made ready for training."""

import argparse

from diffct.config import path_argument
from diffct.phantoms.command import add_phantoms
from diffct.prepare.brain.command import add_brain
from diffct.prepare.mimic_cxr import prepare_mimic_cxr
from diffct.prepare.radiographs import prepare_radiographs
from diffct.prepare.run_arguments import add_run_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the data sets that `diffct prepare` knows.

    Args:
        parser: The parser of `diffct prepare`.
    """
    parser.set_defaults(run=lambda options: parser.print_help())
    data_sets = parser.add_subparsers(metavar="DATA_SET")
    _add_mimic_cxr(data_sets)
    _add_radiographs(data_sets)
    add_brain(data_sets)
    add_phantoms(data_sets)


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
        "divided by commas, semicolons or tabs; nan, N/A and None stand for no value",
    )
    parser.add_argument(
        "--one-patient-per-image",
        action="store_true",
        help="there is no column 'patient', since no two images are of one person",
    )
    parser.add_argument(
        "--bits", type=int, default=16, help="bits in use in 16-bit PNG and TIFF files (16)"
    )
    _add_film_arguments(parser)
    parser.set_defaults(run=_radiographs)


def _add_film_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe what data sets of real films have in common."""
    parser.add_argument("--size", type=int, default=512, help="pixels of the shorter side (512)")
    add_run_arguments(parser)


def _mimic_cxr(options: argparse.Namespace) -> None:
    """Prepare MIMIC-CXR and print what became of every row."""
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
    """Prepare any radiographs and print what became of every row."""
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
