"""Figures and measurements one by one: an impossible one is missing, with its reason."""

from collections.abc import Callable
from typing import TypeVar

Figure = TypeVar("Figure")

IMPOSSIBLE = (ValueError, OSError, ArithmeticError, MemoryError, RuntimeError)
"""What a measurement raises that cannot be made of these images, here: too few or too small ones, a
full disk, memory that ran out, a matrix without a root."""

_MAX_NAMED = 3


class Attempts:
    """The figures of a section, each attempted."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}

    def __call__(self, name: str, compute: Callable[[], Figure]) -> Figure | None:
        """Compute a figure, or return None and remember why there is none.

        Args:
            name: Of the figure, for readers.
            compute: Raises an error if the images are too few, too small or too much alike.
        """
        try:
            return compute()
        except (ValueError, ArithmeticError, RuntimeError) as error:
            self._names.setdefault(str(error), []).append(name)
            return None

    @property
    def missing(self) -> list[str]:
        """What there is not, a sentence for each reason."""
        sentences = []
        for reason, names in self._names.items():
            more = len(names) - _MAX_NAMED
            listed = ", ".join(names[:_MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
            sentences.append(f"{listed}: {reason}")
        return sentences
