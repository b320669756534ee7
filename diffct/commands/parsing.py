"""The parser of the `diffct` command and of its subcommands."""

import argparse
import re
from difflib import get_close_matches
from typing import Any, NoReturn

# The present names of options and subcommands of commits before version 0.1.0.
_NEW_NAMES = {
    "--num-samples": "--number",
    "--films": "--number",
    "--subjects": "--number",
    "--manifest": "--data",
    "--height": "--size H W",
    "--width": "--size H W",
    "--pixel-spacing": "--spacing",
    "phantom-cxr": "diffct phantom chest",
    "phantom-brain": "diffct phantom brain",
}


class CommandParser(argparse.ArgumentParser):
    """A parser with --debug that suggests the right word for a wrong one; so do its subcommands."""

    def __init__(self, *words: Any, **options: Any) -> None:  # noqa: ANN401 - argparse's
        super().__init__(*words, **options)
        self.set_defaults(parser=self)  # the parser of the chosen subcommand
        self.add_argument(
            "--debug",
            action="store_true",
            default=argparse.SUPPRESS,  # a subcommand's default would replace an earlier --debug
            help="show where an error comes from",
        )

    def read(self, words: list[str]) -> argparse.Namespace:
        """Read a command line; an unknown option ends the program with the usage of its subcommand.

        Args:
            words: The words after the name of the program.
        """
        options, unknown = self.parse_known_args(words)
        if unknown:
            options.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
        return options

    def error(self, message: str) -> NoReturn:
        """End the program with a message and a suggestion for a wrong word in it."""
        super().error(message + self._hint(message))

    def _hint(self, message: str) -> str:
        """Return a suggestion for the first unknown word, or an empty text."""
        found = re.match(
            r"unrecognized arguments: (--[\w-]+)|.*invalid choice: '([\w-]+)'", message
        )
        if found is None:
            return ""
        wrong = found[1] or found[2]
        new = _NEW_NAMES.get(wrong)
        if new is None and found[1]:
            known = [name for name in self._option_string_actions if name.startswith("--")]
            new = next(iter(get_close_matches(wrong, known, n=1)), None)
        return "" if new is None else f". Did you mean {new}?"
