"""The chest phantom: its physics, its anatomy, and films that show what their truth says."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from diffct.data.manifest import read_manifest
from diffct.imaging.radiograph import read_radiograph
from diffct.phantoms.chest import cohort as chest
from diffct.phantoms.chest.anatomy import chest_width_mm
from diffct.phantoms.chest.cohort import (
    ChestPatient,
    draw_patient,
    draw_truth,
    ray_sums,
    render_film,
    write_chest_cohort,
)
from diffct.phantoms.chest.film import Paint, RaySums, Threads, View
from diffct.phantoms.chest.truth import HEART_RATIOS, ChestFinding, ChestTruth
from diffct.phantoms.ray_solids import Barrel, LeaningEllipsoid, PleuralFluid, Within

STRAIGHT = View((0.0, 0.0), 0.0)
HEALTHY = ChestTruth("normal", 0.45)
SEEDS = range(4)


def with_finding(*finding: str | None) -> ChestTruth:
    return replace(HEALTHY, findings=(ChestFinding(*finding),))


def patient(truth: ChestTruth = HEALTHY, seed: int = 0) -> ChestPatient:
    return draw_patient(truth, np.random.default_rng(seed))


def film(truth: ChestTruth = HEALTHY, seed: int = 0) -> np.ndarray:
    return render_film(patient(truth, seed))


def read_truth(values: dict) -> ChestTruth:
    """Return the truth that `ChestTruth.to_dict` wrote."""
    findings = tuple(ChestFinding(**finding) for finding in values["findings"])
    return ChestTruth(values["heart_size"], values["cardiothoracic_ratio"], findings)


def heart_width_mm(heart: tuple[LeaningEllipsoid, ...]) -> float:
    """Return the largest width of the heart's shadow."""
    bounds = np.stack([part.bounds for part in heart])
    return float(bounds[:, 1, 2].max() - bounds[:, 0, 2].min())


def silhouette(solids: list, *, step_mm: float = 1.0) -> np.ndarray:
    """Return where rays meet any of the solids, on a film without tilt."""
    rays = RaySums((400, 400), step_mm=step_mm, view=STRAIGHT)
    met = np.zeros((400, 400), dtype=bool)
    for solid in solids:
        enter, leave = solid.surfaces(rays.superior, rays.left)
        met |= leave > enter
    return met


def test_ray_sum_through_nested_balls_is_their_chords_and_nothing_is_counted_twice():
    rays = RaySums((41, 41), step_mm=5.0, view=STRAIGHT)
    rays.fill_body(LeaningEllipsoid((0, 0, 0), (100, 100, 100)))
    rays.paint(Paint(LeaningEllipsoid((0, 5, 0), (80, 80, 80)), 0.25))
    rays.paint(Paint(LeaningEllipsoid((0, -10, 0), (40, 40, 40)), 1.0))
    sums = rays.total()
    aside = np.abs(np.arange(41) - 20) * 5.0
    chord = [2 * np.sqrt(np.maximum(r * r - aside**2, 0)) for r in (100, 80, 40)]
    expected = chord[0] - 0.75 * (chord[1] - chord[2])
    # Where two surfaces share a slab of 7 mm their order in it is unknown.
    np.testing.assert_allclose(sums[20], expected, atol=1.5)
    np.testing.assert_allclose(sums[:, 20], expected, atol=1.5)
    assert sums[0, 0] == 0


@pytest.mark.parametrize("step_mm", [3.0, 1.0])
def test_threads_keep_their_mass_at_every_resolution(step_mm: float):
    rng = np.random.default_rng(0)
    threads = Threads(
        rng.uniform(-40, 40, (50, 3)), rng.uniform(0.3, 8, 50), np.full(50, 2.0), np.full(50, 0.5)
    )
    rays = RaySums((120, 120), step_mm=step_mm, view=View((3.0, -2.0), 0.1))
    rays.add_threads(threads)
    mass = 0.5 * 2.0 * np.pi * (threads.radius_mm**2).sum()
    assert rays.total().sum() * step_mm**2 == pytest.approx(mass, rel=1e-4)


