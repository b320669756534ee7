"""Images of a manifest: read upright, cut around the centre, changed randomly but repeatably."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import affine

from diffct.data.images import (
    ImageAugmentationConfig,
    ImageDataConfig,
    ImageDataset,
    Motion,
    check_images,
    move,
)
from diffct.data.manifest import Manifest, ManifestRow, read_manifest, write_manifest
from diffct.imaging.radiograph import write_png
from diffct.phantoms.bootstrap import load_image_manifest


def smooth_film(seed: int, height: int, width: int) -> np.ndarray:
    """Make a film without symmetry."""
    rows, columns = np.mgrid[:height, :width] / max(height, width)
    waves = np.random.default_rng(seed).uniform(1, 6, size=4)
    film = np.sin(waves[0] * rows + 2) + np.sin(waves[1] * columns) + waves[2] * rows * columns
    return ((film - film.min()) / np.ptp(film)).astype(np.float32)


def write_films(folder: Path, shapes: list[tuple[int, int]], split: str = "train") -> Manifest:
    rows = []
    for number, shape in enumerate(shapes):
        write_png(smooth_film(number, *shape), folder / f"{number}.png")
        rows.append(ManifestRow(f"{number}.png", patient=f"secret-{number}", split=split))
    write_manifest(rows, folder / "manifest.jsonl")
    return read_manifest(folder)


def dataset(manifest: Manifest, size: tuple[int, int], **options: object) -> ImageDataset:
    return ImageDataset(manifest, manifest.rows, size=size, **options)


def test_a_film_is_cut_around_its_centre_and_keeps_its_orientation(tmp_path):
    manifest = write_films(tmp_path, [(70, 92), (64, 80)])
    items = dataset(manifest, (64, 80))
    for index, (top, left) in enumerate([(3, 6), (0, 0)]):
        film = smooth_film(index, *[(70, 92), (64, 80)][index])
        expected = film[top : top + 64, left : left + 80]
        found = items[index]["image"]
        assert found.shape == (1, 64, 80) and found.dtype == torch.float32
        assert np.allclose(found[0].numpy(), expected * 2 - 1, atol=1e-4)


def test_motion_agrees_with_torchvision_inside_and_mirrors_at_the_border():
    film = torch.from_numpy(smooth_film(0, 64, 96))[None]
    moved = move(film, Motion(4.0, (2.0, -1.5), 1.02))
    expected = affine(
        film, -4.0, [-1.5, 2.0], 1.02, [0.0, 0.0], interpolation=InterpolationMode.BILINEAR
    )
    inside = (..., slice(12, -12), slice(12, -12))
    assert torch.allclose(moved[inside], expected[inside], atol=1e-5)
    bright = move(film + 5, Motion(4.0, (2.0, -1.5), 1.02))
    assert bright.min() >= 5


def test_a_flip_exchanges_left_and_right_only():
    film = torch.from_numpy(smooth_film(0, 8, 9))[None]
    assert torch.equal(move(film, Motion(flip=True)), film.flip(-1))
    assert torch.equal(move(film, Motion()), film)


def test_augmentation_depends_on_seed_epoch_and_index_alone(tmp_path):
    manifest = write_films(tmp_path, [(64, 64)] * 6)
    config = ImageAugmentationConfig()

    def epoch(number: int, seed: int = 0) -> torch.Tensor:
        items = dataset(manifest, (64, 64), augmentation=config, seed=seed)
        items.set_epoch(number)
        order = np.random.default_rng(None).permutation(len(items))
        images = {int(index): items[int(index)]["image"] for index in order}
        return torch.stack([images[index] for index in range(len(items))])

    assert torch.equal(epoch(1), epoch(1))
    assert not torch.equal(epoch(1), epoch(2))
    assert not torch.equal(epoch(1), epoch(1, seed=1))
    # The epoch reaches workers, too.
    items = dataset(manifest, (64, 64), augmentation=config)
    loader = torch.utils.data.DataLoader(
        items, batch_size=6, num_workers=1, persistent_workers=True
    )
    for number in (0, 1):
        items.set_epoch(number)
        (batch,) = loader
        assert torch.equal(batch["image"], epoch(number))


def test_the_share_of_changed_and_flipped_films_is_what_is_asked_for(tmp_path):
    manifest = write_films(tmp_path, [(64, 64)])
    plain = dataset(manifest, (64, 64))[0]["image"]

    def kinds(**settings: float) -> dict[str, int]:
        items = dataset(manifest, (64, 64), augmentation=ImageAugmentationConfig(**settings))
        found = {"same": 0, "flipped": 0, "moved": 0}
        for number in range(60):
            items.set_epoch(number)
            image = items[0]["image"]
            flipped = torch.allclose(image, plain.flip(-1), atol=1e-6)
            same = torch.allclose(image, plain, atol=1e-6)
            found["flipped" if flipped else "same" if same else "moved"] += 1
        return found

    assert kinds(probability=0.0, flip_probability=0.0)["same"] == 60
    assert 15 < kinds(probability=0.0, flip_probability=0.5)["flipped"] < 45
    assert 15 < kinds(probability=0.5, flip_probability=0.0)["moved"] < 45


def test_films_that_cannot_be_used_are_listed_by_row_without_stopping_at_the_first(tmp_path):
    manifest = write_films(tmp_path, [(64, 64), (64, 63), (64, 64), (80, 80)])
    path = tmp_path / "2.png"
    path.write_bytes(path.read_bytes()[:300])
    items = dataset(manifest, (64, 64))
    with pytest.raises(ValueError, match="2 of 4 images") as error:
        check_images(items, show_progress=False)
    said = str(error.value)
    assert "Row 2 of the manifest" in said and "64x63" in said and "data.size=[64, 64]" in said
    assert "Row 3 of the manifest" in said
    assert "Row 1" not in said and "secret" not in said
    with pytest.raises(ValueError, match="Row 2 of the manifest"):
        items[1]
    check_images(ImageDataset(manifest, manifest.rows[3:], size=(64, 64)), show_progress=False)


def test_a_film_that_shows_nothing_where_it_is_cut_is_refused(tmp_path):
    manifest = write_films(tmp_path, [(64, 64), (64, 64)])
    rim = smooth_film(1, 64, 64)
    rim[8:-8, 8:-8] = 0.5
    write_png(rim, tmp_path / "1.png")
    check_images(dataset(manifest, (64, 64)), show_progress=False)
    with pytest.raises(ValueError, match="1 of 2 images") as error:
        check_images(dataset(manifest, (48, 48)), show_progress=False)
    assert "Row 2 of the manifest" in str(error.value) and "shows nothing" in str(error.value)


def test_a_manifest_needs_training_images_and_a_size_two_numbers(tmp_path):
    write_films(tmp_path, [(64, 64)], split="validation")
    config = ImageDataConfig(manifest=str(tmp_path))
    with pytest.raises(ValueError, match="split 'train'"):
        load_image_manifest(config, output=tmp_path, seed=0, main=True)
    config.size = [64]
    with pytest.raises(ValueError, match=r"data\.size=\[64\]"):
        load_image_manifest(config, output=tmp_path, seed=0, main=True)


def test_without_a_manifest_synthetic_films_are_written_and_announced(tmp_path, capsys):
    config = ImageDataConfig(phantom_films=10, size=[64, 64])
    manifest = load_image_manifest(config, output=tmp_path, seed=0, main=True)
    assert "SYNTHETIC" in capsys.readouterr().out
    assert len(manifest.rows) == 10 and manifest.split("train")
    assert dataset(manifest, (64, 64))[0]["image"].shape == (1, 64, 64)
    assert load_image_manifest(config, output=tmp_path, seed=0, main=False) == manifest
