"""What the commands that prepare real data sets have in common."""

import argparse

from diffct.config import path_argument
from diffct.cores import count_cores


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe --out, --seed and --workers.

    Args:
        parser: The parser of one data set.
    """
    parser.add_argument(
        "--out",
        type=path_argument,
        required=True,
        help="folder to write; the same command goes on there",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of a drawn split (0)")
    parser.add_argument(
        "--workers",
        type=int,
        default=min(count_cores(), 8),
        help="processes (one per core, at most 8), each of which needs about 1 GB of memory",
    )