def test_leaning_ellipsoid_is_as_wide_as_it_says():
    solid = LeaningEllipsoid((0, 0, 10), (60, 30, 40), lean=-0.5)
    columns = np.flatnonzero(silhouette([solid]).any(axis=0))
    assert np.ptp(columns) + 1 == pytest.approx(2 * solid.half_width_mm, abs=2)
    assert solid.half_width_mm == pytest.approx(50)


def test_solids_lie_within_their_bounds():
    cavity = patient().anatomy.cavities["right"]
    ball = LeaningEllipsoid((40, 10, -60), (30, 20, 25), lean=0.4)
    fluid = PleuralFluid(cavity, -1, wall_level_mm=-60.0, rise_mm=30.0, fade_mm=20.0)
    for solid in (cavity, ball, Within(ball, cavity), fluid):
        rays = RaySums((200, 200), step_mm=2.0, view=STRAIGHT)
        enter, leave = solid.surfaces(rays.superior, rays.left)
        met = leave > enter
        superior = np.broadcast_to(rays.superior, met.shape)[met]
        left = np.broadcast_to(rays.left, met.shape)[met]
        corners = np.array([superior, enter[met], left]), np.array([superior, leave[met], left])
        low, high = (bound[:, None] for bound in solid.bounds)
        assert all((low - 0.01 <= c).all() and (c <= high + 0.01).all() for c in corners)
        assert met.any()


def test_fluid_rises_towards_the_chest_wall_and_settles_behind():
    anatomy = patient().anatomy
    fluid = PleuralFluid(anatomy.cavities["left"], 1, wall_level_mm=-40, rise_mm=30, fade_mm=20)
    level = np.arange(-100.0, 0.0)[:, None]
    enter, leave = fluid.surfaces(level, np.array([[40.0, 80.0, 120.0]]))
    tops = [level[(leave > enter)[:, i]].max() for i in range(3)]
    assert tops[0] < tops[1] < tops[2] < -40
    cavity_enter, cavity_leave = anatomy.cavities["left"].surfaces(np.float32(-55.0), 118.0)
    enter, leave = fluid.surfaces(np.float32(-55.0), np.float32(118.0))
    assert cavity_enter + 10 < enter < leave == cavity_leave


@pytest.mark.parametrize("heart_size", HEART_RATIOS)
@pytest.mark.parametrize("seed", SEEDS)
def test_cardiothoracic_ratio_holds_in_the_drawn_chest(heart_size: str, seed: int):
    low, high = HEART_RATIOS[heart_size]
    ratio = float(np.random.default_rng(seed).uniform(low, high))
    anatomy = patient(ChestTruth(heart_size, ratio), seed).anatomy
    heart, chest_inside = (
        np.flatnonzero(silhouette(list(solids)).any(axis=0))
        for solids in (anatomy.heart, anatomy.cavities.values())
    )
    widths = np.ptp(heart) + 1, np.ptp(chest_inside) + 1
    assert widths[0] / widths[1] == pytest.approx(ratio, abs=0.012)
    assert low - 0.012 <= widths[0] / widths[1] <= high + 0.012
    assert heart_width_mm(anatomy.heart) / chest_width_mm(anatomy.cavities) == pytest.approx(ratio)
    # The widest level shows above the diaphragm.
    left = max(anatomy.heart, key=lambda part: part.bounds[1, 2])
    widest = left.centre[0] + left.lean * left.radii[0] ** 2 / left.half_width_mm
    dome = min(paint.solid.bounds[1, 0] for paint in anatomy.paints if paint.density > 1)
    assert widest > dome - 25


