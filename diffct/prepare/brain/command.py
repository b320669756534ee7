"""`diffct prepare brain`."""

import argparse
from collections.abc import Sequence

from diffct.config import path_argument
from diffct.imaging.slices import PLANES
from diffct.prepare.brain.discovery import find_bids, find_brats, find_by_patterns
from diffct.prepare.brain.pairs import FoundPairs
from diffct.prepare.brain.preparation import prepare_brain
from diffct.prepare.run_arguments import add_run_arguments

_CONDITIONS = ("FLAIR",)


def add_brain(data_sets: "argparse._SubParsersAction") -> None:
    """Describe `diffct prepare brain`.

    Args:
        data_sets: The sub-commands of `diffct prepare`.
    """
    parser = data_sets.add_parser("brain", help="slices of brains, T1w beside FLAIR and others")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--bids", type=path_argument, metavar="FOLDER", help="root of a BIDS tree")
    source.add_argument(
        "--brats", type=path_argument, metavar="FOLDER", help="folder of BraTS (2018 or later)"
    )
    source.add_argument(
        "--target",
        metavar="PATTERN",
        help='other T1w files, e.g. "DATA/*/T1.nii.gz"; the first * names the subject',
    )
    parser.add_argument(
        "--condition",
        action="append",
        metavar="NAME=PATTERN",
        help='with --target: e.g. FLAIR="DATA/*/FLAIR.nii.gz"; give it again for more',
    )
    parser.add_argument(
        "--conditions",
        nargs="+",
        metavar="NAME",
        help="with --bids and --brats: the contrasts beside the T1w, e.g. FLAIR T2w (FLAIR)",
    )
    parser.add_argument(
        "--plane", choices=PLANES, default="axial", help="how to slice the volumes (axial)"
    )
    parser.add_argument(
        "--slices",
        type=_number_of_slices,
        default=5,
        metavar="N|all",
        help="how many, from the middle of those that hold tissue (5)",
    )
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        metavar=("H", "W"),
        default=(224, 160),
        help="rows and columns of the window around the tissue, in voxels (224 160)",
    )
    add_run_arguments(parser)
    parser.set_defaults(run=_brain)


def _brain(options: argparse.Namespace) -> None:
    """Prepare brains and print what became of every pair."""
    report = prepare_brain(
        _find(options),
        options.out,
        plane=options.plane,
        slices=options.slices,
        size=options.size,
        seed=options.seed,
        workers=options.workers,
    )
    print(report.format())


def _find(options: argparse.Namespace) -> FoundPairs:
    """Find the pairs in the layout asked for."""
    if options.target is not None:
        if options.conditions is not None:
            raise ValueError("--conditions has no meaning with --target; give --condition.")
        return find_by_patterns(options.target, _patterns(options.condition or ()))
    if options.condition is not None:
        raise ValueError("--condition has no meaning without --target; give --conditions.")
    conditions = options.conditions or _CONDITIONS
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
                "another name each time."
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
