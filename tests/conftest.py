"""Fixtures shared by all tests."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest


def _load_hub_server() -> ModuleType:
    # Under --import-mode=importlib the tests folder is not on sys.path.
    name = "diffct_tests_hub_server"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            name, Path(__file__).with_name("hub_server.py")
        )
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses look their module up here
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[object]:
    """A running stand-in for the Hugging Face Hub (see tests/hub_server.py) in `tmp_path/hub`.

    `hub.run(source)` runs Python source in a process that talks to it; then look at
    `hub.repo_files(repo_id)` and `hub.requests`.
    """
    with _load_hub_server().hub_server(tmp_path / "hub") as server:
        yield server
