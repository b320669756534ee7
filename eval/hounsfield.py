"""Compare the Hounsfield units of sampled volumes with those of a cohort.

    python -m diffct.eval.hounsfield outputs/ct3d/samples outputs/ct3d/phantoms/images

prints the mean of each figure over both folders. It tells whether samples are calibrated and hold
a body of the right size, not whether they look real.
"""

import argparse
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

import numpy as np

from diffct.config import path_argument
from diffct.data.image_folder import find_images
from diffct.data.volume import read_volume
from diffct.metrics.hounsfield import TissueStatistics, body_mask, tissue_statistics
from diffct.training.run import plain_errors


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("samples", type=path_argument, help="folder of sampled volumes")
    parser.add_argument("cohort", type=path_argument, help="folder of real or phantom scans")
    options = parser.parse_args(arguments)
    with plain_errors():
        samples, cohort = (measure(folder) for folder in (options.samples, options.cohort))
        print(f"{'mean over volumes':<22}{'samples':>12}{'cohort':>12}{'difference':>12}")
        for name in (field.name for field in fields(TissueStatistics)):
            ours, theirs = (_mean(found.rows, name) for found in (samples, cohort))
            print(f"{name:<22}{ours:>12.4g}{theirs:>12.4g}{ours - theirs:>+12.4g}")
        print(f"{'volumes':<22}{len(samples.rows):>12}{len(cohort.rows):>12}")
        if samples.empty or cohort.empty:
            print(f"{'without a body':<22}{samples.empty:>12}{cohort.empty:>12}")


class Measured(NamedTuple):
    """The figures of a folder's volumes, and how many volumes have none: air alone, or NaN."""

    rows: list[TissueStatistics]
    empty: int


def measure(folder: Path) -> Measured:
    """Measure every scan in a folder, and say which files were left out.

    Raises:
        ValueError: There is no scan, or one cannot be read.
    """
    found = find_images(folder, kind="volumes", empty=True)
    for line in found.left_out_lines():
        print(f"{folder}: {line}")
    rows, empty = [], 0
    for path in found.images:
        volume = read_volume(path)
        if np.isfinite(volume.array).all() and body_mask(volume.array).any():
            rows.append(tissue_statistics(volume.array, volume.spacing_mm))
        else:
            empty += 1
    return Measured(rows, empty)


def _mean(rows: Sequence[TissueStatistics], name: str) -> float:
    """Return the mean of a figure, over the volumes that have it; NaN if none has."""
    values = [value for row in rows if np.isfinite(value := getattr(row, name))]
    return float(np.mean(values)) if values else float("nan")


if __name__ == "__main__":
    main()
