"""A killed or interrupted and resumed run equals the one that was never interrupted, bit by bit."""

import shlex
import signal
import subprocess

import pytest

from tests.train.conftest import ENVIRONMENT, TINY
from tests.train.resumption import LAST, MOMENTS, prepare_rerun

pytestmark = pytest.mark.slow

SETTINGS = {
    "one process": (1, []),
    "accumulation": (1, ["train.gradient_accumulation=3"]),
    "two processes and accumulation": (2, ["train.gradient_accumulation=3"]),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_killed_and_resumed_run_equals_uninterrupted_run(experiment_factory, name):
    processes, overrides = SETTINGS[name]
    rerun = prepare_rerun(
        experiment_factory, *overrides, script="train_ct3d.py", yaml=TINY, processes=processes
    )
    # The first moment is before any checkpoint.
    rerun.kill_at("scans.jsonl", *MOMENTS)
    assert not (rerun.killed.folder / LAST).exists()
    rerun.finish()
    rerun.check_equal(["pipeline/unet"])


def test_a_run_that_is_asked_to_stop_saves_a_checkpoint_and_says_how_to_resume(experiment_factory):
    overrides = ["train.gradient_accumulation=2", "train.checkpoint_every=0", "train.log_every=7"]
    rerun = prepare_rerun(
        experiment_factory, *overrides, script="train_ct3d.py", yaml=TINY, processes=1
    )
    run = rerun.killed
    # As by Ctrl-C, which the launcher gets too; it does not wait for the run.
    said = run.interrupt_when(
        lambda: (run.folder / "pipeline-best").exists(), *overrides, number=signal.SIGINT
    )
    # The launcher's own traceback may come before or after; the command repeats no settings.
    lines = said.splitlines()
    (place,) = (n for n, line in enumerate(lines) if "with a checkpoint. Resume with:" in line)
    announcement, command = lines[place : place + 2]
    assert "gradient_accumulation" not in command
    (saved,) = (run.folder / "checkpoints").glob("checkpoint-*")
    assert f"update {int(saved.name.partition('-')[2])}," in announcement
    resumed = subprocess.run(
        shlex.split(command), env=ENVIRONMENT, capture_output=True, text=True, timeout=300
    )
    assert resumed.returncode == 0, resumed.stderr
    finished = rerun.whole.run(*overrides)
    assert finished.returncode == 0, finished.stderr
    rerun.check_equal(["pipeline/unet"])


def test_a_run_saves_a_checkpoint_when_its_launcher_is_ended(experiment_factory):
    run = experiment_factory("alone")
    said = run.interrupt_when(
        lambda: (run.folder / "scans.jsonl").exists(), number=signal.SIGTERM, group=False
    )
    assert "Stopped at update 1, with a checkpoint." in said
    assert (run.folder / "checkpoints/checkpoint-00000001").is_dir()
