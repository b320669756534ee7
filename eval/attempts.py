"""Separate attempts at figures: one that cannot be computed is missing, with its reason."""

from collections.abc import Callable
from typing import TypeVar

Figure = TypeVar("Figure")

IMPOSSIBLE = (ValueError, OSError, ArithmeticError, MemoryError, RuntimeError)
"""Errors of a measurement that is not possible with these images on this machine: too few or too
small images, a full disk, too little memory, a matrix without a root."""

_MAX_NAMED = 3


class Attempts:
    """Attempts at the figures of a section, and the reasons of those that failed."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}

    def __call__(self, name: str, compute: Callable[[], Figure]) -> Figure | None:
        """Compute a figure, or return None and remember the reason.

        Args:
            name: Name of the figure for readers.
            compute: Returns the figure; raises an error if the images are too few, too small or
                too similar.
        """
        try:
            return compute()
        except (ValueError, ArithmeticError, RuntimeError) as error:
            self._names.setdefault(str(error), []).append(name)
            return None

    @property
    def missing(self) -> list[str]:
        """The missing figures, one sentence for each reason."""
        sentences = []
        for reason, names in self._names.items():
            more = len(names) - _MAX_NAMED
            listed = ", ".join(names[:_MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
            sentences.append(f"{listed}: {reason}")
        return sentences
