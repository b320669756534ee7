"""Bones and lung vessels of the chest phantom, drawn as threads.

Positions are millimetres, (superior, posterior, left).
"""

import numpy as np

from diffct.phantoms.chest.film import Threads
from diffct.phantoms.chest.frame import SIGNS, Frame, Lung
from diffct.phantoms.chest.truth import Side
from diffct.phantoms.ray_solids import Barrel

STEP_MM = 2.0
RIBS = 10
# Densities in excess of soft tissue, relative to water.
BONE, COLLAR_BONE, SPINE, SHOULDER_BLADE = 0.5, 0.7, 0.22, 0.15


def _thread(line: np.ndarray, radius_mm: np.ndarray | float, excess: np.ndarray | float) -> Threads:
    """Return a thread along a polyline (n, 3), with radius and excess given at its points."""
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    count = max(int(length[-1] / STEP_MM), 2)
    at = (np.arange(count) + 0.5) * (length[-1] / count)
    columns = [np.interp(at, length, column) for column in line.T]
    radius = np.interp(at, length, np.broadcast_to(radius_mm, len(line)))
    weight = np.interp(at, length, np.broadcast_to(excess, len(line)))
    return Threads(np.stack(columns, -1), radius, np.full(count, length[-1] / count), weight)


def draw_bones(
    frame: Frame, cavities: dict[Side, Barrel], rng: np.random.Generator
) -> tuple[Threads, ...]:
    """Draw ribs, collar bones, shoulder blades and spine.

    Args:
        frame: Body size and stance.
        cavities: The pleural cavities, around which the ribs run.
        rng: Source of all individual variation.

    Returns:
        One thread per bone, and the main bronchi, whose excess is negative.
    """
    top_mm = 131 + rng.normal(0, 3)
    spacing_mm = rng.uniform(22.5, 25)
    fall_mm = rng.uniform(30, 46)
    strength = rng.uniform(0.85, 1.15)
    bones = []
    for side, cavity in cavities.items():
        sign = SIGNS[side]
        for rib in range(RIBS):
            level = (top_mm - rib * spacing_mm + rng.normal(0, 0.8)) * frame.stretch[0]
            line, fade = _rib(cavity, sign, number=rib, level_mm=level, fall_mm=fall_mm)
            line[:, 2] += frame.turn_radians * line[:, 1]
            bones.append(_thread(line, 5.2 if rib else 6.5, BONE * strength * fade))
        bones.append(_collar_bone(frame, sign, strength, rng))
        bones += _shoulder_blade(frame, sign, rng)
        bronchus = [(33, 20, -1), (20, 21, sign * 14 - 1), (9 + 3 * sign, 22, sign * 29)]
        bones.append(_thread(frame.place(bronchus), np.array([7.0, 6.0, 5.0]), -0.85))
    return (*bones, _spine(frame, strength))


