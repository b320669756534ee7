"""`diffct inspect`: what would be read of a file or folder, and what is wrong with it."""

import argparse
import sys

from diffct.config import path_argument
from diffct.data.inspection import format_reports, inspect_scans


def add_inspect(commands: "argparse._SubParsersAction") -> None:
    """Describe `diffct inspect`."""
    parser = commands.add_parser(
        "inspect", help="show what would be read: size, spacing, orientation, HU, problems"
    )
    parser.add_argument("path", type=path_argument, help="a file, or a folder of scans")
    parser.set_defaults(run=_inspect)


def _inspect(options: argparse.Namespace) -> None:
    """Print a report and exit with 1 if any scan has a problem."""
    reports = inspect_scans(options.path)
    print(format_reports(reports))
    if any(report.problems for report in reports):
        sys.exit(1)
