"""The precision suits the hardware."""

import pytest
import torch

from diffct.training.precision import choose_precision


@pytest.fixture
def machine(monkeypatch):
    """Pretend to have certain hardware."""

    def pretend(*, gpu: bool = False, gpu_bf16: bool = True, cpu_bf16: bool = False) -> None:
        monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: gpu_bf16)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: cpu_bf16)

    return pretend


def test_auto_is_bf16_only_on_gpus_that_have_it(machine):
    machine(gpu=True)
    assert choose_precision("auto") == "bf16"
    machine(gpu=True, gpu_bf16=False)
    assert choose_precision("auto") == "no"
    machine(cpu_bf16=True)
    assert choose_precision("auto") == "no"


def test_auto_obeys_the_launcher_and_an_explicit_no_wins(machine, monkeypatch):
    machine(gpu=True)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    assert choose_precision("auto") == "fp16"
    assert choose_precision("no") == "no"


def test_a_precision_that_the_hardware_would_emulate_is_refused(machine):
    machine()
    for precision in ("bf16", "fp16"):
        with pytest.raises(ValueError, match=precision):
            choose_precision(precision)
    machine(cpu_bf16=True)
    assert choose_precision("bf16") == "bf16"
