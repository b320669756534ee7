"""Splits by patient and seed, and those of earlier runs, which are checked when used again."""

import json

import pytest

from diffct.data.manifest import ManifestRow, write_manifest
from diffct.data.splits import (
    check_patients_apart,
    check_split,
    deal_split,
    draw_splits,
    read_split,
)


def scans(number: int, scans_each: int = 1) -> dict[str, str]:
    """Name the patient of each scan."""
    return {f"p{p:03d}/s{s}.nii": f"p{p:03d}" for p in range(number) for s in range(scans_each)}


def hold_out(patients: dict[str, str], fraction: float, seed: int) -> dict[str, str]:
    """Divide scans as a run on a folder does."""
    drawn = draw_splits(patients.values(), seed=seed, validation=fraction, test=0, rounding="down")
    return {key: drawn[name] for key, name in patients.items()}


def of(split: dict[str, str], side: str) -> list[str]:
    return sorted(key for key, name in split.items() if name == side)


@pytest.mark.parametrize(
    ("number", "fraction", "held_out"),
    [(28, 0.2, 5), (2, 0.2, 1), (5, 0.2, 1), (10, 0.3, 3), (100, 0.29, 29), (3, 0.9, 2)],
)
def test_fraction_is_rounded_down_to_whole_patients(number, fraction, held_out):
    split = hold_out(scans(number), fraction, seed=0)
    assert (len(of(split, "train")), len(of(split, "validation"))) == (number - held_out, held_out)


@pytest.mark.parametrize(
    ("number", "held_out"), [(1, 0), (2, 0), (3, 1), (14, 1), (15, 2), (25, 2), (26, 3), (100, 10)]
)
def test_prepared_data_hold_out_the_nearest_tenth_twice(number, held_out):
    split = draw_splits(scans(number).values(), seed=0)
    sizes = [len(of(split, side)) for side in ("train", "validation", "test")]
    assert sizes == [number - 2 * held_out, held_out, held_out]


def test_what_is_drawn_for_a_seed_never_changes():
    split = draw_splits((f"p{n}" for n in range(30)), seed=1)
    assert of(split, "validation") == ["p15", "p23", "p28"]
    assert of(split, "test") == ["p1", "p11", "p8"]
    names = {f"pelvis_{n:04d}.nii.gz": f"pelvis_{n:04d}.nii.gz" for n in range(28)}
    held_out = [int(key[7:11]) for key in of(hold_out(names, 0.2, seed=0), "validation")]
    assert held_out == [4, 10, 11, 19, 27]


def test_phantoms_keep_their_splits_when_the_cohort_grows():
    dealt = [deal_split(index) for index in range(20)]
    assert dealt == (["train"] * 8 + ["validation", "test"]) * 2


def test_patients_are_never_divided():
    cohort = scans(10, scans_each=3)
    split = hold_out(cohort, 0.3, seed=1)
    assert len(of(split, "validation")) == 9
    assert not {cohort[k] for k in of(split, "train")} & {
        cohort[k] for k in of(split, "validation")
    }
    assert sorted(split) == sorted(cohort)
    check_patients_apart(split, cohort)


def test_split_depends_on_the_seed_and_not_on_the_order_of_the_scans():
    cohort = scans(20)
    split = hold_out(cohort, 0.2, seed=3)
    assert split == hold_out(dict(reversed(cohort.items())), 0.2, seed=3)
    others = [hold_out(cohort, 0.2, seed=s) for s in range(4, 10)]
    assert any(of(other, "validation") != of(split, "validation") for other in others)


def test_too_few_patients_are_all_trained_on():
    assert set(hold_out(scans(1, scans_each=3), 0.2, seed=0).values()) == {"train"}
    assert draw_splits([], seed=0) == {}


@pytest.mark.parametrize("fraction", [1, -0.1, 1.5, float("nan")])
def test_fraction_outside_of_zero_to_one_is_refused(fraction):
    for shares in ({"validation": fraction}, {"test": fraction}):
        with pytest.raises(ValueError, match=f"share for {next(iter(shares))} is"):
            draw_splits(scans(5).values(), seed=0, **shares)


def test_fraction_of_nearly_one_must_leave_someone_to_train_on():
    with pytest.raises(ValueError, match=r"leave none of 5 patients"):
        hold_out(scans(5), 1 - 1e-12, seed=0)
    with pytest.raises(ValueError, match=r"leave none of 4 patients"):
        draw_splits(scans(4).values(), seed=0, validation=0.5, test=0.5)


def test_saved_split_loads_the_same(tmp_path):
    split = {"ä ö/1.nii": "train", "b/2 \udcff.nii": "validation"}
    rows = [ManifestRow(key, patient=key, split=side) for key, side in split.items()]
    write_manifest(rows, tmp_path / "new" / "scans.jsonl")
    assert read_split(tmp_path / "new" / "scans.jsonl") == split


def test_the_split_of_a_run_without_a_manifest_is_read(tmp_path):
    sides = {"train": ["ä ö/1.nii"], "validation": ["b/2.nii"], "seed": 7}
    (tmp_path / "split.json").write_text(json.dumps(sides))
    expected = {"ä ö/1.nii": "train", "b/2.nii": "validation"}
    assert read_split(tmp_path / "split.json") == expected


BAD = {
    "no JSON": "train: a",
    "a list": "[1, 2]",
    "a key too few": json.dumps({"train": ["a"], "seed": 1}),
    "a key too many": json.dumps({"train": ["a"], "validation": ["b"], "seed": 1, "test": []}),
    "empty side": json.dumps({"train": ["a"], "validation": [], "seed": 1}),
    "a string": json.dumps({"train": "a", "validation": ["b"], "seed": 1}),
    "numbers": json.dumps({"train": [1], "validation": ["b"], "seed": 1}),
    "twice": json.dumps({"train": ["a", "b"], "validation": ["b"], "seed": 1}),
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_broken_split_file_is_refused_by_name(tmp_path, text):
    (tmp_path / "split.json").write_text(text)
    with pytest.raises(ValueError, match=r"split\.json: "):
        read_split(tmp_path / "split.json")


def test_missing_split_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"split\.json"):
        read_split(tmp_path / "split.json")


def test_split_that_does_not_fit_names_at_most_five_scans():
    cohort = scans(10)
    split = hold_out(cohort, 0.2, seed=0)
    check_split(split, cohort)
    with pytest.raises(ValueError, match=r"missing in the folder: p009/s0\.nii\."):
        check_split(split, list(cohort)[:9])
    with pytest.raises(ValueError, match=r"not in the split: p010/s0\.nii, p011/s0\.nii\. "):
        check_split(split, scans(12))
    with pytest.raises(ValueError, match=r"p004/s0\.nii and 4 more") as caught:
        check_split(split, list(cohort)[9:])
    assert str(caught.value).count(".nii") == 5


def test_patient_on_both_sides_is_noticed():
    split = {"a1": "train", "b1": "train", "a2": "validation"}
    with pytest.raises(ValueError, match="trained on: a2"):
        check_patients_apart(split, {"a1": "a", "b1": "b", "a2": "a"})
