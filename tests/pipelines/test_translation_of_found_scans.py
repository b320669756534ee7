"""Translations of users' scans: in a template's space, skull-stripped, as DICOM, or no heads."""

import logging

import nibabel
import numpy as np
import pytest

from diffct import FlairToT1Pipeline, Volume
from diffct.imaging.image_folder import find_images
from diffct.imaging.intensity import removed_background
from diffct.pipelines.conditions.scans import read_scan
from tests.imaging.dicom_files import MR, write_series
from tests.pipelines.tiny_flair import head_affine, make_flair_pipeline, write_head

FAST = {"num_inference_steps": 1}


@pytest.fixture(scope="module")
def pipeline() -> FlairToT1Pipeline:
    return make_flair_pipeline()


@pytest.mark.parametrize(("sform_code", "qform_code"), [(4, 4), (4, 1), (2, 2), (2, 0), (0, 1)])
def test_the_codes_of_the_scan_are_kept_in_every_file(pipeline, tmp_path, sform_code, qform_code):
    path = write_head(tmp_path / "flair.nii.gz", head_affine("LAS", tilt=0.2), (20, 14, 9))
    image = nibabel.load(path)
    scanner = image.affine.copy()
    if sform_code and qform_code and sform_code != qform_code:
        scanner[:3, 3] += (5, -20, 3)
    image.set_qform(scanner, qform_code)
    image.set_sform(image.affine if sform_code else None, sform_code)
    nibabel.save(image, path)
    image = nibabel.load(path)
    assert (image.header["sform_code"], image.header["qform_code"]) == (sform_code, qform_code)
    out = tmp_path / "t1.nii.gz"
    pipeline.translate_volume(path, out=out, num_samples=2, **FAST)
    for name in ("t1.nii.gz", "t1_std.nii.gz"):
        header = nibabel.load(tmp_path / name).header
        assert (header["sform_code"], header["qform_code"]) == (sform_code, qform_code)
        if sform_code:
            np.testing.assert_allclose(header.get_sform(), image.get_sform(), atol=1e-4)
        if qform_code:
            np.testing.assert_allclose(header.get_qform(), image.get_qform(), atol=1e-3)


def test_what_was_set_to_0_around_the_tissue_stays_0(pipeline, tmp_path):
    path = write_head(tmp_path / "flair.nii.gz", head_affine("RAS"), (20, 14, 9))
    image = nibabel.load(path)
    stored = np.asarray(image.dataobj).copy()
    stored[9:11, 6:8, 4] = 0  # a fluid inside of the brain
    nibabel.save(nibabel.Nifti1Image(stored, image.affine), path)
    made = pipeline.translate_volume(path, num_samples=2, **FAST)
    outside = removed_background(stored)
    assert 0.3 < outside.mean() < 0.9 and not outside[9:11, 6:8, 4].any()
    for volume in (made.mean, made.std):
        assert not volume.array[outside].any()
        assert volume.array[9:11, 6:8, 4].all()
    # Air with noise is no removed background, and shows what the network makes of it.
    noisy = stored + np.random.default_rng(0).random(stored.shape, dtype=np.float32)
    nibabel.save(nibabel.Nifti1Image(noisy, image.affine), path)
    assert not removed_background(noisy).any()
    assert pipeline.translate_volume(path, **FAST).mean.array[outside].any()


def test_maps_of_uncertainty_are_not_scans(pipeline, tmp_path):
    path = write_head(tmp_path / "flair.nii.gz", head_affine("RAS"), (20, 14, 9))
    pipeline.translate_volume(path, out=tmp_path / "t1.nii.gz", num_samples=2, **FAST)
    (tmp_path / "t1_std.nii.gz").rename(tmp_path / "spread.nii.gz")
    write_head(tmp_path / "real_std.nii.gz", head_affine("RAS"), (20, 14, 9))
    found = find_images(tmp_path)
    names = [file.name for file in found.images]
    assert names == ["flair.nii.gz", "real_std.nii.gz", "t1.nii.gz"]
    assert [entry.reason for entry in found.left_out] == ["map of uncertainty"]


def warnings_of(pipeline, caplog, scan) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.WARNING, "diffct"):
        pipeline.translate_volume(scan, **FAST)
    return [record.getMessage() for record in caplog.records]


def test_a_head_in_magnetic_resonance_is_translated_without_a_word(pipeline, tmp_path, caplog):
    path = write_head(tmp_path / "flair.nii.gz", head_affine("RAS"), (20, 14, 9))
    assert warnings_of(pipeline, caplog, path) == []
    series = write_series(tmp_path / "series", BodyPartExamined="BRAIN", **MR)
    assert warnings_of(pipeline, caplog, series) == []


def test_a_ct_and_another_part_of_the_body_are_translated_with_one_warning(
    pipeline, tmp_path, caplog
):
    chest = write_series(tmp_path / "series", BodyPartExamined="CHEST")
    (said,) = warnings_of(pipeline, caplog, chest)
    assert said.startswith(f"{chest}: is this the FLAIR of a head")
    for reason in ("header says CT", "header says CHEST", "below -500"):
        assert reason in said
    knee = write_series(tmp_path / "knee", BodyPartExamined="KNEE", **MR)
    (said,) = warnings_of(pipeline, caplog, knee)
    assert "header says KNEE" in said and "CT" not in said
    hu = np.full((12, 14, 9), -1000, np.float32)
    hu[3:9, 3:9] = 40
    hu[5:7, 5:7] = 60
    (said,) = warnings_of(pipeline, caplog, Volume(hu, head_affine("RAS")))
    assert said.startswith("FLAIR: is this the FLAIR of a head") and "below -500" in said


@pytest.mark.parametrize("part", ["HEART", "CARDIAC", "FOREARM", "SACROILIAC", "WHOLEBODY"])
def test_body_parts_with_an_ear_in_their_name_are_not_heads(tmp_path, caplog, part):
    series = write_series(tmp_path / "series", BodyPartExamined=part, **MR)
    with caplog.at_level(logging.WARNING, "diffct"):
        read_scan(series, "FLAIR")
    assert f"header says {part}" in caplog.text


@pytest.mark.parametrize("part", ["HEADNECK", "HEAD_NECK", "INNER_EAR", "IAC", "CEREBRUM", "EARS"])
def test_parts_of_the_head_are_heads(tmp_path, caplog, part):
    series = write_series(tmp_path / "series", BodyPartExamined=part, **MR)
    with caplog.at_level(logging.WARNING, "diffct"):
        read_scan(series, "FLAIR")
    assert caplog.text == ""


def test_tissue_of_another_size_than_in_the_training_is_named(tmp_path, caplog):
    pipeline = make_flair_pipeline(spacing_mm=[1.0, 1.0])
    near = write_head(tmp_path / "near.nii.gz", head_affine("RAS", 0.9), (24, 18, 9))
    assert warnings_of(pipeline, caplog, near) == []
    # 4 mm, sampled anew at 1 mm.
    large = write_head(tmp_path / "large.nii.gz", head_affine("RAS", 4.0), (20, 14, 9))
    (said,) = warnings_of(pipeline, caplog, large)
    assert "measures 42 x 58 mm, the slices of the training 16 x 24 mm" in said
