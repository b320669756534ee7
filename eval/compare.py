"""A comparison of two results, figure by figure, if their protocols are the same."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffct.eval.directions import direction, is_better, is_under_test
from diffct.eval.protocol import differences
from diffct.metrics.intervals import Estimate

_VALUE, _INTERVAL = "value", "interval"


@dataclass(frozen=True)
class Comparison:
    """One figure of two results.

    Attributes:
        figure: Its place in the results.
        first: Its value in the first result.
        second: Its value in the second result.
        first_interval: 95 % interval (low, high); None where it is not known.
        second_interval: Likewise.
        difference: Second minus first.
        better_if: "higher", "lower", "nearer" or "none".
        nearer_to: The value of real images, for "nearer".
        second_is_better: None if both are equal, or if no direction is better.
        intervals_overlap: None if an interval is not known.
    """

    figure: str
    first: float
    second: float
    first_interval: tuple[float, float] | None
    second_interval: tuple[float, float] | None
    difference: float
    better_if: str
    nearer_to: float | None
    second_is_better: bool | None
    intervals_overlap: bool | None


def compare_protocols(
    name: str, first: Mapping[str, Any], second: Mapping[str, Any], *, force: bool
) -> list[str]:
    """List where the protocols of a measurement differ; refuse it unless forced."""
    apart = differences(first[name]["protocol"], second[name]["protocol"])
    if apart and not force:
        listed = "\n- ".join(apart[:10])
        raise ValueError(
            f"The protocols of {name} differ, so its figures do not compare (--force compares"
            f" them all the same):\n- {listed}"
        )
    return apart


def read_measurements(path: Path) -> dict[str, Any]:
    """Read the measurements of a file by name, without those that have no figures."""
    if path.is_dir():  # the folder of an evaluation
        path = path / "metrics.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: there is no such file. Give the metrics.json of an evaluation, or its folder."
        )
    try:
        # NaN and Infinity in files of others count as missing values, as null in diffct's files.
        values = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda _: None)
    except ValueError as error:
        raise ValueError(f"{path}: is no JSON.") from error
    try:
        results = values["measurements"] if "measurements" in values else {path.stem: values}
        found = {
            result["protocol"]["measurement"]: result
            for result in results.values()
            if result["figures"]
        }
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{path}: is no result of diffct's evaluation: it has no protocol."
        ) from error
    if not found:
        raise ValueError(f"{path}: holds no measurement.")
    return found


def compare_figures(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Comparison]:
    """Compare the figures that two results have in common, as their JSON holds them.

    Figures of yardsticks are left out: they describe the same real images.
    """
    mine, other = (dict(_leaves(figures)) for figures in (first, second))
    values = [{place: figure.value for place, figure in side.items()} for side in (mine, other)]
    found = []
    for place, figure in mine.items():
        if place not in other or not is_under_test(place):
            continue
        before, after = figure.value, other[place].value
        intervals = (figure.interval, other[place].interval)
        # Both results have the same real images, or their comparison was forced.
        way, target = direction(place, values[1] | values[0])
        found.append(
            Comparison(
                place,
                before,
                after,
                *intervals,
                difference=after - before,
                better_if=way,
                nearer_to=target,
                second_is_better=is_better(before, after, way, target),
                intervals_overlap=_overlap(*intervals),
            )
        )
    return found


def _overlap(first: tuple[float, float] | None, second: tuple[float, float] | None) -> bool | None:
    if first is None or second is None:
        return None
    return first[0] <= second[1] and second[0] <= first[1]


def _leaves(figures: object, place: str = "") -> Iterator[tuple[str, Estimate]]:
    """List numbers by their places, with their intervals where they have one."""
    if isinstance(figures, dict) and figures.get(_VALUE) is not None:
        bounds = figures.get(_INTERVAL)
        interval = tuple(bounds) if bounds and None not in bounds else None
        yield place, Estimate(figures[_VALUE], interval=interval)
    elif isinstance(figures, dict):
        for name, inner in figures.items():
            yield from _leaves(inner, f"{place}, {name}" if place else name)
    elif isinstance(figures, int | float) and not isinstance(figures, bool):
        yield place, Estimate(figures)
