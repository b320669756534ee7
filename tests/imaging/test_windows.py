"""The window of a picture fits the volume."""

import numpy as np
import pytest

from diffct.imaging.windows import fitting_window, parse_window, window_of


def volume(low: float, high: float) -> np.ndarray:
    return np.linspace(low, high, 4 * 16 * 16).reshape(4, 16, 16).astype(np.float32)


@pytest.mark.parametrize(
    ("words", "window"),
    [
        (["soft"], (-160, 240)),
        (["lung"], (-1350, 150)),
        (["Bone"], (-500, 1300)),
        (["brain"], (0, 80)),
        (["-600", "1500"], (-1350, 150)),
        (["40.5", "1"], (40, 41)),
    ],
)
def test_a_window_is_asked_for_by_name_or_by_level_and_width(words, window):
    assert parse_window(words) == window


@pytest.mark.parametrize(
    "words", [["liver"], [], ["40"], ["soft", "lung"], ["1", "2", "3"], ["40", "wide"]]
)
def test_an_unknown_window_is_refused_with_the_known_names(words):
    with pytest.raises(ValueError, match=r"There is no window .*soft, lung, bone, brain"):
        parse_window(words)


@pytest.mark.parametrize("width", [0, -80, float("nan"), float("inf")])
def test_a_window_has_a_width(width):
    with pytest.raises(ValueError, match="positive width"):
        window_of(40, width)
    with pytest.raises(ValueError, match="positive width"):
        parse_window(["40", str(width)])


@pytest.mark.parametrize(
    ("held", "shown"),
    [
        ((-1000, 1000), (-160, 240)),
        ((-3024, 2000), (-160, 240)),
        ((0, 80), (0, 80)),
        ((-1350, 150), (-1350, 150)),
        ((300, 1500), (300, 1500)),
        ((40, 40), (-160, 240)),
    ],
)
def test_the_window_fits_what_volumes_hold(held, shown):
    assert fitting_window([volume(*held)]) == pytest.approx(shown, abs=10)


def test_one_dead_voxel_does_not_choose_the_window_and_all_volumes_do():
    brain = np.tile(volume(0, 80), (4, 4, 4))
    brain[0, 0, 0], brain[-1, -1, -1] = -1000, 3000
    assert fitting_window([brain]) == pytest.approx((0, 80), abs=10)
    assert fitting_window([brain, volume(-1000, 1000)]) == (-160, 240)
    assert fitting_window([volume(0, 40), volume(30, 80)]) == pytest.approx((0, 80))
