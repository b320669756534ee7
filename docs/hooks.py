"""Hooks of the documentation's build."""

import shutil
from pathlib import Path

ROOT = Path(__file__).parents[1]
TREE = ROOT / ".cache/docs/diffct"
FOLDERS = ("pipelines", "train", "eval")


def on_startup(**_: object) -> None:
    """Link the package together as users import it: static tools cannot follow `package_dir`."""
    shutil.rmtree(TREE, ignore_errors=True)
    TREE.mkdir(parents=True)
    for path in (ROOT / "diffct").iterdir():
        if path.name != "__pycache__":
            (TREE / path.name).symlink_to(path)
    for folder in FOLDERS:
        (TREE / folder).symlink_to(ROOT / folder)
