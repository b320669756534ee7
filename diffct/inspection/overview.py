"""The inspection of a folder of images or of a manifest, and its report."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from tqdm.auto import tqdm

from diffct.cores import count_cores
from diffct.data.manifest import MANIFEST_NAME, SPLITS, Manifest, ManifestRow, read_manifest
from diffct.imaging.copies import find_copies
from diffct.imaging.image_folder import VOLUME_ENDINGS, FoundImages, Kind, find_images, format_of
from diffct.inspection.images import (
    ImageReport,
    MeasuredVolume,
    Modality,
    is_film,
    measure_volume,
    refuse,
    report_film,
)

_KINDS: dict[Modality, Kind] = {"film": "pictures", "CT": "volumes", "MR": "volumes"}
_MAX_SIZES = 5  # named one by one
_READ_AT_ONCE = 4  # a volume takes several times its size in memory
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Inspection:
    """The reports on all images of a folder, or of a manifest; iterates over them.

    Attributes:
        path: What was inspected.
        reports: One for each image, in the order of their paths.
        found: How the images of a folder were found, with the files that are left out.
        notes: How the images were judged, and statistics of a manifest.
        splits: Numbers of images and patients in each split of a manifest.
    """

    path: Path
    reports: tuple[ImageReport, ...]
    found: FoundImages | None = None
    notes: tuple[str, ...] = ()
    splits: dict[str, dict[str, int]] = field(default_factory=dict)

    def __iter__(self) -> Iterator[ImageReport]:
        return iter(self.reports)

    def __len__(self) -> int:
        return len(self.reports)

    @property
    def unusable(self) -> int:
        """The number of images with a problem."""
        return sum(bool(report.problems) for report in self)

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON values, paths as texts."""
        return {
            "path": str(self.path),
            "images": [asdict(report) | {"path": str(report.path)} for report in self],
            "left_out": [
                {"path": str(entry.path), "reason": entry.reason}
                for entry in (self.found.left_out if self.found else ())
            ],
            "notes": [*self.notes, *(self.found.idle_patterns if self.found else ())],
            "splits": self.splits,
            "unusable": self.unusable,
        }


def inspect_scans(
    path: str | Path,
    *,
    modality: Modality | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    show_progress: bool = False,
) -> Inspection:
    """Read every image of a folder and report on it.

    Pictures and DICOM films are films. DICOM states the modality of a volume; the other volumes of
    a folder are judged as MR if none of them can be CT in HU, and one has no values far below zero.

    Args:
        path: A folder, searched with all folders below it, or one file.
        modality: The modality of the images; None to decide it as above.
        include: Patterns of paths that alone are read; see `find_images`.
        exclude: Patterns of paths that are not read.
        show_progress: Whether to show a progress bar.

    Returns:
        The reports. An image that cannot be used is reported as such and raises nothing.

    Raises:
        FileNotFoundError: There is nothing at `path`.
        ValueError: The folder holds no image.
    """
    path = Path(path)
    found: FoundImages | None = None
    images: tuple[Path, ...] = (path,)
    if path.is_file():
        reason = refuse(path)
        if reason is not None:
            return Inspection(path, (ImageReport(path, format_of(path), problems=(reason,)),))
        films = modality == "film" or (modality is None and is_film(path))
    else:
        kind = None if modality is None else _KINDS[modality]
        found = find_images(path, kind=kind, include=include, exclude=exclude)
        images, films = found.images, found.kind == "pictures"
    if films or modality == "film":
        return Inspection(path, tuple(_in_parallel(report_film, images, show_progress)), found)

    measure = partial(measure_volume, modality=modality)
    measured = _in_parallel(measure, images, show_progress)
    judged_as, notes = modality or _modality_by_content(measured), []
    if modality is None and judged_as == "MR" and any(m.modality is None for m in measured):
        notes.append("judged as MR, since no scan can be CT in HU; --kind ct judges them as CT")
    reports = [volume.judge(judged_as) for volume in measured]
    copies = find_copies({i: found.voxels for i, found in enumerate(measured) if found.voxels})
    for first, *others in copies:
        remark = f"holds the voxels of {images[first]}: training reads one of them"
        for copy in others:
            reports[copy] = replace(reports[copy], remarks=(*reports[copy].remarks, remark))
    return Inspection(path, tuple(reports), found, tuple(notes))


