"""Files that match a pattern, with the texts that its wildcards match."""

import glob
import re
from dataclasses import dataclass
from pathlib import Path

from diffct.arguments import expand_path

_WILDCARD = re.compile(r"\*|\?|\[[^]]+\]")


@dataclass(frozen=True)
class WildcardFiles:
    """Files that match a pattern.

    Attributes:
        wildcards: Number of wildcards in the pattern, at least one.
        files: The files by the texts that the wildcards match, in the order of the wildcards.
    """

    wildcards: int
    files: dict[tuple[str, ...], Path]


def find_by_wildcards(pattern: str) -> WildcardFiles:
    """Find files by a pattern such as "DATA/*/T1.nii.gz".

    Args:
        pattern: A path with the wildcards `*`, `?` and `[...]`, none of which crosses a folder.
            Folders before the first `*` that exist under exactly that name are taken literally;
            ~ and environment variables are expanded.

    Returns:
        The files, including broken links, without hidden files.

    Raises:
        ValueError: The pattern has no wildcard, or `**`, which would match any depth, or an
            environment variable that is not set.
    """
    if "**" in pattern:
        raise ValueError(f"{pattern}: ** is not accepted; give one * for each folder.")
    path = Path(expand_path(pattern))
    # Existing folders such as "scans [2024]" are taken literally, not as wildcards.
    literal = (each for each in path.parents if "*" not in str(each) and each.exists())
    folder = next(literal, path)
    inside = path.relative_to(folder).as_posix()
    wildcards = _WILDCARD.findall(inside)
    if not wildcards:
        raise ValueError(f"{pattern}: has no wildcard; give a * where the subject's name stands.")
    literals = _WILDCARD.split(inside)
    groups = [_as_group(wildcard) for wildcard in wildcards] + [""]
    parts = (re.escape(text) + group for text, group in zip(literals, groups, strict=True))
    expression = re.compile("".join(parts), re.DOTALL)
    files = {}
    for name in sorted(glob.glob(inside, root_dir=folder)):
        match = expression.fullmatch(name)
        if match is not None:
            files[match.groups()] = folder / name
    return WildcardFiles(len(wildcards), files)


def _as_group(wildcard: str) -> str:
    """Return a wildcard as a group of a regular expression."""
    if wildcard == "*":
        return "([^/]*)"
    if wildcard == "?":
        return "([^/])"
    inside = wildcard[1:-1].replace("\\", r"\\").replace("[", r"\[")
    return f"([^{inside[1:]}])" if inside.startswith("!") else f"([{inside}])"
