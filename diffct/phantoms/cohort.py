"""A cohort of phantoms: one after the other or in parallel, whole or not at all."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial as bind
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from diffct.atomic import atomic_folder
from diffct.cohort_folder import holds_cohort, sign_cohort
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
    """Write a cohort, unless exactly this one is already there.

    Args:
        folder: Where to write. A cohort of the same kind with other parameters is replaced.
        parameters: What it is made with, see `holds_cohort`.
        make: Writes the phantom of an index into a folder, its keyword argument `folder`, and
            returns what `finish` needs of it. Other processes get it: a function of a module.
        number: How many.
        finish: Writes what is about all phantoms, given in their order, into a folder.
        workers: Processes; None for one per core.
        show_progress: Whether to show a progress bar.

    Returns:
        The folder.

    Raises:
        ValueError: `number` is below 1, or the folder holds something else.
        OSError: The disk is full.
    """
    folder = Path(folder)
    if number < 1:
        raise ValueError(f"number={number}: a cohort has at least one.")
    if holds_cohort(folder, parameters):
        return folder
    with (
        atomic_folder(folder) as partial,
        ProcessPoolExecutor(workers or count_cores()) as pool,
    ):
        # One worker needs no process of its own.
        mapped = map if workers == 1 else pool.map
        made = tqdm(
            mapped(bind(make, folder=partial), range(number)),
            total=number,
            desc=str(parameters["kind"]).removeprefix("diffct ").capitalize(),
            disable=not show_progress,
        )
        finish(list(made), partial)
        sign_cohort(partial, parameters)
    return folder
