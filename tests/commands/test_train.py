"""`diffct train` runs a training script as `accelerate launch` does, with its exit status."""

import os
import signal
import subprocess
import sys

import pytest

from diffct.cli import main
from diffct.commands.train import _DEFAULTS, _SCRIPTS, _find_configs
from tests.train.conftest import ROOT, Experiment


class Launched(Experiment):
    """An experiment that is started by `diffct train`."""

    def command(self, *words: str, processes: int = 1) -> list[str]:
        hardware = ["--config_file", str(ROOT / "accelerate_config.yaml")]
        train = [sys.executable, "-m", "diffct", "train", "ct3d"]
        # Settings may stand before options and after them.
        return [*train, *words, *hardware, "--config", str(self.config), "seed=1"]


@pytest.fixture
def run(tmp_path) -> Launched:
    return Launched(tmp_path)


@pytest.mark.slow
def test_a_run_is_stopped_by_ctrl_c_and_continues_with_the_command_that_it_names(run):
    process = run._start("train.updates=60")
    run._wait_for((run.folder / "checkpoints/checkpoint-00000004").is_dir, process)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=200)
    # As the script ends, and not before it.
    assert process.returncode == 128 + signal.SIGINT
    lines = [line.strip() for line in said.splitlines()]
    (command,) = (line for line in lines if line.startswith("diffct train ct3d"))
    assert command.endswith(f"accelerate_config.yaml --resume output_dir={run.folder}")
    assert "Traceback" not in said
    words = [sys.executable, "-m", *command.split()]
    resumed = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert resumed.returncode == 0, resumed.stderr
    assert "Resumed at update" in resumed.stdout
    assert (run.folder / "pipeline/model_index.json").is_file()


@pytest.mark.slow
def test_a_run_saves_a_checkpoint_when_its_launcher_is_ended(run):
    process = run._start("train.updates=5000")
    run._wait_for((run.folder / "checkpoints/checkpoint-00000004").is_dir, process)
    process.terminate()
    _, said = process.communicate(timeout=200)  # of the run as well, which outlives its launcher
    assert process.returncode == -signal.SIGTERM
    assert "with a checkpoint. Resume with:" in said


@pytest.mark.slow
def test_an_error_of_the_script_ends_with_its_words_and_its_status(run):
    failed = run.run("data.folder=/nowhere")
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1] == (
        "ERROR: /nowhere: there is no such folder. Give a folder of images."
    )
    mistyped = run.run("data.foldr=/nowhere")
    assert mistyped.returncode == 2
    assert "Did you mean 'data.folder'" in mistyped.stderr.splitlines()[-1]


def test_the_help_of_a_stage_names_the_experiments_that_come_with_diffct(capsys):
    for stage in _SCRIPTS:
        with pytest.raises(SystemExit) as stop:
            main(["train", stage, "--help"])
        assert stop.value.code == 0
        shown = capsys.readouterr().out
        assert f"usage: diffct train {stage}" in shown and "--resume" in shown


def test_an_experiment_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(SystemExit, match=r"diffct: --config my\.yaml: .* diffct comes with .*ct3d"):
        main(["train", "ct3d", "--config", "my.yaml"])


def test_every_stage_has_its_script_and_every_experiment_its_stage():
    found = {}
    for stage, script in _SCRIPTS.items():
        text = (ROOT / "train" / f"{script.rpartition('.')[2]}.py").read_text()
        assert f'CONFIGS / "{_DEFAULTS[stage]}.yaml", __doc__' in text
        configs = _find_configs(stage)
        assert _DEFAULTS[stage] in configs and not found.keys() & configs.keys()
        found |= configs
    assert set(found.values()) == set((ROOT / "train/configs").rglob("*.yaml"))
