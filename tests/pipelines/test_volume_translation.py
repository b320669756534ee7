"""A translated scan has the position of the scan, and its slices fit together."""

import math
from dataclasses import replace

import diffusers
import nibabel
import numpy as np
import pytest
import torch
from scipy import ndimage

from diffct import FlairToT1Pipeline, Volume
from diffct.imaging.intensity import (
    foreground,
    removed_background,
    robust_range,
    to_unit_range,
)
from diffct.imaging.slices import tissue_window, turn_to_plane
from diffct.imaging.volume import read_stored
from diffct.pipelines.coherent_noise import coherent_noise
from tests.pipelines.tiny_flair import (
    head_affine,
    make_flair_pipeline,
    write_head,
)

FAST = {"num_inference_steps": 2}


@pytest.fixture(scope="module")
def pipeline() -> FlairToT1Pipeline:
    return make_flair_pipeline()


@pytest.mark.parametrize(
    ("orientation", "tilt", "size"),
    [
        ("RAS", 0.0, (20, 14, 9)),
        ("LPS", 0.0, (20, 14, 9)),
        ("PSR", 0.3, (14, 9, 20)),
        ("SLA", -0.2, (9, 20, 14)),
        ("IAL", 0.4, (9, 14, 20)),
    ],
)
def test_the_file_has_the_grid_of_the_scan(pipeline, tmp_path, orientation, tilt, size):
    affine = head_affine(orientation, 1.3, tilt=tilt)
    path = write_head(tmp_path / "flair.nii.gz", affine, size)
    out = tmp_path / "out" / "t1.nii.gz"
    translation = pipeline.translate_volume(path, out=out, **FAST)
    scan, written = nibabel.load(path), nibabel.load(out)
    assert written.shape == scan.shape == translation.mean.size
    assert np.allclose(written.affine, scan.affine, atol=1e-5)
    assert np.allclose(translation.mean.affine, scan.affine)
    assert written.get_data_dtype() == np.float32
    values = written.get_fdata()
    assert np.array_equal(values, translation.mean.array.astype(np.float64))
    assert translation.std is None and translation.mean.unit == "[0, 1]"
    assert values.min() >= 0 and values.max() <= 1
    # Slices without tissue are background, all others are not.
    unit = to_unit_range(scan.get_fdata(), robust_range(scan.get_fdata(), path))
    height = next(i for i, code in enumerate(orientation) if code in "SI")
    across = tuple({0, 1, 2} - {height})
    tissue = foreground(unit).any(axis=across)
    assert 0 < tissue.sum() < tissue.size
    assert np.array_equal(values.any(axis=across), tissue)


def test_every_slice_comes_back_to_its_place(pipeline, tmp_path):
    path = write_head(tmp_path / "flair.nii.gz", head_affine("LAS", tilt=0.2), (20, 14, 9))
    translation = pipeline.translate_volume(path, seed=5, coherence_mm=math.inf, **FAST)
    stored = read_stored(path)
    unit = replace(stored, array=to_unit_range(stored.array, robust_range(stored.array, path)))
    unit, result = turn_to_plane(unit, "axial"), turn_to_plane(translation.mean, "axial")
    background = replace(stored, array=removed_background(stored.array))
    outside = turn_to_plane(background, "axial").array
    top, left = tissue_window(unit.array, (16, 24))
    assert unit.size[1:] == (14, 20) and top <= 0 and left <= 0
    generator = torch.Generator().manual_seed(5)
    torch.randint(2**62, (), generator=generator)
    latents = torch.randn(1, 3, 8, 12, generator=generator)
    for index in np.flatnonzero(foreground(unit.array).any(axis=(1, 2))):
        window = np.zeros((1, 16, 24), np.float32)
        window[0, -top : 14 - top, -left : 20 - left] = unit.array[index]
        alone = pipeline(window, latents=latents, output_type="np", **FAST).images[0, ..., 0]
        # What is exactly 0 around the tissue stays 0; see test_translation_of_found_scans.
        expected = alone[-top : 14 - top, -left : 20 - left] * ~outside[index]
        assert np.abs(result.array[index] - expected).max() < 1e-5


