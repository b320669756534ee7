"""The findings of the chest phantom: effusion, pneumothorax, nodule, consolidation.

Positions are millimetres, (superior, posterior, left).
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from diffct.phantoms.chest.film import Paint
from diffct.phantoms.chest.frame import Lung
from diffct.phantoms.chest.truth import ChestFinding, Severity, Side
from diffct.phantoms.ray_solids import Barrel, LeaningEllipsoid, PleuralFluid, Within

# Height of the fluid at the chest wall as a share of the lung's height.
FLUID_SHARE: dict[Severity, tuple[float, float]] = {
    "small": (0.17, 0.22),
    "moderate": (0.34, 0.42),
    "large": (0.56, 0.68),
}
NODULE_MM: dict[Severity, tuple[float, float]] = {
    "small": (10.0, 14.0),
    "moderate": (16.0, 22.0),
    "large": (24.0, 32.0),
}
# Gap between lung and chest wall as a share of the lung's width.
COLLAPSE_SHARE: dict[Severity, tuple[float, float]] = {
    "small": (0.13, 0.17),
    "moderate": (0.30, 0.38),
    "large": (0.60, 0.70),
}
CONSOLIDATION_MM: dict[Severity, tuple[float, float]] = {
    "small": (20.0, 24.0),
    "moderate": (31.0, 36.0),
    "large": (43.0, 50.0),
}
CONSOLIDATION_DENSITY: dict[Severity, float] = {"small": 0.88, "moderate": 0.9, "large": 0.95}
# As dense as a granuloma with some calcium, so that small ones are visible at 3 mm per pixel.
NODULE_DENSITY: dict[Severity, float] = {"small": 1.9, "moderate": 1.4, "large": 1.15}
PLEURA_MM = 1.4  # thickness of the visible pleural line
# Distance from the midline that the aortic knob and the superior vena cava reach.
GREAT_VESSELS_MM = 46.0


def add_findings(
    findings: Sequence[ChestFinding],
    lungs: dict[Side, Lung],
    heart: Sequence[LeaningEllipsoid],
    rng: np.random.Generator,
) -> tuple[dict[Side, Lung], list[Paint], float]:
    """Put the findings into the lungs.

    Args:
        findings: The findings to add.
        lungs: Healthy lungs.
        heart: The heart, from which nodules and consolidations keep a distance.
        rng: Source of position, size and shape.

    Returns:
        The lungs (smaller where collapsed), the solids to paint for them, and by how many mm the
        mediastinum is pushed to the left.
    """
    paints: list[Paint] = []
    push_mm = 0.0
    for kind in ("pneumothorax", "lung", "consolidation", "nodule", "effusion"):
        if kind == "lung":
            paints += [Paint(lung.tissue, lung.density) for lung in lungs.values()]
        # One generator per kind, so that a finding does not change the others.
        child = rng.spawn(1)[0]
        for finding in findings:
            if finding.kind != kind:
                continue
            lung = lungs[finding.side]
            if kind == "pneumothorax":
                lungs = lungs | {finding.side: _collapse(lung, finding.severity, child)}
                paints += [
                    Paint(lung.cavity, 0.0),
                    Paint(_grown(lungs[finding.side].tissue, PLEURA_MM), 1.0),
                ]
                push_mm -= lung.sign * {"small": 0, "moderate": 3, "large": 9}[finding.severity]
            elif kind == "consolidation":
                paints += _consolidate(lung, finding, heart, child)
            elif kind == "nodule":
                paints.append(_nodule(lung, finding, heart, child))
            elif kind == "effusion":
                paints.append(_effuse(lung, finding.severity, child))
                push_mm -= lung.sign * {"small": 0, "moderate": 0, "large": 4}[finding.severity]
    return lungs, paints, push_mm


def _effuse(lung: Lung, severity: Severity, rng: np.random.Generator) -> Paint:
    share = rng.uniform(*FLUID_SHARE[severity])
    wall_mm = lung.base_mm + share * lung.height_mm
    return Paint(PleuralFluid(lung.cavity, lung.sign, wall_mm, rng.uniform(28, 40), 20.0), 1.0)


def _collapse(lung: Lung, severity: Severity, rng: np.random.Generator) -> Lung:
    """Return the lung collapsed towards its root, away from the chest wall, most at the apex."""
    gap = rng.uniform(*COLLAPSE_SHARE[severity])
    level, posterior, centre, depth, width = lung.cavity.rows.T
    up = np.clip((level - lung.base_mm) / lung.height_mm, 0, 1)
    narrower = np.clip(gap * (0.55 + 0.75 * up), 0, 0.85)
    medial = lung.sign * centre - width
    width = width * (1 - narrower)
    centre = lung.sign * (medial + width)
    depth = depth * (1 - 0.6 * narrower)
    root = lung.root_mm[0]
    apart = np.where(level > root, 1 - 0.75 * gap - 0.04, 1 - 0.35 * max(gap - 0.2, 0))
    level = root + (level - root) * apart
    rows = np.column_stack([level, posterior, centre, depth, width])
    # The smaller lung is denser, since it holds much of the same tissue.
    density = min(lung.density / (1 - gap) ** 0.8, 0.62)
    return replace(lung, tissue=Barrel(rows, exponent=lung.cavity.exponent), density=density)


def _grown(tissue: Barrel, thickness_mm: float) -> Barrel:
    rows = np.add(tissue.rows, (0, 0, 0, thickness_mm, thickness_mm))
    rows[rows[:, 0].argmax(), 0] += thickness_mm
    return Barrel(rows, exponent=tissue.exponent)


def _place(
    lung: Lung,
    finding: ChestFinding,
    heart: Sequence[LeaningEllipsoid],
    radius_mm: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return a point in the finding's zone, if possible clear of heart, root and diaphragm."""
    low, high = (0.56, 0.82) if finding.zone == "upper" else (0.30, 0.46)
    tries = 200
    superior = lung.base_mm + lung.height_mm * rng.uniform(low, high, tries)
    _, middle, _, width = lung.tissue.keyframes.at(superior)
    left = middle + lung.sign * width * rng.uniform(-0.35, 0.6, tries)
    posterior = rng.uniform(-25, 40, tries)
    points = np.stack([superior, posterior, left], axis=-1)
    root = np.hypot(superior - lung.root_mm[0], left - lung.sign * 40) - 24
    vessels = lung.sign * left - GREAT_VESSELS_MM
    wall = lung.sign * (lung.tissue.lateral_mm(superior, side=lung.sign) - left)
    solids = [*heart, lung.dome]
    apart = [_shadow_distance(solid, superior, left) for solid in solids]
    room = np.min([root, vessels, wall, *apart], axis=0) - radius_mm
    # All points with 4 mm of clearance are equally good; argmax takes the first, a random one.
    return points[np.argmax(np.minimum(room, 4.0))]


