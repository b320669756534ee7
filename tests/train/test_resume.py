"""A killed and resumed run equals the one that was never interrupted, bit by bit."""

import pytest

from tests.train.conftest import TINY
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
    # The first is before any checkpoint.
    rerun.kill_at("split.json", *MOMENTS)
    assert not (rerun.killed.folder / LAST).exists()
    rerun.finish()
    rerun.check_equal(["pipeline/unet"])
