"""The picture of the loss shows every loss."""

import numpy as np
from PIL import Image

from diffct.figures.curves import save_loss_curve

BLUE = (31, 119, 180)  # matplotlib's first colour


def test_the_loss_of_a_run_shorter_than_its_log_interval_is_seen(tmp_path):
    save_loss_curve([{"update": 10, "loss": 0.5, "validation_loss": 0.4}], tmp_path / "loss.png")
    picture = np.asarray(Image.open(tmp_path / "loss.png").convert("RGB"), dtype=int)
    left = picture[:, : int(0.75 * picture.shape[1])]  # the legend lies on the right
    assert (np.abs(left - BLUE).sum(axis=2) < 10).sum() > 20
