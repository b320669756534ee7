"""The `diffct` command."""

import argparse
import io
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from importlib.metadata import version

from diffct import __version__
from diffct.commands.compare import add_compare
from diffct.commands.evaluate import add_evaluate
from diffct.commands.inspect import add_inspect
from diffct.commands.parsing import CommandParser
from diffct.commands.phantom import add_phantom
from diffct.commands.prepare import add_prepare
from diffct.commands.sample import add_sample
from diffct.commands.train import add_train
from diffct.commands.translate import add_translate

_INTERRUPTED, _NO_READER = 130, 141  # as shells count an end by SIGINT and by SIGPIPE


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one subcommand; whatever goes wrong ends in one line, with --debug in a traceback.

    Args:
        arguments: None for the process's own.

    Raises:
        SystemExit: The subcommand failed, or was interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = _make_parser().read(words)
    options.command = shlex.join(["diffct", *words])  # for reports
    # Files may have names that a terminal's encoding lacks, or that are in none.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        options.run(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    except BrokenPipeError:
        # `| head` has read enough. Python flushes once more at its end, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(_NO_READER)
    # Here, and only here, an error of any kind has reached its user.
    except Exception as error:
        if options.debug:
            raise
        sys.exit(f"diffct: {_one_line(error)}")


def _make_parser() -> CommandParser:
    """Describe the command and its subcommands, without importing what takes seconds."""
    parser = CommandParser(
        prog="diffct",
        description="Generative medical imaging.",
        formatter_class=argparse.RawDescriptionHelpFormatter,  # the version stays one line
    )
    libraries = [f"{name} {version(name)}" for name in ("torch", "diffusers", "transformers")]
    python = f"Python {platform.python_version()}"
    parser.add_argument(
        "--version",
        action="version",
        version=f"diffct {__version__} ({', '.join([*libraries, python])})",
    )
    parser.set_defaults(debug=False, run=lambda options: parser.print_help())
    commands = parser.add_subparsers(metavar="COMMAND")
    add_phantom(commands)
    add_prepare(commands)
    add_inspect(commands)
    add_train(commands)
    add_sample(commands)
    add_translate(commands)
    add_evaluate(commands)
    add_compare(commands)
    return parser


def _one_line(error: Exception) -> str:
    """Say what went wrong, to somebody who can mend it or report it."""
    message = str(error).strip()
    # torch's own error of that name is no MemoryError, and torch may not even be imported.
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & {"MemoryError", "OutOfMemoryError"} or "can't allocate" in message:
        return "out of memory. Take a smaller --batch-size or size, or --dtype bfloat16 on a GPU."
    if message and isinstance(error, OSError):
        return " ".join(message.split())  # the Hub's answers have blank lines
    if message and isinstance(error, ValueError | ImportError):
        return message
    first = message.partition("\n")[0]
    kind = type(error).__name__
    return f"unexpected {kind}: {first} (--debug shows where it comes from)"
