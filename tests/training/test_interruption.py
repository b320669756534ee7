"""The first signal asks a run to stop, the second one stops it at once."""

import multiprocessing
import os
import signal
import sys

import pytest
from accelerate import Accelerator

from diffct.training.interruption import Interruption


def send(*numbers: signal.Signals) -> None:
    """Exit with the signal that the run was asked to stop with."""
    with Interruption(Accelerator(cpu=True)) as interruption:
        for number in numbers:
            os.kill(os.getpid(), number)
        sys.exit(interruption.requested() or 0)


@pytest.mark.parametrize(
    ("numbers", "exit_code"),
    [
        ([], 0),
        ([signal.SIGINT], signal.SIGINT),
        ([signal.SIGTERM], signal.SIGTERM),
        ([signal.SIGINT, signal.SIGINT], -signal.SIGINT),
        ([signal.SIGTERM, signal.SIGTERM], -signal.SIGTERM),
    ],
)
def test_one_signal_is_a_request_and_two_end_the_process(numbers, exit_code):
    process = multiprocessing.get_context("fork").Process(target=send, args=numbers)
    process.start()
    process.join()
    assert process.exitcode == exit_code


def test_signal_handlers_are_restored_when_training_has_ended():
    before = signal.getsignal(signal.SIGINT)
    with Interruption(Accelerator(cpu=True)):
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as by nohup
    try:
        with Interruption(Accelerator(cpu=True)) as interruption:
            os.kill(os.getpid(), signal.SIGHUP)
            assert interruption.requested() is None
    finally:
        signal.signal(signal.SIGHUP, before)
