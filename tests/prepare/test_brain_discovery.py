"""Pairs of brain scans found in BIDS, in BraTS and by patterns."""

import re
import shutil

import pytest

from diffct.prepare.brain.discovery import find_bids, find_brats, find_by_patterns
from tests.prepare import brain_trees


def test_pairs_of_a_bids_tree_are_those_of_one_visit_and_run(bids):
    pairs = [pair for pair in find_bids(bids[0]).pairs if pair.dropped is None]
    told = {
        (pair.subject, pair.session, pair.scan): tuple(
            "" if path is None else path.name
            for path in (pair.target, pair.conditions["FLAIR"], pair.segmentation)
        )
        for pair in pairs
    }
    assert told[("01", "a", "")] == ("sub-01_ses-a_T1w.nii.gz", "sub-01_ses-a_FLAIR.nii", "")
    assert told[("01", "b", "")] == ("sub-01_ses-b_T1w.nii.gz", "sub-01_ses-b_FLAIR.nii", "")
    run = ("sub-09_run-2_T1w.nii.gz", "sub-09_acq-3d_run-2_FLAIR.nii.gz", "")
    assert told[("09", "", "run-2")] == run
    labels = "sub-11_acq-mprage_dseg.nii.gz"
    entities = ("sub-11_acq-mprage_T1w.nii.gz", "sub-11_acq-3d_FLAIR.nii.gz", labels)
    assert told[("11", "", "")] == entities
    assert len({pair.key for pair in pairs}) == len(pairs)
    assert all(re.fullmatch("[0-9a-f]{16}", pair.key) for pair in pairs)


@pytest.mark.parametrize(
    ("targets", "flairs", "expected"),
    [
        (["run-1", "run-2"], ["run-1"], ["FLAIR missing", None]),
        (["acq-a", "acq-b"], ["acq-b", "acq-a"], [None, None]),
        ([""], ["", "acq-b"], [None]),
        ([""], ["acq-a", "acq-b"], ["not clear"]),
        (["run-1", "run-1_rec-norm"], ["run-1"], [None, "FLAIR missing"]),
        (["run-1"], ["run-2"], [None]),
        ([], ["run-1", "run-2"], ["T1w missing"]),
    ],
)
def test_images_of_one_visit_are_paired_by_their_entities(tmp_path, targets, flairs, expected):
    for contrast, names in (("T1w", targets), ("FLAIR", flairs)):
        for entities in names:
            name = "_".join(filter(None, ("sub-1", entities, contrast)))
            path = tmp_path / "sub-1" / "anat" / f"{name}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    found = [pair.dropped for pair in find_bids(tmp_path).pairs]
    shortened = [why and ("not clear" if "not clear" in why else why) for why in found]
    assert sorted(shortened, key=str) == sorted(expected, key=str)


def test_pairs_of_brats_are_found_under_both_naming_schemes(tmp_path):
    brain_trees.write_brats(tmp_path)
    (tmp_path / "2021" / "._BraTS2021_00000_t1.nii.gz").touch()
    found = find_brats(tmp_path, ["FLAIR", "T2w"])
    told = {(pair.subject, pair.session): pair for pair in found.pairs}
    old, visits = ["BraTS2021_00000", "BraTS2021_00002", "BraTS2021_00003"], ["000", "001"]
    assert list(told) == [*(("BraTS-GLI-00005", v) for v in visits), *((case, "") for case in old)]
    lacking = told[("BraTS2021_00003", "")]
    assert lacking.conditions["FLAIR"] is None and lacking.dropped is None
    assert lacking.segmentation.name == "BraTS2021_00003_seg.nii.gz"
    newer = told[("BraTS-GLI-00005", "001")]
    assert newer.target.name == "BraTS-GLI-00005-001-t1n.nii.gz"
    assert newer.conditions["FLAIR"].name == "BraTS-GLI-00005-001-t2f.nii.gz"
    assert "FLAIR missing" in {pair.dropped for pair in find_brats(tmp_path).pairs}
    shutil.copytree(tmp_path / "2023", tmp_path / "copy")
    assert find_brats(tmp_path).pairs[0].dropped == "several T1w of one visit"
    with pytest.raises(ValueError, match="BraTS has no 'PDw'; its conditions are FLAIR, T1ce, T2w"):
        find_brats(tmp_path, ["PDw"])


def test_existing_folders_are_not_read_as_wildcards(tmp_path, monkeypatch):
    monkeypatch.setenv("SCANS", str(tmp_path / "scans [2024] (1)?"))
    for subject in ("s 1", "s[2]"):
        for name in ("T1", "FLAIR"):
            path = tmp_path / "scans [2024] (1)?" / subject / f"{name}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    target = f"{tmp_path}/scans [2024] (1)?//s*/T1.nii.gz"
    found = find_by_patterns(target, {"FLAIR": "$SCANS/s*/FLAIR.nii.gz"})
    assert [(pair.subject, pair.dropped) for pair in found.pairs] == [(" 1", None), ("[2]", None)]
    for none in (".", "/", str(tmp_path / "T1.nii.gz")):
        with pytest.raises(ValueError, match="no wildcard"):
            find_by_patterns(none, {"FLAIR": none})


def test_files_are_paired_by_what_their_wildcards_match(tmp_path):
    for subject, visit in (("Doe", "1"), ("Doe", "2"), ("Roe", "1")):
        for name in ("T1", "FLAIR"):
            path = tmp_path / subject / f"visit{visit}" / f"{name}_{visit}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    (tmp_path / "Roe" / "visit1" / "FLAIR_1.nii.gz").unlink()
    target, flair = (f"{tmp_path}/*/visit[0-9]/{name}_?.nii.gz" for name in ("T1", "FLAIR"))
    found = find_by_patterns(target, {"FLAIR": flair})
    told = [(pair.subject, pair.session, pair.dropped) for pair in found.pairs]
    assert told == [("Doe", "1/1", None), ("Doe", "2/2", None), ("Roe", "1/1", "FLAIR missing")]
    assert found.pairs[1].conditions["FLAIR"].parent == found.pairs[1].target.parent


@pytest.mark.parametrize(
    ("target", "flair", "message"),
    [
        ("*/T1.nii", "*/*/FLAIR.nii", r"FLAIR has 2 wildcard\(s\) and that of the target 1"),
        ("T1.nii", "FLAIR.nii", "has no wildcard"),
        ("**/T1.nii", "**/FLAIR.nii", r"\*\* is not accepted"),
        ("*/T2.nii", "*/FLAIR.nii", "there is no such file"),
        ("*/T1.nii", "*/T1.nii", "by the patterns of both T1w and FLAIR"),
    ],
)
def test_wrong_patterns_are_named(tmp_path, target, flair, message):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "T1.nii").touch()
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        find_by_patterns(f"{tmp_path}/{target}", {"FLAIR": f"{tmp_path}/{flair}"})
