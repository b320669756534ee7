"""A killed and resumed ControlNet run equals the one that was never interrupted, bit by bit."""

import pytest

from tests.train.brains import TINY, write_base, write_pairs
from tests.train.resumption import MOMENTS, prepare_rerun

pytestmark = pytest.mark.slow

SETTINGS = {
    "one process": (1, []),
    "two processes and accumulation": (2, ["train.gradient_accumulation=2"]),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_killed_and_resumed_run_equals_uninterrupted_run(experiment_factory, tmp_path, name):
    processes, overrides = SETTINGS[name]
    rerun = prepare_rerun(
        experiment_factory,
        f"data.manifest={write_pairs(tmp_path / 'pairs', 'ttttttttttttvv')}",
        f"base={write_base(tmp_path / 'base')}",
        *overrides,
        script="train_controlnet.py",
        yaml=TINY,
        processes=processes,
    )
    rerun.kill_at(*MOMENTS)
    rerun.finish()
    rerun.check_equal(["controlnet", "controlnet-best", "pipeline/controlnet"])