def _rib(
    cavity: Barrel, sign: int, *, number: int, level_mm: float, fall_mm: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return a rib's line (n, 3) around the cavity, and the relative density of its points (n,)."""
    # From beside the spine (0 is the back) around the side to the cartilage in front.
    angle = np.radians(np.linspace(14, 128 if number < 7 else 105, 40))
    fall = fall_mm * (angle / (np.pi / 2)) ** 1.4 * min(0.5 + 0.13 * number, 1.15)
    superior = level_mm + 5 * np.sin(2 * np.minimum(angle, np.pi / 2)) - fall
    posterior, centre_left, depth, width = cavity.keyframes.at(superior)
    # Minimal radii keep the first ribs wide where the apex of the cavity is narrow.
    reach = np.maximum(np.abs(centre_left) + width, 46) + 4
    left = sign * reach * np.sin(angle) ** 0.85
    back = posterior + (np.maximum(depth, 36) + 5) * np.cos(angle)
    fade = np.interp(np.degrees(angle), (14, 95, 128), (1.0, 0.95, 0.5))
    return np.stack([superior, back, left], axis=-1), fade


def _collar_bone(frame: Frame, sign: int, strength: float, rng: np.random.Generator) -> Threads:
    rise = rng.normal(0, 5)
    left = np.array([13, 35, 70, 105, 140, 175])
    superior = np.array([101, 107, 116, 121, 124, 130]) + rise * left / 100
    posterior = np.array([-74, -80, -76, -58, -42, -30])
    line = np.stack([superior, posterior, sign * left], axis=-1)
    radius = np.array([8.5, 6.5, 5.5, 5.5, 6.5, 7.5])
    return _thread(frame.place(line), radius, COLLAR_BONE * strength)


def _shoulder_blade(frame: Frame, sign: int, rng: np.random.Generator) -> list[Threads]:
    out = rng.normal(0, 5)
    corners = np.array([(108, 62, 138 + out), (-5, 82, 142 + out), (82, 50, 182 + out)])
    corners[:, 2] *= sign
    blade = [
        _thread(frame.place([corners[2], corners[0] * (1 - t) + corners[1] * t]), 9, SHOULDER_BLADE)
        for t in (0.1, 0.35, 0.6, 0.85)
    ]
    edge = _thread(frame.place([corners[0], corners[1]]), 3.5, 2.5 * SHOULDER_BLADE)
    return [*blade, edge]


def _spine(frame: Frame, strength: float) -> Threads:
    level = np.arange(-230, 231, 2.0)
    wave = np.cos(2 * np.pi * level / 24)
    line = frame.place(np.stack([level, np.full_like(level, 52), np.zeros_like(level)], axis=-1))
    return _thread(line, 15.5 + 0.8 * wave, SPINE * strength * (1 + 0.35 * wave))


def draw_vessels(lung: Lung, rng: np.random.Generator) -> Threads:
    """Draw the arteries of a lung, branching outwards from its root.

    Args:
        lung: The lung; in a collapsed one the vessels are crowded.
        rng: Source of the branching.

    Returns:
        A thread whose excess is 1 inside the lung and 0 elsewhere.
    """
    root = lung.root_mm
    angle = np.radians(np.linspace(78, -72, 9) + rng.normal(0, 5, 9))
    direction = np.stack([np.sin(angle), rng.normal(0, 0.35, 9), lung.sign * np.cos(angle)], -1)
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    reach = lung.reach_mm(root, direction)
    start = np.repeat(root[None], 9, axis=0)
    # Lower vessels are wider, since gravity fills them more.
    radius = 4.8 * (1 - 0.18 * np.sin(angle)) * rng.uniform(0.85, 1.15, 9)
    points, radii, lengths = [], [], []
    for share in (0.26, 0.24, 0.21, 0.18, 0.13):
        end = start + direction * (share * reach * rng.uniform(0.8, 1.15, len(reach)))[:, None]
        thinner = 0.78 * radius
        along = (np.arange(16) + 0.5)[:, None, None] / 16
        points.append((start + along * (end - start)).reshape(-1, 3))
        radii.append((radius + along[..., 0] * (thinner - radius)).reshape(-1))
        lengths.append(np.tile(np.linalg.norm(end - start, axis=1) / 16, 16))
        start, reach = np.repeat(end, 2, axis=0), np.repeat(reach, 2)
        radius = np.repeat(thinner, 2) * rng.uniform(0.75, 1.05, len(reach))
        # Each vessel forks in a random plane, by about 25 degrees to either side.
        aside = rng.standard_normal((len(direction), 3)) * (1.0, 0.7, 1.0)
        aside -= (aside * direction).sum(1, keepdims=True) * direction
        aside *= 0.45 / np.linalg.norm(aside, axis=1, keepdims=True)
        direction = np.stack([direction + aside, direction - 0.8 * aside], axis=1).reshape(-1, 3)
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    places = np.concatenate(points)
    return Threads(
        places, np.concatenate(radii), np.concatenate(lengths), lung.contains(places).astype(float)
    )
