"""The better direction of each figure: higher, lower, or nearer to the value of real images.

Figures are named by their place in a result, such as "FD[net], samples".
"""

import re
from collections.abc import Mapping
from typing import Literal

Direction = Literal["higher", "lower", "nearer", "none"]

# Figures of real images, of other methods and of the measurement itself are not under test.
_OF_OTHERS = re.compile(
    r"(^|, )(train|held_out|decoded|empty prompt|yardstick|expected)(, |$)"
    r"|(^|, )samples, (images|pairs|scales)(, |$)"
    r"|^(autoencoder alone|copied input|linear regression|histogram matching|true T1w), "
    r"|window_yardstick"
    r"|real_score|real_patients|held_out_patients|threshold|false_alarms|own_weight|bandwidth"
    r"|^(copies|nearest neighbours, [^,]+), samples$|, lesions$|, true T1w$|^\.\.\. if the map"
)
_LOWER = re.compile(
    r"^(FD|KID|MMD²)\[|^realism, ((figures|tissue), .*, distance$|window_distance_hu, )"
    r"|^realism, without_body, |^films without a chest, |^wrong side, "
    r"|^(MAE|MAE in tissue|largest difference of the affines.*)$"
    r"|(^|, )(mae|rmse|mae_hu|rmse_hu|lpips|distance_px|false_per_slice|suspicious"
    r"|nearer_than_real|identical)$"
)
_HIGHER = re.compile(
    r", (precision|recall|coverage)$|(^|, )(psnr|ssim|ms_ssim|found|dice)$"
    r"|^nearest neighbours, .*score_quantiles|^PSNR|^uncertainty and error, |, spearman$"
    r"|^(present|side|zone|severity|heart size|absent), \w+, samples$"
)
# The value of real images stands beside the figure, under another name.
_REAL = (
    (re.compile(r"^(MS-SSIM of pairs|realism, (?:figures|tissue), .*), samples$"), r"\1, held_out"),
    (re.compile(r"^(manifold\[.*), samples, density$"), r"\1, train, density"),
    (re.compile(r"^(slice-to-slice difference), translated$"), r"\1, true T1w"),
    (re.compile(r"^(samples nearest to a training patient), share$"), r"\1, expected"),
)
_NEUTRAL = {"membership attack, auc": 0.5, "ratio": 1.0}


def is_under_test(place: str) -> bool:
    """Return whether a figure describes the samples or the model, not a yardstick."""
    return not _OF_OTHERS.search(place)


def direction(place: str, figures: Mapping[str, float]) -> tuple[Direction, float | None]:
    """Return the direction in which a figure is better, and for "nearer" the target.

    Args:
        place: The place of the figure.
        figures: All figures of its result by place.
    """
    if place in _NEUTRAL:
        return "nearer", _NEUTRAL[place]
    for pattern, real in _REAL:
        match = pattern.match(place)
        if match:
            target = figures.get(match.expand(real))
            return ("none", None) if target is None else ("nearer", target)
    if _LOWER.search(place):
        return "lower", None
    return ("higher", None) if _HIGHER.search(place) else ("none", None)


def is_better(first: float, second: float, way: Direction, target: float | None) -> bool | None:
    """Return whether the second value is better; None if neither is, or if no direction is."""
    if way == "none":
        return None
    if target is not None:
        first, second, way = abs(first - target), abs(second - target), "lower"
    if first == second:
        return None
    return (second > first) == (way == "higher")
