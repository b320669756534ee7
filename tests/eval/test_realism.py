"""The realism of samples beside a cohort."""

import json

import numpy as np

from diffct.cli import main
from diffct.imaging.volume import Volume, read_volume, write_volume
from diffct.phantoms.pelvis.cohort import write_pelvis_cohort


def test_samples_that_are_20_hu_too_dense_are_reported_so(tmp_path, capsys):
    cohort = write_pelvis_cohort(
        tmp_path / "cohort", number=2, seed=1, size=(6, 32, 36), spacing_mm=(20.0, 11.0, 11.0)
    )
    for path in sorted(cohort.glob("*.nii.gz")):
        scan = read_volume(path)
        # Bone and air stay as they are: a shift across a threshold would move the mask.
        soft = (scan.array > -250) & (scan.array < 150)
        shifted = np.where(soft, scan.array + 20, scan.array)
        write_volume(Volume(shifted, scan.affine), tmp_path / "samples" / path.name)

    words = ["--data", str(cohort), "--out", str(tmp_path / "out"), "--only", "distribution"]
    main(["evaluate", str(tmp_path / "samples"), *words])
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    found = metrics["measurements"]["distribution"]["figures"]["realism"]["tissue"]
    soft = found["soft_tissue_mean_hu"]
    assert 17 < soft["samples"]["value"] - soft["held_out"]["value"] <= 20.1
    assert 17 < soft["distance"] <= 20.1
    assert found["body_width_mm"]["distance"] == 0
    assert "| soft_tissue_mean_hu |" in capsys.readouterr().out
