"""Anatomy of one patient of the chest phantom: lungs, heart, mediastinum, abdomen.

All lengths are millimetres, (superior, posterior, left), the origin in the middle of the film and
of the chest. Every organ has its own random generator, so that the same seed gives the same patient
with and without a finding.
"""

from dataclasses import dataclass

import numpy as np

from diffct.phantoms.chest.film import Paint, Threads, View
from diffct.phantoms.chest.frame import SIGNS, Frame, Lung
from diffct.phantoms.chest.lesions import add_findings
from diffct.phantoms.chest.threads import draw_bones, draw_vessels
from diffct.phantoms.chest.truth import ChestTruth, Side
from diffct.phantoms.ray_solids import Barrel, LeaningEllipsoid

AIR, SOFT, LIVER = 0.0, 1.0, 1.04  # densities relative to water

# Rows (level, posterior, left, posterior radius, left radius).
BODY = [
    (230, 0, 0, 66, 64), (178, 0, 0, 70, 66), (160, 0, 0, 80, 100), (142, 2, 0, 92, 165),
    (115, 4, 0, 104, 196), (60, 5, 0, 112, 196), (0, 5, 0, 115, 180), (-60, 5, 0, 116, 170),
    (-120, 5, 0, 116, 164), (-230, 5, 0, 114, 162),
]  # fmt: skip
# Rows (level, lateral border, medial border, posterior, posterior radius) of the left side.
CAVITY = [
    (-128, 127, 10, 12, 84), (-105, 136, 9, 9, 87), (-75, 140, 8, 7, 88), (-30, 136, 8, 6, 86),
    (20, 129, 8, 8, 80), (60, 117, 8, 10, 71), (95, 98, 9, 12, 58), (116, 80, 12, 15, 45),
    (129, 66, 16, 17, 34), (137, 57, 21, 18, 24), (143, 47, 30, 19, 12), (148, 40, 37, 19, 2),
]  # fmt: skip
MEDIASTINUM = [
    (200, 0, 0, 55, 30), (135, 0, 0, 58, 28), (105, 0, 0, 64, 24), (75, -2, 0, 72, 23),
    (45, -2, 0, 74, 26), (10, 0, 0, 74, 27), (-20, 22, 0, 58, 20), (-140, 40, 0, 50, 19),
]  # fmt: skip
TRACHEA = [(230, 8, -1, 9, 8.5), (90, 14, -2, 9, 8.5), (34, 20, -2, 10, 10)]
VENA_CAVA = [(105, -5, -20, 10, 9), (55, -5, -24, 12, 11), (0, -8, -25, 13, 12)]
DESCENDING_AORTA = [(55, 48, 25, 13, 13), (-40, 56, 21, 12, 12), (-150, 58, 10, 12, 12)]


@dataclass(frozen=True)
class ChestAnatomy:
    """One patient in millimetres.

    Attributes:
        view: Position in front of the detector.
        body: The outline of the body.
        cavities: The pleural cavities.
        heart: The two ellipsoids of the heart: right atrium and left ventricle.
        paints: The solids inside the body, in the order of painting.
        vessels: Threads that are drawn inside aerated lung only.
        bones: Threads that are drawn regardless of their surroundings.
        thickness_mm: Thickness of the body from front to back.
    """

    view: View
    body: Barrel
    cavities: dict[Side, Barrel]
    heart: tuple[LeaningEllipsoid, LeaningEllipsoid]
    paints: tuple[Paint, ...]
    vessels: tuple[Threads, ...]
    bones: tuple[Threads, ...]
    thickness_mm: float


def draw_anatomy(truth: ChestTruth, rng: np.random.Generator) -> ChestAnatomy:
    """Draw a patient.

    Args:
        truth: The findings and the heart size to show.
        rng: Source of all other variation.

    Returns:
        The patient.
    """
    frame_rng, chest_rng, heart_rng, organ_rng, bone_rng, vessel_rng, lesion_rng = rng.spawn(7)
    frame = _draw_frame(frame_rng)
    view = View(tuple(frame_rng.normal(0, 4, 2)), np.radians(frame_rng.normal(0, 1.0)))
    fat_mm = frame_rng.uniform(-4, 8)
    body = np.array(BODY, dtype=float)
    body[:, 3:] += fat_mm
    cavities, domes = _draw_chest(frame, chest_rng)
    lung_density = chest_rng.uniform(0.25, 0.31)
    lungs = {
        side: Lung(side, cavity, cavity, lung_density, domes[side])
        for side, cavity in cavities.items()
    }
    heart = _draw_heart(truth.cardiothoracic_ratio, cavities, heart_rng)
    lungs, lung_paints, push_mm = add_findings(truth.findings, lungs, heart, lesion_rng)
    atrium, ventricle = (part.shifted(push_mm) for part in heart)
    heart = (atrium, ventricle)
    paints = [
        *lung_paints,
        *(Paint(dome, LIVER if side == "right" else SOFT) for side, dome in domes.items()),
        *_draw_middle(frame, organ_rng, push_mm=push_mm),
        *(Paint(part, SOFT) for part in heart),
        Paint(frame.barrel(TRACHEA).shifted(0.7 * push_mm), AIR),
        _draw_gastric_bubble(frame, domes["left"], organ_rng),
    ]
    return ChestAnatomy(
        view=view,
        body=frame.barrel(body, exponent=2.5),
        cavities=cavities,
        heart=heart,
        paints=tuple(paints),
        vessels=tuple(draw_vessels(lung, vessel_rng) for lung in lungs.values()),
        bones=draw_bones(frame, cavities, bone_rng),
        thickness_mm=2 * (115 + fat_mm) * float(frame.stretch[1]),
    )


