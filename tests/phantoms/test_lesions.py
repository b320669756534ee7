"""Dark spots in white matter are found in their place and nowhere else."""

import numpy as np
import pytest

from diffct.phantoms.brain.lesions import lesion_figures


def brain(*, drawn_at: tuple[int, int] | None = (20, 30)) -> tuple[np.ndarray, ...]:
    """A disc of white matter with a true lesion at (20, 30), and a dark spot at `drawn_at`."""
    rows, columns = np.mgrid[:64, :64]
    disc = np.hypot(rows - 32, columns - 32) < 25
    lesion = np.hypot(rows - 20, columns - 30) < 4
    image = np.where(disc, 0.9, 0.0).astype(np.float32)
    if drawn_at is not None:
        image[np.hypot(rows - drawn_at[0], columns - drawn_at[1]) < 4] = 0.45
    return image, disc & ~lesion, lesion


def test_lesion_in_its_place_is_found():
    figures = lesion_figures([brain()])
    assert (figures.dice, figures.found, figures.lesions) == (1, 1, 1)
    assert figures.distance_px == 0
    assert figures.false_per_slice == 0


def test_lesion_that_is_not_drawn_is_missed():
    figures = lesion_figures([brain(drawn_at=None)])
    assert (figures.dice, figures.found, figures.false_per_slice) == (0, 0, 0)
    assert np.isnan(figures.distance_px)


def test_lesion_elsewhere_is_false():
    figures = lesion_figures([brain(drawn_at=(40, 40)), brain()])
    assert figures.found == 0.5
    assert figures.false_per_slice == 0.5
    assert figures.dice == pytest.approx(0.5)


def test_shifted_lesion_has_a_distance():
    figures = lesion_figures([brain(drawn_at=(20, 32))])
    assert figures.found == 1
    assert 0.3 < figures.distance_px < 2


def test_slices_without_lesions_give_no_figures():
    image, white, lesion = brain()
    assert lesion_figures([(image, white | lesion, np.zeros_like(lesion))]) is None
