"""`diffct prepare phantom-cxr` and `phantom-brain`: synthetic data to try everything on."""

import argparse
from typing import get_args

from diffct.config import finite_number, path_argument
from diffct.data.manifest import SPLITS, read_manifest
from diffct.phantoms.brain.cohort import Anatomy, write_brain_cohort
from diffct.phantoms.brain.signal import SEQUENCES
from diffct.phantoms.chest.cohort import write_chest_cohort


def add_phantoms(data_sets: "argparse._SubParsersAction") -> None:
    """Describe `diffct prepare phantom-cxr` and `phantom-brain`.

    Args:
        data_sets: The sub-commands of `diffct prepare`.
    """
    parser = data_sets.add_parser("phantom-cxr", help="synthetic chest films with reports")
    parser.add_argument("--out", type=path_argument, required=True, help="folder to write")
    parser.add_argument("--films", type=int, required=True, help="how many, a patient each")
    parser.add_argument("--seed", type=int, default=0, help="which ones (0)")
    parser.add_argument(
        "--size", type=int, nargs=2, metavar=("H", "W"), default=(128, 128), help="pixels (128 128)"
    )
    parser.set_defaults(run=_phantom_cxr)

    parser = data_sets.add_parser(
        "phantom-brain", help="synthetic brains, T1w and FLAIR, as a BIDS tree"
    )
    parser.add_argument("--out", type=path_argument, required=True, help="folder to write")
    parser.add_argument("--subjects", type=int, required=True, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="which ones (0)")
    parser.add_argument(
        "--anatomy",
        choices=get_args(Anatomy),
        default="procedural",
        help="procedural (default), the MNI152 template bent (needs nilearn), or both by turns",
    )
    parser.add_argument(
        "--spacing",
        type=finite_number,
        default=2.0,
        metavar="MM",
        help="size of the cubic voxels (2)",
    )
    parser.add_argument(
        "--contrasts",
        nargs="+",
        choices=SEQUENCES,
        default=["T1w", "FLAIR"],
        help="images of each subject (T1w FLAIR)",
    )
    parser.set_defaults(run=_phantom_brain)


def _phantom_cxr(options: argparse.Namespace) -> None:
    """Write synthetic chest films and print how many are in each split."""
    folder = write_chest_cohort(
        options.out, films=options.films, seed=options.seed, size=tuple(options.size)
    )
    manifest = read_manifest(folder)
    counts = ", ".join(f"{len(manifest.split(name))} {name}" for name in SPLITS)
    print(f"Synthetic chest films with reports in {folder}: {counts}.")


def _phantom_brain(options: argparse.Namespace) -> None:
    """Write synthetic brains and say where they are."""
    folder = write_brain_cohort(
        options.out,
        subjects=options.subjects,
        seed=options.seed,
        anatomy=options.anatomy,
        spacing_mm=options.spacing,
        contrasts=options.contrasts,
    )
    print(f"{options.subjects} synthetic brains in {folder}; slice them with diffct prepare brain.")
