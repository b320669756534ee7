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

_INTERRUPTED, _NO_READER = 130, 141  # a shell's exit statuses for SIGINT and SIGPIPE


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one subcommand; an error ends it with one line, or with --debug with a traceback.

    Args:
        arguments: The words of the command line; None for those of the process.

    Raises:
        SystemExit: The subcommand failed, or was interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = _make_parser().read(words)
    options.command = shlex.join(["diffct", *words])  # for reports
    # File names may have letters that the terminal's encoding lacks, or be invalid in any.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        options.run(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    except BrokenPipeError:
        # The reader (`| head`) has ended. Python flushes again on exit, which must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(_NO_READER)
    # The only place that catches every error: the user gets a message instead of a traceback.
    except Exception as error:
        if options.debug:
            raise
        sys.exit(f"diffct: {_one_line(error)}")


def _make_parser() -> CommandParser:
    """Describe the command and its subcommands, without the imports that take seconds."""
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
    """Return what went wrong, for a user who can correct or report it."""
    message = str(error).strip()
    # Compared by name: torch's OutOfMemoryError is not a MemoryError, and torch may not be loaded.
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