def test_the_batch_size_changes_nothing_even_with_noisy_steps(tmp_path):
    pipeline = make_flair_pipeline()
    scheduler_class = diffusers.EulerAncestralDiscreteScheduler
    pipeline.scheduler = scheduler_class.from_config(pipeline.scheduler.config)
    path = write_head(tmp_path / "flair.nii.gz", head_affine("RAS"), (20, 14, 9))
    one, four = (
        pipeline.translate_volume(path, batch_size=size, num_samples=2, **FAST) for size in (1, 4)
    )
    assert np.abs(one.mean.array - four.mean.array).max() < 1e-4
    assert np.abs(one.std.array - four.std.array).max() < 1e-4
    other = pipeline.translate_volume(path, batch_size=4, seed=7, **FAST)
    assert np.abs(other.mean.array - four.mean.array).max() > 1e-3


def test_several_samples_have_a_mean_and_a_spread(pipeline, tmp_path):
    path = write_head(tmp_path / "flair.nii.gz", head_affine("RAS"), (20, 14, 9))
    singles = [pipeline.translate_volume(path, seed=3 + k, **FAST).mean.array for k in range(3)]
    out = tmp_path / "t1.nii.gz"
    both = pipeline.translate_volume(path, num_samples=3, seed=3, out=out, **FAST)
    assert np.abs(both.mean.array - np.mean(singles, axis=0)).max() < 1e-5
    assert np.abs(both.std.array - np.std(singles, axis=0, ddof=1)).max() < 1e-5
    assert both.std.array.max() > 1e-3
    assert np.allclose(nibabel.load(tmp_path / "t1_std.nii.gz").get_fdata(), both.std.array)


def test_other_spacings_are_brought_to_that_of_the_training_and_back(tmp_path):
    pipeline = make_flair_pipeline(spacing_mm=[1.0, 1.0])
    affine = head_affine("RAS", 0.5)
    affine[:3, 2] *= 4  # slices of 2 mm keep their number
    path = write_head(tmp_path / "flair.nii.gz", affine, (40, 28, 9))
    fine = pipeline.translate_volume(path, **FAST)
    assert fine.mean.size == (40, 28, 9) and np.allclose(fine.mean.affine, affine)
    # Sampled on every second voxel, so it is smooth in between.
    inner = fine.mean.array[8:-8, 6:-6, 4]
    between = (inner[:-2] + inner[2:]) / 2
    assert np.abs(inner[1:-1] - between).mean() < 0.5 * np.abs(inner[2:] - inner[:-2]).mean()
    near = make_flair_pipeline(spacing_mm=[0.52, 0.49], sample_size=(14, 20))
    plain = make_flair_pipeline(sample_size=(14, 20))
    images = [p.translate_volume(path, **FAST).mean.array for p in (near, plain)]
    assert np.array_equal(*images)


def test_a_head_larger_than_the_training_size_is_translated_whole(tmp_path):
    pipeline = make_flair_pipeline(sample_size=(4, 4))
    path = write_head(tmp_path / "flair.nii.gz", head_affine("RAS"), (22, 17, 7))
    result = turn_to_plane(pipeline.translate_volume(path, **FAST).mean, "axial").array
    stored = read_stored(path)
    unit = to_unit_range(stored.array, robust_range(stored.array, path))
    tissue = foreground(turn_to_plane(Volume(unit, stored.affine), "axial").array)
    assert result[tissue].astype(bool).mean() > 0.9


def test_further_conditions_are_brought_onto_the_first_grid(tmp_path):
    pipeline = make_flair_pipeline(channels=2, conditions=["FLAIR", "T2w"])
    flair = write_head(tmp_path / "flair.nii.gz", head_affine("RAS"), (20, 14, 9))
    image = nibabel.load(flair)
    turned = image.as_reoriented(np.array([[2, -1], [0, 1], [1, -1]]))
    nibabel.save(turned, tmp_path / "turned.nii.gz")
    same = pipeline.translate_volume({"FLAIR": flair, "T2w": flair}, **FAST).mean
    other = pipeline.translate_volume({"T2w": tmp_path / "turned.nii.gz", "FLAIR": flair}, **FAST)
    assert np.abs(other.mean.array - same.array).max() < 1e-5
    alone = pipeline.translate_volume(flair, **FAST).mean
    assert np.array_equal(
        pipeline.translate_volume({"FLAIR": read_stored(flair), "T2w": None}, **FAST).mean.array,
        alone.array,
    )
    assert np.abs(alone.array - same.array).max() > 1e-3


