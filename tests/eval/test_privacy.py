"""The audit among few patients: it claims nothing without evidence, and still finds copies."""

import json
import re
import shutil

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from diffct.cli import main
from diffct.eval.section import PRIVACY
from diffct.imaging.radiograph import read_radiograph, write_png


def draw_person(rng, images):
    """Images of one person: the same coarse structures, each with some detail of its own."""
    shared = gaussian_filter(rng.standard_normal((48, 40)), 3)
    own = [gaussian_filter(rng.standard_normal((48, 40)), 2) for _ in range(images)]
    return [0.5 + 2.5 * shared + 0.6 * image for image in own]


@pytest.fixture(scope="module")
def crops(tmp_path_factory):
    """Crops of six persons: two trained on, three held out; samples: a new one's, and a copy."""
    folder = tmp_path_factory.mktemp("crops") / "of few [persons]"
    rng = np.random.default_rng(5)
    for part, counts in {"train": (4, 4), "held out": (3, 3, 2)}.items():
        for person, count in enumerate(counts):
            for number, image in enumerate(draw_person(rng, count)):
                save(image, folder / part / f"{part} {person}" / f"{number}.png")
    original = read_radiograph(folder / "train" / "train 0" / "0.png", smallest_side=1)
    copied = original[:, ::-1] + 0.01 * rng.standard_normal(original.shape)
    for number, image in enumerate([*draw_person(rng, 2), copied]):
        save(image, folder / "samples" / f"{number}.png")
    return folder


def save(image, path):
    write_png(np.clip(image, 0, 1).astype(np.float32), path)


def test_among_few_patients_a_copy_is_seen_and_nothing_is_called_one(crops, tmp_path, capsys):
    words = ["--data", str(crops / "held out"), "--train", str(crops / "train")]
    named = ["--patient-pattern", "^(.+)/", "--out", str(tmp_path), "--device", "cpu"]
    main(["evaluate", "--only", "privacy", str(crops / "samples"), *words, *named])
    printed = capsys.readouterr().out
    assert "Copies found" not in printed
    # Strangers may be near, too: three held-out persons cannot exclude it.
    assert re.search(r"Near pairs to look at: [123] of 3 samples", printed)
    assert "3 held-out patients are too few to tell a copy from a relative" in printed
    assert f"{PRIVACY} IN DOUBT:" in printed
    found = json.loads((tmp_path / "privacy.json").read_text())["figures"]["nearest neighbours"]
    assert found["detail"]["real_patients"] == 5
    smallest, smallest_real = (
        found["detail"][f"{what}score_quantiles"]["0%"] for what in ("", "real_")
    )
    assert smallest < 0.5 * smallest_real


def test_a_training_image_among_samples_is_a_copy_however_few_are_held_out(crops, tmp_path, capsys):
    samples = tmp_path / "samples"
    shutil.copytree(crops / "samples", samples)
    original = read_radiograph(crops / "train" / "train 1" / "2.png", smallest_side=1)
    save(0.9 * original, samples / "darker.png")
    words = ["--data", str(crops / "held out"), "--train", str(crops / "train")]
    named = ["--patient-pattern", "^(.+)/", "--out", str(tmp_path), "--device", "cpu"]
    main(["evaluate", "--only", "privacy", str(samples), *words, *named])
    printed = capsys.readouterr().out
    assert "Copies found: of 4 samples, 1 is a training image under another name" in printed
    assert f"{PRIVACY} BAD: Of 4 samples, 1 is a training image under another name." in printed
    row = next(line for line in printed.splitlines() if line.startswith("| darker.png |"))
    assert row.endswith("| a training image under another name |")
