"""Target and conditions of a pair stay together through every change."""

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from diffct.data.conditions import BrainDataConfig, ConditionImages, check_conditions, pick_evenly
from diffct.data.images import ImageAugmentationConfig, ImageDataset, check_images
from diffct.data.manifest import read_manifest
from diffct.data.pairs import PairedDataset
from diffct.imaging.radiograph import read_radiograph, write_png
from diffct.train.train_controlnet import ControlTrainingConfig
from diffct.training.latent_pairs import open_with_conditions
from tests.train.brains import write_pairs

MUCH = ImageAugmentationConfig(
    probability=1.0, rotation_degrees=20, translation_px=5, scale=0.1, flip_probability=0.5
)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    return read_manifest(write_pairs(folder, "tttttttttt", conditions=("FLAIR", "T2w")))


def conditions_of(manifest, names=("FLAIR",), **options):
    config = BrainDataConfig(size=[64, 48], conditions=list(names))
    return ConditionImages(manifest, manifest.rows, config=config, **options)


def test_pairs_are_augmented_jointly(manifest):
    targets = ImageDataset(manifest, manifest.rows, size=(64, 48), augmentation=MUCH, seed=3)
    pairs = PairedDataset(targets, conditions_of(manifest, augmentation=MUCH, seed=3))
    seen = []
    for epoch in range(3):
        pairs.set_epoch(epoch)
        for index in range(3):
            pair = pairs[index]
            # The condition was written as the negative of the target.
            target = pair["image"] / 2 + 0.5
            torch.testing.assert_close(pair["condition"], 1 - target, atol=1e-4, rtol=0)
            seen.append(pair["condition"])
    assert not any(one.equal(other) for one, other in zip(seen, seen[3:], strict=False))


def test_conditions_are_stacked_in_order_and_missing_ones_are_black(manifest):
    both = conditions_of(manifest, names=("T2w", "FLAIR"))
    full, lacking = both[0]["condition"], both[1]["condition"]
    assert full.shape == (2, 64, 48) and full[0].equal(full[1])  # both are the target's negative
    assert not lacking[0].any() and lacking[1].any()


def test_dropout_leaves_at_least_one_condition(manifest):
    dropped = conditions_of(manifest, names=("FLAIR", "T2w"), dropout=0.5, seed=1)
    there = []
    for epoch in range(40):
        dropped.set_epoch(epoch)
        there.append(dropped[0]["condition"].flatten(1).any(dim=1))
    shown = torch.stack(there)
    assert shown.any(dim=1).all()
    assert 0.4 < shown.float().mean() < 0.9
    single = conditions_of(manifest, dropout=1.0)
    assert single[1]["condition"].any()


def test_dropout_does_not_move_the_pairs_apart(manifest):
    plain = conditions_of(manifest, names=("FLAIR", "T2w"), augmentation=MUCH)
    dropped = conditions_of(manifest, names=("FLAIR", "T2w"), augmentation=MUCH, dropout=0.9)
    expected, found = plain[0]["condition"], dropped[0]["condition"]
    kept = found.flatten(1).any(dim=1)
    assert found[kept].equal(expected[kept])


def test_row_without_any_of_the_conditions_is_named(manifest):
    with pytest.raises(ValueError, match=r"Row 1 .* it has FLAIR, T2w"):
        conditions_of(manifest, names=("T1ce",))


def test_validation_pairs_are_never_changed(tmp_path):
    folder = write_pairs(tmp_path, "vt", conditions=("FLAIR", "T2w"))
    data = BrainDataConfig(size=[64, 48], condition_dropout=0.9, conditions=["FLAIR", "T2w"])
    config = ControlTrainingConfig(output_dir=str(tmp_path), data=data, augmentation=MUCH)
    opened = open_with_conditions(
        read_manifest(folder), config, space=None, accelerator=Accelerator(cpu=True)
    )
    pairs = opened["validation"]
    first = pairs[0]["condition"]
    pairs.set_epoch(5)
    assert first.flatten(1).any(dim=1).all() and pairs[0]["condition"].equal(first)


def test_conditions_are_checked_before_training_begins(tmp_path):
    manifest = read_manifest(write_pairs(tmp_path, "tttt", conditions=("FLAIR", "T2w")))
    flair = read_radiograph(tmp_path / "0-FLAIR.png", smallest_side=1)
    rim = flair.copy()
    rim[1:-1, 1:-1] = 0
    write_png(rim, tmp_path / "1-FLAIR.png")
    write_png(flair[:40], tmp_path / "2-FLAIR.png")
    (tmp_path / "3-FLAIR.png").write_bytes(b"damaged")
    conditions = conditions_of(manifest, names=("FLAIR", "T2w"))
    with pytest.raises(ValueError, match="3 of 4 images cannot be used") as error:
        check_images(conditions, show_progress=False)
    one, two, three = str(error.value).split("\n- ")[1:]
    assert "Row 2 of the manifest" in one and "shows nothing" in one
    assert "Row 3 of the manifest" in two and "40x50 pixels are too few" in two
    assert "Row 4 of the manifest" in three and "is no PNG" in three
    with pytest.raises(ValueError, match="Row 2 of the manifest"):
        conditions[1]


def test_conditions_of_different_sizes_are_refused(tmp_path):
    manifest = read_manifest(write_pairs(tmp_path, "tt", conditions=("FLAIR", "T2w")))
    larger = np.pad(read_radiograph(tmp_path / "0-T2w.png", smallest_side=1), 4)
    write_png(larger, tmp_path / "0-T2w.png")
    with pytest.raises(ValueError, match=r"Row 1 .*differ in size: FLAIR .*T2w \(74, 58\)"):
        check_images(conditions_of(manifest, names=("FLAIR", "T2w")), show_progress=False)


def test_rows_are_picked_evenly():
    assert pick_evenly("abcdefghij", 4) == ["a", "d", "g", "j"]
    assert pick_evenly("abc", None) == ["a", "b", "c"] == pick_evenly("abc", 9)


def test_a_condition_that_no_slice_has_is_refused(tmp_path):
    manifest = read_manifest(write_pairs(tmp_path, "vt", conditions=("FLAIR", "T2w")))
    check_conditions(manifest.rows, ["T2w", "FLAIR"])
    with pytest.raises(ValueError, match=r"names PD, which no slice .*; they have FLAIR, T2w"):
        check_conditions(manifest.rows, ["FLAIR", "PD"])
