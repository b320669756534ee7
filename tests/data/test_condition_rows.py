"""The facts of a brain's slice, read from a manifest."""

import copy

import numpy as np
import pytest

from diffct.data.condition_rows import BrainSlice, ConditionImage
from diffct.data.manifest import ManifestRow, read_manifest, write_manifest
from diffct.imaging.intensity import IntensityRange

FACTS = {
    "plane": "axial",
    "slice_index": 41,
    "affine": np.diag([1.5, 2.0, 2.5, 1.0]).tolist(),
    "volume_size": [182, 218, 160],
    "volume_affine": np.eye(4).tolist(),
    "intensity_range": [-3.5, 812.0],
    "conditions": {"FLAIR": {"image": "images/a-FLAIR.png", "intensity_range": [0, 540.0]}},
    "labels": "images/a-labels.png",
}


def row(facts: dict) -> ManifestRow:
    return ManifestRow("images/a-T1w.png", "p", "train", facts=facts)


def test_facts_are_read_back_unchanged_from_the_manifest(tmp_path):
    write_manifest([row(FACTS)], tmp_path / "manifest.jsonl")
    (read,) = read_manifest(tmp_path, check_files=False).rows
    found = BrainSlice.from_row(read)
    assert (found.plane, found.slice_index, found.volume_size) == ("axial", 41, (182, 218, 160))
    assert found.affine.dtype == found.volume_affine.dtype == np.float64
    np.testing.assert_array_equal(found.affine, FACTS["affine"])
    np.testing.assert_array_equal(found.volume_affine, np.eye(4))
    assert found.intensity_range == IntensityRange(-3.5, 812.0)
    condition = ConditionImage("images/a-FLAIR.png", IntensityRange(0.0, 540.0))
    assert found.conditions == {"FLAIR": condition}
    assert found.labels == "images/a-labels.png" and not found.synthetic


def test_labels_may_be_absent_and_phantoms_are_marked():
    facts = {key: value for key, value in FACTS.items() if key != "labels"} | {"synthetic": True}
    found = BrainSlice.from_row(row(facts))
    assert found.labels is None and found.synthetic


@pytest.mark.parametrize("key", [key for key in FACTS if key != "labels"])
def test_a_missing_fact_is_named(key):
    facts = {name: value for name, value in FACTS.items() if name != key}
    with pytest.raises(ValueError, match=rf"images/a-T1w.png: its facts .* lack '{key}'"):
        BrainSlice.from_row(row(facts))


@pytest.mark.parametrize("key", ["image", "intensity_range"])
def test_a_missing_fact_of_a_condition_is_named(key):
    facts = copy.deepcopy(FACTS)
    del facts["conditions"]["FLAIR"][key]
    with pytest.raises(ValueError, match=rf"'conditions', 'FLAIR' lack '{key}'"):
        BrainSlice.from_row(row(facts))


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("plane", "oblique", "one of axial, coronal, sagittal"),
        ("slice_index", 182, "a whole number from 0 to 181"),
        ("slice_index", True, "a whole number"),
        ("slice_index", "41", "a whole number"),
        ("affine", [[1, 0], [0, 1]], r"finite numbers of shape \(4, 4\)"),
        ("affine", [[1, 0], [0]], r"numbers of shape \(4, 4\)"),
        ("volume_affine", "eye", r"numbers of shape \(4, 4\)"),
        ("volume_size", [182, 218], r"finite numbers of shape \(3,\)"),
        ("volume_size", [182, 218, 0.5], "three positive whole numbers"),
        ("intensity_range", [5, 5], "low before high"),
        ("intensity_range", [0, float("nan")], "finite numbers"),
        ("conditions", {}, "an object that is not empty"),
        ("conditions", {"FLAIR": "images/a-FLAIR.png"}, "an object that is not empty"),
        ("labels", 7, "the path of an image"),
    ],
)
def test_a_wrong_fact_is_named_with_what_it_must_be(key, value, wanted):
    with pytest.raises(ValueError, match=wanted):
        BrainSlice.from_row(row(FACTS | {key: value}))
