"""The command line of training scripts, and their error messages."""

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
from diffct.training.launcher import traceback_notice
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
    """Read the command line and train; an error that the user can correct ends in one line.

    Args:
        train: Trains as configured; its second argument says whether to resume.
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
    """End the script with one line, not a traceback, at errors that the user can correct.

    These are bad data, settings and folders, a full disk, memory that ran out and a loss that
    diverged. A request by the user to stop ends without a traceback too.
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
        sys.exit(f"ERROR: {error}{traceback_notice()}")


def read_command_line(
    schema: type[Config], *, default: Path, description: str | None, arguments: Sequence[str] | None
) -> tuple[Config, bool]:
    """Read the command line, which is the same for every training script.

    A resumed run uses the `config.yaml` in its folder, changed by settings given as key=value.
    Where there is no run yet, `--resume` starts one if settings are given, so that a batch script
    may use the same command every time.

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
        help="continue from the last checkpoint in output_dir, with the settings saved there;"
        " without a run there, start one if settings are given",
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="e.g. optim.lr=2e-4")
    # Intermixed, so that settings may stand before and after options.
    options = parser.parse_intermixed_args(arguments)
    try:
        config = load_config(schema, options.config or default, options.overrides)
        saved = Path(config.output_dir, "config.yaml")
        has_settings = options.config or any(
            not override.startswith("output_dir=") for override in options.overrides
        )
        if options.resume and not saved.is_file() and not has_settings:
            raise FileNotFoundError(
                f"{saved.parent} holds no run to resume (no {saved.name}), and no settings are"
                " given for a new one. Leave out --resume to start one there."
            )
        if options.resume and saved.is_file():
            ignored = [] if options.config is None else config_differences(saved, config)
            config = load_config(schema, saved, [*options.overrides, f"output_dir={saved.parent}"])
            ignored = sorted(set(ignored) - set(config_differences(saved, config)))
            if ignored and os.environ.get("RANK", "0") == "0":  # once, not by every process
                print(
                    f"Resuming with {saved}; these keys of {options.config} differ and are not"
                    f" used: {', '.join(ignored)}. Give them as key=value to change them.",
                    file=sys.stderr,
                )
        return config, options.resume
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
