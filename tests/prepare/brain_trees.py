"""Small trees of NIfTI files in the layouts of BIDS and BraTS, with seeded faults.

Every scan is the same asymmetric head, drawn from world coordinates, so scans of different grids
show the same anatomy at the same position. A ball at a known position is its brightest part. A few
voxels differ from file to file, since no two real scans are equal.
"""

import os
import zlib
from pathlib import Path

import nibabel
import numpy as np

SIZE = (40, 48, 36)
BALL_MM = np.array([9.0, 12.0, 4.0])  # right, anterior, superior
LABEL = 4
_BALL_RADIUS_MM = 5.0
_HEAD_RADII_MM = np.array([24.0, 30.0, 26.0])
# Intensities of tissue and ball, and the tissue's change per mm to right, anterior and superior.
_CONTRASTS = {
    "T1w": (400, 900, (3, 1, -2)),
    "FLAIR": (700, 1500, (-4, 2, 3)),
    "T2w": (500, 1200, (1, -5, 2)),
}
_AXES = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0)}
_AXES |= {"S": (0, 0, 1), "I": (0, 0, -1)}


def make_affine(
    codes: str = "RAS", *, spacing=(1.5, 1.5, 1.5), size=SIZE, degrees=0.0, centre=(0, 0, 0)
) -> np.ndarray:
    """Return the affine of a grid with axes along `codes`, then turned about an oblique line."""
    line = np.array([0.4, -0.3, 0.866]) / np.linalg.norm([0.4, -0.3, 0.866])
    cross = np.cross(np.eye(3), line)
    angle = np.radians(degrees)
    turn = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.array([_AXES[code] for code in codes]).T * spacing
    affine[:3, 3] = np.array(centre) - affine[:3, :3] @ ((np.array(size) - 1) / 2)
    return affine


def draw_head(contrast: str, affine: np.ndarray, size=SIZE) -> np.ndarray:
    """Draw the head on a grid, int16 as scanners store it."""
    grid = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), axis=-1)
    world = grid @ affine[:3, :3].T + affine[:3, 3]
    tissue, ball, slope = _CONTRASTS[contrast]
    head = np.where(
        ((world / _HEAD_RADII_MM) ** 2).sum(axis=-1) < 1, tissue + world @ np.array(slope), 0
    )
    near = np.linalg.norm(world - BALL_MM, axis=-1) < _BALL_RADIUS_MM
    return np.where(near, ball, head).astype(np.int16)


def draw_labels(affine: np.ndarray, size=SIZE) -> np.ndarray:
    """Draw the ball as a label."""
    ball = draw_head("T1w", affine, size) == _CONTRASTS["T1w"][1]
    return (ball * LABEL).astype(np.uint8)


def write_scan(path: Path, array: np.ndarray, affine: np.ndarray) -> Path:
    """Write an array with its axes unchanged."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, affine), path)
    return path


def write_head(path: Path, contrast: str, codes: str = "RAS", **place) -> Path:
    """Write a head on a grid of `make_affine`, with a few voxels that depend on the file's name."""
    affine = make_affine(codes, **place)
    head = draw_head(contrast, affine, place.get("size", SIZE))
    number = zlib.crc32(path.name.encode())
    head[head.shape[0] // 2, head.shape[1] // 2, 5:13] += np.array(
        [number >> 4 * digit & 15 for digit in range(8)], dtype=np.int16
    )
    return write_scan(path, head, affine)


