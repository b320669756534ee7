"""A killed and resumed ControlNet run equals the one that was never interrupted, bit by bit."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.train.brains import TINY, write_base, write_pairs

pytestmark = pytest.mark.slow

LAST = "checkpoints/checkpoint-00000012"
SETTINGS = {
    "one process": (1, []),
    "two processes and accumulation": (2, ["train.gradient_accumulation=2"]),
}


def everything_learnt(folder: Path) -> dict[str, torch.Tensor]:
    """Return weights, averages and moments of the last checkpoint, and the published weights."""
    last, state = folder / LAST, {}
    state |= {f"model.{key}": value for key, value in load_file(last / "model.safetensors").items()}
    ema = torch.load(last / "custom_checkpoint_0.pkl", weights_only=True)
    state |= {f"ema.{i}": shadow for i, shadow in enumerate(ema["shadow_params"])}
    moments = torch.load(last / "optimizer.bin", weights_only=True)["state"]
    for number, values in moments.items():
        state |= {f"optimizer.{number}.{key}": value for key, value in values.items()}
    for name in ("controlnet", "controlnet-best", "pipeline/controlnet"):
        (file,) = (folder / name).glob("*.safetensors")
        state |= {f"{name}.{key}": value for key, value in load_file(file).items()}
    return state


@pytest.mark.parametrize("name", SETTINGS)
def test_killed_and_resumed_run_equals_uninterrupted_run(experiment_factory, tmp_path, name):
    processes, overrides = SETTINGS[name]
    pairs = write_pairs(tmp_path / "pairs", "ttttttttttttvv")
    base = write_base(tmp_path / "base")
    overrides = [f"data.manifest={pairs}", f"base={base}", *overrides]
    options = {"script": "train_controlnet.py", "yaml": TINY}
    whole, killed = experiment_factory("whole", **options), experiment_factory("killed", **options)

    finished = whole.run(*overrides, processes=processes)
    assert finished.returncode == 0, finished.stderr

    # While a checkpoint is being written, and between two.
    for moment in ("checkpoints/.checkpoint-00000004.partial-*/optimizer.bin", LAST[:-2] + "08"):
        killed.kill_when(
            lambda moment=moment: any(killed.folder.glob(moment)),
            "--resume",
            *overrides,
            processes=processes,
        )
    resumed = killed.run("--resume", *overrides, processes=processes)
    assert resumed.returncode == 0, resumed.stderr
    assert "Resumed at update" in resumed.stdout

    expected, found = everything_learnt(whole.folder), everything_learnt(killed.folder)
    assert expected.keys() == found.keys()
    different = [key for key in expected if not torch.equal(expected[key], found[key])]
    assert different == []
