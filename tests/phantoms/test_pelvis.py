"""The pelvis phantom: true to its specification, its labels and its attributes."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from diffct.imaging.volume import check_hounsfield, read_volume
from diffct.phantoms.canvas import Canvas
from diffct.phantoms.pelvis import cohort as pelvis
from diffct.phantoms.pelvis.anatomy import draw_anatomy
from diffct.phantoms.pelvis.cohort import (
    PELVIS_LABELS,
    PelvisPhantom,
    pelvis_phantom,
    write_pelvis_cohort,
)
from diffct.phantoms.shapes import Chain, Column, Ellipsoid, Sheet

BONES = ["hip_bone_left", "hip_bone_right", "femur_left", "femur_right", "sacrum"]
TINY = {"size": (1, 4, 4), "spacing_mm": (4.0, 4.0, 4.0)}


@pytest.fixture(scope="module")
def fine() -> PelvisPhantom:
    """The whole default field of view at 2 mm."""
    return pelvis_phantom(7, size=(64, 208, 208), spacing_mm=(2.0, 2.0, 2.0))


@pytest.fixture(scope="module")
def slab() -> PelvisPhantom:
    """The centre of the same patient at 1 mm."""
    return pelvis_phantom(7, size=(14, 400, 416), spacing_mm=(1.0, 1.0, 1.0))


def mask(phantom: PelvisPhantom, *names: str) -> np.ndarray:
    return np.isin(phantom.labels, [PELVIS_LABELS[name] for name in names])


def centroid_mm(phantom: PelvisPhantom, *names: str) -> np.ndarray:
    """The mean position in world mm as (right, anterior, superior)."""
    voxels = np.argwhere(mask(phantom, *names))
    assert len(voxels), names
    return phantom.volume.affine[:3, :3] @ voxels.mean(axis=0) + phantom.volume.affine[:3, 3]


def body(phantom: PelvisPhantom) -> np.ndarray:
    return ~mask(phantom, "air", "table")


def test_same_seed_gives_identical_bits():
    first, second = pelvis_phantom(3), pelvis_phantom(3)
    assert first.volume.array.tobytes() == second.volume.array.tobytes()
    assert first.labels.tobytes() == second.labels.tobytes()
    assert first.attributes == second.attributes


def test_default_phantom_has_the_documented_form():
    phantom = pelvis_phantom(0)
    assert phantom.volume.array.shape == phantom.labels.shape == (16, 64, 64)
    assert phantom.volume.array.dtype == np.float32
    assert phantom.labels.dtype == np.uint8
    assert phantom.volume.spacing_mm == (8.0, 6.5, 6.5)
    assert phantom.volume.orientation == "SPL"
    centre = phantom.volume.affine @ [7.5, 31.5, 31.5, 1]
    np.testing.assert_allclose(centre, [0, 0, 0, 1], atol=1e-9)
    check_hounsfield(phantom.volume, "phantom")


def test_every_label_can_be_seen():
    phantom = pelvis_phantom(0, size=(36, 120, 120), spacing_mm=(6.6, 3.3, 3.3))
    assert set(np.unique(phantom.labels)) == set(PELVIS_LABELS.values())


def test_seeds_are_different_patients():
    patients = [pelvis_phantom(seed, **TINY).attributes for seed in range(10)]
    spread = {name: np.ptp([patient[name] for patient in patients]) for name in patients[0]}
    assert spread["bladder_volume_ml"] > 150
    assert spread["prostate_volume_ml"] > 15
    assert spread["body_width_mm"] > 40
    assert spread["body_height_mm"] > 30
    assert spread["fat_thickness_mm"] > 10
    assert spread["femoral_head_radius_left_mm"] > 2
    bladders = [patient["bladder_volume_ml"] for patient in patients]
    assert min(bladders) > 60
    assert max(bladders) < 500
    assert max(patient["body_width_mm"] for patient in patients) < 416


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("air", -1001, -995),
        ("fat", -110, -90),
        ("muscle", 40, 60),
        ("vessel", 35, 55),
        ("bladder", 0, 10),
        ("prostate", 35, 45),
        ("rectum", 15, 50),
        ("gas", -1000, -950),
    ],
)
def test_tissue_has_its_hounsfield_units(fine: PelvisPhantom, name: str, low: float, high: float):
    inside = ndimage.binary_erosion(mask(fine, name))
    assert low < fine.volume.array[inside].mean() < high


def test_table_has_its_hounsfield_units_and_air_under_it(slab: PelvisPhantom):
    table = mask(slab, "table")
    middle = table[:, :, 208]
    assert 0 < slab.volume.array[:, :, 208][ndimage.binary_erosion(middle)].mean() < 100
    lowest = np.flatnonzero(middle.any(axis=0))[-1]
    under = slab.volume.array[:, lowest + 4 :, 208]
    assert under.size
    assert np.abs(under.mean() + 1000) < 10


def test_bone_has_a_dense_cortex_and_softer_marrow(slab: PelvisPhantom):
    for name in ("hip_bone_left", "hip_bone_right"):
        depth = ndimage.distance_transform_edt(mask(slab, name))
        cortex = slab.volume.array[(depth > 1) & (depth <= 2)]
        marrow = slab.volume.array[depth > 6]
        assert 600 < np.median(cortex) < 950
        assert 200 < marrow.mean() < 300


def test_noise_is_of_scanner_strength_and_correlated(fine: PelvisPhantom, slab: PelvisPhantom):
    inside = ndimage.binary_erosion(mask(fine, "bladder"), iterations=3)
    assert 9 < fine.volume.array[inside].std() < 18
    noise = np.where(mask(slab, "bladder"), slab.volume.array - 5, 0)
    inside = ndimage.binary_erosion(mask(slab, "bladder"), iterations=4)
    neighbour = np.roll(noise, 1, axis=2)
    assert np.corrcoef(noise[inside], neighbour[inside])[0, 1] > 0.3


@pytest.mark.parametrize("seed", range(3))
def test_organs_lie_where_they_belong(seed: int):
    phantom = pelvis_phantom(seed)
    right, anterior, superior = range(3)
    table, trunk = centroid_mm(phantom, "table"), centroid_mm(phantom, "muscle")
    assert table[anterior] < trunk[anterior] - 50
    assert np.argwhere(mask(phantom, "table"))[:, 1].mean() > 32
    bladder, prostate = centroid_mm(phantom, "bladder"), centroid_mm(phantom, "prostate")
    rectum, sacrum = centroid_mm(phantom, "rectum", "gas"), centroid_mm(phantom, "sacrum")
    assert bladder[anterior] > rectum[anterior] + 20 > sacrum[anterior] + 20
    assert prostate[superior] < bladder[superior] - 20
    assert np.argwhere(mask(phantom, "prostate"))[:, 0].mean() < 8
    assert sacrum[superior] > centroid_mm(phantom, "femur_left")[superior] + 30
    for bone in ("femur", "hip_bone"):
        assert centroid_mm(phantom, f"{bone}_left")[right] < -40
        assert centroid_mm(phantom, f"{bone}_right")[right] > 40
        # Left is where the width index grows.
        assert np.argwhere(mask(phantom, f"{bone}_left"))[:, 2].mean() > 32


@pytest.mark.parametrize("seed", range(4))
def test_body_is_closed_in_one_piece_and_inside_the_image(seed: int):
    whole = body(pelvis_phantom(seed))
    holes = np.stack([ndimage.binary_fill_holes(level) for level in whole]) & ~whole
    # The table may shut a pocket of air in the natal cleft, behind and in the middle.
    assert holes.sum() < 0.002 * whole.sum()
    assert not holes[:, :38].any()
    assert not holes[:, :, :26].any()
    assert not holes[:, :, 38:].any()
    pieces, _ = ndimage.label(whole)
    assert np.bincount(pieces[whole]).max() > 0.999 * whole.sum()
    assert not whole[:, [0, -1]].any()
    assert not whole[:, :, [0, -1]].any()


def test_the_two_sides_differ(fine: PelvisPhantom):
    left, right = (np.count_nonzero(mask(fine, f"hip_bone_{side}")) for side in ("left", "right"))
    assert left != right
    mirrored = fine.volume.array[:, :, ::-1]
    assert np.abs(fine.volume.array - mirrored).mean() > 20


def test_same_patient_at_two_spacings(fine: PelvisPhantom):
    coarse = pelvis_phantom(7)
    for name in ("bladder", "prostate", "rectum", "muscle", *BONES):
        distance = np.linalg.norm(centroid_mm(fine, name) - centroid_mm(coarse, name))
        assert distance < 4, (name, distance)
    assert fine.attributes == coarse.attributes
    # Both grids have 8 mm slices and 52 mm blocks in common.
    fine_blocks = fine.volume.array.reshape(16, 4, 8, 26, 8, 26).mean(axis=(1, 3, 5))
    coarse_blocks = coarse.volume.array.reshape(16, 8, 8, 8, 8).mean(axis=(2, 4))
    assert np.abs(fine_blocks - coarse_blocks).max() < 25


def test_field_of_view_does_not_move_the_patient():
    small = pelvis_phantom(5, size=(4, 20, 30), spacing_mm=(6.0, 5.0, 5.0))
    large = pelvis_phantom(5, size=(8, 40, 50), spacing_mm=(6.0, 5.0, 5.0))
    inner = large.labels[2:-2, 10:-10, 10:-10]
    assert np.mean(inner == small.labels) > 0.999


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_volumes_match_the_labels(seed: int):
    phantom = pelvis_phantom(seed, size=(100, 70, 70), spacing_mm=(2.0, 2.0, 2.0))
    for name in ("bladder", "prostate"):
        volume_ml = np.count_nonzero(mask(phantom, name)) * 0.008
        assert volume_ml == pytest.approx(phantom.attributes[f"{name}_volume_ml"], rel=0.1)


def test_body_extent_and_fat_match_the_labels(slab: PelvisPhantom):
    level = slab.labels[7]
    inside = body(slab)[7]
    columns, rows = np.flatnonzero(inside.any(axis=0)), np.flatnonzero(inside.any(axis=1))
    assert slab.attributes["body_width_mm"] == pytest.approx(np.ptp(columns) + 1, abs=2)
    assert slab.attributes["body_height_mm"] == pytest.approx(np.ptp(rows) + 1, abs=2)
    middle = (columns[0] + columns[-1]) // 2
    thickness = [
        np.argmax(level[:, column] == PELVIS_LABELS["muscle"]) - np.argmax(inside[:, column])
        for column in (middle - 20, middle + 20)
    ]
    assert slab.attributes["fat_thickness_mm"] == pytest.approx(np.mean(thickness), abs=2)


@pytest.mark.parametrize("side", ["left", "right"])
def test_femoral_head_radius_matches_the_labels(fine: PelvisPhantom, side: str):
    areas = mask(fine, f"femur_{side}").sum(axis=(1, 2)) * 4.0
    top = np.flatnonzero(areas)[-1]
    # A plane h below the top of a ball of radius r cuts it in an area of π(2rh − h²).
    depth = 12.0
    radius = (areas[top - 6] / np.pi + depth**2) / (2 * depth)
    assert radius == pytest.approx(fine.attributes[f"femoral_head_radius_{side}_mm"], abs=1.5)


def test_skipping_what_lies_outside_a_shape_changes_nothing(monkeypatch: pytest.MonkeyPatch):
    anatomy = draw_anatomy(np.random.default_rng(2))
    axes = tuple(np.arange(-half, half, 7.0) for half in (77, 180, 200))
    quick = pelvis._paint(anatomy, axes, (7.0, 7.0, 7.0))
    monkeypatch.setattr(
        Canvas, "_window", lambda self, _: tuple(slice(0, len(axis)) for axis in self.axes)
    )
    thorough = pelvis._paint(anatomy, axes, (7.0, 7.0, 7.0))
    assert np.array_equal(quick.labels, thorough.labels)
    np.testing.assert_allclose(quick.hu, thorough.hu, atol=0.01)


@pytest.mark.parametrize(
    "shape",
    [
        Ellipsoid((0, 0, 0), (20, 20, 20)),
        Chain([(-30, 0, 0, 20), (30, 0, 0, 20)]),
        Column(np.array([(-60, 0, 0, 20, 20), (60, 0, 0, 20, 20)])),
        Sheet({-60: [(0, -1, 20), (0, 0, 20), (0, 1, 20)], 60: [(0, -1, 20)] + [(0, 1, 20)] * 2}),
    ],
    ids=["ellipsoid", "chain", "column", "sheet"],
)
def test_distance_is_in_millimetres(shape: Ellipsoid | Chain | Column | Sheet):
    radius = np.array([17.0, 19, 20, 21, 23], dtype=np.float32)
    level = np.zeros_like(radius)
    np.testing.assert_allclose(shape.distance((level, radius, level)), radius - 20, atol=0.1)


@pytest.mark.parametrize(
    "arguments",
    [
        {"size": (16, 64)},
        {"size": (0, 8, 8)},
        {"size": (8, 8, 8.5)},
        {"spacing_mm": (1, 1)},
        {"spacing_mm": (1, 0, 1)},
        {"spacing_mm": (1, float("nan"), 1)},
    ],
)
def test_impossible_grid_is_refused(arguments: dict):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        pelvis_phantom(0, **arguments)


def snapshot(folder: Path) -> dict[str, int]:
    return {str(file.relative_to(folder)): file.stat().st_mtime_ns for file in folder.rglob("*")}


def test_cohort_reads_back_upright_and_true(tmp_path: Path):
    folder = tmp_path / "cohort"
    grid = {"size": (4, 20, 24), "spacing_mm": (20.0, 20.0, 18.0)}
    images = write_pelvis_cohort(folder, number=2, seed=4, **grid)
    assert images == folder / "images"
    names = ["pelvis_0000.nii.gz", "pelvis_0001.nii.gz"]
    for kind in ("images", "labels"):
        assert sorted(file.name for file in (folder / kind).iterdir()) == names
    first, second = (read_volume(images / name) for name in names)
    assert not np.array_equal(first.array, second.array)
    np.testing.assert_allclose(first.spacing_mm, grid["spacing_mm"], rtol=1e-6)
    labels = read_volume(folder / "labels" / names[0])
    np.testing.assert_allclose(labels.affine, first.affine)
    # Upright: the sacrum is behind and above the femurs, and left is where the width grows.
    sacrum, left, right = (
        np.argwhere(labels.array == PELVIS_LABELS[name]).mean(axis=0)
        for name in ("sacrum", "femur_left", "femur_right")
    )
    assert sacrum[1] > left[1] + 1
    assert sacrum[0] > left[0]
    assert left[2] > 11.5 > right[2]
    attributes = json.loads((folder / "attributes.json").read_text())
    assert list(attributes) == ["pelvis_0000", "pelvis_0001"]
    assert attributes["pelvis_0000"].keys() == pelvis_phantom(0, **TINY).attributes.keys()


def test_finished_cohort_is_kept_and_a_different_one_replaced(tmp_path: Path):
    folder = tmp_path / "cohort"
    write_pelvis_cohort(folder, number=2, seed=0, **TINY)
    before = snapshot(folder)
    write_pelvis_cohort(folder, number=2, seed=0, **TINY)
    assert snapshot(folder) == before
    write_pelvis_cohort(folder, number=1, seed=0, **TINY)
    assert [file.name for file in (folder / "images").iterdir()] == ["pelvis_0000.nii.gz"]


def test_interrupted_cohort_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made = []

    def interrupted(seed: int, **grid: object) -> PelvisPhantom:
        if made:
            raise KeyboardInterrupt
        made.append(seed)
        return pelvis_phantom(seed, **TINY)

    monkeypatch.setattr(pelvis, "pelvis_phantom", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_pelvis_cohort(tmp_path / "cohort", number=2, seed=0, workers=1, **TINY)
    assert made
    assert not list(tmp_path.iterdir())


def test_cohort_never_replaces_a_foreign_folder(tmp_path: Path):
    (tmp_path / "patient.nii.gz").write_bytes(b"precious")
    with pytest.raises(ValueError, match="holds other files"):
        write_pelvis_cohort(tmp_path, number=1, seed=0, **TINY)
    assert (tmp_path / "patient.nii.gz").read_bytes() == b"precious"
    with pytest.raises(ValueError, match="number=0"):
        write_pelvis_cohort(tmp_path / "new", number=0, seed=0)
