"""Checkpoints are complete or absent, old ones are deleted, and errors do not harm them."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from diffct.training.checkpoints import Checkpoints, Progress


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """Mount a disk of 6 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def make(folder: Path, *, keep: int = 2, width: int = 4) -> tuple[Checkpoints, Progress]:
    accelerator = Accelerator(cpu=True)
    accelerator.prepare(torch.nn.Linear(width, width))
    progress = Progress()
    accelerator.register_for_checkpointing(progress)
    return Checkpoints(folder, accelerator=accelerator, keep=keep), progress


def test_only_the_newest_are_kept_and_the_last_is_loaded(tmp_path):
    checkpoints, progress = make(tmp_path / "checkpoints")
    assert not checkpoints.load_last()
    for update in (1, 9, 10):
        progress.update = update
        checkpoints.save(update)
    names = [path.name for path in checkpoints.all()]
    assert names == ["checkpoint-00000009", "checkpoint-00000010"]
    progress.update = 99
    assert checkpoints.load_last()
    assert progress.update == 10


def test_a_checkpoint_that_a_killed_process_left_incomplete_is_never_loaded(tmp_path):
    checkpoints, progress = make(tmp_path)
    progress.update = 1
    checkpoints.save(1)
    leftover = tmp_path / ".checkpoint-00000002.partial-abc"
    leftover.mkdir()
    (leftover / "model.safetensors").write_bytes(b"half")
    assert checkpoints.load_last()
    assert progress.update == 1
    assert not leftover.exists()


def test_a_full_disk_is_named_and_the_earlier_checkpoint_stays(small_disk):
    folder = small_disk / "checkpoints"
    checkpoints, progress = make(folder, width=1000)  # 4 MB of weights
    progress.update = 1
    checkpoints.save(1)
    with pytest.raises(OSError, match=r"disk is full.*checkpoint-00000002"):
        checkpoints.save(2)
    assert [path.name for path in folder.iterdir()] == ["checkpoint-00000001"]
    progress.update = 99
    assert checkpoints.load_last()
    assert progress.update == 1
