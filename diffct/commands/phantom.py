"""`diffct phantom`: synthetic data to try everything on."""

import argparse
from pathlib import Path

from diffct.arguments import check_counts, finite_number, path_argument


def add_phantom(commands: "argparse._SubParsersAction") -> None:
    """Describe `diffct phantom`."""
    parser = commands.add_parser("phantom", help="write synthetic data to try everything on")
    parser.set_defaults(run=lambda options: parser.print_help())
    kinds = parser.add_subparsers(metavar="KIND")
    _add_pelvis(kinds)
    _add_chest(kinds)
    _add_brain(kinds)


def _add_pelvis(kinds: "argparse._SubParsersAction") -> None:
    """Describe `diffct phantom pelvis`."""
    parser = kinds.add_parser("pelvis", help="synthetic CT of pelvises, with label maps")
    _add_common_arguments(parser, number="scans")
    parser.add_argument(
        "--size",
        type=int,
        nargs=3,
        metavar=("D", "H", "W"),
        default=(16, 64, 64),
        help="voxels (16 64 64)",
    )
    parser.add_argument(
        "--spacing",
        type=finite_number,
        nargs=3,
        metavar=("D", "H", "W"),
        default=(8.0, 6.5, 6.5),
        help="spacing of the voxels in mm (8 6.5 6.5)",
    )
    parser.set_defaults(run=_pelvis)


def _add_chest(kinds: "argparse._SubParsersAction") -> None:
    """Describe `diffct phantom chest`."""
    parser = kinds.add_parser("chest", help="synthetic chest films with reports")
    _add_common_arguments(parser, number="films, a patient each")
    parser.add_argument(
        "--size", type=int, nargs=2, metavar=("H", "W"), default=(128, 128), help="pixels (128 128)"
    )
    parser.set_defaults(run=_chest)


def _add_brain(kinds: "argparse._SubParsersAction") -> None:
    """Describe `diffct phantom brain`."""
    parser = kinds.add_parser("brain", help="synthetic brains, T1w and FLAIR, as a BIDS tree")
    _add_common_arguments(parser, number="subjects")
    parser.add_argument(
        "--anatomy",
        choices=("procedural", "mni152", "both"),
        default="procedural",
        help="procedural (default), the deformed MNI152 template (needs nilearn), or both in turn",
    )
    parser.add_argument(
        "--spacing",
        type=finite_number,
        default=2.0,
        metavar="MM",
        help="spacing of the cubic voxels (2)",
    )
    parser.add_argument(
        "--contrasts",
        nargs="+",
        choices=("T1w", "FLAIR", "T2w"),
        default=["T1w", "FLAIR"],
        help="images of each subject (T1w FLAIR)",
    )
    parser.set_defaults(run=_brain)


def _add_common_arguments(parser: argparse.ArgumentParser, *, number: str) -> None:
    """Describe what all phantoms have in common."""
    parser.add_argument("--number", type=int, required=True, help=f"how many {number}")
    parser.add_argument(
        "--out", type=path_argument, required=True, metavar="DATA", help="folder to write"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the cohort (0)")


def _pelvis(options: argparse.Namespace) -> None:
    """Write synthetic CT scans and print how many are in each split."""
    from diffct.phantoms.pelvis.cohort import write_pelvis_cohort

    check_counts(options, "number")
    write_pelvis_cohort(
        options.out,
        number=options.number,
        seed=options.seed,
        size=options.size,
        spacing_mm=options.spacing,
    )
    print(f"Synthetic CT scans with label maps in {options.out}: {_count_splits(options.out)}.")


def _chest(options: argparse.Namespace) -> None:
    """Write synthetic chest films and print how many are in each split."""
    from diffct.phantoms.chest.cohort import write_chest_cohort

    check_counts(options, "number")
    folder = write_chest_cohort(
        options.out, number=options.number, seed=options.seed, size=tuple(options.size)
    )
    print(f"Synthetic chest films with reports in {folder}: {_count_splits(folder)}.")


def _brain(options: argparse.Namespace) -> None:
    """Write synthetic brains and say where they are."""
    from diffct.phantoms.brain.cohort import write_brain_cohort

    check_counts(options, "number")
    folder = write_brain_cohort(
        options.out,
        number=options.number,
        seed=options.seed,
        anatomy=options.anatomy,
        spacing_mm=options.spacing,
        contrasts=options.contrasts,
    )
    print(f"{options.number} synthetic brains in {folder}; slice them with diffct prepare brain.")


def _count_splits(folder: Path) -> str:
    """Return the number of images in each split of a data set, in words."""
    from diffct.data.manifest import SPLITS, read_manifest

    manifest = read_manifest(folder)
    return ", ".join(f"{len(manifest.split(name))} {name}" for name in SPLITS)
