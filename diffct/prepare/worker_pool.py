"""Work on many images in several processes, in a fixed order."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


@contextmanager
def open_results(
    work: Callable[[Task], Result], tasks: Sequence[Task], *, workers: int, tasks_at_once: int = 1
) -> Iterator[Iterator[Result]]:
    """Do work in this process or in several.

    Args:
        work: A function of a module, so that other processes find it.
        tasks: What it is called with.
        workers: Processes; 1 works in this one.
        tasks_at_once: How many tasks a process is handed at a time; more for short ones.

    Yields:
        The results, in the order of the tasks, each as soon as it is there.

    Raises:
        OSError: A worker was ended by the system.
    """
    if workers == 1:
        yield map(work, tasks)
        return
    # Forking a process that has loaded torch is unsafe.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent)
    try:
        yield pool.map(work, tasks, chunksize=tasks_at_once)
    except BrokenProcessPool as error:
        raise OSError(
            "A worker process was ended by the system, most likely for lack of memory. "
            "Run the same command again with fewer --workers; what is finished is kept."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """Make a worker end when the process that started it is killed; it would wait for ever."""

    def watch() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
