"""Kill a run, resume it, and compare all that it learnt with an undisturbed run."""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file

LAST = "checkpoints/checkpoint-00000012"
# While a checkpoint is being written, and between two.
MOMENTS = (
    "checkpoints/.checkpoint-00000004.partial-*/optimizer.bin",
    "checkpoints/checkpoint-00000008",
)


def everything_learnt(folder: Path, published: Sequence[str]) -> dict[str, torch.Tensor]:
    """Return weights, averages and moments of the last checkpoint, and the published weights.

    Each of `published` is a folder of the run that holds one safetensors file.
    """
    last, state = folder / LAST, {}
    state |= {f"model.{key}": value for key, value in load_file(last / "model.safetensors").items()}
    ema = torch.load(last / "custom_checkpoint_0.pkl", weights_only=True)
    state |= {f"ema.{i}": shadow for i, shadow in enumerate(ema["shadow_params"])}
    moments = torch.load(last / "optimizer.bin", weights_only=True)["state"]
    for number, values in moments.items():
        state |= {f"optimizer.{number}.{key}": value for key, value in values.items()}
    for name in published:
        (file,) = (folder / name).glob("*.safetensors")
        state |= {f"{name}.{key}": value for key, value in load_file(file).items()}
    return state


def check_resumption(
    experiment_factory,
    *overrides: str,
    script: str,
    yaml: str,
    processes: int,
    published: Sequence[str],
) -> None:
    """Assert that a run killed twice and resumed equals the uninterrupted one, bit by bit."""
    options = {"script": script, "yaml": yaml}
    whole, killed = experiment_factory("whole", **options), experiment_factory("killed", **options)
    finished = whole.run(*overrides, processes=processes)
    assert finished.returncode == 0, finished.stderr
    for moment in MOMENTS:
        killed.kill_when(
            lambda moment=moment: any(killed.folder.glob(moment)),
            "--resume",
            *overrides,
            processes=processes,
        )
    resumed = killed.run("--resume", *overrides, processes=processes)
    assert resumed.returncode == 0, resumed.stderr
    assert "Resumed at update" in resumed.stdout
    expected, found = (everything_learnt(run.folder, published) for run in (whole, killed))
    assert expected.keys() == found.keys()
    different = [key for key in expected if not torch.equal(expected[key], found[key])]
    assert different == []
