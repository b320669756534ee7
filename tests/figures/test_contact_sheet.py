"""Contact sheets: each image in its place, with its gray values."""

import numpy as np
import pytest
from PIL import Image

from diffct.figures.contact_sheet import save_contact_sheet


def test_images_appear_from_left_to_right_and_top_to_bottom(tmp_path):
    images = [np.full((30, 20), gray, dtype=np.float32) for gray in (0.0, 0.5, 1.0, 0.25)]
    save_contact_sheet(images, tmp_path / "sheet.png", columns=2)
    sheet = np.asarray(Image.open(tmp_path / "sheet.png").convert("L"))
    height, width = sheet.shape
    assert height > width
    middles = [sheet[height * y // 4, width * x // 4] for y in (1, 3) for x in (1, 3)]
    assert np.allclose(middles, [0, 127, 255, 64], atol=2)


def test_long_titles_are_wrapped_and_do_not_change_the_images(tmp_path):
    images = [np.ones((20, 20), dtype=np.float32)] * 2
    save_contact_sheet(images, tmp_path / "plain.png")
    save_contact_sheet(images, tmp_path / "titled.png", titles=["a word " * 30, ""])
    plain, titled = (Image.open(tmp_path / name) for name in ("plain.png", "titled.png"))
    assert titled.width == plain.width
    assert plain.height + 20 < titled.height < plain.height + 80


@pytest.mark.parametrize(("number", "titles"), [(0, None), (2, ["one"])])
def test_nothing_to_draw_and_missing_titles_are_refused(tmp_path, number, titles):
    with pytest.raises(ValueError, match="images"):
        save_contact_sheet([np.ones((4, 4))] * number, tmp_path / "sheet.png", titles=titles)
    assert list(tmp_path.iterdir()) == []
