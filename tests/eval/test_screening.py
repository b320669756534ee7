"""Samples are judged, real images checked and cut as in training, before anything is measured."""

import nibabel
import numpy as np
import pytest
from diffusers import DDIMScheduler

from diffct.data.images import ImageDataset
from diffct.data.manifest import ManifestRow, read_manifest, write_manifest
from diffct.eval.cohorts import load_cohort
from diffct.eval.config import EvaluationConfig
from diffct.eval.distribution import measure
from diffct.eval.image_sets import (
    SAMPLES,
    images_of_folder,
    pictures_of_folder,
    volumes_of_folder,
)
from diffct.eval.inputs import read_inputs
from diffct.eval.realism import measure_realism
from diffct.eval.samples import make_samples, training_cut
from diffct.eval.screening import Cut, screen
from diffct.hub import load_pipeline
from diffct.imaging.radiograph import write_png
from diffct.imaging.volume import Volume, canonical_affine, write_volume
from diffct.models.unet_3d import UNet3DModel
from diffct.pipelines import CT3DPipeline
from diffct.privacy.neighbours import NeighbourSearch
from tests.train.brains import write_base

SPACING_MM = (3.0, 1.5, 1.5)
SIZES = ((64, 50), (80, 48), (64, 64), (66, 48))
"""Films whose shorter side was brought to 48 pixels or more, of different widths and heights."""


def write_scan(path, array):
    write_volume(
        Volume(np.asarray(array, np.float32), canonical_affine((4, 9, 9), SPACING_MM)), path
    )


def volumes(folder, window_hu=(-1000.0, 1000.0)):
    return volumes_of_folder(folder, title=SAMPLES, window_hu=window_hu, spacing_mm=SPACING_MM)


@pytest.fixture
def films(tmp_path):
    """A manifest of films of different sizes: three to train on, one held out."""
    rows, rng = [], np.random.default_rng(0)
    for number, size in enumerate(SIZES):
        write_png(rng.random(size, dtype=np.float32), tmp_path / f"{number}.png")
        split = "test" if number == 3 else "train"
        rows.append(ManifestRow(f"{number}.png", patient=f"{number}", split=split))
    write_manifest(rows, tmp_path / "manifest.jsonl")
    return tmp_path


def test_samples_of_any_window_and_blank_ones_are_measured(tmp_path):
    rng = np.random.default_rng(0)
    write_scan(tmp_path / "a.nii.gz", rng.uniform(0, 80, (4, 9, 9)))
    write_scan(tmp_path / "b [1].nii.gz", np.zeros((4, 9, 9)))  # blank, but not a label map
    samples = screen(volumes(tmp_path, (0.0, 80.0)))
    assert len(samples) == len(list(samples.images(progress=False))) == 2
    (note,) = samples.notes
    assert "1 of 2 samples shows nothing" in note and "b [1].nii.gz" in note


def test_a_sample_with_nan_is_counted_and_not_measured(tmp_path):
    write_scan(tmp_path / "good.nii.gz", np.random.default_rng(0).normal(0, 90, (4, 9, 9)))
    image = nibabel.load(tmp_path / "good.nii.gz")
    broken = np.full(image.shape, np.nan, np.float32)
    nibabel.save(nibabel.Nifti1Image(broken, image.affine), tmp_path / "nan.nii.gz")
    samples = screen(volumes(tmp_path))
    assert [path.name for path in samples.files] == ["good.nii.gz"]
    assert "1 of 2 samples cannot be measured" in samples.notes[0]
    assert "nan.nii.gz" in samples.notes[0]


def test_black_and_damaged_films_are_judged_as_samples_and_refused_as_data(tmp_path):
    film = np.random.default_rng(0).random((64, 64), dtype=np.float32)
    for name, array in (("film", film), ("black", 0 * film), ("dark", 0.01 * film)):
        write_png(array, tmp_path / f"{name}.png")
    (tmp_path / "cut off.png").write_bytes((tmp_path / "film.png").read_bytes()[:900])
    samples = screen(pictures_of_folder(tmp_path, title=SAMPLES))
    assert len(samples) == 3
    assert "1 of 4 samples cannot be measured" in samples.notes[0]
    assert "1 of 4 samples shows nothing" in samples.notes[1]
    with pytest.raises(ValueError, match="3 of 4 held-out images cannot be used") as refused:
        screen(pictures_of_folder(tmp_path, title="held-out"))
    assert all(f"{name}.png" in str(refused.value) for name in ("black", "dark", "cut off"))


def test_an_empty_sample_has_neighbours_and_a_similarity(tmp_path):
    for part, seed in (("samples", 0), ("real", 1)):
        for number in range(3):
            film = np.random.default_rng((seed, number)).random((64, 64), dtype=np.float32)
            empty = part == "samples" and number == 1
            write_png(np.zeros_like(film) if empty else film, tmp_path / part / f"{number}.png")
    samples = screen(pictures_of_folder(tmp_path / "samples", title=SAMPLES))
    cohort = load_cohort(tmp_path / "real", None, cache_dir=tmp_path)
    config = EvaluationConfig(out=tmp_path / "out")
    section = measure(read_inputs(tmp_path / "samples", tmp_path / "real", config))
    assert 0 < section["MS-SSIM of pairs"]["samples"].value < 1
    assert "1 of 3 samples shows nothing" in section.remarks[0]
    real = cohort.held_out.stacked(progress=False)
    search = NeighbourSearch(real)
    found = search.nearest(samples.stacked(progress=False)[1], search.gallery(real))
    assert all(np.isfinite(neighbour.similarity) for neighbour in found)