def _draw_frame(rng: np.random.Generator) -> Frame:
    size = rng.normal(1.0, 0.025)
    stretch = np.clip(size * np.exp(rng.normal(0, (0.03, 0.05, 0.025))), 0.88, 1.09)
    return Frame(stretch, np.radians(np.clip(rng.normal(0, 1.5), -3.5, 3.5)))


def _draw_chest(
    frame: Frame, rng: np.random.Generator
) -> tuple[dict[Side, Barrel], dict[Side, LeaningEllipsoid]]:
    """Draw the pleural cavities and the domes of the diaphragm under them."""
    cavities, domes = {}, {}
    taper = rng.normal(0, 0.03)
    breath_mm = rng.uniform(-7, 7)
    base_mm = rng.normal(0, 4)
    for side, sign in SIGNS.items():
        level, lateral, medial, posterior, depth = np.array(CAVITY, dtype=float).T
        # The right lung is slightly wider; only the lower half follows the base of the chest.
        wider = 1.02 if side == "right" else 1.0
        lateral = lateral * (wider + taper * level / 130 + rng.normal(0, 0.008))
        level = np.where(level < 0, level + base_mm * (level / -128), level)
        centre, width = (lateral + medial) / 2, (lateral - medial) / 2
        rows = np.column_stack([level, posterior, sign * centre, depth, width])
        cavities[side] = frame.barrel(rows, exponent=2.3)
        top_mm = (-72 if side == "right" else -86) + breath_mm + base_mm / 2 + rng.normal(0, 2)
        floor_mm = -135 + base_mm
        domes[side] = frame.ellipsoid(
            (floor_mm, 8, sign * centre[0]),
            (top_mm - floor_mm, 1.05 * depth[0], 1.05 * width[0]),
        )
    return cavities, domes


def chest_width_mm(cavities: dict[Side, Barrel]) -> float:
    """Return the largest inner width of the chest."""
    levels = np.arange(-140.0, 141.0)
    left = cavities["left"].lateral_mm(levels, side=1)
    return float((left - cavities["right"].lateral_mm(levels, side=-1)).max())


def _draw_heart(
    ratio: float, cavities: dict[Side, Barrel], rng: np.random.Generator
) -> tuple[LeaningEllipsoid, LeaningEllipsoid]:
    """Draw right atrium and left ventricle, whose total width has the given ratio exactly."""
    inner_mm = chest_width_mm(cavities)
    width_mm = ratio * inner_mm
    middle_mm = float(np.mean([c.lateral_mm(-75.0, side=SIGNS[s]) for s, c in cavities.items()]))
    right_mm = width_mm * rng.uniform(0.29, 0.35)
    left_mm = width_mm - right_mm
    growth = width_mm / (0.45 * inner_mm)
    height = 56 * growth**0.55 * rng.uniform(0.95, 1.05)
    lean = -rng.uniform(0.38, 0.55)
    # Half the width of the sheared ellipsoid is the hypotenuse of its radius and its lean.
    half = 0.62 * left_mm
    ventricle = LeaningEllipsoid(
        (-42 + rng.normal(0, 2), -22, middle_mm + left_mm - half),
        (height, 57 * growth**0.4, np.sqrt(half**2 - (lean * height) ** 2)),
        lean=lean,
    )
    half = 0.5 * right_mm + 0.26 * left_mm
    atrium = LeaningEllipsoid(
        (-38 + rng.normal(0, 2), -20, middle_mm - right_mm + half),
        (50 * growth**0.4, 54 * growth**0.4, half),
    )
    return atrium, ventricle


def _draw_middle(frame: Frame, rng: np.random.Generator, *, push_mm: float) -> list[Paint]:
    """Draw the mediastinum, the great vessels and the roots of the lungs."""
    wide = rng.uniform(0.9, 1.12)
    mediastinum = np.array(MEDIASTINUM, dtype=float)
    mediastinum[:, 4] *= wide
    knob = rng.uniform(0.85, 1.2)
    solids: list[Barrel | LeaningEllipsoid] = [
        frame.barrel(mediastinum, exponent=2.0),
        frame.barrel(VENA_CAVA),
        frame.barrel(DESCENDING_AORTA),
        frame.ellipsoid((51, 22, 27), (16 * knob, 30, 16 * knob)),
        frame.ellipsoid((16, -6, 26), (24, 28, rng.uniform(15, 20))),
    ]
    paints = [Paint(solid.shifted(0.6 * push_mm), SOFT) for solid in solids]
    for sign, level in ((1, 17), (-1, 7)):
        root = frame.ellipsoid((level + rng.normal(0, 3), 14, sign * 40), (15, 16, 12))
        paints.append(Paint(root.shifted(0.6 * push_mm), SOFT, opacity=0.6))
    return paints


def _draw_gastric_bubble(frame: Frame, dome: LeaningEllipsoid, rng: np.random.Generator) -> Paint:
    """Draw the air in the stomach, under the left dome."""
    top_mm = float(dome.centre[0] + dome.radii[0])
    radii = (rng.uniform(10, 17), rng.uniform(25, 40), rng.uniform(17, 28))
    centre = (top_mm - 9 - radii[0], 0, float(dome.centre[2]) - rng.uniform(4, 14))
    return Paint(LeaningEllipsoid(centre, radii), AIR)
