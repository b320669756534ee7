"""Every command in the README and the pages is one that the program takes."""

import argparse
import re
import shlex
from pathlib import Path

import pytest

from diffct.cli import _make_parser
from diffct.commands.train import _choose_config, _read_words
from diffct.config import load_config
from docs import write_configuration

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
# Of other programs: accelerate, the benchmarks, pip, git.
FOREIGN = {"--multi_gpu", "--num_processes", "--full", "--device"}


def find_blocks(page: Path, language: str) -> list[str]:
    pattern = rf"^```{language}\n(.*?)^```"
    return re.findall(pattern, page.read_text(), re.MULTILINE | re.DOTALL)


def find_commands(program: str) -> list:
    """Return the commands of all bash blocks, as words."""
    found = []
    for page in PAGES:
        lines = "".join(find_blocks(page, "bash")).replace("\\\n", " ").splitlines()
        for words in (shlex.split(line, comments=True) for line in lines):
            if words and words[0] == program:
                found.append(pytest.param(words[1:], id=f"{page.name}: {' '.join(words)}"))
    return found


@pytest.mark.parametrize("words", find_commands("diffct"))
def test_a_command_of_a_page_is_taken(words):
    options = _make_parser().parse_args(words)
    if words[0] == "train":
        taken = _read_words(options.stage, options.words)
        schema, default, _ = write_configuration.SCRIPTS[options.stage]
        path = write_configuration.CONFIGS / default
        if taken.config is not None:
            path = _choose_config(options.stage, taken.config)
        load_config(schema, path, taken.overrides)


@pytest.mark.parametrize("words", find_commands("make"))
def test_a_target_of_make_on_a_page_exists(words):
    assert re.search(rf"^{words[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_options_that_a_page_speaks_of_exist(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    codes = [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", text)]
    codes = [code for code in codes if not code.startswith("python benchmarks/")]
    spoken = {option for code in codes for option in re.findall(r"(?<!\S)--[a-z][\w-]*", code)}
    known = find_options(_make_parser()) | {"--config", "--resume"} | FOREIGN
    assert spoken - known == set()


def find_options(parser: argparse.ArgumentParser) -> set[str]:
    """Return the options of a parser and of the commands inside it."""
    found = set()
    for action in parser._actions:
        found |= set(action.option_strings)
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                found |= find_options(inner)
    return found
