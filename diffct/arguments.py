"""Values on a command line: paths with ~ and variables, finite numbers, counts."""

import argparse
import math
import os
import re
from pathlib import Path


def path_argument(text: str) -> Path:
    """Read a path from a command line: the `type` of an argument; see `expand_path`."""
    return Path(folder_or_id(text))


def folder_or_id(text: str) -> str:
    """Read a folder or Hub id from a command line: the `type` of an argument."""
    try:
        return expand_path(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def finite_number(text: str) -> float:
    """Read a number from a command line: the `type` of an argument. NaN and infinity are errors."""
    number = float(text)
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number")
    return number


def expand_path(text: str) -> str:
    """Expand ~ and environment variables in a path, as a shell does if it is not quoted.

    Args:
        text: The path; if something exists under exactly this name, it is not changed.

    Raises:
        ValueError: The path is empty, or a variable is not set.
    """
    if not text:
        raise ValueError("the path is empty; write . for the current folder.")
    if Path(text).exists():
        return text
    expanded = os.path.expandvars(os.path.expanduser(text))
    unset = re.search(r"\$(\w+|\{\w+\})", expanded)
    if unset:
        raise ValueError(f"{text}: the environment variable {unset[1].strip('{}')} is not set.")
    return expanded


def check_counts(options: argparse.Namespace, *names: str) -> None:
    """Refuse counts below 1.

    Args:
        options: The parsed command line.
        names: The options that are counts.

    Raises:
        ValueError: One is 0 or negative.
    """
    for name in names:
        count = getattr(options, name)
        if count < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, not {count}.")
