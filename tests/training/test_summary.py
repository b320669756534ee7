"""The summary of a run says what it will do, and what it will not."""

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from diffct.training.learner import make_gradient_step
from diffct.training.loop import describe_seconds
from diffct.training.settings import RunConfig, TrainConfig
from diffct.training.summary import Split, announce, disk_needed


@pytest.fixture
def announced(tmp_path, capsys) -> str:
    network = nn.Sequential(nn.Linear(9, 99), nn.Linear(99, 1).requires_grad_(False))
    train = TrainConfig(updates=60, batch_size=2, gradient_accumulation=3, preview_every=100)
    config = RunConfig(output_dir=str(tmp_path), train=train)
    step = make_gradient_step(
        config, accelerator=Accelerator(cpu=True), model=network, losses=lambda *_: {}
    )
    splits = [Split("train", 22, 20), Split("validation", 0, 0)]
    announce(config, [step], splits=splits, size=(4, 16, 24), images="scans", batches=9)
    return capsys.readouterr().out


def test_summary_has_hardware_data_length_and_disk_space(announced):
    threads = torch.get_num_threads()
    assert f"On: CPU, {threads} thread" in announced and "full precision" in announced
    assert "Data: 22 scans of 20 patients (train)" in announced
    assert "4 x 16 x 24 voxels each" in announced
    assert "1,090 parameters, of which 990 are trained" in announced
    assert "60 updates, batches of 6, 20 epochs" in announced
    assert "up to 1 MB" in announced


def test_summary_has_what_a_run_will_not_do(announced):
    assert "No scans of the split validation: no validation is done" in announced
    assert "No preview: the run is shorter than train.preview_every=100." in announced


def test_checkpoints_and_models_take_no_more_than_announced():
    network = nn.Linear(100, 100, bias=False)
    # Three checkpoints of weights, average and two moments, and three models.
    assert disk_needed([network], keep=2) == 4 * 100 * 100 * (3 * 4 + 3)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(5, "5 seconds"), (840, "14 minutes"), (9000, "2.5 hours"), (300_000, "3.5 days")],
)
def test_lengths_of_time_are_in_readable_units(seconds, said):
    assert describe_seconds(seconds) == said
