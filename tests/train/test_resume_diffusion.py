"""A killed and resumed diffusion run equals the one that was never interrupted, bit by bit."""

import pytest

from tests.train.films import TINY, write_autoencoder, write_films
from tests.train.resumption import MOMENTS, prepare_rerun

pytestmark = pytest.mark.slow

SETTINGS = {
    "one process": (1, []),
    "cached latents, two processes and accumulation": (
        2,
        ["data.cache_latents=true", "train.gradient_accumulation=2"],
    ),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_killed_and_resumed_run_equals_uninterrupted_run(experiment_factory, tmp_path, name):
    processes, overrides = SETTINGS[name]
    rerun = prepare_rerun(
        experiment_factory,
        f"data.manifest={write_films(tmp_path / 'films', 'ttttttttttttvv')}",
        f"autoencoder={write_autoencoder(tmp_path / 'autoencoder')}",
        *overrides,
        script="train_diffusion.py",
        yaml=TINY,
        processes=processes,
    )
    rerun.kill_at(*MOMENTS)
    rerun.finish()
    pipelines, parts = ("pipeline", "pipeline-best"), ("unet", "text_encoder")
    rerun.check_equal([f"{name}/{part}" for name in pipelines for part in parts])
