"""What is in a folder of scans, and what is wrong with it, before anything is trained on it."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from diffct.data.scan_formats import NRRD_ENDINGS
from diffct.data.volume import check_hounsfield, find_scans, read_stored, upright


@dataclass(frozen=True)
class ScanReport:
    """What is known of one scan; of an unreadable one only the path, the format and the problem.

    Attributes:
        path: The file, or the folder of a DICOM series.
        format: "NIfTI", "NRRD" or "DICOM".
        size: Voxels (depth, height, width) once upright.
        spacing_mm: Spacing (depth, height, width) once upright.
        orientation: Where the stored axes grow to, fastest axis first, e.g. "LAS".
        hu_min: Lowest HU.
        hu_max: Highest HU.
        hu_percentiles: The 1st, 50th and 99th percentile of the HU.
        problems: Why the scan cannot be used; empty if it can.
    """

    path: Path
    format: str
    size: tuple[int, ...] | None = None
    spacing_mm: tuple[float, float, float] | None = None
    orientation: str | None = None
    hu_min: float | None = None
    hu_max: float | None = None
    hu_percentiles: tuple[float, float, float] | None = None
    problems: list[str] = field(default_factory=list)


def inspect_scans(path: str | Path) -> list[ScanReport]:
    """Read every scan of a folder and report on it.

    Args:
        path: A folder, searched with all folders below it, or one scan file.

    Returns:
        One report for each scan, in the order of their paths. A scan that cannot be used is
        reported as such and raises nothing.

    Raises:
        FileNotFoundError: There is nothing at `path`.
        ValueError: The folder holds no scan.
    """
    path = Path(path)
    return [_inspect(scan) for scan in ([path] if path.is_file() else find_scans(path))]


def format_reports(reports: list[ScanReport]) -> str:
    """Write reports as a table with the problems below each scan.

    Args:
        reports: As returned by `inspect_scans`.

    Returns:
        Lines of text, the last one a summary.
    """
    name_width = max([len(str(report.path)) for report in reports], default=0)
    lines = []
    for report in reports:
        lines.append(
            f"{report.path!s:<{name_width}}  {report.format:<5}  {_facts(report)}".rstrip()
        )
        lines += [f"    problem: {problem}" for problem in report.problems]
    unusable = sum(bool(report.problems) for report in reports)
    lines.append(f"{len(reports)} scan(s), {unusable} of them cannot be used.")
    return "\n".join(lines)


def _inspect(scan: Path) -> ScanReport:
    """Read one scan and collect what is to be said about it."""
    kind = "NRRD" if scan.name.lower().endswith(NRRD_ENDINGS) else "NIfTI"
    kind = "DICOM" if scan.is_dir() else kind
    try:
        stored = read_stored(scan)
    except (ValueError, OSError) as error:
        return ScanReport(scan, kind, problems=[_without_path(error, scan)])
    volume = upright(stored)
    problems = []
    try:
        check_hounsfield(volume, scan)
    except ValueError as error:
        problems.append(_without_path(error, scan))
    low = high = percentiles = None
    if np.isfinite(volume.array).all():
        low, *inner, high = np.percentile(volume.array, (0, 1, 50, 99, 100)).tolist()
        percentiles = tuple(inner)
    return ScanReport(
        path=scan,
        format=kind,
        size=volume.size,
        spacing_mm=volume.spacing_mm,
        orientation=stored.orientation,
        hu_min=low,
        hu_max=high,
        hu_percentiles=percentiles,
        problems=problems,
    )


def _facts(report: ScanReport) -> str:
    """Write what is known of a scan into one line."""
    if report.size is None:
        return ""
    size = "x".join(str(n) for n in report.size)
    spacing = "x".join(f"{mm:.3g}" for mm in report.spacing_mm)
    facts = f"{size} voxels of {spacing} mm (d, h, w), stored {report.orientation}"
    if report.hu_percentiles is None:
        return facts
    first, median, ninety_ninth = report.hu_percentiles
    return (
        f"{facts}, {report.hu_min:g} to {report.hu_max:g} HU "
        f"(1 %: {first:g}, 50 %: {median:g}, 99 %: {ninety_ninth:g})"
    )


def _without_path(error: Exception, scan: Path) -> str:
    """Shorten an error's text by the path that the report names already."""
    return str(error).removeprefix(f"{scan}: ")
