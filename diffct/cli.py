"""The `diffct` command."""

import argparse
import sys
from collections.abc import Sequence

import torch

from diffct.commands.inspect import add_inspect
from diffct.commands.sample import add_sample
from diffct.commands.translate import add_translate
from diffct.cores import share_cores
from diffct.evaluation.command import add_evaluate
from diffct.evaluation.compare import add_compare
from diffct.prepare.command import add_arguments


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one subcommand; what a user can mend ends as one line, not as a traceback."""
    parser = argparse.ArgumentParser(prog="diffct", description="Generative medical imaging.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_sample(commands)
    add_translate(commands)
    add_inspect(commands)
    add_evaluate(commands)
    add_compare(commands)
    add_arguments(commands.add_parser("prepare", help="make a data set ready for training"))
    options = parser.parse_args(arguments)
    share_cores()
    try:
        options.run(options)
    except (ValueError, OSError) as error:
        sys.exit(f"diffct: {error}")
    except torch.OutOfMemoryError:
        sys.exit("diffct: out of GPU memory. Sample fewer at once, or with --dtype bfloat16.")
