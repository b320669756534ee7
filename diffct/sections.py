"""Free-form sections of an experiment: arguments that are passed unchanged to a diffusers class."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from diffct.config import nearest_keys

_FAILURES = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def check_arguments(section: str, arguments: Mapping[str, Any], target: Callable[..., Any]) -> None:
    """Raise a ValueError if a free-form section holds a key that `target` does not take.

    Args:
        section: Name of the section, for the message.
        arguments: The section; keys that begin with an underscore are diffusers' own.
        target: The class or function that the section is passed to.
    """
    known = set(inspect.signature(target).parameters) - {"self", "args", "kwargs"}
    for key in arguments:
        if key not in known and not key.startswith("_"):
            raise ValueError(
                f"Unknown configuration key '{section}.{key}'.{nearest_keys(key, known, section)}"
            )


@contextmanager
def section_named(section: str) -> Iterator[None]:
    """Turn the errors that a class raises on its arguments into ValueErrors with their section.

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
