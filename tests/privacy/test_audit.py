"""The front door of the audit: arrays of any generator in, figures and words out."""

import json

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from diffct.privacy import MembershipLosses, audit
from diffct.privacy.identical import find_identical
from diffct.privacy.image_stack import stack_images

SIZE = (32, 28)


def draw(rng, number, size=SIZE):
    """Smooth images in [0, 1] with a common part."""
    common = gaussian_filter(np.random.default_rng(9).standard_normal(size), 4)
    own = [gaussian_filter(rng.standard_normal(size), 2) for _ in range(number)]
    return np.clip(0.5 + np.stack([common + image for image in own]), 0, 1).astype(np.float32)


@pytest.fixture(scope="module")
def images():
    """Samples, of which the last is a moved copy of training image 3; training, held-out images."""
    rng = np.random.default_rng(0)
    train, held_out, fresh = draw(rng, 8), draw(rng, 20), draw(rng, 3)
    copy = np.roll(train[3, :, ::-1], 1, axis=0) + 0.005 * rng.standard_normal(SIZE)
    return np.stack([*fresh, np.clip(copy, 0, 1)]), train, held_out


@pytest.fixture(scope="module")
def report(images):
    losses = MembershipLosses(np.linspace(0, 1, 8), np.linspace(2, 3, 20))
    describe = {"means": lambda batch: batch.flatten(2).mean(dim=2)}
    return audit(*images, value_range=(0, 1), losses=losses, features=describe, max_real=8)


def test_a_copy_among_arrays_is_found_with_its_original(report):
    assert [suspect.sample for suspect in report.suspects()] == [3]
    (pair,) = report.closest(1)
    assert (pair.sample, pair.train.index) == (3, 3)
    assert report.answer.state == "bad"
    assert "1 of 4 samples are near-copies" in report.answer.sentence


def test_losses_and_features_stand_beside_the_search(report):
    assert report.membership.auc.value == 1 and report.membership.significant
    assert list(report.comparisons) == ["anatomy", "detail", "means"]
    assert len(report.comparisons["means"].scores) == 4


def test_figures_of_a_report_are_json_and_name_no_training_image(report):
    figures = json.loads(json.dumps(report.figures()))
    assert figures["copies"]["suspicious"] == 1
    assert set(figures["nearest neighbours"]["anatomy"]) == {
        "samples",
        "suspicious",
        "chance",
        "nearer_than_real",
        "real_patients",
        "threshold",
        "false_alarms",
        "own_weight_of_held_out_distance",
        "score_quantiles",
        "real_score_quantiles",
    }


def test_a_printed_report_says_how_arrays_name_patients(report):
    assert str(report).startswith("Private? BAD: ")
    assert "name patients by train_patients and held_out_patients" in str(report)
    assert "--patient-pattern" not in str(report)


def test_arrays_lists_tensors_and_lazy_readers_give_the_same_stack(images):
    class Lazy:
        def __len__(self):
            return len(images[1])

        def __getitem__(self, place):
            return images[1][place]

    kinds = (images[1], list(images[1]), iter(images[1]), torch.from_numpy(images[1]), Lazy())
    for kind in kinds:
        stack = stack_images(kind, name="train", patients=None, value_range=(0, 1))
        assert torch.equal(torch.stack([*stack.unit_images()])[:, 0], torch.from_numpy(images[1]))


def test_a_range_becomes_black_and_white():
    hounsfield = np.array([[[-1000.0, 0.0], [500.0, 1000.0]]], dtype=np.float32)
    stack = stack_images(hounsfield, name="train", patients=None, value_range=(-1000, 1000))
    assert stack.unit_image(0).flatten().tolist() == pytest.approx([0, 0.5, 0.75, 1])


def test_a_translation_is_no_copy_of_its_own_patient(images):
    samples, train, held_out = images
    owners = ["new", "new", "new", "patient 3"]
    found = audit(
        samples,
        train,
        held_out,
        value_range=(0, 1),
        sample_patients=owners,
        train_patients=[f"patient {number}" for number in range(len(train))],
        max_real=3,
    )
    assert found.nearest[3].train.anatomy.index != 3 and not found.copies.found


@pytest.mark.parametrize(("scale", "low"), [(1, 0), (2000, -1000)])
def test_a_volume_of_the_training_set_is_found_in_any_range(scale, low):
    train = draw(np.random.default_rng(1), 3, (6, 20, 24))
    made, seen = (
        stack_images(
            volumes * scale + low, name="any", patients=None, value_range=(low, low + scale)
        )
        for volumes in (train[1:2, :, :, ::-1], train)
    )
    assert find_identical(made, seen) == {0: 1}
    assert find_identical(seen, made) == {1: 0}


def test_volumes_are_audited_like_images():
    rng = np.random.default_rng(2)
    train, held_out = draw(rng, 2, (6, 16, 18)), draw(rng, 2, (6, 16, 18))
    found = audit(train[:1], train, held_out, value_range=(0, 1), max_real=2)
    assert found.identical == {0: 0} and found.copies.found
    assert "1 is a training image under another name" in found.answer.sentence


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value_range": (0, 0.2)}, r"Image 1 of samples has values from .*, outside value_range"),
        ({"value_range": (1, 0)}, r"value_range=\(1, 0\); give two numbers, low before high"),
        ({"samples": np.full((1, *SIZE), np.nan)}, "Image 1 of samples holds NaN"),
        ({"samples": np.zeros((2, 16, 16))}, r"samples have the size \(16, 16\), those of train"),
        ({"samples": np.zeros((2, 1, *SIZE))}, "samples have the shape .* Give one channel"),
        ({"samples": []}, "samples holds no images"),
        ({"train_patients": ["a"]}, "train has 8 images, and 1 patients are named"),
        (
            {"train_patients": list("abcdefgh"), "held_out_patients": list("hijklmnopqrstuvwxyz1")},
            "1 patients have images in train and in held_out",
        ),
        (
            {"train_patients": ["a"] * 8, "held_out_patients": ["b"] * 20},
            "images of 3 training or held-out patients at least",
        ),
        ({"sample_patients": ["b"] * 4, "held_out_patients": ["b"] * 20}, "give images of 2 held"),
    ],
)
def test_invalid_input_is_refused(images, change, message):
    sets = dict(zip(("samples", "train", "held_out"), images, strict=True))
    with pytest.raises(ValueError, match=message):
        audit(**(sets | {"value_range": (0, 1)} | change))


def test_losses_of_some_images_must_say_whose_they_are(images):
    with pytest.raises(ValueError, match="2 losses for 8 images of train"):
        audit(*images, value_range=(0, 1), losses=MembershipLosses([0.1, 0.2], np.ones(20)))


def test_images_of_several_sizes_are_refused(images):
    samples, train, held_out = images
    mixed = [*train[:4], train[4, :-2]]
    with pytest.raises(ValueError, match=r"Image 5 of train has the size \(30, 28\), the first"):
        audit(samples, mixed, held_out, value_range=(0, 1))
