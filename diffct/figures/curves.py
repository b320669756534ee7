"""The loss curve of a run, as a picture."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from diffct.atomic import atomic_file


def save_loss_curve(history: Sequence[dict[str, float]], path: Path) -> None:
    """Draw training and validation loss over updates, on a logarithmic axis.

    Args:
        history: Rows with "update" and one or more losses.
        path: The PNG file to write, atomically.
    """
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for name in sorted({name for row in history for name in row} - {"update"}):
        rows = [row for row in history if name in row]
        # A line through a single point would not be seen.
        style = "o-" if name.startswith("validation") or len(rows) == 1 else "-"
        label = name.replace("_", " ")
        axes.plot([row["update"] for row in rows], [row[name] for row in rows], style, label=label)
    # Losses that are all zero have no logarithm.
    if any(loss > 0 for row in history for name, loss in row.items() if name != "update"):
        axes.set_yscale("log")
    if history:
        axes.legend()
    axes.set_xlabel("optimiser updates")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("loss")
    axes.grid(alpha=0.3, which="both")
    with atomic_file(path) as partial:
        figure.savefig(partial, dpi=120)
