"""The tables of docs/privacy.md that follow from formulas."""

import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from diffct.privacy.memorisation import explained_by_few
from diffct.privacy.thresholds import ALPHA, FALSE_ALARMS, UNSEEN_PROBABILITY

PAGE = (Path(__file__).parents[2] / "docs" / "privacy.md").read_text()


def row(name: str) -> list[str]:
    """Return the cells of a table's row."""
    (cells,) = re.findall(rf"^\| {re.escape(name)} \|(.+)\|$", PAGE, re.MULTILINE)
    return [cell.strip() for cell in cells.split("|")]


def test_thresholds_of_few_patients_are_as_far_out_as_the_page_says():
    patients = [float(cell.replace("∞", "inf")) for cell in row("real patients")]
    for number, deviations in zip(patients, row("deviations"), strict=True):
        student = stats.norm if np.isinf(number) else stats.t(number - 2)
        far = -student.ppf(FALSE_ALARMS) * np.sqrt(1 + 2 / number)
        assert float(deviations) == pytest.approx(far, abs=0.051)


def test_what_audits_leave_open_is_what_the_page_says():
    samples = map(int, row("samples without a finding"))
    for number, share in zip(samples, row("share of copies left open"), strict=True):
        left = 1 - UNSEEN_PROBABILITY ** (1 / number)
        assert float(share.removesuffix(" %")) == pytest.approx(100 * left, rel=0.02)


@pytest.mark.parametrize("samples", [16, 200])
def test_few_held_out_patients_need_as_many_near_pairs_as_the_page_says(samples):
    patients = map(int, row("held-out patients"))
    for number, needed in zip(patients, map(int, row(f"of {samples} samples")), strict=True):
        fewer, enough = (
            2 * explained_by_few(near, samples, held_out_patients=number)
            for near in (needed - 1, needed)
        )
        assert enough < ALPHA <= fewer
