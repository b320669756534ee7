"""Checks of every image before anything is measured.

Real images must be usable: all problems are reported at once. Samples are judged, not refused: a
blank sample is counted and measured, one that cannot be measured is counted and left out.
"""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from diffct.cores import count_cores
from diffct.eval.image_sets import SAMPLES, ImageSet, too_small

_MAX_PROBLEMS = 10
_MAX_NAMED = 3
_MIN_CONTRAST = 2 / 255  # of the range, as for training films
_DARK = 1 / 16  # of the range: brighter films use all of their bits


@dataclass(frozen=True)
class _Check:
    """The properties of one image; `problem` says why it cannot be measured."""

    size: tuple[int, ...] = ()
    highest: float = 1.0
    empty: bool = False
    problem: str | None = None


@dataclass(frozen=True)
class Cut:
    """The size that pictures are cut to around their centres, as in training.

    Attributes:
        size: (height, width) in pixels.
        longer_side_only: Whether to cut only if the shorter side of all pictures is that of `size`
            already, as after preparation. For samples of unknown origin, which may be scaled.
        if_large_enough: Whether to leave sets with smaller pictures as they are.
    """

    size: tuple[int, int]
    longer_side_only: bool = False
    if_large_enough: bool = False


def screen(images: ImageSet, *, cut: Cut | None = None) -> ImageSet:
    """Read every image once, and return those that can be measured.

    Args:
        images: A whole set.
        cut: How pictures of other sizes are cut; None to leave them.

    Returns:
        The set, cut where necessary; its notes name samples that are blank or left out.

    Raises:
        ValueError: Real images are unusable (up to ten are listed), all samples are, or the images
            are of several sizes.
    """
    checks = _check_all(images)
    if cut is not None and images.unit != "HU":
        images, checks = _cut(images, checks, cut)
    if images.title != SAMPLES:
        _refuse_problems(images, checks)
    kept = [index for index, check in enumerate(checks) if check.problem is None]
    if not kept:
        raise ValueError(f"None of {len(images)} samples can be measured. {checks[0].problem}")
    _refuse_sizes(images, [checks[index].size for index in kept])
    notes = _notes(images, checks) if images.title == SAMPLES else ()
    return replace(images.select(kept) if len(kept) < len(images) else images, notes=notes)


def _check_all(images: ImageSet) -> list[_Check]:
    def check(path: Path) -> _Check:
        try:
            array = images.read(path)
        except (ValueError, OSError) as error:
            return _Check(problem=str(error))
        low, high = float(array.min()), float(array.max())
        if not np.isfinite(low + high):
            return _Check(problem=f"{path}: holds NaN or infinity.")
        span = 1.0 if images.window_hu is None else images.window_hu[1] - images.window_hu[0]
        smallest = _MIN_CONTRAST * span if images.unit != "HU" else 0.0
        return _Check(array.shape, high, empty=high - low <= smallest)

    with ThreadPoolExecutor(min(8, count_cores())) as pool:
        found = pool.map(check, images.files)
        return list(tqdm(found, f"checking {images.name}", len(images), unit="image", leave=False))


def _cut(images: ImageSet, checks: list[_Check], cut: Cut) -> tuple[ImageSet, list[_Check]]:
    """Cut pictures that do not have the size already, and return their new properties."""
    sizes = {check.size for check in checks if check.problem is None}
    if sizes == {cut.size}:
        return images, checks
    if cut.longer_side_only and any(min(size) != min(cut.size) for size in sizes):
        return images, checks
    if cut.if_large_enough and any(min(np.subtract(size, cut.size)) < 0 for size in sizes):
        return images, checks
    after = [
        replace(check, size=cut.size)
        if check.problem is not None or min(np.subtract(check.size, cut.size)) >= 0
        else _Check(problem=too_small(path, check.size, cut.size))
        for path, check in zip(images.files, checks, strict=True)
    ]
    return images.cut(cut.size), after


def _refuse_problems(images: ImageSet, checks: Sequence[_Check]) -> None:
    problems = [check.problem for check in checks if check.problem is not None]
    if problems:
        listed = "".join(f"\n- {problem}" for problem in problems[:_MAX_PROBLEMS])
        more = len(problems) - _MAX_PROBLEMS
        raise ValueError(
            f"{len(problems)} of {len(images)} {images.name} cannot be used; repair or remove"
            f" them:{listed}" + (f"\n- and {more} more" if more > 0 else "")
        )


def _refuse_sizes(images: ImageSet, sizes: Sequence[tuple[int, ...]]) -> None:
    counted = Counter(sizes)
    if len(counted) > 1:
        several = ", ".join(
            f"{number} of {'x'.join(map(str, size))}" for size, number in counted.most_common(4)
        )
        hint = (
            "Bring all to one size"
            if images.unit == "HU" or images.title == SAMPLES
            else "Give --size HEIGHT WIDTH to cut real images around their centres, as training did"
        )
        more = ", ..." if len(counted) > 4 else ""
        raise ValueError(f"The {images.name} are of several sizes: {several}{more}. {hint}.")


def _notes(images: ImageSet, checks: Sequence[_Check]) -> tuple[str, ...]:
    """Return sentences that name blank and unusable samples."""
    number = len(images)
    empty = [path.name for path, check in zip(images.files, checks, strict=True) if check.empty]
    broken = [path.name for path, check in zip(images.files, checks, strict=True) if check.problem]
    notes = []
    if broken:
        notes.append(
            f"**{len(broken)} of {number} samples cannot be measured** (damaged, or with NaN;"
            f" {_some(broken)}). All figures are of the others."
        )
    if empty:
        notes.append(
            f"**{len(empty)} of {number} samples {'shows' if len(empty) == 1 else 'show'}"
            f" nothing**: all their values are the same ({_some(empty)})."
            " They count in all figures."
        )
    if (
        images.unit != "HU"
        and max(check.highest for check in checks) < _DARK
        and not all(check.empty for check in checks)
    ):
        notes.append(
            "All samples are darker than a sixteenth of the range of their files: if these hold 12"
            " bits in 16, scale them to the full range."
        )
    return tuple(notes)


def _some(names: Sequence[str]) -> str:
    """Name the first few files."""
    return ", ".join(names[:_MAX_NAMED]) + (", ..." if len(names) > _MAX_NAMED else "")
