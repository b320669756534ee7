"""The same scan under two names is one patient, and doubtful cohorts are explained."""

from dataclasses import replace
from pathlib import Path

import nibabel
import nrrd
import numpy as np
import pytest

from diffct.imaging.copies import hash_voxels
from diffct.imaging.transforms import clip_window
from diffct.imaging.volume import Volume, read_volume, write_volume
from tests.data.test_volumes import (
    AFFINE,
    PLAIN,
    keys,
    patients,
    prepare,
    scan,
    write_dicom_series,
    write_split,
)

WINDOW = (-1000.0, 1000.0)


def hashed(array: np.ndarray) -> str:
    return hash_voxels(clip_window(Volume(array, np.eye(4)), WINDOW), WINDOW[0])


def write_series_with_conversions(scans: Path) -> None:
    """Three DICOM series of one patient each, and a conversion of each in another folder."""
    for seed in range(3):
        write_dicom_series(scans / f"raw [{seed}]", f"P{seed}", seed)
        write_volume(read_volume(scans / f"raw [{seed}]"), scans / "nifti out" / f"{seed}.nii.gz")


@pytest.mark.parametrize("seed", range(4))
def test_a_series_and_its_conversion_are_one_patient_read_once(tmp_path, seed):
    write_series_with_conversions(tmp_path / "scans")
    cohort = prepare(tmp_path, replace(PLAIN, validation_fraction=0.4), seed=seed)
    assert sorted(keys(cohort, "train", "validation")) == [f"raw [{n}]" for n in range(3)]
    assert len(set(patients(cohort).values())) == 3
    (note,) = cohort.notes
    assert "3 × copy, the same voxels under another name" in note
    assert "nifti out/0.nii.gz (= raw [0])" in note


def test_notes_are_said_beside_the_progress_bar(tmp_path, capsys):
    write_series_with_conversions(tmp_path / "scans")
    prepare(tmp_path, show_progress=False)
    assert capsys.readouterr().out == ""
    prepare(tmp_path, show_progress=True)
    assert capsys.readouterr().out.count("3 × copy") == 1


def test_copies_differ_as_converters_make_them_differ():
    original = scan(0).array
    expected = hashed(original)
    padded = np.pad(np.where(original < -1000, -2048, original), ((0, 3), (1, 0), (2, 2)))
    padded[-3:], padded[:, :1], padded[..., :2], padded[..., -2:] = (-3024,) * 4
    copies = {
        "floating point": original.astype(np.float64) + 1e-3,
        "mirrored": original[::-1, :, ::-1],
        "axes in another order": original.transpose(2, 0, 1),
        "padded": padded,
        "all of it": padded[:, ::-1].transpose(1, 2, 0),
    }
    assert {name: hashed(copy) for name, copy in copies.items()} == dict.fromkeys(copies, expected)
    changed = original.copy()
    changed[5, 10, 12] = 0 if changed[5, 10, 12] else 1
    shuffled = original.copy()
    shuffled[:, 3:5] = shuffled[:, 4:2:-1]
    others = [changed, shuffled, original[1:], scan(1).array, np.full_like(original, -1000)]
    assert len({expected, *map(hashed, others)}) == 6


def test_a_copy_in_another_format_and_orientation_is_found_in_a_folder(tmp_path):
    for seed in range(3):
        write_volume(scan(seed), tmp_path / "scans" / f"{seed}.nii")
    stored = scan(1).array[:, ::-1].transpose(2, 1, 0).astype(np.float64)
    nibabel.save(nibabel.Nifti1Image(stored, np.eye(4)), tmp_path / "scans" / "lost.nii.gz")
    header = {
        "space": "left-posterior-superior",
        "space directions": np.diag([2.0, 2.0, 4.0]),
        "space origin": [0.0, 0.0, 0.0],
    }
    nrrd.write(
        str(tmp_path / "scans" / "two.nrrd"), scan(2).array.transpose(2, 1, 0).astype("<i2"), header
    )
    cohort = prepare(tmp_path)
    assert len(keys(cohort, "train", "validation")) == 3
    assert len(set(patients(cohort).values())) == 3
    (note,) = [note for note in cohort.notes if "another spacing" in note]
    assert note.startswith("1 × copy") and "1.nii (4x2x2 mm) and lost.nii.gz (1x1x1 mm)" in note