def test_mistakes_are_named_before_anything_is_sampled(pipeline, tmp_path):
    path = write_head(tmp_path / "flair.nii.gz", head_affine("RAS"), (12, 10, 5))
    for image, options, message in (
        (path, {"out": tmp_path / "t1.nrrd"}, r"t1\.nrrd: a NIfTI file ends"),
        (path, {"num_samples": 0}, "num_samples=0"),
        (path, {"batch_size": 0}, "batch_size=0"),
        (path, {"coherence_mm": -1.0}, "sigma_slices"),
        ({"T2w": path}, {}, r"\['T2w'\].*\['FLAIR'\]"),
        (np.zeros((4, 4, 4)), {}, "FLAIR is a ndarray"),
        (Volume(np.full((4, 4, 4), np.nan, np.float32), np.eye(4)), {}, "FLAIR: holds NaN"),
        (Volume(np.ones((4, 4, 4), np.float32), np.eye(4)), {}, "FLAIR: every voxel is 1"),
    ):
        with pytest.raises(ValueError, match=message):
            pipeline.translate_volume(image, **options)
    with pytest.raises(FileNotFoundError):
        pipeline.translate_volume(tmp_path / "nowhere.nii.gz")


def test_one_bar_counts_all_batches_and_the_pipelines_own_comes_back(tmp_path, capsys):
    pipeline = make_flair_pipeline()
    pipeline.set_progress_bar_config(leave=False)
    path = write_head(tmp_path / "flair.nii.gz", head_affine("RAS"), (12, 10, 5))
    pipeline.translate_volume(path, num_samples=2, **FAST)
    shown = capsys.readouterr().err
    assert "translating" in shown and "2/2" in shown
    assert pipeline._progress_bar_config == {"leave": False}


@pytest.mark.parametrize("sigma", [0.0, 0.7, 3.0])
def test_noise_of_slices_correlates_as_the_gaussian_says(sigma):
    generator = torch.Generator().manual_seed(0)
    noise = coherent_noise(24, (3, 64, 64), sigma_slices=sigma, generator=generator).flatten(1)
    assert noise.mean().abs() < 0.02
    assert (noise.var(dim=1) - 1).abs().max() < 0.06
    correlation = noise @ noise.T / noise.shape[1]
    for distance in range(6):
        measured = correlation.diagonal(distance).mean()
        theory = math.exp(-(distance**2) / (4 * sigma**2)) if sigma else float(distance == 0)
        assert abs(measured - theory) < 0.03


def test_infinitely_coherent_noise_is_the_same_in_all_slices():
    noise = coherent_noise(5, (3, 4, 6), sigma_slices=math.inf)
    assert noise.shape == (5, 3, 4, 6)
    assert torch.equal(noise, noise[:1].expand(5, -1, -1, -1))
    with pytest.raises(ValueError, match="sigma_slices=nan"):
        coherent_noise(5, (3, 4, 6), sigma_slices=math.nan)


def test_coherent_noise_makes_neighbouring_slices_more_alike(tmp_path):
    pipeline = make_flair_pipeline()
    path = write_head(tmp_path / "flair.nii.gz", head_affine("RAS"), (20, 14, 12))
    roughness = []
    for coherence_mm in (0.0, 3.0, math.inf):
        result = pipeline.translate_volume(path, coherence_mm=coherence_mm, **FAST).mean
        inside = ndimage.binary_erosion(result.array > 0)
        roughness.append(np.abs(np.diff(result.array, axis=2))[inside[..., 1:]].mean())
    assert roughness[0] > roughness[1] > roughness[2]
