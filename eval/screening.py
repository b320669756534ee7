"""A look at every image before anything is measured.

Real images must be sound: all that is wrong with them is said at once. Samples are judged, not
refused: one that shows nothing is counted and measured, one that cannot be measured is counted.
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
_MIN_CONTRAST = 2 / 255  # of the range, as for films that are trained on
_DARK = 1 / 16  # of the range: brighter films use all of their bits


@dataclass(frozen=True)
class _Look:
    """What one image is like; `problem` if it cannot be measured."""

    size: tuple[int, ...] = ()
    highest: float = 1.0
    empty: bool = False
    problem: str | None = None


@dataclass(frozen=True)
class Cut:
    """What pictures are cut to, around their centres, as training cuts them.

    Attributes:
        size: (height, width) in pixels.
        longer_side_only: Whether only to cut pictures whose shorter side is that of `size` already,
            as preparation leaves them. For samples of unknown origin, which may have been scaled.
        if_large_enough: Whether to leave sets alone that have smaller pictures.
    """

    size: tuple[int, int]
    longer_side_only: bool = False
    if_large_enough: bool = False


def screen(images: ImageSet, *, cut: Cut | None = None) -> ImageSet:
    """Read every image once, and return those that can be measured.

    Args:
        images: A whole set.
        cut: What real pictures of other sizes are cut to.

    Returns:
        The set, cut if need be, its notes naming samples that show nothing or are left out.

    Raises:
        ValueError: Real images cannot be used (up to ten are listed), no sample can, or the images
            are of several sizes.
    """
    looks = _look_at_all(images)
    if cut is not None and images.unit != "HU":
        images, looks = _cut(images, looks, cut)
    if images.title != SAMPLES:
        _refuse_problems(images, looks)
    kept = [index for index, look in enumerate(looks) if look.problem is None]
    if not kept:
        raise ValueError(f"None of {len(images)} samples can be measured. {looks[0].problem}")
    _refuse_sizes(images, [looks[index].size for index in kept])
    notes = _notes(images, looks) if images.title == SAMPLES else ()
    return replace(images.of(kept) if len(kept) < len(images) else images, notes=notes)


def _look_at_all(images: ImageSet) -> list[_Look]:
    def look(path: Path) -> _Look:
        try:
            array = images.read(path)
        except (ValueError, OSError) as error:
            return _Look(problem=str(error))
        low, high = float(array.min()), float(array.max())
        if not np.isfinite(low + high):
            return _Look(problem=f"{path}: holds NaN or infinity.")
        span = 1.0 if images.window_hu is None else images.window_hu[1] - images.window_hu[0]
        smallest = _MIN_CONTRAST * span if images.unit != "HU" else 0.0
        return _Look(array.shape, high, empty=high - low <= smallest)

    with ThreadPoolExecutor(min(8, count_cores())) as pool:
        found = pool.map(look, images.files)
        return list(tqdm(found, f"checking {images.name}", len(images), unit="image", leave=False))


def _cut(images: ImageSet, looks: list[_Look], cut: Cut) -> tuple[ImageSet, list[_Look]]:
    """Cut pictures that have not the size already, and say what they are like then."""
    sizes = {look.size for look in looks if look.problem is None}
    if sizes == {cut.size}:
        return images, looks
    if cut.longer_side_only and any(min(size) != min(cut.size) for size in sizes):
        return images, looks
    if cut.if_large_enough and any(min(np.subtract(size, cut.size)) < 0 for size in sizes):
        return images, looks
    after = [
        replace(look, size=cut.size)
        if look.problem is not None or min(np.subtract(look.size, cut.size)) >= 0
        else _Look(problem=too_small(path, look.size, cut.size))
        for path, look in zip(images.files, looks, strict=True)
    ]
    return images.cut(cut.size), after


def _refuse_problems(images: ImageSet, looks: Sequence[_Look]) -> None:
    problems = [look.problem for look in looks if look.problem is not None]
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


def _notes(images: ImageSet, looks: Sequence[_Look]) -> tuple[str, ...]:
    """Name the samples that are not as they should be."""
    number = len(images)
    empty = [path.name for path, look in zip(images.files, looks, strict=True) if look.empty]
    broken = [path.name for path, look in zip(images.files, looks, strict=True) if look.problem]
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
        and max(look.highest for look in looks) < _DARK
        and not all(look.empty for look in looks)
    ):
        notes.append(
            "All samples are darker than a sixteenth of the range of their files: if these hold 12"
            " bits in 16, scale them to the full range."
        )
    return tuple(notes)


def _some(names: Sequence[str]) -> str:
    """Name the first few files."""
    return ", ".join(names[:_MAX_NAMED]) + (", ..." if len(names) > _MAX_NAMED else "")
