"""Help, the version and `diffct inspect` need neither torch nor other slow imports."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from diffct.imaging.radiograph import write_png
from diffct.imaging.volume import write_volume
from diffct.phantoms.pelvis.cohort import pelvis_phantom
from tests.imaging.dicom_files import write_series

# `sys.exit` ends every command; what was imported is looked at after it.
RUN = """
import sys
from diffct.cli import main
try:
    main(sys.argv[1:])
finally:
    slow = {"torch", "diffusers", "transformers", "accelerate", "monai", "matplotlib"}
    assert not slow & set(sys.modules), slow & set(sys.modules)
"""
COMMANDS = (
    *([], ["phantom"], ["phantom", "pelvis"], ["phantom", "chest"], ["phantom", "brain"]),
    *(["prepare"], ["prepare", "mimic-cxr"], ["prepare", "radiographs"], ["prepare", "brain"]),
    *(["inspect"], ["train"], ["train", "ct3d"], ["sample"], ["translate"]),
    *(["evaluate"], ["compare"]),
)


def run(*words: str) -> str:
    done = subprocess.run([sys.executable, "-c", RUN, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_help_and_version_import_nothing_slow():
    assert run("--version").startswith("diffct ")
    # All in one process: none may leave something slow to the next.
    code = f"""
import sys
from diffct.cli import main
for words in {COMMANDS!r}:
    try:
        main([*words, "--help"])
    except SystemExit as stop:
        assert stop.code == 0, words
    slow = {{"torch", "diffusers", "numpy", "omegaconf"}} & set(sys.modules)
    assert not slow, (words, slow)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("usage: diffct") == len(COMMANDS)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Write a volume, a DICOM series and a film."""
    write_volume(pelvis_phantom(0, size=(4, 16, 16)).volume, tmp_path / "scans" / "a.nii.gz")
    write_series(tmp_path / "scans" / "series")
    write_png(np.linspace(0, 1, 80 * 72).reshape(80, 72), tmp_path / "films" / "a.png")
    return tmp_path


def test_scans_and_films_are_inspected_without_torch(images):
    shown = run("inspect", str(images / "scans"))
    assert "4x16x16" in shown and "series" in shown
    assert "a.png" in run("inspect", str(images / "films"))