def _shadow_distance(solid: LeaningEllipsoid, superior: np.ndarray, left: np.ndarray) -> np.ndarray:
    """Return the approximate distance in mm of positions from an ellipsoid's shadow."""
    height = superior - solid.centre[0]
    aside = left - solid.centre[2] - solid.lean * height
    norm = np.hypot(height / solid.radii[0], aside / solid.radii[2])
    return (norm - 1) * min(solid.radii[0], solid.radii[2])


def _nodule(
    lung: Lung,
    finding: ChestFinding,
    heart: Sequence[LeaningEllipsoid],
    rng: np.random.Generator,
) -> Paint:
    radius_mm = rng.uniform(*NODULE_MM[finding.severity]) / 2
    centre = _place(lung, finding, heart, radius_mm, rng)
    ball = LeaningEllipsoid(centre, np.full(3, radius_mm) * rng.uniform(0.95, 1.05, 3))
    return Paint(ball, NODULE_DENSITY[finding.severity])


def _consolidate(
    lung: Lung,
    finding: ChestFinding,
    heart: Sequence[LeaningEllipsoid],
    rng: np.random.Generator,
) -> list[Paint]:
    """Return patches of airless lung, clustered around one point and fading outwards."""
    radius_mm = rng.uniform(*CONSOLIDATION_MM[finding.severity])
    centre = _place(lung, finding, heart, radius_mm * 0.6, rng)
    density = CONSOLIDATION_DENSITY[finding.severity]
    paints = []
    for _ in range(9):
        offset = rng.uniform(-1, 1, 3) * radius_mm * (0.5, 0.7, 0.5)
        radii = radius_mm * rng.uniform(0.4, 0.7, 3) * (1.0, 1.3, 1.0)
        for scale in (1.0, 0.8, 0.6):
            patch = LeaningEllipsoid(centre + offset, radii * scale)
            paints.append(Paint(Within(patch, lung.tissue), density, opacity=0.38))
    return paints
