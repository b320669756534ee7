"""The numerical precision of a training run, chosen to suit the hardware."""

import os
from typing import Literal, cast

import torch

Precision = Literal["no", "fp16", "bf16"]


def choose_precision(requested: str) -> Precision:
    """Return the mixed precision to train in.

    Args:
        requested: "no", "fp16", "bf16" or "auto". The last takes the precision that `accelerate
            launch --mixed_precision` asks for; otherwise bf16 on a GPU that supports it, and full
            precision on other hardware.

    Raises:
        ValueError: The name is unknown, or the hardware would emulate it hundreds of times slower.
    """
    if requested not in ("auto", "no", "fp16", "bf16"):
        raise ValueError(f"mixed_precision={requested!r}; accepted are auto, no, fp16 and bf16.")
    on_gpu = torch.cuda.is_available()
    if requested == "auto":
        # `accelerate launch` sets "no" by default too, so this value is not the user's choice.
        launched = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
        if launched == "no":
            return "bf16" if on_gpu and torch.cuda.is_bf16_supported(False) else "no"
        requested = launched
    if requested == "fp16" and not on_gpu:
        raise ValueError("mixed_precision=fp16 needs a GPU; use 'auto' or 'no' here.")
    if requested == "bf16" and not on_gpu and not torch.cpu._is_avx512_bf16_supported():
        raise ValueError(
            "mixed_precision=bf16: this CPU has no bf16 arithmetic (AVX512_BF16) and would emulate"
            " it, hundreds of times more slowly; use 'auto' or 'no' here."
        )
    return cast(Precision, requested)
