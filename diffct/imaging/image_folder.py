"""The image files of a folder, and the reasons why its other files are left out.

Training, evaluation and inspection all use this search, so they agree on which files are images,
and all report what they leave out.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from diffct.imaging import dicom
from diffct.imaging.formats import (
    PAIR_HEADERS,
    PAIR_IMAGES,
    SCAN_ENDINGS,
    UNREAD_ENDINGS,
    pair_files,
    read_description,
)
from diffct.imaging.label_maps import is_label_picture, is_label_volume
from diffct.imaging.metaimage import METAIMAGE_ENDINGS, METAIMAGE_INSTALL, can_read_metaimage

Kind = Literal["volumes", "pictures"]

VOLUME_ENDINGS = SCAN_ENDINGS
PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
ACCEPTED_VOLUMES = (
    "a .nii, .nii.gz, .img with .hdr, .nrrd, .nhdr, .mha or .mhd file, a folder holding one DICOM "
    "series, or a multi-frame DICOM file"
)
ACCEPTED_PICTURES = "a PNG, JPEG, TIFF or DICOM file"

SPREAD_DESCRIPTION = "Synthetic: standard deviation of samples of a diffusion model"
"""The description in the header of a NIfTI file that is a map of uncertainty, not a scan."""

_FORMATS = {
    (".nii", ".nii.gz"): "NIfTI",
    (".img", ".img.gz", ".hdr", ".hdr.gz"): "NIfTI pair",
    (".nrrd", ".nhdr"): "NRRD",
    (".mha", ".mhd"): "MetaImage",
    (".png",): "PNG",
    (".jpg", ".jpeg"): "JPEG",
    (".tif", ".tiff"): "TIFF",
}
_DATA_ENDINGS = (".raw", ".zraw", ".raw.gz", ".bin", ".dat")
_HEADER_ENDINGS = (".nhdr", ".mhd")
_MAX_NAMED = 3
# The order of preference among the formats of one image. DICOM series and DICOM files of any name
# come first: they state the patient, and the window in which a film is shown.
_BEST_FIRST = (".dcm", ".png", ".tif", ".tiff", ".jpg", ".jpeg", *VOLUME_ENDINGS)


@dataclass(frozen=True)
class LeftOut:
    """A file that is not read.

    Attributes:
        path: The file.
        reason: The reason as a noun, e.g. "label map".
    """

    path: Path
    reason: str


@dataclass(frozen=True)
class FoundImages:
    """The images of a folder.

    Attributes:
        folder: The folder that was searched.
        kind: "volumes", or "pictures" in two dimensions.
        images: The files, or for DICOM series their folders, sorted.
        left_out: All other files, sorted; hidden files only if they are named like images.
        idle_patterns: Messages about patterns that fit no path, e.g. because they are misspelt.
    """

    folder: Path
    kind: Kind
    images: tuple[Path, ...]
    left_out: tuple[LeftOut, ...]
    idle_patterns: tuple[str, ...] = ()

    def reasons(self) -> dict[str, int]:
        """Count the files that were left out by reason, without naming any file."""
        reasons = [entry.reason for entry in self.left_out]
        return {reason: reasons.count(reason) for reason in dict.fromkeys(reasons)}

    def left_out_lines(self) -> list[str]:
        """Return a line for each reason with the first files, and the messages about patterns."""
        reasons: dict[str, list[str]] = {}
        for entry in self.left_out:
            name = entry.path.relative_to(self.folder).as_posix()
            reasons.setdefault(entry.reason, []).append(name)
        lines = []
        for reason, names in reasons.items():
            more = ", ..." if len(names) > _MAX_NAMED else ""
            named = ", ".join(names[:_MAX_NAMED]) + more
            lines.append(f"left out: {len(names)} × {reason} ({named})")
        return [*lines, *self.idle_patterns]


def find_images(
    folder: str | Path,
    *,
    kind: Kind | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    empty: bool = False,
) -> FoundImages:
    """Find the images of a folder and of the folders below it.

    Links are followed. Left out are hidden files and folders, label maps (few whole numbers in
    large areas), maps of uncertainty, DICOM files of other classes than images, formats that are
    not read, pictures beside volumes, second copies of an image in another format (`a.dcm` beside
    `a.png`, `a.nii.gz` beside the series in the folder `a`), and contact sheets.

    Args:
        folder: The folder to search.
        kind: What to look for; None for volumes if there is at least one, otherwise pictures.
        include: Patterns such as "ct.nii.gz" or "*/images"; only paths that match one are read. A
            pattern fits a path (relative to `folder`) as a whole, or any part of it from one slash
            to another; `*` may also match slashes. A literal name is a pattern that fits itself.
        exclude: Patterns of paths that are not read, even if `include` matches them.
        empty: Whether volumes of zeros count as images, as they may be among samples, rather than
            as empty label maps.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It is not a folder, or contains no image; the message lists what was left out.
    """
    folder = Path(folder)
    if not folder.exists():
        raise FileNotFoundError(f"{folder}: there is no such folder. Give a folder of images.")
    if not folder.is_dir():
        raise ValueError(f"{folder}: not a folder. Give the folder that holds the images.")
    search = _Search(folder, include, exclude, empty)
    search.run()
    usual: Kind = "pictures" if search.pictures and not search.volumes else "volumes"
    found = search.result(kind or usual)
    if not found.images:
        scan, picture = f"A scan is {ACCEPTED_VOLUMES}", f"a picture is {ACCEPTED_PICTURES}"
        none, accepted = {
            "volumes": ("no scan", scan),
            "pictures": ("no picture", f"A{picture[1:]}"),
            None: ("no scan and no picture", f"{scan}; {picture}"),
        }[kind]
        listed = "".join(f"\n- {line}" for line in found.left_out_lines())
        raise ValueError(f"{folder}: holds {none}. {accepted}.{listed}")
    return found


def format_of(path: Path) -> str:
    """Name the format of a file or folder."""
    for endings, name in _FORMATS.items():
        if path.name.lower().endswith(endings) and not path.is_dir():
            return name
    return "DICOM" if path.is_dir() or dicom.is_dicom(path) else "unknown"


class _Search:
    """One walk through a folder, sorting files into volumes, pictures and others."""

    def __init__(
        self, folder: Path, include: Sequence[str], exclude: Sequence[str], empty: bool
    ) -> None:
        self.folder = folder
        self.include = include
        self.exclude = exclude
        self.idle = {"include": list(include), "exclude": list(exclude)}
        self.empty = empty
        self.volumes: list[Path] = []
        self.pictures: list[Path] = []
        self.left_out: list[LeftOut] = []

    def run(self) -> None:
        """Sort every file."""
        for files in _walk(self.folder):
            wanted = [file for file in files if self._wanted(file)]
            others = []
            for file in wanted:
                if _ending(file, VOLUME_ENDINGS):
                    self._sort_volume(file)
                elif _ending(file, PICTURE_ENDINGS):
                    self._sort_picture(file)
                elif not _belongs_to_a_header(file, files):
                    others.append(file)
            self._sort_dicom(others)

    def result(self, kind: Kind) -> FoundImages:
        """Return the images of a kind; those of the other kind are left out."""
        if kind == "volumes":
            images, others, reason = self.volumes, self.pictures, "picture, not a volume"
        else:
            images, others, reason = self.pictures, self.volumes, "volume, not a picture"
        left_out = [*self.left_out, *(LeftOut(path, reason) for path in others)]
        images, copies = _one_format_each(images)
        what = "scan" if kind == "volumes" else "picture"
        left_out += [LeftOut(path, f"{what} there in another format") for path in copies]
        left_out.sort(key=lambda entry: (entry.reason, entry.path))
        idle = tuple(
            f"{option} has no effect: {pattern!r} fits no path in {self.folder}"
            for option, patterns in self.idle.items()
            for pattern in patterns
        )
        return FoundImages(self.folder, kind, tuple(sorted(images)), tuple(left_out), idle)

    def _wanted(self, file: Path) -> bool:
        """Return whether a file is visible and chosen; record it if it might be an image."""
        parts = file.relative_to(self.folder).parts
        if file.name.startswith("."):
            if _ending(file, VOLUME_ENDINGS + PICTURE_ENDINGS + UNREAD_ENDINGS + (".dcm",)):
                self.left_out.append(LeftOut(file, "hidden file"))
            return False
        for patterns in self.idle.values():
            patterns[:] = [pattern for pattern in patterns if not _matches(parts, [pattern])]
        if self.include and not _matches(parts, self.include):
            self.left_out.append(LeftOut(file, "file that include does not name"))
            return False
        if _matches(parts, self.exclude):
            self.left_out.append(LeftOut(file, "file that exclude names"))
            return False
        return True

    def _sort_volume(self, file: Path) -> None:
        """Sort a file that is named like a scan."""
        if _ending(file, METAIMAGE_ENDINGS) and not can_read_metaimage():
            reason = f"MetaImage, which needs SimpleITK ({METAIMAGE_INSTALL})"
        elif _ending(file, PAIR_HEADERS) and len(pair_files(file)) > 1:
            return  # the .img file stands for both
        elif _ending(file, PAIR_HEADERS):
            reason = ".hdr file without its .img"
        elif _ending(file, PAIR_IMAGES) and len(pair_files(file)) < 2:
            reason = ".img file without its .hdr"
        elif read_description(file) == SPREAD_DESCRIPTION:
            reason = "map of uncertainty"
        elif is_label_volume(file, empty=not self.empty):
            reason = "label map"
        else:
            self.volumes.append(file)
            return
        self.left_out.append(LeftOut(file, reason))

    def _sort_picture(self, file: Path) -> None:
        """Sort a file that is named like a picture."""
        if file.name == "contact-sheet.png":
            self.left_out.append(LeftOut(file, "contact sheet"))
        elif is_label_picture(file):
            self.left_out.append(LeftOut(file, "label map"))
        else:
            self.pictures.append(file)

    def _sort_dicom(self, files: Sequence[Path]) -> None:
        """Sort the other files of one folder: slices, whole scans, films, and other files."""
        series = None
        for file in files:
            kind = dicom.kind_of(file)
            if kind is None:
                reason = f"{file.suffix.lower() or 'file without ending'}"
                unread = _ending(file, UNREAD_ENDINGS)
                words = f"{reason} scan, a format that is not read" if unread else f"{reason} file"
                self.left_out.append(LeftOut(file, words))
            elif kind.role == "slice":
                series = file.parent
            elif kind.role == "frames":
                self.volumes.append(file)
            elif kind.role == "film":
                self.pictures.append(file)
            else:
                self.left_out.append(LeftOut(file, kind.name))
        if series is not None:
            self.volumes.append(series)


def _walk(folder: Path) -> Iterator[list[Path]]:
    """List the files of each folder, sorted; no folder is visited twice, even through links."""
    visited = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield [Path(parent, name) for name in sorted(names)]


def _belongs_to_a_header(file: Path, siblings: Sequence[Path]) -> bool:
    """Return whether a file holds the data of a `.nhdr` or `.mhd` file beside it."""
    if not _ending(file, _DATA_ENDINGS):
        return False
    headers = (sibling for sibling in siblings if _ending(sibling, _HEADER_ENDINGS))
    return any(file.name.encode() in header.read_bytes() for header in headers)


def _ending(file: Path, endings: Sequence[str]) -> bool:
    return file.name.lower().endswith(tuple(endings))


def _matches(parts: Sequence[str], patterns: Iterable[str]) -> bool:
    """Return whether any run of a path's parts fits a pattern."""
    runs = [
        "/".join(parts[start:end])
        for start in range(len(parts))
        for end in range(start + 1, len(parts) + 1)
    ]
    return any(
        run == pattern or fnmatchcase(run, pattern)
        for pattern in (pattern.strip("/") for pattern in patterns)
        for run in runs
    )


def _one_format_each(files: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Divide images into one file for each name and folder, and its copies in other formats."""
    named: dict[Path, list[Path]] = {}
    for file in files:
        named.setdefault(_without_ending(file), []).append(file)

    def rank(file: Path) -> int:
        ending = "" if file.is_dir() else file.name[len(_without_ending(file).name) :].lower()
        return _BEST_FIRST.index(ending) + 1 if ending else 0

    ordered = [sorted(group, key=rank) for group in named.values()]
    return [group[0] for group in ordered], [file for group in ordered for file in group[1:]]


def _without_ending(file: Path) -> Path:
    """Return the path that all formats of an image share; for a DICOM series, its folder."""
    for ending in _BEST_FIRST:
        if file.name.lower().endswith(ending) and not file.is_dir():
            return file.with_name(file.name[: -len(ending)])
    return file
