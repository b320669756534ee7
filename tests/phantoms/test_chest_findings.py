"""The reader of findings, on phantom films and drawn films of known truth."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from diffct.phantoms.chest.cohort import ChestFinding, ChestTruth, draw_patient, render_film
from diffct.phantoms.chest.findings import SEVERITIES, FindingReader
from diffct.phantoms.chest.measurements import expected_half, measure_film
from diffct.phantoms.chest.outline import find_chest

RATIOS = {"normal": 0.45, "mild": 0.54, "moderate": 0.6, "severe": 0.67}


def film_of(*findings, patient=0, heart="normal", size=(128, 128)):
    """Render a phantom; findings are (kind, side, zone, severity)."""
    truth = ChestTruth(heart, RATIOS[heart], tuple(ChestFinding(*f) for f in findings))
    return render_film(draw_patient(truth, np.random.default_rng(patient)), size=size), truth


def calibration_films():
    """Yield films that show every finding in every severity, one on each side, and every heart."""
    for round_, severity in product(range(4), SEVERITIES):
        zone = ("lower", "upper")[round_ % 2]
        sides = ("left", "right") if round_ < 2 else ("right", "left")
        kinds = (("effusion", "nodule"), ("pneumothorax", "consolidation"))
        for number, pair in enumerate(kinds):
            zones = (None, zone)
            found = zip(pair, sides, zones, (severity,) * 2, strict=True)
            yield film_of(*found, patient=100 + 10 * round_ + number)
    for number, heart in enumerate(("normal", "mild", "moderate", "severe") * 3):
        yield film_of(patient=200 + number, heart=heart)


@pytest.fixture(scope="module")
def calibrated():
    """A reader, and what its measurements need."""
    films, truths = zip(*calibration_films(), strict=True)
    pairs = zip(films, truths, strict=True)
    expected = expected_half([film for film, truth in pairs if not truth.findings])
    measurements = [measure_film(film, expected) for film in films]
    return FindingReader.fit(measurements, [truth.to_dict() for truth in truths]), expected


@pytest.fixture
def read(calibrated):
    reader, expected = calibrated
    return lambda film: reader.read(measure_film(film, expected))


def found(reading):
    return {(f.kind, f.side, f.zone, f.severity) for f in reading.findings}


@pytest.mark.parametrize("patient", range(3))
@pytest.mark.parametrize(
    "finding",
    [
        ("effusion", "left", None, "moderate"),
        ("effusion", "right", None, "large"),
        ("pneumothorax", "left", None, "large"),
        ("pneumothorax", "right", None, "moderate"),
        ("nodule", "right", "upper", "large"),
        ("nodule", "left", "lower", "large"),
        ("consolidation", "left", "upper", "moderate"),
        ("consolidation", "right", "lower", "moderate"),
    ],
    ids=lambda finding: "-".join(filter(None, finding)),
)
def test_a_finding_put_into_a_patient_is_all_that_is_read(read, finding, patient):
    healthy, _ = film_of(patient=patient)
    ill, _ = film_of(finding, patient=patient)
    assert found(read(healthy)) == set()
    assert {f[:3] for f in found(read(ill))} == {finding[:3]}
    assert found(read(gaussian_filter(ill, 0.7))).pop()[:2] == finding[:2]


def test_more_fluid_stands_higher_and_more_air_fills_more(calibrated):
    _, expected = calibrated
    heights, gaps = [], []
    for severity in SEVERITIES:
        film, _ = film_of(("effusion", "left", None, severity), patient=7)
        heights.append(measure_film(film, expected).left.fluid_height)
        film, _ = film_of(("pneumothorax", "right", None, severity), patient=7)
        gaps.append(measure_film(film, expected).right.air_gap)
    assert heights[0] < 0.25 < heights[1] < 0.45 < heights[2]
    assert gaps[0] < 0.4 < gaps[1] < 0.75 < gaps[2]


@pytest.mark.parametrize("heart", RATIOS)
def test_the_heart_is_measured_and_graded(read, heart):
    for patient in range(5):
        reading = read(film_of(patient=patient, heart=heart)[0])
        assert reading.cardiothoracic_ratio == pytest.approx(RATIOS[heart], abs=0.035)
    assert reading.heart_size == heart


def test_fluid_up_to_the_heart_leaves_its_size_undetermined(read):
    reading = read(film_of(("effusion", "left", None, "large"), heart="severe")[0])
    assert np.isnan(reading.cardiothoracic_ratio)
    assert reading.heart_size is None


def test_flipping_a_film_swaps_the_sides_exactly(calibrated):
    reader, expected = calibrated
    findings = ("effusion", "left", None, "moderate"), ("nodule", "right", "upper", "large")
    film, _ = film_of(*findings, patient=4)
    plain, flipped = (measure_film(f, expected) for f in (film, film[:, ::-1]))
    assert flipped.cardiothoracic_ratio == pytest.approx(plain.cardiothoracic_ratio)
    for here, there in ((plain.left, flipped.right), (plain.right, flipped.left)):
        assert there.fluid_height == pytest.approx(here.fluid_height)
        assert there.meniscus == pytest.approx(here.meniscus)
        assert [b.diameter for b in there.blobs] == pytest.approx([b.diameter for b in here.blobs])
    other = {"left": "right", "right": "left"}
    mirrored = {(kind, other[side], *rest) for kind, side, *rest in found(reader.read(plain))}
    assert found(reader.read(flipped)) == mirrored


@pytest.mark.parametrize("size", [(256, 256), (96, 96), (128, 160)])
def test_the_size_of_a_film_changes_little(read, size):
    finding = ("effusion", "right", None, "moderate")
    reading = read(film_of(finding, patient=3, heart="mild", size=size)[0])
    assert found(reading) == {finding}
    assert reading.cardiothoracic_ratio == pytest.approx(RATIOS["mild"], abs=0.035)


@pytest.mark.parametrize("shift", [-0.2, 0.2])
def test_another_exposure_changes_no_finding(read, shift):
    findings = ("pneumothorax", "left", None, "large"), ("effusion", "right", None, "large")
    film, _ = film_of(*findings, patient=2)
    gray = np.clip(film, 0.002, 0.998)
    assert found(read(1 / (1 + np.exp(-np.log(gray / (1 - gray)) - shift)))) == set(findings)


def drawn_film(*, fluid=0.0, heart=(16.0, 26.0), shift=0):
    """Draw two dark half-ovals in a bright body, a heart, and fluid in the left one.

    Args:
        fluid: Share of the height that is bright again, on the viewer's right.
        heart: Half-widths to the viewer's left and right in pixels; the chest's is 45.
        shift: Of all, in pixels to the viewer's right.
    """
    rows, columns = np.mgrid[0:128, 0:128] - 63.5
    columns = columns - shift
    height = (45 - rows) / 90  # from 0 at the base, row 45, to 1 at the apex
    # Like the wall of a chest: narrow at the apex, widest a fifth above the base.
    wall = 45 * np.interp(height, [0, 0.2, 0.5, 0.8, 0.9, 1], [0.91, 1, 0.945, 0.71, 0.53, 0.27])
    lung = (abs(columns) < wall) & (abs(columns) > 8) & (height > 0) & (height < 1)
    lung &= ~((height < fluid) & (columns > 0))
    aside = np.where(columns < 0, -columns / heart[0], columns / heart[1])
    lung &= aside**2 + ((height - 0.3) / 0.25) ** 2 > 1
    density = np.where(lung, -1.0, np.where(height > 0, 0.9, 2.2))
    density[abs(columns) < 8] = 2.2
    density[abs(columns) > 58] = -4.0
    density[(height < fluid) & (columns > 0) & (columns < wall) & (height > 0)] = 2.0
    return gaussian_filter(1 / (1 + np.exp(-density)), 0.7)


def test_a_drawn_chest_is_found_where_it_was_drawn():
    for shift in (-4, 0, 5):
        chest = find_chest(drawn_film(shift=shift))
        assert chest.half_widths == pytest.approx([45, 45], abs=1.5)
    one, other = (find_chest(drawn_film(shift=shift)).halves for shift in (0, 5))
    assert np.median(abs(one - other)) < 0.05


def test_drawn_fluid_and_heart_are_measured():
    expected = expected_half([drawn_film()])
    for fluid in (0.3, 0.5):
        measured = measure_film(drawn_film(fluid=fluid), expected)
        assert measured.left.fluid_height == pytest.approx(fluid, abs=0.04)
        assert measured.right.fluid_height < 0.1
    for heart in ((16, 26), (20, 34)):
        measured = measure_film(drawn_film(heart=heart), expected)
        assert measured.cardiothoracic_ratio == pytest.approx(sum(heart) / 90, abs=0.04)


def test_a_ball_added_to_a_film_is_read_as_a_nodule_of_its_size(read):
    film, _ = film_of(patient=5)
    rows, columns = np.mgrid[0:128, 0:128]
    for row, column, side, zone in ((45, 88, "left", "upper"), (68, 32, "right", "lower")):
        for diameter in (6, 9):
            squared = (rows - row) ** 2 + (columns - column) ** 2
            thickness = 2 * np.sqrt(np.maximum((diameter / 2) ** 2 - squared, 0))
            gray = np.clip(film, 0.01, 0.99)
            ball = gaussian_filter(0.12 * thickness, 0.5)
            (nodule,) = read(1 / (1 + np.exp(-np.log(gray / (1 - gray)) - ball))).findings
            assert (nodule.kind, nodule.side, nodule.zone) == ("nodule", side, zone)
            # The inner chest is about 92 pixels wide.
            assert nodule.amount * 92 == pytest.approx(diameter, rel=0.3)


@pytest.mark.parametrize(
    "film",
    [
        np.full((128, 128), 0.5),
        np.zeros((64, 80)),
        np.full((128, 128), np.nan),
        np.random.default_rng(0).random((128, 128)),
        gaussian_filter(np.random.default_rng(1).normal(0.5, 2, (128, 128)), 6),
        np.linspace(0, 1, 128)[:, None] * np.ones(128),
    ],
    ids=["gray", "black", "nan", "noise", "clouds", "ramp"],
)
def test_a_film_without_a_chest_is_recognised(calibrated, film):
    assert measure_film(film, calibrated[1]) is None


def test_what_cannot_be_measured_or_learnt_is_refused(calibrated):
    reader, expected = calibrated
    with pytest.raises(ValueError, match="height, width"):
        measure_film(np.zeros((1, 128, 128)), expected)
    with pytest.raises(ValueError, match="shows a chest"):
        expected_half([np.full((128, 128), np.nan)])
    film, truth = film_of()
    with pytest.raises(ValueError, match="Too few films"):
        FindingReader.fit([measure_film(film, expected)], [truth.to_dict()])
    measured = measure_film(film, expected)
    assert reader.read(replace(measured, cardiothoracic_ratio=float("nan"))).heart_size is None
