"""Figures as values: the metric, the images and the network that they belong to.

Each writer (Markdown, HTML, JSON, model card) formats them in its own way.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, is_dataclass, replace
from typing import Any, Literal, get_args

from diffct.metrics.intervals import Estimate

Role = Literal["samples", "held_out", "train", "decoded", "empty prompt"]
"""Images that a figure may describe: those under test, and those for comparison."""
ROLES: tuple[str, ...] = get_args(Role)
OWN_METHOD = "diffct"
"""The method under test, where methods are compared: a model beside baselines."""

_TITLES = {
    "mae": "MAE",
    "rmse": "RMSE",
    "mae_hu": "MAE (HU)",
    "rmse_hu": "RMSE (HU)",
    "psnr": "PSNR (dB)",
    "ssim": "SSIM",
    "ms_ssim": "MS-SSIM",
    "lpips": "LPIPS",
}
_MISSING = "–"


@dataclass(frozen=True)
class Figure:
    """One figure.

    Attributes:
        metric: What was measured: "FD", "ms_ssim", "membership attack".
        value: An estimate, a number, or a dataclass or dictionary of several; None if it could not
            be measured.
        of: One of `ROLES`, or a method whose figures belong together; None if there is only one.
        network: Name of the network whose features were used.
        plane: Plane of the volumes.
        unit: Unit of the value, where the metric does not imply it.
    """

    metric: str
    value: Any
    of: str | None = None
    network: str | None = None
    plane: str | None = None
    unit: str | None = None

    @property
    def name(self) -> str:
        """The name of the figure in files: "FD[xrv-densenet121-all], axial"."""
        unit = f" ({self.unit})" if self.unit else ""
        network = f"[{self.network}]" if self.network else ""
        plane = f", {self.plane}" if self.plane else ""
        return f"{self.metric}{unit}{network}{plane}"

    @property
    def title(self) -> str:
        """The name of the figure for readers."""
        return _TITLES.get(self.metric, self.name)

    def parts(self) -> Iterator["Figure"]:
        """List the estimates and numbers: the figure itself, or the parts of its value.

        Deeper parts, and whole numbers, which are counts, are left out.
        """
        if isinstance(self.value, Estimate | float):
            yield self
            return
        inner = vars(self.value) if is_dataclass(self.value) else self.value
        for name, value in inner.items() if isinstance(inner, dict) else ():
            if isinstance(value, Estimate | float):
                # Named "precision[network]" in a network, otherwise "copies, chance".
                metric = str(name) if self.network else f"{self.metric}, {name}"
                yield replace(self, metric=metric, value=value)


def nested(figures: Iterable[Figure]) -> dict[str, Any]:
    """Return values by name as in files: by figure and role, or by method and figure."""
    found: dict[str, Any] = {}
    for figure in figures:
        if figure.of is None:
            found[figure.name] = figure.value
        elif figure.of in ROLES:
            found.setdefault(figure.name, {})[figure.of] = figure.value
        else:
            found.setdefault(figure.of, {})[figure.name] = figure.value
    return found


@dataclass(frozen=True)
class Number:
    """A number as a table or a sentence shows it.

    Attributes:
        value: The number; None, NaN and infinity are shown as a dash.
        digits: Number of significant digits.
        percent: Whether to show it as a percentage.
        deviation: Whether to show the standard deviation over images.
        out_of: The total that it is counted in, as in "3 of 20".
    """

    value: Estimate | float | None
    digits: int = 4
    percent: bool = False
    deviation: bool = False
    out_of: int | None = None

    @property
    def text(self) -> str:
        """The number without its interval."""
        if self.value is None:
            return _MISSING
        if self.out_of is not None:
            return f"{self.value} of {self.out_of}"
        if not isinstance(self.value, Estimate):
            return self._write(self.value)
        text = self._write(self.value.value)
        sd = self.value.sd if self.deviation else None
        return text if sd is None else f"{text} ± {sd:.2g}"

    @property
    def interval(self) -> str:
        """The 95 % interval; empty where there is none."""
        bounds = self.value.interval if isinstance(self.value, Estimate) else None
        return "" if bounds is None else f"[{', '.join(self._write(bound) for bound in bounds)}]"

    def __str__(self) -> str:
        return f"{self.text} {self.interval}".rstrip()

    def _write(self, value: float) -> str:
        if not math.isfinite(value):
            return _MISSING
        if self.percent:
            return f"{value:.1%}"
        if abs(value) < 10**self.digits:
            return f"{value:.{self.digits}g}"
        return f"{value:.0f}"


def show(figure: Estimate | float | None, *, digits: int = 4, percent: bool = False) -> str:
    """Return a figure with its 95 % interval as text for a sentence."""
    return str(Number(figure, digits, percent))


Cell = Number | str


@dataclass(frozen=True)
class Table:
    """A table of numbers and words.

    Attributes:
        title: The line above it.
        columns: Names of the columns.
        rows: Rows of cells, one for each column.
        note: What a reader must know to read it.
        aside: Whether readers may skip it, such as figures of a random network: reports fold it
            away at their end.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    aside: bool = False

    def markdown(self) -> str:
        """Return the table as Markdown."""
        lines = [f"| {' | '.join(map(str, row))} |" for row in (self.columns, *self.rows)]
        lines.insert(1, "|" + "---|" * len(self.columns))
        parts = [f"**{self.title}**", "\n".join(lines), self.note]
        return "\n\n".join(part for part in parts if part)
