"""Writing of phantom cohorts, in parallel, as folders that are complete or absent."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial as bind
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from diffct.atomic import atomic_folder
from diffct.cohort_folder import holds_cohort, record_cohort
from diffct.cores import count_cores

Made = TypeVar("Made")


def write_cohort(
    folder: str | Path,
    parameters: dict[str, Any],
    make: Callable[..., Made],
    number: int,
    *,
    finish: Callable[[list[Made], Path], None],
    workers: int | None = None,
    show_progress: bool = True,
) -> Path:
    """Write a cohort, unless the folder already holds exactly this one.

    Args:
        folder: Where to write. A cohort of the same kind with other parameters is replaced.
        parameters: Parameters of the cohort, see `holds_cohort`.
        make: Writes the phantom of an index into a folder, its keyword argument `folder`, and
            returns what `finish` needs of it. A function at module level, so that worker processes
            can import it.
        number: Number of phantoms.
        finish: Writes the files about all phantoms, given in their order, into a folder.
        workers: Number of processes; None for one per core.
        show_progress: Whether to show a progress bar.

    Returns:
        The folder.

    Raises:
        ValueError: `number` is below 1, or the folder holds something else.
        OSError: The disk is full.
    """
    folder = Path(folder)
    if number < 1:
        raise ValueError(f"number={number}: a cohort has at least one phantom.")
    if holds_cohort(folder, parameters):
        return folder
    with (
        atomic_folder(folder) as partial,
        ProcessPoolExecutor(workers or count_cores()) as pool,
    ):
        # A single worker needs no extra process.
        mapped = map if workers == 1 else pool.map
        made = tqdm(
            mapped(bind(make, folder=partial), range(number)),
            total=number,
            desc=str(parameters["kind"]).removeprefix("diffct ").capitalize(),
            disable=not show_progress,
        )
        finish(list(made), partial)
        record_cohort(partial, parameters)
    return folder
