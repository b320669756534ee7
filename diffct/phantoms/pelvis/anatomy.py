"""Anatomy of one patient of the pelvis phantom, drawn randomly from the template.

All individual variation comes from here, from one random generator: build, fat, pose, the filling
of bladder and bowel, small shifts of every structure on either side. The result, a `PelvisAnatomy`,
does not depend on any grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.transform import Rotation

from diffct.phantoms.canvas import Layer, Pose, Texture
from diffct.phantoms.pelvis import template
from diffct.phantoms.sculptor import Sculptor
from diffct.phantoms.shapes import Chain, Column, Cut, Difference, Ellipsoid, Shape, Union

PELVIS_LABELS: dict[str, int] = {
    "air": 0,
    "table": 1,
    "skin": 2,
    "fat": 3,
    "muscle": 4,
    "vessel": 5,
    "bowel": 6,
    "rectum": 7,
    "gas": 8,
    "bladder": 9,
    "prostate": 10,
    "seminal_vesicles": 11,
    "cartilage": 12,
    "sacrum": 13,
    "lumbar_spine": 14,
    "hip_bone_left": 15,
    "hip_bone_right": 16,
    "femur_left": 17,
    "femur_right": 18,
    "spinal_canal": 19,
}


SKIN_HU, FAT_HU, MUSCLE_HU, VESSEL_HU = 10.0, -100.0, 50.0, 45.0
BLADDER_HU, PROSTATE_HU, VESICLE_HU, BOWEL_WALL_HU = 5.0, 40.0, 25.0, 45.0
CORTEX_HU, CARTILAGE_HU, CANAL_HU, GAS_HU = 900.0, 70.0, 15.0, -990.0
# Marrow is densest in the bones that carry the most weight.
FEMUR_MARROW_HU, HIP_MARROW_HU, SPINE_MARROW_HU, SHAFT_MARROW_HU = 270.0, 240.0, 230.0, 50.0


@dataclass(frozen=True)
class Part:
    """A shape, its materials, and whether it is clipped by the fascia of the muscles."""

    shape: Shape
    layers: tuple[Layer, ...]
    within_fascia: bool = False


@dataclass(frozen=True)
class PelvisAnatomy:
    """One patient.

    Attributes:
        pose: Position on the table.
        texture: Texture of the tissues.
        body: The outline of the skin.
        cleft: The air between the buttocks.
        fat_mm: Thickness of the fat under the skin in world mm: (anterior, posterior, lateral).
        parts: The structures inside, in the order of painting.
        organs: Bladder and prostate together, for measuring their volumes.
        table_mm: Posterior world position of the lowest line of the table's top.
        femoral_head_radius_mm: In world mm, (left, right).
    """

    pose: Pose
    texture: Texture
    body: Shape
    cleft: Shape
    fat_mm: tuple[float, float, float]
    parts: tuple[Part, ...]
    organs: Shape
    table_mm: float
    femoral_head_radius_mm: tuple[float, float]


def _layer(depth_mm: float, label: str, hu: float, texture_hu: float = 0.0) -> Layer:
    return Layer(depth_mm, PELVIS_LABELS[label], hu, texture_hu)


def _bone(label: str, cortex_mm: float, marrow_hu: float) -> tuple[Layer, ...]:
    return (_layer(0, label, CORTEX_HU, 40), _layer(cortex_mm, label, marrow_hu, 45))


def draw_anatomy(rng: np.random.Generator) -> PelvisAnatomy:
    """Draw one patient.

    Args:
        rng: Source of all individual variation.

    Returns:
        The patient; the same generator state gives the same one.
    """
    pose = _draw_pose(rng)
    sculptor = Sculptor(rng, stretch=np.clip(rng.normal(1, 0.025, 3), 0.95, 1.05))
    lateral_fat = rng.uniform(9, 32)
    fat_mm = (
        lateral_fat * rng.uniform(0.6, 1.4),
        lateral_fat * rng.uniform(0.8, 1.3),
        lateral_fat,
    )
    anterior_fat, posterior_fat, lateral_fat = (fat / pose.scale for fat in fat_mm)
    body, cleft = _draw_outline(sculptor, (anterior_fat, posterior_fat, lateral_fat))
    organs, organ_parts = _draw_organs(sculptor)
    bone_parts, (left_head, right_head) = _draw_bones(sculptor)
    bulk = rng.uniform(0.86, 1.06)
    parts = (
        *_draw_bowel(sculptor, down=pose.rotation[1]),
        *_draw_muscles(sculptor, bulk),
        *_draw_vessels(sculptor),
        *_draw_rectum(sculptor, down=pose.rotation[1]),
        *organ_parts,
        *bone_parts,
    )
    # The body sinks a centimetre into the table: soft tissue flattens under its weight.
    lowest = pose.to_world(np.array([[-20.0, body.bounds[1, 1], 0.0]]))[0, 1]
    return PelvisAnatomy(
        pose=pose,
        texture=Texture(rng),
        body=body,
        cleft=cleft,
        fat_mm=fat_mm,
        parts=parts,
        organs=organs,
        table_mm=lowest - 10,
        femoral_head_radius_mm=(left_head * pose.scale, right_head * pose.scale),
    )


def _draw_pose(rng: np.random.Generator) -> Pose:
    angles = np.clip(rng.normal(0, (2.5, 1.5, 2.0)), -6, 6)
    frequencies = rng.uniform(-1, 1, (3, 3, 2)) * 2 * np.pi / 80
    amplitudes = rng.uniform(0.3, 1.3, (3, 3, 1))
    phases = rng.uniform(0, 2 * np.pi, (3, 3, 1))
    return Pose(
        rotation=Rotation.from_euler("xyz", angles, degrees=True).as_matrix(),
        scale=float(np.clip(rng.normal(1, 0.03), 0.93, 1.06)),
        shift_mm=np.clip(rng.normal(0, (7, 5, 5)), -14, 14),
        waves=np.concatenate([amplitudes, frequencies, phases], axis=-1),
    )


def _draw_outline(sculptor: Sculptor, fat_mm: tuple[float, float, float]) -> tuple[Shape, Shape]:
    trunk = sculptor.trunk(template.TRUNK, fat_mm=fat_mm)
    right_leg = [
        (level, posterior, -left, *radii) for level, posterior, left, *radii in template.LEG
    ]
    legs = [sculptor.trunk(leg, fat_mm=fat_mm) for leg in (template.LEG, right_leg)]
    return Union((trunk, *legs), blend_mm=20), sculptor.shape(template.CLEFT)


def _draw_muscles(sculptor: Sculptor, bulk: float) -> list[Part]:
    layers = (_layer(0, "muscle", MUSCLE_HU, 9),)
    return [
        Part(sculptor.shape(muscle, side=side, bulk=bulk), layers, within_fascia=True)
        for muscle in template.MUSCLES.values()
        for side in (1, -1)
    ]


def _draw_vessels(sculptor: Sculptor) -> list[Part]:
    layers = (_layer(0, "vessel", VESSEL_HU, 4),)
    return [
        Part(sculptor.shape(vessel, side=side), layers)
        for vessel in template.VESSELS.values()
        for side in (1, -1)
    ]


def _gas(centre: ArrayLike, radii: Sequence[float] | np.ndarray, down: np.ndarray) -> Part:
    """Return a bubble with a level floor: in a supine patient, gas rises to the front."""
    floor = np.asarray(centre) + 0.25 * radii[1] * down
    return Part(Cut(Ellipsoid(centre, radii), floor, down), (_layer(0, "gas", GAS_HU),))


def _draw_bowel(sculptor: Sculptor, *, down: np.ndarray) -> list[Part]:
    """Return small-bowel loops, sigmoid and caecum with their gas."""
    rng = sculptor.rng
    parts = []
    for _ in range(rng.integers(22, 30)):
        loop = _bowel_loop(sculptor)
        content = _layer(2.5, "bowel", rng.uniform(10, 35), 8)
        parts.append(Part(loop, (_layer(0, "bowel", BOWEL_WALL_HU), content)))
        if rng.random() < 0.3:
            level, posterior, left, radius = loop.knots[1]
            radii = radius * np.array([0.7, 0.5, 0.8])
            parts.append(_gas((level, posterior - 0.3 * radius, left), radii, down))
    stool = (_layer(0, "bowel", BOWEL_WALL_HU), _layer(3, "bowel", 20, 30))
    for colon in (template.CAECUM, template.SIGMOID):
        tube = Chain(sculptor.rows(colon, bulk=rng.uniform(0.8, 1.15), jitter_mm=4))
        parts.append(Part(tube, stool))
        for start, end in pairwise(tube.knots):
            if rng.random() < 0.6:
                here = start + rng.uniform(0.2, 0.8) * (end - start)
                level, posterior, left, radius = here
                radii = radius * rng.uniform(0.35, 0.7) * np.array([1, 0.8, 1])
                parts.append(_gas((level, posterior - 0.3 * radius, left), radii, down))
    return parts


def _bowel_loop(sculptor: Sculptor) -> Chain:
    """Return a short random walk inside the peritoneum, in fractions of its section."""
    rng = sculptor.rng
    levels, posterior, left, depth, width = np.array(template.PERITONEUM[::-1]).T
    level = rng.uniform(20, 190)
    across = rng.uniform(-0.7, 0.7, 2)
    knots = []
    for _ in range(4):
        radii = np.array([np.interp(level, levels, depth), np.interp(level, levels, width)])
        centre = np.array([np.interp(level, levels, posterior), np.interp(level, levels, left)])
        knots.append((level, *(centre + across * radii), rng.uniform(8, 12)))
        level = np.clip(level + rng.normal(0, 12), 18, 195)
        across = np.clip(across + rng.normal(0, (14, 24)) / radii, -0.75, 0.75)
    return Chain(np.array(knots) * (*sculptor.stretch, 1))


def _draw_rectum(sculptor: Sculptor, *, down: np.ndarray) -> list[Part]:
    rng = sculptor.rng
    rectum = Column(sculptor.rows(template.RECTUM, bulk=rng.uniform(0.75, 1.3)))
    parts = [Part(rectum, (_layer(0, "rectum", BOWEL_WALL_HU), _layer(3.5, "rectum", 30, 18)))]
    # One to three bubbles between the sigmoid and the anal canal.
    for level in rng.uniform(-15, 50, rng.integers(1, 4)):
        posterior, left, depth, width = (
            np.interp(level, rectum.rows[::-1, 0], column[::-1]) for column in rectum.rows.T[1:]
        )
        radii = (rng.uniform(8, 18), 0.6 * (depth - 3), rng.uniform(0.5, 0.9) * (width - 4))
        parts.append(_gas((level, posterior - 0.2 * depth, left), radii, down))
    return parts


def _draw_organs(sculptor: Sculptor) -> tuple[Shape, list[Part]]:
    """Return bladder and prostate as one shape, and all parts between pubis and rectum."""
    rng = sculptor.rng
    # A filling bladder grows upwards more than sideways; at 200 ml its radii are 32, 33, 45 mm.
    fill = (rng.uniform(90, 430) / 200) ** (1 / 3)
    radii = np.array([32 * fill**1.3, 33 * fill**0.95, 45 * fill**0.75])
    neck = sculptor.position(np.array([-27.0, -22.0, 0.0])) + rng.normal(0, 2, 3)
    bladder = Ellipsoid(neck + np.array([0.9 * radii[0], -2 * fill, 0]), radii + 2.5)
    growth = (np.exp(rng.uniform(np.log(20), np.log(70))) / 25) ** (1 / 3)
    size = growth * np.array([18.0, 15.0, 22.0])
    prostate = Ellipsoid(neck + np.array([-0.8 * size[0], 4, 0]), size)
    parts = [
        Part(bladder, (_layer(0, "muscle", MUSCLE_HU - 10), _layer(2.5, "bladder", BLADDER_HU))),
    ]
    for side in (1, -1):
        ends = np.array([[8, 32, 5 * side, 4.5], [18, 36, 26 * side, 4]])
        vesicle = Chain(ends + np.append(neck, 0))
        parts.append(Part(vesicle, (_layer(0, "seminal_vesicles", VESICLE_HU, 5),)))
    parts.append(Part(prostate, (_layer(0, "prostate", PROSTATE_HU, 5),)))
    return Union((bladder, prostate)), parts


def _draw_bones(sculptor: Sculptor) -> tuple[list[Part], tuple[float, ...]]:
    """Return spine, hip bones, femurs and their joints, and the femoral heads' radii."""
    cartilage = (_layer(0, "cartilage", CARTILAGE_HU, 5),)
    symphysis = sculptor.shape([(-36, -63, 0, 8), (-62, -57, 0, 7)], jitter_mm=0)
    sacrum = sculptor.shape(template.SACRUM, jitter_mm=0.7)
    common_radius = np.clip(sculptor.rng.normal(24, 1.2), 21.5, 26.5)
    joints, hips, femurs, ilia, radii = [Part(symphysis, cartilage)], [], [], [], []
    for side, name in ((1, "left"), (-1, "right")):
        radius = common_radius + sculptor.rng.normal(0, 0.4)
        centre = sculptor.position(template.HIP_CENTRE, side=side)
        socket = Ellipsoid(centre, np.full(3, radius + 3))
        ilium = sculptor.shape(template.ILIUM, side=side, jitter_mm=0.7)
        joints.append(Part(socket, cartilage))
        hip = Difference(_hip_bone(sculptor, ilium, centre, radius, side), socket)
        hips.append(Part(hip, _bone(f"hip_bone_{name}", 2.2, HIP_MARROW_HU)))
        femurs.extend(_femur(sculptor, centre, radius, side, f"femur_{name}"))
        ilia.append(ilium)
        radii.append(radius)
    joints.append(Part(sacrum, cartilage))
    return [*joints, *hips, *_spine(sculptor, sacrum, Union(ilia)), *femurs], tuple(radii)


