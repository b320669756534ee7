"""Sets of samples that lie nearer to training patients."""

import numpy as np
import pytest

from diffct.privacy.training_share import training_share


def test_samples_around_all_training_patients_are_over_fitted():
    train, held_out = list("abcd"), list("efghijklmnop")
    found = training_share(list("abcd" * 4), train=train, held_out=held_out)
    # All samples are around these four of 16 patients: 1 choice in 1820.
    assert found.share == 1 and found.expected == 0.25
    assert found.chance == pytest.approx(1 / 1820, abs=5e-4) and found.significant


def test_many_samples_around_one_patient_are_one_observation():
    found = training_share(["a"] * 50, train=list("abcd"), held_out=list("efghijklmnop"))
    assert found.chance == pytest.approx(0.25, abs=0.02) and not found.significant


def test_an_unbiased_set_raises_no_alarm():
    rng = np.random.default_rng(6)
    patients = list(range(60))
    alarms = [
        training_share(
            rng.choice(patients, 40).tolist(), train=patients[:45], held_out=patients[45:]
        ).significant
        for _ in range(30)
    ]
    assert sum(alarms) <= 1


def test_a_nearest_patient_of_neither_set_is_refused():
    with pytest.raises(ValueError, match="in one of both sets"):
        training_share(["z"], train=["a"], held_out=["b"])
