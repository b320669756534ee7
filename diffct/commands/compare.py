"""`diffct compare`: the differences of two results, figure by figure."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from diffct.arguments import path_argument

if TYPE_CHECKING:
    from diffct.eval.compare import Comparison

_COLUMNS = ("figure", "first", "second", "difference", "the second is", "intervals")
_HOW_TO_READ = (
    "Depending on the figure, better means higher, lower, or nearer to that of real images."
    " Separate intervals (95 %) indicate a difference; overlapping ones do not exclude one."
)


def add_compare(commands: "argparse._SubParsersAction") -> None:
    """Describe `diffct compare`."""
    parser = commands.add_parser(
        "compare",
        help="show how two results differ, figure by figure, if their protocols are the same",
    )
    parser.add_argument(
        "first",
        type=path_argument,
        help="folder of an evaluation, its metrics.json, or the JSON of one measurement",
    )
    parser.add_argument("second", type=path_argument, help="the result to compare with it")
    parser.add_argument("--force", action="store_true", help="compare despite different protocols")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.set_defaults(run=_compare)


def _compare(options: argparse.Namespace) -> None:
    """Print how both results differ, or why they cannot be compared."""
    from diffct.eval.compare import compare_figures, compare_protocols, read_measurements

    first, second = (read_measurements(path) for path in (options.first, options.second))
    shared = [name for name in first if name in second]
    if not shared:
        raise ValueError("The two files have no measurement in common.")
    apart = {name: compare_protocols(name, first, second, force=options.force) for name in shared}
    found = {
        name: compare_figures(first[name]["figures"], second[name]["figures"]) for name in shared
    }
    alone = sorted(first.keys() ^ second.keys())
    unpaired = f"In one of the two files only: {', '.join(alone)}." if alone else ""
    if options.json:
        values = {
            name: {
                "protocols_differ": apart[name],
                "figures": [asdict(comparison) for comparison in found[name]],
            }
            for name in shared
        }
        print(json.dumps(values, indent=2, allow_nan=False))
        if unpaired:
            print(unpaired, file=sys.stderr)
        return
    for name in shared:
        print(f"\n## {name}" + (" (DIFFERENT PROTOCOLS)" if apart[name] else ""))
        print("\n" + _table(found[name]))
    if unpaired:
        print(f"\n{unpaired}")
    print(f"\n{_HOW_TO_READ}")


def _table(comparisons: "Sequence[Comparison]") -> str:
    """Write comparisons as a table with aligned columns."""
    from diffct.eval.figures import show
    from diffct.metrics.intervals import Estimate

    words = {None: "–", True: "better", False: "worse"}
    overlap = {None: "–", True: "overlap", False: "apart"}
    rows = [_COLUMNS]
    for found in comparisons:
        word = "equal" if found.difference == 0 else words[found.second_is_better]
        rows.append(
            (
                found.figure,
                show(Estimate(found.first, interval=found.first_interval)),
                show(Estimate(found.second, interval=found.second_interval)),
                f"{found.difference:+.3g}",
                word,
                overlap[found.intervals_overlap],
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines = [
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))} |"
        for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)
