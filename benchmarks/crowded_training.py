"""Times of small CT trainings, alone and beside other processes that share the cores.

    python benchmarks/crowded_training.py                       # this version alone
    python benchmarks/crowded_training.py --before /path/to/an/older/checkout

Each figure is the time in seconds of a whole run of `train/train_ct3d.py`, minus that of a run of
two updates, which is mostly start-up. "Two, one thread each" starts two runs at once with
OMP_NUM_THREADS=1; the ratio is to one such run alone, and 1 is ideal on two or more cores. "Beside
a busy process" is one run with the default number of threads while another process computes without
end; on two cores a ratio of 2 is fair. With --before, a checkout with a .venv of its own, "alone"
is measured for both versions alternately. Nothing else should run on the machine.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
THREAD_SETTINGS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
SMALL = [
    "data.phantom_scans=6",
    "data.validation_fraction=0.34",
    "train.validate_every=0",
    "train.preview_every=0",
    "train.checkpoint_every=0",
    "tracker=none",
]


def start_training(root: Path, folder: Path, *, updates: int, one_thread: bool) -> subprocess.Popen:
    """Start a training of a checkout's own code, with the given output folder."""
    environment = {name: text for name, text in os.environ.items() if name not in THREAD_SETTINGS}
    environment |= {"CUDA_VISIBLE_DEVICES": ""} | ({"OMP_NUM_THREADS": "1"} if one_thread else {})
    python = root / ".venv/bin/python"
    launch = [
        str(python) if python.exists() else sys.executable,
        "-m",
        "accelerate.commands.launch",
    ]
    words = [f"output_dir={folder}", f"train.updates={updates}", *SMALL]
    return subprocess.Popen(
        [*launch, "--config_file", "accelerate_config.yaml", "train/train_ct3d.py", *words],
        cwd=root,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def seconds(root: Path, *, updates: int, runs: int = 1, one_thread: bool = False) -> float:
    """Return the time from the start of simultaneous runs until the last one has ended."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        started = [
            start_training(root, Path(folder, str(run)), updates=updates, one_thread=one_thread)
            for run in range(runs)
        ]
        if any(process.wait() for process in started):
            sys.exit("A training failed; run it by hand to see why.")
        return time.perf_counter() - began


def updates_alone(root: Path, *, updates: int, runs: int = 1, one_thread: bool = False) -> float:
    """Return the time of the updates, without the start-up of a run."""
    whole = seconds(root, updates=updates, runs=runs, one_thread=one_thread)
    return whole - seconds(root, updates=2, runs=runs, one_thread=one_thread)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the times and print them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--updates", type=int, default=200, help="length of each run (200)")
    parser.add_argument(
        "--repeats",
        type=int,
        default=3,
        help="number of runs alone, of which the median is used (3)",
    )
    parser.add_argument("--before", type=Path, help="an older checkout to compare with")
    options = parser.parse_args(arguments)
    updates, roots = options.updates, [ROOT]
    if options.before is not None:
        roots.append(options.before.resolve())

    alone: dict[Path, list[float]] = {root: [] for root in roots}
    for _ in range(options.repeats):
        for root in roots:
            alone[root].append(updates_alone(root, updates=updates))
    medians = {root: statistics.median(times) for root, times in alone.items()}
    for root, times in alone.items():
        print(f"alone, {root.name}: {medians[root]:.1f} s ({min(times):.1f} to {max(times):.1f})")
    if options.before is not None:
        print(f"alone, now / before: {medians[ROOT] / medians[roots[1]]:.3f}")
    for root in roots:
        one = updates_alone(root, updates=updates, one_thread=True)
        two = updates_alone(root, updates=updates, runs=2, one_thread=True)
        print(f"two, one thread each, {root.name}: {two:.1f} s, {two / one:.2f} times one of them")
        busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        try:
            beside = updates_alone(root, updates=updates)
        finally:
            busy.kill()
        ratio = beside / medians[root]
        print(f"beside a busy process, {root.name}: {beside:.1f} s, {ratio:.2f} times alone")


if __name__ == "__main__":
    main()