def test_patients_who_share_a_scan_are_one_with_all_their_scans(tmp_path):
    for name, patient, seed in (
        ("a1", "A", 0),
        ("a2", "A", 1),
        ("b1", "B", 1),  # anonymised twice
        ("b2", "B", 2),
        ("c1", "C", 3),
        ("d1", "D", 4),
    ):
        write_dicom_series(tmp_path / "scans" / name, patient, seed)
    for seed in range(4):
        cohort = prepare(tmp_path, replace(PLAIN, validation_fraction=0.4), seed=seed)
        assert len(set(patients(cohort).values())) == 3
        sides = [{*keys(cohort, "train")}, {*keys(cohort, "validation")}]
        assert any({"a1", "a2", "b2"} <= side for side in sides) and "b1" not in sides[0] | sides[1]


def test_a_conversion_named_like_its_series_does_not_hide_its_patient(tmp_path):
    for name, patient, seed in (("s0", "A", 0), ("s1", "A", 1), ("s2", "B", 2), ("s3", "C", 3)):
        write_dicom_series(tmp_path / "scans" / name, patient, seed)
        write_volume(scan(seed), tmp_path / "scans" / f"{name}.nii.gz")
    cohort = prepare(tmp_path)
    assert patients(cohort)["s0"] == patients(cohort)["s1"]
    assert len(set(patients(cohort).values())) == 3


def test_copies_are_known_without_reading_again(tmp_path):
    write_series_with_conversions(tmp_path / "scans")
    first = prepare(tmp_path)
    times = {file: file.stat().st_mtime_ns for file in (tmp_path / "cache").iterdir()}
    assert prepare(tmp_path).manifest == first.manifest
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "cache").iterdir()} == times


def test_an_earlier_split_chooses_among_copies(tmp_path):
    write_series_with_conversions(tmp_path / "scans")
    converted = [f"nifti out/{n}.nii.gz" for n in range(3)]

    def again(train: list[str], validation: list[str]) -> list[str]:
        """Return the scans that are trained on."""
        file = write_split(tmp_path / "split.json", train, validation)
        return keys(prepare(tmp_path, replace(PLAIN, split_file=file)), "train")

    assert again(converted[:2], converted[2:]) == converted[:2]
    both = [*converted[:2], "raw [0]"]  # as divided before copies were told
    assert again(both, converted[2:]) == both
    with pytest.raises(ValueError, match=r"trained on: raw \[0\]\. Make a new split"):
        again(converted, ["raw [0]"])
    with pytest.raises(ValueError, match=r"not in the split: raw \[1\]"):
        again(converted[:1], converted[2:])
    with pytest.raises(ValueError, match=r"missing in the folder: gone\.nii"):
        again(converted[:2], ["gone.nii"])


def test_a_cohort_of_one_patient_says_why(tmp_path):
    scans = tmp_path / "scans"
    write_volume(scan(0), scans / "a.nii")
    with pytest.raises(ValueError, match=r"scans: holds 1 scan, .* Add scans of other patients"):
        prepare(tmp_path)
    write_volume(scan(0), scans / "b.nii")
    with pytest.raises(ValueError, match=r"same voxels under two names.*b\.nii \(= a\.nii\)"):
        prepare(tmp_path)
    write_volume(scan(1), scans / "c.nii")
    prepare(tmp_path)
    with pytest.raises(ValueError, match=r"'\(nii\)' finds the same patient in 3 paths"):
        prepare(tmp_path, replace(PLAIN, patient_pattern="(nii)"))


def test_a_word_for_a_missing_value_is_not_a_patient_id(tmp_path):
    for seed in range(3):
        write_dicom_series(tmp_path / "scans" / f"s{seed}", "N/A", seed)
    assert len(set(patients(prepare(tmp_path)).values())) == 3


def test_one_patient_id_for_all_is_named_and_the_way_out_works(tmp_path):
    for seed in range(3):
        write_dicom_series(tmp_path / "scans" / f"s{seed}" / "CT", "ANON", seed)
    with pytest.raises(ValueError, match="its 3 scans all have the same PatientID") as caught:
        prepare(tmp_path)
    assert "ANON" not in str(caught.value) and not (tmp_path / "cache").exists()
    pattern = str(caught.value).split("data.patient_pattern=")[1].split('"')[0]
    cohort = prepare(tmp_path, replace(PLAIN, patient_pattern=pattern))
    assert len(set(patients(cohort).values())) == 3 and cohort.notes == ()
    write_dicom_series(tmp_path / "scans" / "s3" / "CT", "OTHER", 3)
    (note,) = prepare(tmp_path).notes
    assert note.startswith("3 of 4 scans have the same PatientID") and "patient_pattern" in note


