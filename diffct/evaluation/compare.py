"""`diffct compare`: two results side by side, if their protocols are the same."""

import argparse
import json
from pathlib import Path
from typing import Any

from diffct.config import path_argument
from diffct.evaluation.protocol import differences

_VALUE, _INTERVAL = "value", "interval"


def add_compare(commands: "argparse._SubParsersAction") -> None:
    """Describe `diffct compare`."""
    parser = commands.add_parser(
        "compare", help="put two results side by side, if their protocols are the same"
    )
    parser.add_argument(
        "first", type=path_argument, help="metrics.json, or the JSON of one measurement"
    )
    parser.add_argument("second", type=path_argument, help="another one")
    parser.add_argument("--force", action="store_true", help="compare despite other protocols")
    parser.set_defaults(run=_compare)


def _compare(options: argparse.Namespace) -> None:
    """Print both results, or say why they cannot be compared."""
    first, second = (_read_measurements(path) for path in (options.first, options.second))
    shared = [name for name in first if name in second]
    if not shared:
        raise ValueError("The two files have no measurement in common.")
    for name in shared:
        apart = differences(first[name]["protocol"], second[name]["protocol"])
        if apart and not options.force:
            listed = "\n- ".join(apart[:10])
            raise ValueError(
                f"The protocols of {name} differ, so its figures do not compare (--force compares"
                f" them all the same):\n- {listed}"
            )
        print(f"\n## {name}" + (" (DIFFERENT PROTOCOLS)" if apart else ""))
        mine, other = (dict(_leaves(result["figures"])) for result in (first[name], second[name]))
        print("\n| | first | second |\n|---|---|---|")
        for figure in mine:
            if figure in other:
                print(f"| {figure} | {mine[figure]} | {other[figure]} |")


def _read_measurements(path: Path) -> dict[str, Any]:
    """Read the measurements of a file, by name."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: is no JSON.") from error
    found = values.get("measurements") or {path.stem: values}
    if not all("protocol" in result and "figures" in result for result in found.values()):
        raise ValueError(f"{path}: is no result of diffct's evaluation: it has no protocol.")
    return {result["protocol"]["measurement"]: result for result in found.values()}


def _leaves(figures: Any, place: str = "") -> "list[tuple[str, str]]":  # noqa: ANN401 - JSON
    """List numbers, with their intervals where there are some."""
    if isinstance(figures, dict) and _VALUE in figures:
        text = f"{figures[_VALUE]:.4g}"
        if figures.get(_INTERVAL):
            low, high = figures[_INTERVAL]
            text += f" [{low:.4g}, {high:.4g}]"
        return [(place, text)]
    if isinstance(figures, dict):
        return [
            leaf
            for name, inner in figures.items()
            for leaf in _leaves(inner, f"{place}, {name}" if place else name)
        ]
    if isinstance(figures, int | float) and not isinstance(figures, bool):
        return [(place, f"{figures:.4g}")]
    return []