def _hip_bone(
    sculptor: Sculptor, ilium: Shape, centre: np.ndarray, radius: float, side: int
) -> Shape:
    """Return one hip bone, before its socket is removed."""
    # The cup opens downwards, outwards and forwards.
    opening = np.array([-0.62, -0.25, 0.75 * side])
    opening /= np.linalg.norm(opening)
    cup = Cut(Ellipsoid(centre, np.full(3, radius + 11)), centre + 3 * opening, opening)
    rami = [sculptor.shape(rows, side=side, jitter_mm=0.7) for rows in template.HIP_BONE.values()]
    return Union((ilium, cup, *rami), blend_mm=8)


def _femur(
    sculptor: Sculptor, centre: np.ndarray, radius: float, side: int, label: str
) -> list[Part]:
    head = Ellipsoid(centre, np.full(3, radius))
    parts = [sculptor.shape(rows, side=side, jitter_mm=0.5) for rows in template.FEMUR.values()]
    shaft = sculptor.rows(template.FEMORAL_SHAFT, side=side, jitter_mm=0.5)
    femur = Union((head, *parts, Chain(shaft)), blend_mm=8)
    # Below the trochanters the cortex of the shaft is thick and its marrow fatty.
    return [
        Part(femur, _bone(label, 2.5, FEMUR_MARROW_HU)),
        Part(Chain(shaft[1:]), _bone(label, 6.0, SHAFT_MARROW_HU)),
    ]


