"""Dividing patients by chance into those trained on and those held out."""

from collections.abc import Iterable

import numpy as np

from diffct.data.manifest import SplitName

_HELD_OUT_SHARE = 0.1  # of the patients, for validation and again for the test


def draw_splits(patients: Iterable[str], seed: int | None) -> dict[str, SplitName]:
    """Divide patients by chance: a tenth for validation, a tenth for the test.

    Args:
        patients: Their names, in any order and number.
        seed: The same seed and patients always give the same splits.

    Returns:
        The split of each patient; with fewer than three patients, "train" for all.
    """
    names = sorted(set(patients))
    held_out = max(1, round(_HELD_OUT_SHARE * len(names))) if len(names) > 2 else 0
    order = np.random.default_rng(seed).permutation(len(names))
    drawn: dict[str, SplitName] = dict.fromkeys(names, "train")
    drawn |= {names[index]: "validation" for index in order[:held_out]}
    drawn |= {names[index]: "test" for index in order[held_out : 2 * held_out]}
    return drawn
