"""Compare the Hounsfield units of sampled volumes with those of a cohort.

    python -m diffct.eval.hounsfield outputs/ct3d/samples outputs/ct3d/phantoms/images

prints the mean of each figure over both folders. It tells whether samples are calibrated and hold
a body of the right size, not whether they look real.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np

from diffct.config import path_argument
from diffct.data.volume import find_scans, read_volume
from diffct.metrics.hounsfield import TissueStatistics, tissue_statistics
from diffct.training.run import plain_errors


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("samples", type=path_argument, help="folder of sampled volumes")
    parser.add_argument("cohort", type=path_argument, help="folder of real or phantom scans")
    options = parser.parse_args(arguments)
    samples, cohort = measure(options.samples), measure(options.cohort)
    print(f"{'mean over volumes':<22}{'samples':>12}{'cohort':>12}{'difference':>12}")
    for name in (field.name for field in fields(TissueStatistics)):
        ours, theirs = _mean(samples, name), _mean(cohort, name)
        print(f"{name:<22}{ours:>12.4g}{theirs:>12.4g}{ours - theirs:>+12.4g}")
    print(f"{'volumes':<22}{len(samples):>12}{len(cohort):>12}")


def measure(folder: Path) -> list[TissueStatistics]:
    """Measure every scan in a folder."""
    volumes = (read_volume(path) for path in find_scans(folder))
    return [tissue_statistics(volume.array, volume.spacing_mm) for volume in volumes]


def _mean(rows: Sequence[TissueStatistics], name: str) -> float:
    """Return the mean of a figure, over the volumes that have it."""
    return float(np.nanmean([asdict(row)[name] for row in rows]))


if __name__ == "__main__":
    with plain_errors():
        main()