def _spine(sculptor: Sculptor, sacrum: Shape, ilia: Shape) -> list[Part]:
    """Return sacrum and lumbar spine with canal, discs and foramina."""
    arch = sculptor.shape(template.SACRAL_ARCH, jitter_mm=0.7)
    canal = sculptor.shape(template.SPINAL_CANAL, jitter_mm=0.5)
    fat = (_layer(0, "fat", FAT_HU),)
    bone = Difference(Union((sacrum, arch)), ilia, gap_mm=3)
    parts = [Part(bone, _bone("sacrum", 1.8, SPINE_MARROW_HU))]
    parts += [
        Part(Ellipsoid(sculptor.position(hole[:3], side=side), [hole[3]] * 3), fat)
        for hole in template.SACRAL_FORAMINA
        for side in (1, -1)
    ]
    discs = sculptor.shape(template.DISCS, jitter_mm=0)
    lumbar_arch = sculptor.shape(template.LUMBAR_ARCH, jitter_mm=0)
    parts.append(Part(discs, (_layer(0, "cartilage", CARTILAGE_HU, 5),)))
    parts.append(Part(lumbar_arch, _bone("lumbar_spine", 2.0, SPINE_MARROW_HU)))
    parts += [
        Part(sculptor.shape(body, jitter_mm=0), _bone("lumbar_spine", 1.5, SPINE_MARROW_HU))
        for body in template.VERTEBRAE
    ]
    return [*parts, Part(canal, (_layer(0, "spinal_canal", CANAL_HU),))]
