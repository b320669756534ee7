"""A training script: its command line, and how it ends."""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from diffct.arguments import path_argument
from diffct.config import config_differences, load_config
from diffct.training.interruption import Interrupted
from diffct.training.launcher import traceback_follows
from diffct.training.settings import RunConfig

logger = logging.getLogger(__name__)
Config = TypeVar("Config", bound=RunConfig)


def run_script(
    train: Callable[[Config, bool], None],
    schema: type[Config],
    default: Path,
    description: str | None,
    arguments: Sequence[str] | None,
) -> None:
    """Read the command line and train; what its user can mend ends in one line.

    Args:
        train: Trains as configured; its second argument is whether to resume.
        schema: See `diffct.config.load_config`.
        default: The configuration used when none is named.
        description: First lines of the help text.
        arguments: The words after the script's name; None for those of this process.
    """
    config, resume = read_command_line(
        schema, default=default, description=description, arguments=arguments
    )
    with plain_errors():
        train(config, resume)


@contextmanager
def plain_errors() -> Iterator[None]:
    """End the script with one line, not a traceback, for what its user can mend.

    Bad data, settings and folders, a full disk, memory that ran out and a loss that diverged; and
    for the user's own wish that it ends.
    """
    try:
        yield
    except Interrupted as interrupted:
        sys.exit(interrupted.exit_code)
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except (ValueError, OSError, FloatingPointError, MemoryError) as error:
        logger.debug("Traceback of the error:", exc_info=True)
        sys.exit(f"ERROR: {error}{traceback_follows()}")


def read_command_line(
    schema: type[Config], *, default: Path, description: str | None, arguments: Sequence[str] | None
) -> tuple[Config, bool]:
    """Read the command line that every training script shares.

    A resumed run goes on with the `config.yaml` in its folder; what is given as key=value comes on
    top. Where there is no run yet, one begins if settings are given: batch scripts do so.

    Args:
        schema: See `load_config`.
        default: The configuration used when none is named.
        description: First lines of the help text.
        arguments: The words after the script's name; None for those of this process.

    Returns:
        The configuration, and whether to resume.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=path_argument, help=f"YAML file ({default.name})")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from the last checkpoint in output_dir, with the settings saved there;"
        " without a run there, begin one if settings are given",
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="e.g. optim.lr=2e-4")
    options = parser.parse_intermixed_args(arguments)
    try:
        config = load_config(schema, options.config or default, options.overrides)
        own = Path(config.output_dir, "config.yaml")
        told = options.config or any(not o.startswith("output_dir=") for o in options.overrides)
        if options.resume and not own.is_file() and not told:
            raise FileNotFoundError(
                f"{own.parent} holds no run to go on with (no {own.name}), and nothing says what"
                " another should train on. Leave --resume out to begin one there."
            )
        if options.resume and own.is_file():
            ignored = [] if options.config is None else config_differences(own, config)
            config = load_config(schema, own, [*options.overrides, f"output_dir={own.parent}"])
            ignored = sorted(set(ignored) - set(config_differences(own, config)))
            if ignored and os.environ.get("RANK", "0") == "0":
                print(
                    f"Going on with {own}; of {options.config} these keys differ and are not used:"
                    f" {', '.join(ignored)}. Give them as key=value to change them.",
                    file=sys.stderr,
                )
        return config, options.resume
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
