"""Synthetic folders in the layouts of public data sets, shared by the tests."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

from tests.prepare import brain_trees


class Tree(NamedTuple):
    """A tree of files and the expected result of preparing it."""

    images: Path
    reports: Path
    expected: dict


@pytest.fixture(scope="session")
def mimic_tree() -> ModuleType:
    """The module tests/prepare/mimic_tree.py, which is not on sys.path."""
    name = "diffct_tests_mimic_tree"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            name, Path(__file__).with_name("mimic_tree.py")
        )
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture(scope="session")
def tree(mimic_tree, tmp_path_factory) -> Tree:
    """200 patients; read only."""
    folder = tmp_path_factory.mktemp("mimic")
    expected = mimic_tree.write_tree(folder)
    return Tree(folder / "jpg", folder / "reports", expected)


@pytest.fixture
def small_tree(mimic_tree, tmp_path) -> Tree:
    """12 patients, which the test may damage."""
    expected = mimic_tree.write_tree(tmp_path / "mimic", patients=12)
    return Tree(tmp_path / "mimic" / "jpg", tmp_path / "mimic" / "reports", expected)


@pytest.fixture(scope="session")
def bids(tmp_path_factory) -> tuple[Path, dict[str, int]]:
    """A BIDS tree with every fault once, and the expected drops; read only."""
    root = tmp_path_factory.mktemp("bids")
    return root, brain_trees.write_bids(root)