def write_masked_cohort(folder: Path) -> None:
    for seed in range(3):
        write_volume(scan(seed), folder / f"s{seed}" / "ct.nii.gz")
        write_volume(scan(seed + 9), folder / f"s{seed}" / "pet.nii.gz")
        mask = Volume((scan(seed).array > 0).astype(np.uint8), AFFINE, "labels")
        mask.array[:, :12] = 1
        write_volume(mask, folder / f"s{seed}" / "segmentations" / "liver.nii.gz")


@pytest.mark.parametrize("choice", [{"include": ["ct.nii.gz"]}, {"exclude": ["s?/pet*"]}])
def test_masks_and_chosen_files_are_left_out_and_said_so(tmp_path, choice):
    write_masked_cohort(tmp_path / "scans")
    cohort = prepare(tmp_path, replace(PLAIN, **choice))
    found = sorted(keys(cohort, "train", "validation"))
    assert found == [f"s{seed}/ct.nii.gz" for seed in range(3)]
    said = "\n".join(cohort.notes)
    assert "s0/pet.nii.gz" in said and "s0/segmentations/liver.nii.gz" in said
    assert ("label map" in said) == ("exclude" in choice)


@pytest.mark.parametrize("fit", ["crop", "resize"])
def test_the_pipeline_gets_the_training_scans_spacing_and_others_are_named(tmp_path, fit):
    for seed in range(5):
        write_volume(scan(seed), tmp_path / "scans" / f"{seed}.nii")
    thick = Volume(scan(7).array, AFFINE @ np.diag([4.0, 1, 1, 1]))
    for name in ("far 1.nii", "far 2.nii", "far 3.nii", "far 4.nii"):
        write_volume(Volume(thick.array + len(name), thick.affine), tmp_path / "scans" / name)
        thick.array[0, 0, 0] += 1
    train = [f"{seed}.nii" for seed in range(5)]
    held_out = [f"far {n}.nii" for n in range(1, 5)]
    earlier = write_split(tmp_path / "split.json", train, held_out)
    config = replace(PLAIN, fit=fit, split_file=earlier)
    cohort = prepare(tmp_path, config)
    scale = np.divide((10, 20, 24), (8, 16, 16)) if fit == "resize" else 1
    expected = np.multiply((4.0, 2.0, 2.0), scale)
    assert cohort.describe()["median_spacing_mm"] == pytest.approx(expected.tolist())
    (note,) = cohort.notes
    assert note.startswith("4 of 9 scans have a spacing more than 1.5 times above or below")
    assert "far 1.nii (" in note and "..." in note and " 0.nii" not in note


def test_similar_spacings_pass_without_a_word(tmp_path):
    for seed, depth in enumerate((0.8, 1.0, 1.3)):
        volume = Volume(scan(seed).array, AFFINE @ np.diag([depth, 1, 1, 1]))
        write_volume(volume, tmp_path / "scans" / f"{seed}.nii")
    assert prepare(tmp_path).notes == ()


def test_scans_without_anything_to_see_once_prepared_are_refused(tmp_path):
    ring = Volume(np.full((10, 20, 24), -1000, np.float32), AFFINE)
    ring.array[:, :2] = np.random.default_rng(0).integers(0, 200, (10, 2, 24))
    bone = Volume(scan(1).array.clip(-900, -200), AFFINE)
    for name, volume in (("ring", ring), ("fat", bone), ("0", scan(0)), ("1", scan(1))):
        write_volume(volume, tmp_path / "scans" / f"{name}.nii")
    with pytest.raises(ValueError, match="2 of 4 scans cannot be used") as caught:
        prepare(tmp_path, replace(PLAIN, window_hu=[-160, 240]))
    fat, ring = str(caught.value).split("\n- ")[1:]
    assert "fat.nii: shows nothing after" in fat and "window_hu=[-160, 240]" in fat
    assert "ring.nii: shows nothing after" in ring and "data.size=[8, 16, 16]" in ring
    config = replace(PLAIN, window_hu=[-160, 240], exclude=["fat.nii"], random_crop=True)
    assert prepare(tmp_path, config).describe()["train_scans"] == 2  # some boxes hold the ring