@pytest.mark.parametrize("seed", SEEDS)
def test_organs_lie_on_their_sides_of_the_film(seed: int):
    shown = film(seed=seed)
    anatomy = patient(seed=seed).anatomy
    middle = 64 + round(anatomy.view.shift_mm[1] / 3)
    columns = np.flatnonzero(silhouette(list(anatomy.heart)).any(axis=0)) - 199.5
    assert columns.max() > 1.5 * -columns.min() > 0
    # The gastric bubble is the darkest place below the left dome; under the right one is liver.
    below = ndimage.gaussian_filter(shown, 1)[98:112]
    assert below[:, middle + 10 : middle + 38].min() < below[:, middle - 38 : middle - 10].min()
    tops = {side: anatomy.cavities[side].keyframes.last for side in ("left", "right")}
    assert abs(tops["left"] - tops["right"]) < 10
    # Lungs are dark, what lies between and below them is bright, the corners above are air.
    lungs = np.median(shown[35:65, [middle - 30, middle + 30]], axis=0)
    assert lungs.max() < 0.5 < 0.7 < shown[50:120, middle].min()
    assert shown[:6, :6].max() < 0.1


def test_film_is_the_same_for_the_same_seed_and_differs_between_patients():
    np.testing.assert_array_equal(film(seed=3), film(seed=3))
    assert np.abs(film(seed=3) - film(seed=4)).mean() > 0.01


def test_film_holds_gray_values_and_little_noise():
    shown = film()
    assert shown.dtype == np.float32
    assert shown.min() >= 0
    assert shown.max() <= 1
    assert shown.max() - shown.min() > 0.8
    noiseless = render_film(replace(patient(), noise=0.0))
    assert 0.002 < (shown - noiseless)[20:100, 20:100].std() < 0.006


def test_same_patient_at_every_size():
    quiet = replace(patient(with_finding("effusion", "right", None, "moderate"), 5), noise=0.0)
    coarse, fine = render_film(quiet, size=(64, 64)), render_film(quiet, size=(256, 256))
    pooled = fine.reshape(64, 4, 64, 4).mean(axis=(1, 3))
    assert np.abs(coarse - pooled).mean() < 0.01
    wide = render_film(quiet, size=(64, 96))
    # The blur has no neighbours beyond the edge of a film.
    np.testing.assert_allclose(wide[:, 17:79], coarse[:, 1:-1], atol=1e-5)


@pytest.mark.parametrize("size", [(128,), (8, 128), (128.5, 128)])
def test_impossible_size_is_refused(size: tuple):
    with pytest.raises(ValueError, match="size="):
        render_film(patient(), size=size)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("kind", "zone"),
    [
        ("effusion", None),
        ("consolidation", "upper"),
        ("consolidation", "lower"),
        ("nodule", "upper"),
        ("nodule", "lower"),
        ("pneumothorax", None),
    ],
)
def test_finding_shows_on_its_side_in_its_zone(kind: str, zone: str | None, side: str, seed: int):
    truth = with_finding(kind, side, zone, "small")
    change = film(truth, seed) - film(seed=seed)
    seen = np.abs(change) > 0.025
    assert seen.sum() >= 5
    darker = kind == "pneumothorax"
    assert (np.abs(change).max() > 0.08) and (-change if darker else change).max() > 0.08
    rows, columns = np.nonzero(seen)
    middle = 64 + patient(seed=seed).anatomy.view.shift_mm[1] / 3
    assert ((columns > middle) == (side == "left")).all()
    if zone:
        cavity = patient(seed=seed).anatomy.cavities[side].bounds
        half = 64 - (cavity[:, 0].mean() + patient(seed=seed).anatomy.view.shift_mm[0]) / 3
        assert (np.mean(rows) < half) == (zone == "upper")


@pytest.mark.parametrize("kind", ["effusion", "consolidation", "nodule", "pneumothorax"])
@pytest.mark.parametrize("seed", SEEDS)
def test_severer_findings_show_more(kind: str, seed: int):
    zone = "upper" if kind in ("consolidation", "nodule") else None
    sizes = []
    for severity in ("small", "moderate", "large"):
        change = film(with_finding(kind, "right", zone, severity), seed) - film(seed=seed)
        sizes.append(np.count_nonzero(np.abs(change[:, :64]) > 0.04))
    assert all(smaller * 1.15 < larger for smaller, larger in pairwise(sizes)), sizes


