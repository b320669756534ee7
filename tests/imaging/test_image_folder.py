"""The search for the images of a folder."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from diffct.imaging.image_folder import find_images
from diffct.imaging.label_maps import is_label_array


def write_scan(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), path)


def write_picture(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture
def ct() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 100, (12, 10, 8)).astype(np.int16)


@pytest.fixture
def film() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (40, 30), dtype=np.uint8)


def named(found) -> list[str]:
    return [path.relative_to(found.folder).as_posix() for path in found.images]


def reasons(found) -> dict[str, str]:
    return {
        entry.path.relative_to(found.folder).as_posix(): entry.reason for entry in found.left_out
    }


def test_scans_are_distinguished_from_masks_previews_and_foreign_formats(tmp_path, ct, film):
    write_scan(tmp_path / "a b [1]/ct.nii.gz", ct)
    mask = np.zeros(ct.shape, np.int16)
    mask[4:8, 3:6, 5:] = 7
    write_scan(tmp_path / "a b [1]/segmentations/liver.nii.gz", mask)
    write_scan(tmp_path / "a b [1]/segmentations/absent.nii.gz", 0 * mask)
    write_scan(tmp_path / "a b [1]/float.nii", mask.astype(np.float32))
    write_picture(tmp_path / "a b [1]/ct.png", film)
    (tmp_path / "c.mgz").write_bytes(b"x")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "._ct.nii.gz").write_bytes(b"x")
    found = find_images(tmp_path)
    assert (found.kind, named(found)) == ("volumes", ["a b [1]/ct.nii.gz"])
    assert reasons(found) == {
        "a b [1]/segmentations/liver.nii.gz": "label map",
        "a b [1]/segmentations/absent.nii.gz": "label map",
        "a b [1]/float.nii": "label map",
        "a b [1]/ct.png": "picture, not a volume",
        "c.mgz": ".mgz scan, a format that is not read",
        "notes.txt": ".txt file",
        "._ct.nii.gz": "hidden file",
    }
    assert "left out: 3 × label map (a b [1]/float.nii, " in "\n".join(found.left_out_lines())


def test_pictures_are_counted_once_and_without_masks(tmp_path, film):
    mask = np.zeros(film.shape, np.uint8)
    mask[10:20, 5:20] = 255
    write_picture(tmp_path / "one.png", film)
    write_picture(tmp_path / "one.jpg", film)
    write_picture(tmp_path / "two.png", film)
    write_picture(tmp_path / "other/one.png", film)
    write_picture(tmp_path / "black.png", 0 * film)
    write_picture(tmp_path / "two_mask.png", mask)
    write_picture(tmp_path / "._two.png", film)
    write_picture(tmp_path / "contact-sheet.png", film)
    found = find_images(tmp_path)
    assert (found.kind, named(found)) == (
        "pictures",
        ["black.png", "one.png", "other/one.png", "two.png"],
    )
    assert set(reasons(found)) == {"one.jpg", "two_mask.png", "._two.png", "contact-sheet.png"}


def test_patterns_choose_files_by_any_part_of_their_path(tmp_path, ct):
    for name in ("s1/ct.nii.gz", "s1/pet.nii.gz", "s2/ct.nii.gz", "old/s3/ct.nii.gz"):
        write_scan(tmp_path / name, ct)
    found = find_images(tmp_path, include=["ct.nii.gz"], exclude=["old"])
    assert named(found) == ["s1/ct.nii.gz", "s2/ct.nii.gz"]
    assert named(find_images(tmp_path, exclude=["s?/pet*"])) == [
        "old/s3/ct.nii.gz",
        "s1/ct.nii.gz",
        "s2/ct.nii.gz",
    ]


def test_patterns_that_fit_nothing_are_named(tmp_path, ct):
    for name in ("images/one.nii", "images/two.nii"):
        write_scan(tmp_path / name, ct)
    found = find_images(tmp_path, include=["images"], exclude=["two*", "*/image", "imagse"])
    assert named(found) == ["images/one.nii"]
    assert found.left_out_lines()[1:] == [
        f"exclude has no effect: '*/image' fits no path in {tmp_path}",
        f"exclude has no effect: 'imagse' fits no path in {tmp_path}",
    ]
    with pytest.raises(ValueError, match=r"(?s)holds no scan.*\n- include has no effect: 'ct\*'"):
        find_images(tmp_path, kind="volumes", include=["ct*"])


def test_a_name_is_a_pattern_of_itself(tmp_path, ct):
    for name in ("a/scan [1].nii.gz", "a/scan 2.nii.gz", "b [old]/scan.nii.gz"):
        write_scan(tmp_path / name, ct)
    names = ["scan [1].nii.gz", "b [old]/"]
    assert named(find_images(tmp_path, exclude=names)) == ["a/scan 2.nii.gz"]
    chosen = find_images(tmp_path, include=names)
    assert named(chosen) == ["a/scan [1].nii.gz", "b [old]/scan.nii.gz"]


def test_a_folder_without_images_says_what_is_there(tmp_path, ct):
    write_scan(tmp_path / "mask.nii.gz", np.zeros_like(ct))
    with pytest.raises(ValueError, match=r"holds no scan.*\n- left out: 1 × label map \(mask"):
        find_images(tmp_path, kind="volumes")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        find_images(tmp_path / "gone")


def test_gray_values_are_not_labels(ct):
    rng = np.random.default_rng(0)
    assert not is_label_array(ct)
    assert not is_label_array(rng.integers(0, 255, (9, 9, 9)))
    assert not is_label_array(rng.random((9, 9, 9)))
    labels = np.kron(rng.integers(0, 90, (4, 4, 4)), np.ones((4, 4, 4), int))
    assert is_label_array(labels)
    assert is_label_array(labels - 1)  # -1: nobody labelled it


def test_smooth_pictures_of_8_bits_are_not_labels():
    rows, columns = np.mgrid[:300, :300]
    smooth = np.rint(20 + (rows + columns) / 2.6).astype(np.uint8)  # most neighbours are equal
    assert not is_label_array(smooth)
    # Vertebrae are numbered in their order, so that neighbours differ by one, too.
    assert is_label_array(np.repeat(np.arange(1, 25), 12)[:, None] * np.ones(40, np.uint8))


def test_files_named_by_a_number_with_points_are_images_of_their_own(tmp_path, film):
    for name in ("1.2.840.10.png", "1.2.840.11.png", "1.2.840.11.tif"):
        write_picture(tmp_path / name, film)
    found = find_images(tmp_path)
    assert named(found) == ["1.2.840.10.png", "1.2.840.11.png"]
    assert reasons(found) == {"1.2.840.11.tif": "picture there in another format"}


def test_a_scan_in_several_formats_is_one_scan(tmp_path, ct):
    for name in ("a.nii", "a.nii.gz", "a b.nii.gz", "sub/a.nii"):
        write_scan(tmp_path / name, ct)
    found = find_images(tmp_path)
    assert named(found) == ["a b.nii.gz", "a.nii", "sub/a.nii"]
    assert reasons(found) == {"a.nii.gz": "scan there in another format"}
