"""Synthetic brains obey physics and are the same subject at every spacing."""

import json

import numpy as np
import pytest

from diffct.imaging.volume import read_volume
from diffct.phantoms.brain.anatomy import FLUID, GRAY, LESION, WHITE, RandomField
from diffct.phantoms.brain.cohort import draw_brain, write_brain_cohort
from diffct.phantoms.brain.signal import PROTON_DENSITY, SEQUENCES, T1_S, T2_S
from diffct.phantoms.brain.template import find_template


@pytest.fixture(scope="module")
def brain():
    return draw_brain((0, 1), spacing_mm=3.0, contrasts=("T1w", "FLAIR", "T2w"), lesions=12)


def signals_of(brain, contrast, tissues=range(4)):
    """Usual intensity of each tissue."""
    image, labels = brain.images[contrast].array, brain.tissues.array
    # Most of the cortex shares its voxels with fluid or white matter.
    share = {GRAY: 75}
    return [float(np.percentile(image[labels == t + 1], share.get(t, 50))) for t in tissues]


def test_contrasts_are_those_of_the_sequences(brain):
    t1w, flair, t2w = (signals_of(brain, name) for name in ("T1w", "FLAIR", "T2w"))
    assert t1w[WHITE] > t1w[GRAY] > t1w[FLUID]
    assert flair[LESION] > flair[GRAY] > flair[WHITE] > flair[FLUID]
    assert t2w[FLUID] > t2w[LESION] > t2w[WHITE] < t2w[GRAY]
    assert t1w[LESION] < 0.75 * t1w[WHITE]


def test_inversion_nulls_fluid_on_flair():
    signals = PROTON_DENSITY * SEQUENCES["FLAIR"].signals(T1_S, T2_S)
    assert signals[FLUID] < 0.15 * signals[WHITE]
    # By hand: PD·|1 − 2·exp(−TI/T1) + exp(−TR/T1)|·exp(−TE/T2) of white matter.
    assert signals[WHITE] == pytest.approx(
        0.70 * (1 - 2 * np.exp(-2.5 / 0.83) + np.exp(-9 / 0.83)) * np.exp(-0.12 / 0.074)
    )


def test_brain_is_registered_and_of_human_size(brain):
    affines = [volume.affine for volume in (*brain.images.values(), brain.tissues)]
    assert all(np.array_equal(affine, affines[0]) for affine in affines)
    litres = np.count_nonzero(brain.tissues.array) * 27e-6
    assert 1.1 < litres < 2.0
    outside = brain.tissues.array == 0
    assert all((volume.array[outside] == 0).all() for volume in brain.images.values())


def test_subject_is_the_same_at_another_spacing(brain):
    finer = draw_brain((0, 1), spacing_mm=1.5, lesions=12)
    coarse, fine = brain.tissues.array, finer.tissues.array
    volumes = [
        np.bincount(a.ravel(), minlength=5)[1:4] * mm**3 for a, mm in ((coarse, 3), (fine, 1.5))
    ]
    np.testing.assert_allclose(volumes[0], volumes[1], rtol=0.25)
    nearest = fine[::2, ::2, ::2][: coarse.shape[0], : coarse.shape[1], : coarse.shape[2]]
    cut = coarse[tuple(slice(n) for n in nearest.shape)]
    assert ((nearest > 0) == (cut > 0)).mean() > 0.97


def test_subjects_differ_and_seeds_repeat(brain):
    again = draw_brain((0, 1), spacing_mm=3.0, contrasts=("T1w", "FLAIR", "T2w"), lesions=12)
    np.testing.assert_array_equal(again.images["FLAIR"].array, brain.images["FLAIR"].array)
    other = draw_brain((0, 2), spacing_mm=3.0)
    assert (other.tissues.array != brain.tissues.array).mean() > 0.05


def test_field_has_unit_variance_and_its_distance_is_in_millimetres():
    axes = [np.arange(0, 120, 2.0)] * 3
    field = RandomField(np.random.default_rng(0), (20, 30))
    assert field.value(axes).std() == pytest.approx(1, abs=0.1)
    # A step across the zero surface is as long as the distances on both sides together.
    value, distance = field.value(axes), field.distance_from_zero(axes)
    crossed = np.sign(value[1:]) != np.sign(value[:-1])
    assert np.median((distance[1:] + distance[:-1])[crossed]) < 2.1


def test_impossible_brains_are_refused():
    with pytest.raises(ValueError, match="contrasts"):
        draw_brain((0, 0), contrasts=("PDw",))
    with pytest.raises(ValueError, match=r"0\.5 to 4 mm"):
        draw_brain((0, 0), spacing_mm=0.1)


def test_cohort_is_a_bids_data_set_that_says_it_is_synthetic(tmp_path):
    folder = write_brain_cohort(
        tmp_path / "tree", number=2, seed=3, spacing_mm=4.0, workers=1, show_progress=False
    )
    assert json.loads((folder / "dataset_description.json").read_text())["Synthetic"] is True
    flair = read_volume(folder / "sub-0001" / "anat" / "sub-0001_FLAIR.nii.gz")
    drawn = draw_brain((3, 1), spacing_mm=4.0).images["FLAIR"]
    np.testing.assert_allclose(flair.array, drawn.array, atol=0.51)
    np.testing.assert_allclose(flair.affine, drawn.affine, atol=1e-4)
    before = (folder / "cohort.json").stat().st_mtime_ns
    write_brain_cohort(folder, number=2, seed=3, spacing_mm=4.0, show_progress=False)
    assert (folder / "cohort.json").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="anatomy"):
        write_brain_cohort(tmp_path / "x", number=2, seed=3, anatomy="real")


def test_template_is_bent_into_brains():
    try:
        find_template("gm")
    except FileNotFoundError as error:
        pytest.skip(str(error))
    one, other = (draw_brain((0, i), anatomy="mni152", spacing_mm=3.0, lesions=0) for i in (0, 1))
    t1w = signals_of(one, "T1w", tissues=range(3))
    assert t1w[WHITE] > t1w[GRAY] > t1w[FLUID]
    assert 1.4 < np.count_nonzero(one.tissues.array) * 27e-6 < 2.1
    differing = (one.tissues.array != other.tissues.array).mean()
    assert 0.03 < differing < 0.4