def inspect_manifest(path: str | Path, *, show_progress: bool = False) -> Inspection:
    """Read every image of a manifest, with the conditions of brain slices, and report on it.

    Volumes of a manifest are CT.

    Args:
        path: The file, or the folder that holds it.
        show_progress: Whether to show a progress bar.

    Returns:
        The reports; a missing file is a problem of its image.

    Raises:
        FileNotFoundError: There is no such manifest.
        ValueError: A line is not a row, or rows contradict each other.
    """
    manifest = read_manifest(path, check_files=False)
    file = Path(path) / MANIFEST_NAME if Path(path).is_dir() else Path(path)
    splits: dict[str, dict[str, int]] = {}
    for split in SPLITS:
        rows = manifest.split(split)
        splits[split] = {"images": len(rows), "patients": len({row.patient for row in rows})}
    images = [image for row in manifest.rows for image in _images_of(manifest, row)]
    reports = _in_parallel(_report_prepared, images, show_progress)
    sizes = Counter("x".join(map(str, report.size)) for report in reports if report.size)
    with_report = sum(bool(row.sentences) for row in manifest.rows)
    ct = any(report.modality == "CT" for report in reports)
    unit = "voxels" if ct else "pixels"
    common = sizes.most_common(_MAX_SIZES)
    notes = [f"{number} of {size} {unit}" for size, number in common]
    others = sizes.total() - sum(number for _, number in common)
    if others:
        notes.append(f"{others} of {len(sizes) - len(common)} other sizes")
    if with_report or not ct:
        notes.append(f"{with_report} of {len(manifest.rows)} rows have sentences of a report")
    return Inspection(file, tuple(reports), notes=tuple(notes), splits=splits)


def format_reports(inspection: Inspection) -> str:
    """Write reports as a table with the problems below each image.

    Args:
        inspection: As returned by `inspect_scans` or `inspect_manifest`. Of a manifest only the
            images with problems or remarks are listed.

    Returns:
        Lines of text, the last one a summary.
    """
    reports = [r for r in inspection if not inspection.splits or r.problems]
    name_width = max([len(str(report.path)) for report in reports], default=0)
    format_width = max([len(report.format) for report in reports], default=0)
    lines = []
    for report in reports:
        name, kind = f"{report.path!s:<{name_width}}", f"{report.format:<{format_width}}"
        lines.append(f"{name}  {kind}  {_facts(report)}".rstrip())
        lines += [f"    problem: {problem}" for problem in report.problems]
        lines += [f"    remark: {remark}" for remark in report.remarks]
    for split, number in inspection.splits.items():
        lines.append(f"{split}: {number['images']} images of {number['patients']} patient(s)")
    lines += inspection.notes
    lines += inspection.found.left_out_lines() if inspection.found else []
    films = {report.modality for report in inspection} <= {"film"}
    what = "image" if inspection.splits or films else "scan"
    lines.append(f"{len(inspection)} {what}(s), {inspection.unusable} of them cannot be used.")
    return "\n".join(lines)


def _modality_by_content(measured: Sequence[MeasuredVolume]) -> Modality:
    """Decide the modality of volumes whose files do not state it."""
    read = [m for m in measured if m.modality is None and not m.report.problems]
    ct, mr = any(not m.not_ct for m in read), any(m.resembles_mr for m in read)
    return "MR" if mr and not ct else "CT"


def _in_parallel(
    work: Callable[[Item], Result], items: Sequence[Item], show_progress: bool
) -> list[Result]:
    """Apply a function to each item, several at once."""
    with ThreadPoolExecutor(min(_READ_AT_ONCE, count_cores())) as pool:
        results = pool.map(work, items)
        return list(tqdm(results, "Reading", len(items), leave=False, disable=not show_progress))


def _report_prepared(path: Path) -> ImageReport:
    """Report on an image of a manifest: a scan, or a picture, which may be of any size."""
    if path.is_dir() or path.name.lower().endswith(VOLUME_ENDINGS):
        return measure_volume(path, modality="CT").judge("CT")
    return report_film(path, smallest_side=1)


def _images_of(manifest: Manifest, row: ManifestRow) -> list[Path]:
    """List the image of a row and its conditions."""
    conditions = row.facts.get("conditions")
    others = conditions.values() if isinstance(conditions, dict) else ()
    named = [other.get("image") for other in others if isinstance(other, dict)]
    return [manifest.path(row), *(manifest.folder / name for name in named if name)]


def _facts(report: ImageReport) -> str:
    """Return the properties of an image as one line."""
    facts = []
    if report.size is not None:
        unit, axes = ("pixels", "(h, w)") if len(report.size) == 2 else ("voxels", "(d, h, w)")
        size = "x".join(str(n) for n in report.size) + f" {unit}"
        if report.spacing_mm is not None:
            size += " of " + "x".join(f"{mm:.3g}" for mm in report.spacing_mm) + f" mm {axes}"
        facts.append(size)
    if report.bits is not None:
        facts.append(f"{report.bits} bits")
    if report.orientation is not None:
        facts.append(f"stored {report.orientation}")
    if report.percentiles is not None:
        first, median, ninety_ninth = report.percentiles
        unit = " HU" if report.modality == "CT" else ""
        facts.append(
            f"{report.lowest:.4g} to {report.highest:.4g}{unit}"
            f" (1 %: {first:.4g}, 50 %: {median:.4g}, 99 %: {ninety_ninth:.4g})"
        )
    if report.modality == "MR":
        facts.append("MR")
    return ", ".join(facts)
