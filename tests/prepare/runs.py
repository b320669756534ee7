"""Helpers of the tests of interrupted runs."""

from pathlib import Path

import pytest


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def children(parent: int) -> list[int]:
    """List the processes that a process has started."""
    found = Path(f"/proc/{parent}/task/{parent}/children")
    if not found.exists():
        pytest.skip("needs Linux's list of child processes")
    return [int(child) for child in found.read_text().split()]
