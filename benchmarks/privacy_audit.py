"""Sensitivity and false alarms of the privacy audit on planted near-copies.

    python benchmarks/privacy_audit.py

Synthetic patients are split into training and held-out ones. "Samples" are phantoms of new
patients, which are not copies, and near-copies of training images: some mirrored, all zoomed by up
to 10 %, shifted by up to 3 pixels (1 slice) and with noise. The benchmark prints the share of
copies that are found, the share with the right training image, and the share of new patients that
are wrongly called copies. It needs no training and no weights: it measures the audit, not a model.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from diffct.imaging.affine_motion import move_images
from diffct.phantoms.chest.cohort import draw_patient, render_film
from diffct.phantoms.chest.truth import draw_truth
from diffct.phantoms.pelvis.cohort import pelvis_phantom
from diffct.privacy.memorisation import NearestDistances, memorisation
from diffct.privacy.neighbours import COMPARISONS, Gallery, Nearest, NeighbourSearch

ZOOM, SHIFT_PX, SHIFT_SLICES = 0.1, 3.0, 1.0
_MAX_REAL = 150


@dataclass(frozen=True)
class Case:
    """Phantoms of one kind: a function that makes one, and how many are used."""

    make: Callable[[int], np.ndarray]
    train: int
    held_out: int
    new: int
    copies: int


def chest(seed: int) -> np.ndarray:
    """Make a film of 128x128 pixels, in [0, 1]."""
    truth_rng, patient_rng = np.random.default_rng((7, seed)).spawn(2)
    return render_film(draw_patient(draw_truth(truth_rng), patient_rng), size=(128, 128))


def pelvis(seed: int, *, spacing_mm: float) -> np.ndarray:
    """Make a volume of 128x320x384 mm, -1000 to 1000 HU as [0, 1]."""
    size = tuple(round(length / spacing_mm) for length in (128, 320, 384))
    phantom = pelvis_phantom(10_000 + seed, size=size, spacing_mm=(spacing_mm,) * 3)
    return (np.clip(phantom.volume.array, -1000, 1000) + 1000) / 2000


CASES = {
    "chest films": Case(chest, train=400, held_out=100, new=400, copies=40),
    "pelvis CT, 4 mm": Case(
        partial(pelvis, spacing_mm=4.0), train=23, held_out=5, new=100, copies=20
    ),
    "pelvis CT, 8 mm": Case(
        partial(pelvis, spacing_mm=8.0), train=23, held_out=5, new=100, copies=20
    ),
}


def near_copy(image: Tensor, rng: np.random.Generator, *, noise: float) -> Tensor:
    """Randomly mirror, zoom and shift an image (1, *size) in [0, 1], and add noise."""
    size = image.shape[1:]
    largest = [SHIFT_PX] * len(size)
    if len(size) == 3:
        largest[0] = SHIFT_SLICES
    steps = np.full(len(size), 1 / rng.uniform(1 - ZOOM, 1 + ZOOM))
    steps[-1] *= rng.choice([-1, 1])
    # `affine_grid` counts the image as 2 wide, and its axes in reverse order.
    shifts = [2 * rng.uniform(-most, most) / n for most, n in zip(largest, size, strict=True)]
    theta = np.column_stack([np.diag(steps[::-1]), shifts[::-1]])
    moved = move_images(image[None], torch.from_numpy(theta).float()[None], padding="border")[0]
    return moved + noise * torch.from_numpy(rng.standard_normal(moved.shape)).float()


def measure(case: Case, *, noises: list[float], seed: int, device: str) -> list[str]:
    """Audit one case with each noise level and return a table row for each."""
    number = case.train + case.held_out + case.new
    patients = range(seed * number, (seed + 1) * number)
    made = [case.make(patient) for patient in tqdm(patients, "phantoms")]
    images = torch.from_numpy(np.stack(made)).float()[:, None]
    train, held_out, new = images.split([case.train, case.held_out, case.new])
    search = NeighbourSearch(torch.cat([train, held_out]), device=device)
    galleries = [search.gallery(part) for part in (train, held_out)]
    # Real images determine the threshold; a selection of them suffices.
    step = max(1, (case.train + case.held_out) // _MAX_REAL)
    real = find(search, galleries, images[: case.train + case.held_out : step], own=step)
    fresh = find(search, galleries, new)
    rng = np.random.default_rng(seed)
    lines = []
    for noise in noises:
        chosen = rng.choice(case.train, case.copies).tolist()
        planted = torch.stack([near_copy(train[index], rng, noise=noise) for index in chosen])
        found = find(search, galleries, planted)
        results = [
            memorisation(distances([*fresh, *found], by), distances(real, by)) for by in COMPARISONS
        ]
        either = np.any([result.suspicious for result in results], axis=0)
        cells = [share(either[case.new :])]
        cells += [share(result.suspicious[case.new :]) for result in results]
        nearest = np.array([[getattr(pair[0], by).index for pair in found] for by in COMPARISONS])
        cells.append(share((nearest == chosen).any(axis=0)))
        cells.append(share(either[: case.new]))
        lines.append(f"| {noise:.0%} | " + " | ".join(cells) + " |")
    return lines


def share(found: np.ndarray) -> str:
    """Format the share and the number of those found."""
    return f"{found.mean():.1%} ({found.sum()}/{len(found)})"


def find(
    search: NeighbourSearch, galleries: list[Gallery], queries: Tensor, *, own: int | None = None
) -> list[Nearest]:
    """Return the nearest of both galleries.

    If the queries are every `own`-th gallery image, each is excluded from its own search.
    """
    sizes = [len(gallery.coarse) for gallery in galleries]
    found = []
    for number, query in enumerate(tqdm(queries, "neighbours")):
        itself = torch.arange(sum(sizes)) == (-1 if own is None else number * own)
        train, held_out = (
            search.nearest(query, gallery, excluded=excluded)
            for gallery, excluded in zip(galleries, itself.split(sizes), strict=True)
        )
        found.append(Nearest(train, held_out))
    return found


def distances(pairs: list[Nearest], by: str) -> NearestDistances:
    """Return the distances of one comparison."""
    return NearestDistances(
        *(np.array([getattr(pair[side], by).distance for pair in pairs]) for side in (0, 1))
    )


def main() -> None:
    """Print a table for each case."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", choices=CASES, action="append", help="may be repeated (all)")
    parser.add_argument("--noise", type=float, nargs="+", default=[0.01, 0.02, 0.03])
    parser.add_argument("--seed", type=int, default=0, help="seed of patients and copies")
    parser.add_argument("--device", default="cpu", help="device of the search: cpu or cuda")
    options = parser.parse_args()
    for name in options.case or CASES:
        case = CASES[name]
        lines = measure(case, noises=options.noise, seed=options.seed, device=options.device)
        print(f"\n{name}: {case.train} training, {case.held_out} held-out, {case.new} new patients")
        print("| noise | copies found | by anatomy | by detail | right image | false alarms |")
        print("|---" * 6 + "|")
        print("\n".join(lines), flush=True)


if __name__ == "__main__":
    main()
