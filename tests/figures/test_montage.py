"""Montages are upright, in the right window and true to scale."""

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from diffct.figures.montage import save_montage


def picture(path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("L")).astype(float)


def blocks(image: np.ndarray) -> list[tuple[float, float, float, float]]:
    """Bounding boxes (top, bottom, left, right) of the white areas, from left to right."""
    labels, _ = ndimage.label(image > 127)
    found = [(s[0].start, s[0].stop, s[1].start, s[1].stop) for s in ndimage.find_objects(labels)]
    return sorted((b for b in found if (b[1] - b[0]) * (b[3] - b[2]) > 200), key=lambda b: b[2])


def test_views_are_radiological_and_true_to_scale(tmp_path):
    # A white block: superior, anterior, on the patient's right; 5 slices of 8 mm, 20x10 of 2 mm.
    volume = np.full((20, 80, 80), -1000.0)
    volume[15:20, 0:20, 0:10] = 1000
    volume[15:20, 40:42, 0:10] = 1000  # seen by the coronal cut, at the middle row
    volume[15:20, 0:20, 40:42] = 1000  # seen by the sagittal cut
    save_montage([volume], tmp_path / "m.png", spacing_mm=(8, 2, 2), columns=1, window_hu=(-1, 1))
    image = picture(tmp_path / "m.png")
    # One axial slice in the middle of the depth shows none of it.
    assert len(blocks(image)) == 2
    coronal, sagittal = blocks(image)
    tile = 1.9 * 120 / 160  # dots for each mm
    assert coronal[1] - coronal[0] == pytest.approx(40 * tile, abs=3)
    assert coronal[3] - coronal[2] == pytest.approx(20 * tile, abs=3)
    assert sagittal[1] - sagittal[0] == pytest.approx(40 * tile, abs=3)
    assert sagittal[3] - sagittal[2] == pytest.approx(40 * tile, abs=3)
    assert coronal[0] < image.shape[0] / 2 and sagittal[0] < image.shape[0] / 2  # superior up
    third = image.shape[1] / 3
    assert coronal[2] == pytest.approx(third, abs=12)  # the patient's right on the left
    assert sagittal[2] == pytest.approx(2 * third, abs=12)  # anterior on the left


def test_axial_slices_rise_from_left_to_right_and_show_anterior_up(tmp_path):
    volume = np.full((8, 40, 40), -1000.0)
    for quarter in range(4):  # one more block anterior for each quarter of the depth
        volume[2 * quarter : 2 * quarter + 2, 2:8, 2 : 2 + 8 * (quarter + 1)] = 1000
    save_montage([volume], tmp_path / "m.png", window_hu=(-1, 1))
    found = blocks(picture(tmp_path / "m.png"))[:4]
    widths = [right - left for _, _, left, right in found]
    assert widths == sorted(widths) and widths[3] > 3 * widths[0]
    middle = picture(tmp_path / "m.png").shape[0] / 2
    assert all(bottom < middle for _, bottom, _, _ in found)


def test_window_maps_hounsfield_to_grey(tmp_path):
    for hu, grey in ((-160, 0), (40, 127), (240, 255), (3000, 255)):
        save_montage([np.full((4, 40, 40), float(hu))], tmp_path / "m.png", window_hu=(-160, 240))
        image = picture(tmp_path / "m.png")
        assert image[image.shape[0] // 2, 100] == pytest.approx(grey, abs=2)


def test_without_a_window_a_narrow_model_is_not_one_gray(tmp_path):
    ramp = np.tile(np.linspace(0, 80, 40), (4, 40, 1))
    save_montage([ramp], tmp_path / "m.png")
    image = picture(tmp_path / "m.png")
    row = image[image.shape[0] // 2]
    assert row.min() < 10 and row.max() > 245


def test_every_volume_and_title_adds_a_row(tmp_path):
    volumes = [np.zeros((4, 16, 16), dtype=np.float32), np.zeros((6, 12, 16), dtype=np.int16)]
    save_montage(volumes[:1], tmp_path / "one.png")
    save_montage(volumes, tmp_path / "two.png")
    save_montage(volumes, tmp_path / "titled.png", titles=["a sample", "a scan"])
    heights = [picture(tmp_path / f"{n}.png").shape[0] for n in ("one", "two", "titled")]
    assert heights[0] + 200 < heights[1] < heights[2]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one.png", "titled.png", "two.png"]


def test_no_global_state_of_pyplot_is_touched(tmp_path):
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    save_montage([np.zeros((4, 16, 16))], tmp_path / "m.png")
    assert plt.get_fignums() == before


@pytest.mark.parametrize(
    ("volumes", "options", "reason"),
    [
        ([], {}, "0 volumes"),
        ([np.zeros((4, 4))], {}, "3 axes"),
        ([np.zeros((4, 4, 4))], {"titles": ["a", "b"]}, "2 titles for 1"),
        ([np.zeros((4, 4, 4))], {"columns": 0}, "0 columns"),
    ],
)
def test_senseless_pictures_are_refused(tmp_path, volumes, options, reason):
    with pytest.raises(ValueError, match=reason):
        save_montage(volumes, tmp_path / "m.png", **options)
    with pytest.raises(ValueError, match="is a PNG"):
        save_montage([np.zeros((4, 4, 4))], tmp_path / "m.jpg")
    assert list(tmp_path.iterdir()) == []
