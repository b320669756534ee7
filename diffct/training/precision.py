"""The arithmetic of a training run, chosen by what the hardware does well."""

import os
from typing import Literal, cast

import torch

Precision = Literal["no", "fp16", "bf16"]


def choose_precision(requested: str) -> Precision:
    """Return the mixed precision to train in.

    Args:
        requested: "no", "fp16", "bf16", or "auto": what `accelerate launch --mixed_precision` asks
            for, else bf16 on a GPU that has it, else full precision.

    Raises:
        ValueError: The name is unknown, or the hardware would emulate it hundreds of times slower.
    """
    if requested not in ("auto", "no", "fp16", "bf16"):
        raise ValueError(f"mixed_precision={requested!r}; accepted are auto, no, fp16 and bf16.")
    on_gpu = torch.cuda.is_available()
    if requested == "auto":
        # `accelerate launch` says "no" both by default and when asked to, so only a yes counts.
        launched = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
        if launched == "no":
            return "bf16" if on_gpu and torch.cuda.is_bf16_supported(False) else "no"
        requested = launched
    if requested == "fp16" and not on_gpu:
        raise ValueError("mixed_precision=fp16 needs a GPU; use 'auto' or 'no' here.")
    if requested == "bf16" and not on_gpu and not torch.cpu._is_avx512_bf16_supported():
        raise ValueError(
            "mixed_precision=bf16: this CPU has no bf16 arithmetic (AVX512_BF16) and would emulate"
            " it, hundreds of times slower; use 'auto' or 'no' here."
        )
    return cast(Precision, requested)
