"""A killed and resumed run equals the one that was never interrupted, bit by bit."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

pytestmark = pytest.mark.slow

LAST = "checkpoints/checkpoint-00000012"
SETTINGS = {
    "one process": (1, []),
    "accumulation": (1, ["train.gradient_accumulation=3"]),
    "two processes and accumulation": (2, ["train.gradient_accumulation=3"]),
}


def everything_learnt(folder: Path) -> dict[str, torch.Tensor]:
    """Return weights, moving average and optimiser state of the last checkpoint."""
    state = dict(load_file(folder / LAST / "model.safetensors"))
    ema = torch.load(folder / LAST / "custom_checkpoint_0.pkl", weights_only=True)
    state |= {f"ema.{i}": shadow for i, shadow in enumerate(ema["shadow_params"])}
    optimizer = torch.load(folder / LAST / "optimizer.bin", weights_only=True)
    for number, moments in optimizer["state"].items():
        state |= {f"optimizer.{number}.{name}": value for name, value in moments.items()}
    published = load_file(folder / "pipeline/unet/diffusion_pytorch_model.safetensors")
    return state | {f"published.{name}": value for name, value in published.items()}


def appears(folder: Path, pattern: str) -> Callable[[], bool]:
    return lambda: any(folder.glob(pattern))


@pytest.mark.parametrize("name", SETTINGS)
def test_killed_and_resumed_run_equals_uninterrupted_run(experiment_factory, name):
    processes, overrides = SETTINGS[name]
    whole, killed = experiment_factory("whole"), experiment_factory("killed")

    finished = whole.run(*overrides, processes=processes)
    assert finished.returncode == 0, finished.stderr

    # Before the first checkpoint, while one is being written, and between two checkpoints.
    moments = [
        "split.json",
        "checkpoints/.checkpoint-00000004.partial-*/optimizer.bin",
        "checkpoints/checkpoint-00000008",
    ]
    for moment in moments:
        killed.kill_when(
            appears(killed.folder, moment), "--resume", *overrides, processes=processes
        )
    assert not (killed.folder / LAST).exists()
    resumed = killed.run("--resume", *overrides, processes=processes)
    assert resumed.returncode == 0, resumed.stderr
    assert "Resumed at update" in resumed.stdout

    expected, found = everything_learnt(whole.folder), everything_learnt(killed.folder)
    assert expected.keys() == found.keys()
    different = [key for key in expected if not torch.equal(expected[key], found[key])]
    assert different == []
    assert list(killed.folder.glob("checkpoints/.*")) == []
