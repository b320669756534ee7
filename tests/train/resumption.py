"""Comparison of a run that was killed and resumed with an uninterrupted run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from tests.train.conftest import Experiment

LAST = "checkpoints/checkpoint-00000012"
# While a checkpoint is being written, and between two checkpoints.
MOMENTS = (
    "checkpoints/.checkpoint-00000004.partial-*/optimizer.bin",
    "checkpoints/checkpoint-00000008",
)


@dataclass(frozen=True)
class Rerun:
    """Two runs with equal settings: one is uninterrupted, one is killed and resumed.

    Args:
        whole: The uninterrupted run.
        killed: The run that is killed and resumed.
        overrides: Settings of both.
        processes: Number of processes of each.
    """

    whole: Experiment
    killed: Experiment
    overrides: Sequence[str]
    processes: int

    def kill_at(self, *moments: str) -> None:
        """Start the second run and kill it when a file appears, for each of the files."""
        for moment in moments:
            self.killed.kill_when(
                lambda moment=moment: any(self.killed.folder.glob(moment)),
                "--resume",
                *self.overrides,
                processes=self.processes,
            )

    def finish(self) -> None:
        """Finish both runs."""
        finished = self.whole.run(*self.overrides, processes=self.processes)
        assert finished.returncode == 0, finished.stderr
        resumed = self.killed.run("--resume", *self.overrides, processes=self.processes)
        assert resumed.returncode == 0, resumed.stderr
        assert "Resumed at update" in resumed.stdout

    def check_equal(self, published: Sequence[str]) -> None:
        """Assert that both learnt the same, bit by bit, and that nothing half-written is left.

        Each of `published` is a folder of the run that holds one safetensors file.
        """
        expected, found = (
            everything_learnt(run.folder, published) for run in (self.whole, self.killed)
        )
        assert expected.keys() == found.keys()
        different = [key for key in expected if not torch.equal(expected[key], found[key])]
        assert different == []
        assert list(self.killed.folder.rglob(".*.partial-*")) == []


def everything_learnt(folder: Path, published: Sequence[str]) -> dict[str, torch.Tensor]:
    """Return all numbers of the last checkpoint, and the published weights, by name.

    Those are the weights, averages, moments of the optimisers, learning rates and progress.
    """
    state = {}
    for file in sorted((folder / LAST).iterdir()):
        if file.suffix == ".safetensors":
            state |= {f"{file.name}.{key}": value for key, value in load_file(file).items()}
        elif file.stem.startswith(("optimizer", "custom_checkpoint")):
            state |= dict(numbers(torch.load(file, weights_only=True), file.name))
    for name in published:
        (file,) = (folder / name).glob("*.safetensors")
        state |= {f"{name}.{key}": value for key, value in load_file(file).items()}
    return state


def numbers(state: Any, name: str) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors and numbers of a nested state by name."""
    if isinstance(state, dict):
        for key, value in state.items():
            yield from numbers(value, f"{name}.{key}")
    elif isinstance(state, list | tuple):
        for index, value in enumerate(state):
            yield from numbers(value, f"{name}.{index}")
    elif isinstance(state, torch.Tensor):
        yield name, state
    elif isinstance(state, bool | int | float):
        yield name, torch.tensor(state, dtype=torch.float64)


def prepare_rerun(
    experiment_factory, *overrides: str, script: str, yaml: str, processes: int
) -> Rerun:
    """Make a folder for each of the two runs."""
    options = {"script": script, "yaml": yaml}
    whole, killed = (experiment_factory(name, **options) for name in ("whole", "killed"))
    return Rerun(whole, killed, overrides, processes)
