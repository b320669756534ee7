"""The better direction of each figure: higher, lower, or nearer to what real images have.

Figures are named by their place in a result, as "FD[net], samples".
"""

import re
from collections.abc import Mapping
from typing import Literal

Direction = Literal["higher", "lower", "nearer", "none"]

# What is told of real images, of other methods and of the measurement itself: no figure under test.
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
# What real images have stands beside the figure, under another name.
_REAL = (
    (re.compile(r"^(MS-SSIM of pairs|realism, (?:figures|tissue), .*), samples$"), r"\1, held_out"),
    (re.compile(r"^(manifold\[.*), samples, density$"), r"\1, train, density"),
    (re.compile(r"^(slice-to-slice difference), translated$"), r"\1, true T1w"),
    (re.compile(r"^(samples nearest to a training patient), share$"), r"\1, expected"),
)
_NO_SIGN = {"membership attack, auc": 0.5, "ratio": 1.0}


def is_under_test(place: str) -> bool:
    """Say whether a figure tells of the samples or the model, and not of its yardsticks."""
    return not _OF_OTHERS.search(place)


def direction(place: str, figures: Mapping[str, float]) -> tuple[Direction, float | None]:
    """Return which way a figure is better, and for "nearer" to what.

    Args:
        place: Of the figure.
        figures: All figures of its result, by place.
    """
    if place in _NO_SIGN:
        return "nearer", _NO_SIGN[place]
    for pattern, real in _REAL:
        match = pattern.match(place)
        if match:
            target = figures.get(match.expand(real))
            return ("none", None) if target is None else ("nearer", target)
    if _LOWER.search(place):
        return "lower", None
    return ("higher", None) if _HIGHER.search(place) else ("none", None)


def is_better(first: float, second: float, way: Direction, target: float | None) -> bool | None:
    """Say whether the second of two values is better; None if neither is, or no way is."""
    if way == "none":
        return None
    if target is not None:
        first, second, way = abs(first - target), abs(second - target), "lower"
    if first == second:
        return None
    return (second > first) == (way == "higher")
