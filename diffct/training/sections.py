"""Free-form sections of an experiment: arguments that go to a class of diffusers as they are."""

from collections.abc import Iterator
from contextlib import contextmanager

_FAILURES = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


@contextmanager
def section_named(section: str) -> Iterator[None]:
    """Turn whatever a class raises over its arguments into a ValueError that names their section.

    Args:
        section: Its name.

    Raises:
        ValueError: Something failed within the block.
    """
    try:
        yield
    except _FAILURES as error:
        message = str(error)
        if isinstance(error, ValueError) and message.startswith((f"{section}.", f"{section}:")):
            raise
        what = "" if isinstance(error, ValueError) else f" ({type(error).__name__})"
        raise ValueError(f"{section}: {message}{what}") from error