@pytest.mark.parametrize("severity", ["small", "moderate", "large"])
@pytest.mark.parametrize("zone", ["upper", "lower"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_nodule_lies_inside_the_lung_clear_of_heart_and_diaphragm(
    severity: str, zone: str, side: str
):
    for seed in range(8):
        anatomy = patient(with_finding("nodule", side, zone, severity), seed).anatomy
        balls = [p.solid for p in anatomy.paints if 1.1 < p.density < 2]
        (nodule,) = (b for b in balls if isinstance(b, LeaningEllipsoid) and b.radii[2] < 20)
        rays = RaySums((400, 400), step_mm=1.0, view=STRAIGHT)
        inner, outer = (
            s.surfaces(rays.superior, rays.left) for s in (nodule, anatomy.cavities[side])
        )
        met = inner.leave > inner.enter
        assert (outer.enter[met] < inner.enter[met]).all()
        assert (outer.leave[met] > inner.leave[met]).all()
        assert not (met & silhouette(list(anatomy.heart))).any()
        domes = [p.solid for p in anatomy.paints if p.solid.bounds[0, 0] < -180]
        assert not (met & silhouette(domes[:2])).any()


def test_lung_under_fluid_and_outside_a_collapsed_lung_has_no_vessels():
    for finding in (("effusion", "right", None, "large"), ("pneumothorax", "right", None, "large")):
        anatomy = patient(with_finding(*finding)).anatomy
        bare = replace(anatomy, vessels=())
        vessels = [ray_sums(a, (128, 128), step_mm=3.0) for a in (anatomy, bare)]
        drawn = (vessels[0] - vessels[1]) > 0.3
        lower_right = drawn[85:, :55] if finding[0] == "effusion" else drawn[25:80, 10:35]
        assert drawn[:, 70:].sum() > 500
        assert lower_right.sum() <= 2


def test_fluid_is_as_dense_as_the_tissue_it_meets():
    truth = with_finding("effusion", "right", None, "large")
    for seed in SEEDS:
        anatomy = replace(patient(truth, seed).anatomy, bones=())
        sums = ray_sums(anatomy, (128, 128), step_mm=3.0)
        body = RaySums((128, 128), step_mm=3.0, view=anatomy.view)
        body.fill_body(anatomy.body)
        filled = body.total()
        assert (sums < 1.05 * filled + 1).all()
        # In the lower third of the right chest all air has gone.
        np.testing.assert_allclose(sums[90:100, 30:50] / filled[90:100, 30:50], 1, atol=0.06)


def test_pneumothorax_shifts_the_heart_away():
    healthy = patient().anatomy
    for side, sign in (("left", 1), ("right", -1)):
        pushed = patient(with_finding("pneumothorax", side, None, "large")).anatomy
        moved = pushed.heart[0].centre[2] - healthy.heart[0].centre[2]
        assert moved * sign < -4
        assert heart_width_mm(pushed.heart) == pytest.approx(heart_width_mm(healthy.heart))


@pytest.fixture(scope="module")
def truths() -> list[ChestTruth]:
    rng = np.random.default_rng(0)
    return [draw_truth(rng) for _ in range(2500)]


def test_findings_are_as_common_as_said(truths: list[ChestTruth]):
    share = Counter()
    for truth in truths:
        share["clear"] += truth.heart_size == "normal" and not truth.findings
        share["cardiomegaly"] += truth.heart_size != "normal"
        share.update({finding.kind for finding in truth.findings})
        share["both"] += sum(f.kind == "effusion" for f in truth.findings) == 2
    expected = {
        "clear": 0.30,
        "cardiomegaly": 0.35,
        "effusion": 0.35,
        "consolidation": 0.20,
        "nodule": 0.20,
        "pneumothorax": 0.15,
        "both": 0.09,
    }
    for name, value in expected.items():
        assert share[name] / len(truths) == pytest.approx(value, abs=0.035), name


def test_sides_zones_and_sizes_are_balanced(truths: list[ChestTruth]):
    findings = [finding for truth in truths for finding in truth.findings]
    for kind in ("effusion", "consolidation", "nodule", "pneumothorax"):
        of_kind = [finding for finding in findings if finding.kind == kind]
        for part, options in (("side", 2), ("severity", 3), ("zone", 2)):
            counts = Counter(getattr(finding, part) for finding in of_kind)
            if None not in counts:
                assert len(counts) == options
                assert min(counts.values()) > 0.65 * len(of_kind) / options, (kind, counts)


def test_no_finding_hides_another(truths: list[ChestTruth]):
    for truth in truths:
        low, high = HEART_RATIOS[truth.heart_size]
        assert low <= truth.cardiothoracic_ratio <= high
        places = [(finding.kind, finding.side) for finding in truth.findings]
        assert len(places) == len(set(places))
        for side in ("left", "right"):
            assert not {("effusion", side), ("pneumothorax", side)} <= set(places)
        for finding in truth.findings:
            assert (finding.zone is not None) == (finding.kind in ("consolidation", "nodule"))
            if (finding.zone, finding.side) == ("lower", "left"):
                assert truth.heart_size in ("normal", "mild")


def test_truth_survives_json(truths: list[ChestTruth]):
    assert all(read_truth(truth.to_dict()) == truth for truth in truths[:50])


def snapshot(folder: Path) -> dict[str, int]:
    return {str(file.relative_to(folder)): file.stat().st_mtime_ns for file in folder.rglob("*")}


def write(folder: Path, **changes: object) -> Path:
    settings = {"number": 20, "seed": 4, "size": (32, 32), "workers": 1, "show_progress": False}
    return write_chest_cohort(folder, **(settings | changes))


def test_cohort_reads_back_with_films_sentences_and_truth(tmp_path: Path):
    folder = write(tmp_path / "cohort")
    manifest = read_manifest(folder)
    assert [len(manifest.split(name)) for name in ("train", "validation", "test")] == [16, 2, 2]
    assert len({row.patient for row in manifest.rows}) == 20
    for row in manifest.rows:
        truth = read_truth(row.facts)
        assert 4 <= len(row.sentences) <= 8
        shown = read_radiograph(manifest.path(row), smallest_side=32)
        assert shown.shape == (32, 32)
        assert truth.cardiothoracic_ratio > 0.39


def test_number_of_workers_and_films_changes_no_film(tmp_path: Path):
    one = write(tmp_path / "one", number=3)
    two = write(tmp_path / "two", number=6, workers=2)
    for index in range(3):
        name = f"images/{index:06d}.png"
        assert (one / name).read_bytes() == (two / name).read_bytes()
    assert read_manifest(one).rows == read_manifest(two).rows[:3]


def test_finished_cohort_is_kept_and_a_different_one_replaced(tmp_path: Path):
    folder = write(tmp_path / "cohort", number=2)
    before = snapshot(folder)
    write(folder, number=2)
    assert snapshot(folder) == before
    write(folder, number=1)
    assert [file.name for file in (folder / "images").iterdir()] == ["000000.png"]


def test_interrupted_cohort_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(chest, "write_manifest", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "cohort", number=2)
    assert not list(tmp_path.iterdir())


def test_cohort_never_replaces_a_foreign_folder(tmp_path: Path):
    (tmp_path / "patient.png").write_bytes(b"precious")
    with pytest.raises(ValueError, match="holds other files"):
        write(tmp_path)
    assert (tmp_path / "patient.png").read_bytes() == b"precious"
    with pytest.raises(ValueError, match="number=0"):
        write(tmp_path / "new", number=0)


def test_barrel_moves_as_a_whole():
    barrel = Barrel(np.array([(-50, 0, 0, 20, 30), (50, 0, 0, 20, 30)]))
    assert barrel.shifted(7).lateral_mm(0.0, side=1) == pytest.approx(37)
