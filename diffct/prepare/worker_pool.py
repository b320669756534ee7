"""A pool of worker processes that returns results in a fixed order."""

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
    work: Callable[[Task], Result], tasks: Sequence[Task], *, workers: int, chunk_size: int = 1
) -> Iterator[Iterator[Result]]:
    """Run a function on many tasks, in this process or in several.

    Args:
        work: A function at module level, so that other processes can import it.
        tasks: Its arguments, one for each call.
        workers: Number of processes; with 1, no other process is started.
        chunk_size: Number of tasks handed to a process at a time; larger for short tasks.

    Yields:
        An iterator over the results, in the order of the tasks, each as soon as it is available.

    Raises:
        OSError: The system killed a worker.
    """
    if workers == 1:
        yield map(work, tasks)
        return
    # Not by fork, which is unsafe in a process that has loaded torch.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent)
    try:
        yield pool.map(work, tasks, chunksize=chunk_size)
    except BrokenProcessPool as error:
        raise OSError(
            "The system killed a worker process, most likely for lack of memory. "
            "Run the same command again with fewer --workers; finished results are kept."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """End a worker when the process that started it is killed; otherwise it would wait forever."""

    def watch() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
