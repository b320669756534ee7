"""How many planted near-copies the privacy audit finds, and how often it cries wolf.

    python benchmarks/privacy_audit.py

Synthetic patients are divided into training and held-out ones. "Samples" are phantoms of new
patients, which are no copies, and near-copies of training images: each mirrored or not, zoomed by
up to 10 %, shifted by up to 3 pixels (1 slice), with noise. Printed are the share of copies that
are found, with the right training image, and the share of new patients that are called copies. No
training, no weights: this measures the audit, not a model.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample
from tqdm.auto import tqdm

from diffct.data.phantoms.chest import draw_patient, render_film
from diffct.data.phantoms.chest_truth import draw_truth
from diffct.data.phantoms.pelvis import pelvis_phantom
from diffct.metrics.memorisation import NearestDistances, memorisation
from diffct.metrics.neighbours import Gallery, NeighbourSearch

ZOOM, SHIFT_PX, SHIFT_SLICES = 0.1, 3.0, 1.0
_MOST_REAL, _COPIES = 150, 40


@dataclass(frozen=True)
class Case:
    """Phantoms of one system: how one is made, and how many are used."""

    make: Callable[[int], np.ndarray]
    train: int
    held_out: int
    new: int


def chest(seed: int) -> np.ndarray:
    """Make a film of 128x128 pixels, in [0, 1]."""
    truth_rng, patient_rng = np.random.default_rng((7, seed)).spawn(2)
    return render_film(draw_patient(draw_truth(truth_rng), patient_rng), size=(128, 128))


def pelvis(seed: int) -> np.ndarray:
    """Make a volume of 16x40x48 voxels of 8 mm, -1000 to 1000 HU as [0, 1]."""
    phantom = pelvis_phantom(10_000 + seed, size=(16, 40, 48), spacing_mm=(8.0, 8.0, 8.0))
    return (np.clip(phantom.volume.array, -1000, 1000) + 1000) / 2000


CASES = {
    "chest films": Case(chest, train=400, held_out=100, new=400),
    "pelvis CT": Case(pelvis, train=23, held_out=5, new=100),
}


def near_copy(image: Tensor, rng: np.random.Generator, *, noise: float) -> Tensor:
    """Mirror or not, zoom, shift and add noise to an image (1, *size) in [0, 1]."""
    size = image.shape[1:]
    largest = [SHIFT_PX] * len(size)
    if len(size) == 3:
        largest[0] = SHIFT_SLICES
    steps = np.full(len(size), 1 / rng.uniform(1 - ZOOM, 1 + ZOOM))
    steps[-1] *= rng.choice([-1, 1])
    shifts = [2 * rng.uniform(-most, most) / n for most, n in zip(largest, size, strict=True)]
    theta = np.column_stack([np.diag(steps[::-1]), shifts[::-1]])
    places = affine_grid(torch.from_numpy(theta).float()[None], [1, 1, *size], align_corners=False)
    moved = grid_sample(image[None], places, padding_mode="border", align_corners=False)[0]
    return moved + noise * torch.from_numpy(rng.standard_normal(moved.shape)).float()


def measure(case: Case, *, noises: list[float], seed: int) -> list[str]:
    """Audit one case with each noise and return a line for each."""
    number = case.train + case.held_out + case.new
    made = [case.make(index) for index in tqdm(range(number), "phantoms")]
    images = torch.from_numpy(np.stack(made)).float()[:, None]
    train, held_out, new = images.split([case.train, case.held_out, case.new])
    search = NeighbourSearch(torch.cat([train, held_out]))
    galleries = [search.gallery(part) for part in (train, held_out)]
    # Real images tell the threshold; of many, a pick is enough.
    step = max(1, (case.train + case.held_out) // _MOST_REAL)
    real = distances(search, galleries, images[: case.train + case.held_out : step], own=step)
    fresh = distances(search, galleries, new)
    rng = np.random.default_rng(seed)
    lines = []
    for noise in noises:
        chosen = rng.choice(case.train, _COPIES).tolist()
        planted = torch.stack([near_copy(train[index], rng, noise=noise) for index in chosen])
        found = distances(search, galleries, planted)
        joined = NearestDistances(
            np.concatenate([fresh[0].train, found[0].train]),
            np.concatenate([fresh[0].held_out, found[0].held_out]),
        )
        result = memorisation(joined, real[0])
        alarms, hits = np.split(result.suspicious, [case.new])
        right = np.mean(np.array(found[1]) == np.array(chosen))
        lines.append(
            f"| {noise:.0%} | {hits.mean():.0%} ({hits.sum()}/{_COPIES}) | {right:.0%} |"
            f" {alarms.mean():.2%} ({alarms.sum()}/{case.new}) | {result.threshold:.3f} |"
            f" {joined.scores[case.new :].max():.3f} | {joined.scores[: case.new].min():.3f} |"
        )
    return lines


def distances(
    search: NeighbourSearch, galleries: list[Gallery], queries: Tensor, *, own: int | None = None
) -> tuple[NearestDistances, list[int]]:
    """Find the nearest of both galleries; `own` is the step of queries that are gallery images."""
    sizes = [len(gallery.coarse) for gallery in galleries]
    found: list[list[float]] = [[], []]
    nearest = []
    for number, query in enumerate(tqdm(queries, "neighbours")):
        itself = torch.arange(sum(sizes)) == (-1 if own is None else number * own)
        pair = [
            search.nearest(query, gallery, excluded=excluded)
            for gallery, excluded in zip(galleries, itself.split(sizes), strict=True)
        ]
        for some, neighbour in zip(found, pair, strict=True):
            some.append(neighbour.distance)
        nearest.append(pair[0].index)
    return NearestDistances(*map(np.array, found)), nearest


def main() -> None:
    """Print a table for each case."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", choices=CASES, action="append", help="again for more (all)")
    parser.add_argument("--noise", type=float, nargs="+", default=[0.01, 0.02, 0.03])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for name in options.case or CASES:
        case = CASES[name]
        lines = measure(case, noises=options.noise, seed=options.seed)
        print(f"\n{name}: {case.train} training, {case.held_out} held-out, {case.new} new patients")
        print("| noise | copies found | right image | false alarms | threshold |", end="")
        print(" largest score of a copy | smallest of a new patient |\n" + "|---" * 7 + "|")
        print("\n".join(lines), flush=True)


if __name__ == "__main__":
    main()
