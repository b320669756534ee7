"""A training experiment small enough to run, kill and resume within a test."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState, GradientState, PartialState

ROOT = Path(__file__).parents[2]

TINY = """
output_dir: {folder}
tracker: none
data:
  phantom_scans: 6
  size: [4, 16, 16]
  spacing_mm: [20, 20, 20]
  validation_fraction: 0.34
unet:
  down_block_types: [DownBlock2D, AttnDownBlock3D]
  up_block_types: [AttnUpBlock3D, UpBlock2D]
  block_out_channels: [8, 16]
  layers_per_block: 1
  norm_num_groups: 4
  dropout: 0.1
scheduler: {{prediction_type: v_prediction, timestep_spacing: trailing}}
optim: {{warmup_updates: 3}}
train:
  updates: 12
  batch_size: 1
  log_every: 1
  validate_every: 3
  preview_every: 0
  checkpoint_every: 2
  validation_draws: 2
preview: {{volumes: 1, steps: 2}}
"""


# The processes of a launch share two cores, and accelerate joins CPU processes only when told to.
ENVIRONMENT = os.environ | {
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "ACCELERATE_USE_CPU": "true",
}


class Experiment:
    """A run of a training script in processes of its own.

    `{folder}` in the YAML becomes the run's folder.
    """

    def __init__(self, folder: Path, script: str = "train_ct3d.py", yaml: str = TINY) -> None:
        self.folder = folder / "run"
        self.script = ROOT / "train" / script
        self.config = folder / "tiny.yaml"
        self.config.write_text(yaml.format(folder=self.folder))

    def command(self, *words: str, processes: int = 1) -> list[str]:
        launch = [sys.executable, "-m"]
        if processes == 1:
            launch += ["accelerate.commands.launch"]
            launch += ["--config_file", str(ROOT / "accelerate_config.yaml")]
        else:
            # What `accelerate launch` itself starts for several processes; on CPUs they use gloo.
            launch += ["torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        return [*launch, str(self.script), "--config", str(self.config), *words]

    def run(self, *words: str, processes: int = 1) -> subprocess.CompletedProcess:
        return subprocess.run(
            self.command(*words, processes=processes),
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=300,
        )

    def kill_when(self, moment: Callable[[], bool], *words: str, processes: int = 1) -> None:
        """Start, wait for a moment, and kill every process without warning."""
        process = self._start(*words, processes=processes)
        self._wait_for(moment, process)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def interrupt_when(
        self, moment: Callable[[], bool], *words: str, number: signal.Signals, group: bool = True
    ) -> str:
        """Start, wait for a moment, send a signal, and return what the processes said in the end.

        The launcher alone gets it, as from `kill`, or the group, as from a terminal.
        """
        process = self._start(*words)
        self._wait_for(moment, process)
        (os.killpg if group else os.kill)(process.pid, number)
        return process.communicate(timeout=200)[1]  # the run outlives its launcher

    def _start(self, *words: str, processes: int = 1) -> subprocess.Popen:
        return subprocess.Popen(
            self.command(*words, processes=processes),
            env=ENVIRONMENT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    @staticmethod
    def _wait_for(moment: Callable[[], bool], process: subprocess.Popen) -> None:
        deadline = time.monotonic() + 200
        while not moment():
            assert process.poll() is None, "the run ended before the moment to kill it"
            assert time.monotonic() < deadline, "the moment to kill the run never came"
            time.sleep(0.002)


@pytest.fixture(autouse=True)
def fresh_accelerate() -> Iterator[None]:
    """Let every test have an accelerator of its own, as every process has."""
    yield
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


@pytest.fixture
def experiment_factory(tmp_path: Path) -> Callable[..., Experiment]:
    """Make experiments with folders of their own, by name."""

    def make(name: str, **options: str) -> Experiment:
        (tmp_path / name).mkdir()
        return Experiment(tmp_path / name, **options)

    return make