def write_bids(root: Path) -> dict[str, int]:
    """Write a BIDS tree with every fault once.

    Returns:
        The expected number of dropped pairs by reason. Subjects 01 (two sessions), 02 (another
        grid), 09 (two runs), 11 (other entities, labels) and 14 must be kept.
    """

    def anat(subject: str, session: str = "") -> Path:
        return root / f"sub-{subject}" / (f"ses-{session}" if session else "") / "anat"

    def head(subject: str, contrast: str, codes: str = "RAS", *, entities="", **place) -> Path:
        name = f"sub-{subject}_{entities}{contrast}.nii.gz"
        return write_head(anat(subject) / name, contrast, codes, **place)

    for session, degrees in (("a", 0), ("b", 7)):
        name = f"sub-01_ses-{session}_"
        write_head(anat("01", session) / f"{name}T1w.nii.gz", "T1w", "LPS", degrees=degrees)
        # The same grid with its voxels stored in another order.
        size = (SIZE[2], SIZE[0], SIZE[1])
        place = {"size": size, "degrees": degrees}
        write_head(anat("01", session) / f"{name}FLAIR.nii", "FLAIR", "IRA", **place)
    head("02", "T1w", "PSR", size=(48, 36, 40), degrees=12)
    other = {"size": (30, 34, 20), "spacing": (2, 2, 3), "centre": (2, -1, 1), "degrees": -6}
    head("02", "FLAIR", "LAS", **other)
    head("02", "T2w", "PSR", size=(48, 36, 40), degrees=12)
    for subject in ("03", "04", "05", "06", "07", "12", "13"):
        head(subject, "T1w")
    head("03", "FLAIR", centre=(30, 0, 0))
    holed = draw_head("FLAIR", make_affine()).astype(np.float32)
    holed[20, 20, 20] = np.nan
    write_scan(anat("04") / "sub-04_FLAIR.nii.gz", holed, make_affine())
    flat = np.full(SIZE, 7, dtype=np.int16)
    write_scan(anat("05") / "sub-05_T1w.nii.gz", flat, make_affine())
    head("05", "FLAIR")
    whole = head("06", "FLAIR")
    whole.write_bytes(whole.read_bytes()[:5000])
    # 07 has no FLAIR, 08 no T1w.
    head("08", "FLAIR")
    for run in ("run-1_", "run-2_"):
        head("09", "T1w", entities=run)
        head("09", "FLAIR", entities="acq-3d_" + run)
        head("10", "T1w", entities=run)
    head("10", "FLAIR")
    head("11", "T1w", entities="acq-mprage_")
    head("11", "FLAIR", entities="acq-3d_")
    labels = draw_labels(make_affine())
    write_scan(anat("11") / "sub-11_acq-mprage_dseg.nii.gz", labels, make_affine())
    os.symlink("../gone.nii.gz", anat("12") / "sub-12_FLAIR.nii.gz")
    write_scan(anat("13") / "sub-13_FLAIR.nii.gz", flat[..., 0], make_affine())
    head("14", "T1w")
    head("14", "FLAIR")
    (root / "sub-15" / "func").mkdir(parents=True)
    return {
        "FLAIR unreadable": 2,
        "not clear which T1w and FLAIR belong together": 2,
        "FLAIR does not cover the T1w": 1,
        "FLAIR holds NaN or infinity": 1,
        "FLAIR missing": 1,
        "FLAIR not there": 1,
        "T1w constant": 1,
        "T1w missing": 1,
    }


def write_many(root: Path, subjects: int) -> None:
    """Write a BIDS tree of many subjects, for a run that takes long enough to be killed."""
    for number in range(subjects):
        stem = root / f"sub-{number:03d}" / "anat" / f"sub-{number:03d}"
        write_head(Path(f"{stem}_T1w.nii"), "T1w")
        write_head(Path(f"{stem}_FLAIR.nii"), "FLAIR", degrees=5)


def write_brats(root: Path) -> None:
    """Write three cases of 2021 and two visits of one patient of 2023, with labels."""
    for case in ("BraTS2021_00000", "BraTS2021_00002", "BraTS2021_00003"):
        stem = root / "2021" / case / case
        write_head(Path(f"{stem}_t1.nii.gz"), "T1w", "LPS")
        write_head(Path(f"{stem}_t2.nii.gz"), "T2w", "LPS")
        if not case.endswith("3"):
            write_head(Path(f"{stem}_flair.nii.gz"), "FLAIR", "LPS")
        affine = make_affine("LPS")
        write_scan(Path(f"{stem}_seg.nii.gz"), draw_labels(affine), affine)
    for visit in ("000", "001"):
        stem = root / "2023" / f"BraTS-GLI-00005-{visit}" / f"BraTS-GLI-00005-{visit}"
        write_head(Path(f"{stem}-t1n.nii.gz"), "T1w")
        write_head(Path(f"{stem}-t2f.nii.gz"), "FLAIR")
        write_head(Path(f"{stem}-t2w.nii.gz"), "T2w")
