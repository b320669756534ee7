"""Launchers: threads that the user set are distinguished from those that a launcher set."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from diffct.cores import count_cores
from diffct.training.launcher import find_launcher

ROOT = Path(__file__).parents[2]
SHOW_THREADS = """
import diffct, torch
from diffct.training.cpu import configure_cpus
configure_cpus(1)
print(torch.get_num_threads())
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variables", "threads"),
    [
        # By default `accelerate launch` allows one thread.
        ({}, count_cores()),
        ({"OMP_NUM_THREADS": "1"}, 1),
    ],
)
def test_a_launched_run_takes_all_cores_unless_its_user_set_threads(tmp_path, variables, threads):
    script = tmp_path / "show_threads.py"
    script.write_text(SHOW_THREADS)
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    }
    launch = [sys.executable, "-m", "accelerate.commands.launch"]
    configuration = ["--config_file", str(ROOT / "accelerate_config.yaml")]
    run = subprocess.run(
        [*launch, *configuration, str(script)],
        env=environment | variables | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split()[-1] == str(threads)


def test_a_shell_or_pytest_is_not_a_launcher():
    assert find_launcher() is None