def test_volumes_beside_their_pictures_are_measured_and_the_pictures_named(tmp_path, capsys):
    for number in range(2):
        scan = np.random.default_rng(number).normal(0, 90, (4, 9, 9))
        write_scan(tmp_path / f"{number}.nii.gz", scan)
        write_png(np.clip(scan[0] / 900 + 0.5, 0, 1), tmp_path / f"{number}.png")
    (tmp_path / "._0.png").write_bytes(b"x")
    found = images_of_folder(tmp_path, title=SAMPLES, window_hu=(-1000, 1000))
    assert found.unit == "HU" and len(found) == 2
    assert found.left_out == {"hidden file": 1, "picture, not a volume": 2}
    assert "left out: 2 × picture, not a volume (0.png, 1.png)" in capsys.readouterr().out


def test_real_films_are_cut_as_training_cuts_them(films, tmp_path):
    pipeline_folder = write_base(tmp_path / "base")
    pipeline = load_pipeline(pipeline_folder, device="cpu")
    cut = training_cut(pipeline, pipeline_folder)
    assert cut == Cut((64, 48))
    cohort = load_cohort(films, pipeline, cut=cut, cache_dir=tmp_path)
    manifest = read_manifest(films)
    for images, split in ((cohort.train, "train"), (cohort.held_out, "test")):
        trained_on = ImageDataset(manifest, manifest.split(split), size=cut.size)
        for index, image in enumerate(images.images(progress=False)):
            assert np.allclose(
                image.numpy(), trained_on[index]["image"].numpy() / 2 + 0.5, atol=1e-6
            )
        assert images.preparation == "cut to 64x48 pixels around the centre"


def test_films_smaller_than_the_cut_are_named(films, tmp_path):
    with pytest.raises(ValueError, match=r"2 of 3 training images(.|\n)*0\.png: 64x50 pixels"):
        load_cohort(films, None, cut=Cut((65, 48)), cache_dir=tmp_path)


def test_films_of_several_sizes_need_a_cut(films, tmp_path):
    with pytest.raises(ValueError, match=r"training images are of several sizes.*--size"):
        load_cohort(films, None, cache_dir=tmp_path)


def test_samples_tell_the_cut_only_of_films_prepared_to_their_shorter_side(tmp_path):
    for number, size in enumerate(((48, 64), (48, 60))):
        film = np.random.default_rng(number).random(size, dtype=np.float32)
        write_png(film, tmp_path / f"{number}.png")
    films = pictures_of_folder(tmp_path, title="held-out")
    assert screen(films, cut=Cut((48, 48), longer_side_only=True)).size == (48, 48)
    with pytest.raises(ValueError, match="several sizes"):
        screen(films, cut=Cut((32, 32), longer_side_only=True))


def test_hounsfield_figures_count_volumes_without_a_body(tmp_path):
    body = np.full((4, 9, 9), -1000.0)
    write_scan(tmp_path / "samples" / "air.nii.gz", body)
    body[:, 2:7, 2:7] = 40
    for part in ("samples", "real"):
        write_scan(tmp_path / part / "body.nii.gz", body)
    cohort = load_cohort(tmp_path / "real", None, cache_dir=tmp_path)
    sets = {"samples": screen(volumes(tmp_path / "samples")), "held_out": cohort.held_out}
    realism, tables, _ = measure_realism(sets, tmp_path)
    assert realism.without_body == {"samples": 1, "held_out": 0, "train": None}
    assert realism.tissue["body_mean_hu"].samples.value == 40
    assert "Volumes without a body: 1 samples, 0 held-out." in tables[-1].note


def test_a_pipeline_that_makes_nan_of_some_samples_is_measured_by_the_others(tmp_path):
    write_scan(tmp_path / "real" / "0.nii.gz", np.full((4, 9, 9), -100.0) + np.eye(9))
    cohort = load_cohort(tmp_path / "real", None, cache_dir=tmp_path)
    unet = UNet3DModel(
        down_block_types=["DownBlock2D"],
        up_block_types=["UpBlock2D"],
        block_out_channels=[4],
        norm_num_groups=2,
        attention_head_dim=2,
    )
    pipeline = CT3DPipeline(unet, DDIMScheduler(), spacing_mm=list(SPACING_MM), size=[4, 9, 9])
    call, made = CT3DPipeline.__call__, []

    def spoil(self, *arguments, **options):
        output = call(self, *arguments, **options)
        made.append(output)
        if len(made) == 1:
            output.volumes[0] = np.nan
        return output

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CT3DPipeline, "__call__", spoil)
        samples, _ = make_samples(
            pipeline,
            {"name": "tiny", "weights_sha256": None},
            tmp_path / "made",
            cohort=cohort,
            number=2,
            seed=0,
            steps=1,
            batch_size=1,
        )
    assert [path.name for path in samples.files] == ["sample-0001.nii.gz"]
    assert "1 of 2 samples cannot be measured" in samples.notes[0]
