"""The comparison of samples with a cohort."""

import numpy as np

from diffct.eval.hounsfield import main
from diffct.imaging.volume import Volume, read_volume, write_nifti
from diffct.phantoms.pelvis.cohort import write_pelvis_cohort


def test_samples_that_are_20_hu_too_dense_are_reported_so(tmp_path, capsys):
    cohort = write_pelvis_cohort(
        tmp_path / "cohort", num_scans=2, seed=1, size=(6, 32, 36), spacing_mm=(20.0, 11.0, 11.0)
    )
    for path in sorted(cohort.glob("*.nii.gz")):
        scan = read_volume(path)
        # Bone and air stay as they are: a shift across a threshold would move the mask.
        soft = (scan.array > -250) & (scan.array < 150)
        shifted = np.where(soft, scan.array + 20, scan.array)
        write_nifti(Volume(shifted, scan.affine), tmp_path / "samples" / path.name)

    main([str(tmp_path / "samples"), str(cohort)])
    rows = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()}
    samples, reference, difference = map(float, rows["soft_tissue_mean_hu"])
    assert abs(samples - reference - difference) < 0.1
    assert 17 < difference <= 20.1
    assert float(rows["body_width_mm"][2]) == 0
    assert rows["volumes"] == ["2", "2"]
