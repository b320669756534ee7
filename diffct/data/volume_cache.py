"""The cache of prepared CT scans, which are read, checked and brought to their final grid once.

Beside the prepared voxels the cache stores a hash of all voxels of the scan, by which copies under
other names are found without reading the scans again.
"""

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from diffct.atomic import atomic_file
from diffct.data.volume_dataset import CTDataConfig, facts_file
from diffct.destination import check_writable
from diffct.imaging.contrast import is_blank
from diffct.imaging.copies import hash_voxels
from diffct.imaging.transforms import clip_window, crop_or_pad, resample, resize
from diffct.imaging.volume import Volume, check_hounsfield, read_volume, source_files

# Increase it whenever the same settings would prepare a scan differently.
_CACHE_FORMAT = 2
_MAX_PROBLEMS = 10


def prepare_scans(
    paths: Sequence[Path],
    config: CTDataConfig,
    cache_dir: Path,
    *,
    workers: int,
    show_progress: bool,
) -> list[Path]:
    """Prepare scans in parallel; scans that are in the cache are not read again.

    Args:
        paths: The scans.
        config: How they are prepared.
        cache_dir: Folder of the cache; several processes may write there at once.
        workers: Scans prepared at the same time; each needs about three times its size in memory.
        show_progress: Whether to show a progress bar.

    Returns:
        The prepared scan of each path, for `volume_dataset.read_prepared`.

    Raises:
        OSError: Nothing can be written there.
        ValueError: Scans cannot be used; up to ten are listed with reasons.
    """
    check_writable(cache_dir)
    problems: list[str] = []
    files = [cache_dir / f"{_cache_key(path, config)}.npy" for path in paths]
    absent = [
        (path, file)
        for path, file in zip(paths, files, strict=True)
        if not (file.exists() and facts_file(file).exists())
    ]

    def prepare(path: Path, file: Path) -> None:
        try:
            _prepare(path, config, file)
        except (ValueError, OSError) as error:
            problems.append(str(error))

    pool = ThreadPoolExecutor(max(1, workers))
    try:
        prepared = pool.map(prepare, *zip(*absent, strict=True)) if absent else ()
        quiet = not (show_progress and absent)
        for _ in tqdm(prepared, "Preparing scans", len(absent), disable=quiet):
            pass
    finally:
        pool.shutdown(cancel_futures=True)
    if problems:
        listed = "".join(f"\n- {problem}" for problem in sorted(problems)[:_MAX_PROBLEMS])
        more = len(problems) - _MAX_PROBLEMS
        from_folder = config.manifest is None
        way_out = (
            "by data.exclude=[PATH INSIDE THE FOLDER, ...]" if from_folder else "of the manifest"
        )
        raise ValueError(
            f"{len(problems)} of {len(paths)} scans cannot be used; repair them, or leave them out"
            f" {way_out}:{listed}" + (f"\n- and {more} more" if more > 0 else "")
        )
    return files


def _prepare(path: Path, config: CTDataConfig, file: Path) -> None:
    """Prepare a scan and store it; its facts first, so that `file` implies both."""
    volume = read_volume(path)
    check_hounsfield(volume, path)
    volume = clip_window(volume, config.window_hu)
    prepared = _fit(volume, config)
    hu = np.rint(prepared.array).astype(np.int16)
    _check_contrast(volume.array, hu, config, path)
    facts = {
        "affine": prepared.affine.tolist(),
        "source_spacing_mm": volume.spacing_mm,
        "voxels": hash_voxels(volume, config.window_hu[0]),
    }
    with atomic_file(facts_file(file)) as partial:
        partial.write_text(json.dumps(facts), encoding="utf-8")
    with atomic_file(file) as partial:
        np.save(partial, hu)


def _fit(volume: Volume, config: CTDataConfig) -> Volume:
    """Bring a scan, clipped to the window, to the grid of the network."""
    floor = config.window_hu[0]
    if config.spacing_mm is not None:
        volume = resample(volume, config.spacing_mm)
    if config.fit == "resize":
        return resize(volume, config.size)
    if config.random_crop:
        return crop_or_pad(volume, np.maximum(volume.size, config.size).tolist(), floor)
    return crop_or_pad(volume, config.size, floor)


def _check_contrast(
    clipped: np.ndarray, prepared: np.ndarray, config: CTDataConfig, path: Path
) -> None:
    """Refuse a scan that shows nothing after its preparation."""
    low, high = config.window_hu
    if not is_blank(prepared, high - low):
        return
    if is_blank(clipped, high - low):
        cause = f"data.window_hu={[low, high]} leaves no contrast; choose a wider window"
    else:
        cause = (
            f"data.size={list(config.size)} with this spacing leaves only"
            f" {int(prepared.min())} HU; choose a larger size or another spacing"
        )
    raise ValueError(f"{path}: shows nothing after its preparation: {cause}.")


def _cache_key(path: Path, config: CTDataConfig) -> str:
    """Return the name of a prepared scan, a hash of everything that it depends on."""
    stamps = [(file.stat().st_mtime_ns, file.stat().st_size) for file in source_files(path)]
    names = [file.name for file in source_files(path)]
    spacing = None if config.spacing_mm is None else [float(mm) for mm in config.spacing_mm]
    window = [float(hu) for hu in config.window_hu]
    recipe = [list(config.size), spacing, config.fit, window, config.random_crop]
    facts = [_CACHE_FORMAT, str(path.resolve()), names, stamps, recipe]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]
