"""Whole patients, by seed, in a file that is checked when it is used again."""

import json

import pytest

from diffct.data.splits import (
    Split,
    check_patients_apart,
    check_split,
    load_split,
    make_split,
    save_split,
)


def patients(number: int, scans_each: int = 1) -> dict[str, str]:
    return {f"p{p:03d}/s{s}.nii": f"p{p:03d}" for p in range(number) for s in range(scans_each)}


@pytest.mark.parametrize(
    ("number", "fraction", "held_out"),
    [(28, 0.2, 5), (2, 0.2, 1), (5, 0.2, 1), (10, 0.3, 3), (100, 0.29, 29), (3, 0.9, 2)],
)
def test_fraction_is_rounded_down_to_whole_patients(number, fraction, held_out):
    split = make_split(patients(number), validation_fraction=fraction, seed=0)
    assert (len(split.train), len(split.validation)) == (number - held_out, held_out)


def test_patients_are_never_divided():
    cohort = patients(10, scans_each=3)
    split = make_split(cohort, validation_fraction=0.3, seed=1)
    assert len(split.validation) == 9
    assert not {cohort[k] for k in split.train} & {cohort[k] for k in split.validation}
    assert sorted(split.train + split.validation) == sorted(cohort)
    check_patients_apart(split, cohort)


def test_split_depends_on_the_seed_and_not_on_the_order_of_the_scans():
    cohort = patients(20)
    split = make_split(cohort, validation_fraction=0.2, seed=3)
    assert split == make_split(dict(reversed(cohort.items())), validation_fraction=0.2, seed=3)
    others = [make_split(cohort, validation_fraction=0.2, seed=s) for s in range(4, 10)]
    assert any(other.validation != split.validation for other in others)


def test_too_few_patients_are_refused():
    with pytest.raises(ValueError, match=r"3 scan\(s\) are of 1 patient"):
        make_split(patients(1, scans_each=3), validation_fraction=0.2, seed=0)
    with pytest.raises(ValueError, match="0 patient"):
        make_split({}, validation_fraction=0.2, seed=0)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan")])
def test_fraction_outside_of_zero_to_one_is_refused(fraction):
    with pytest.raises(ValueError, match="validation_fraction is"):
        make_split(patients(5), validation_fraction=fraction, seed=0)


def test_fraction_of_nearly_one_must_leave_someone_to_train_on():
    with pytest.raises(ValueError, match="nobody to train on"):
        make_split(patients(5), validation_fraction=1 - 1e-12, seed=0)


def test_saved_split_loads_the_same(tmp_path):
    split = make_split({"ä ö/1.nii": "a", "b/2.nii": "b"}, validation_fraction=0.5, seed=7)
    save_split(split, tmp_path / "new" / "split.json")
    assert load_split(tmp_path / "new" / "split.json") == split
    save_split(split, tmp_path / "new" / "split.json")
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["split.json"]


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
        load_split(tmp_path / "split.json")


def test_missing_split_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"split\.json"):
        load_split(tmp_path / "split.json")


def test_split_that_does_not_fit_names_at_most_five_scans():
    cohort = patients(10)
    split = make_split(cohort, validation_fraction=0.2, seed=0)
    check_split(split, cohort)
    with pytest.raises(ValueError, match=r"missing in the folder: p009/s0\.nii\."):
        check_split(split, list(cohort)[:9])
    with pytest.raises(ValueError, match=r"not in the split: p010/s0\.nii, p011/s0\.nii\. "):
        check_split(split, patients(12))
    with pytest.raises(ValueError, match=r"p004/s0\.nii and 4 more") as caught:
        check_split(split, list(cohort)[9:])
    assert str(caught.value).count(".nii") == 5


def test_patient_on_both_sides_is_noticed():
    split = Split(train=["a1", "b1"], validation=["a2"], seed=0)
    with pytest.raises(ValueError, match="trained on: a2"):
        check_patients_apart(split, {"a1": "a", "b1": "b", "a2": "a"})
