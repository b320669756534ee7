"""The translation of a whole scan, slice by slice, onto the scan's own grid."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from diffct.imaging.formats import NIFTI_ENDINGS
from diffct.imaging.image_folder import SPREAD_DESCRIPTION
from diffct.imaging.intensity import foreground, removed_background
from diffct.imaging.slices import cut_slice, put_slice, tissue_window
from diffct.imaging.transforms import resample, resample_onto
from diffct.imaging.volume import Volume, reorient, write_volume
from diffct.pipelines.coherent_noise import coherent_noise
from diffct.pipelines.conditions.scans import (
    Scan,
    is_scan,
    normalise,
    on_one_grid,
    read_scan,
    warn_of_other_size,
)
from diffct.pipelines.outputs import SYNTHETIC_DESCRIPTION, ContrastTranslationPipelineOutput

_SPACING_TOLERANCE = 0.05  # of the training spacing: heads differ by more


class SliceTranslator(Protocol):
    """The parts of a `ContrastTranslationPipeline` that `translate_volume` needs."""

    config: Any
    """With `plane` and `spacing_mm` of the slices."""

    @property
    def conditions(self) -> list[str]:
        """Names of the condition images."""

    def window(self) -> tuple[tuple[int, int] | None, int]:
        """Return the training size (H, W) and the divisor of sizes."""

    def latent_shape(self, size: Sequence[int]) -> tuple[int, int, int]:
        """Return the shape (C, h, w) of the noise of a slice (H, W)."""

    def set_progress_bar_config(self, *, disable: bool) -> None:
        """Show or hide the bar of each call."""

    def __call__(
        self,
        image: Tensor,
        *,
        num_inference_steps: int,
        guidance_scale: float,
        controlnet_conditioning_scale: float | Sequence[float],
        eta: float,
        latents: Tensor,
        generator: list[torch.Generator],
        output_type: str,
    ) -> ContrastTranslationPipelineOutput:
        """Translate slices."""


@dataclass(frozen=True)
class VolumeTranslation:
    """A translated scan.

    Attributes:
        mean: The mean of the samples, or the only sample, in [0, 1] of the training range; with
            size and affine of the scan. 0 where nothing was sampled, and where the scan is
            exactly 0 around its tissue, as after skull stripping.
        std: Standard deviation of the samples in each voxel, 0 in the same places; None for one
            sample.
    """

    mean: Volume
    std: Volume | None = None

    def save(self, path: str | Path) -> list[Path]:
        """Write float32 NIfTI, the standard deviation to `<name>_std.nii.gz` beside it.

        Args:
            path: Ends in .nii or .nii.gz. The file has the axes of the scan's file and its codes
                of sform and qform: a scan in MNI space stays in MNI space.

        Returns:
            The paths of the files.

        Raises:
            ValueError: The path has another ending.
            OSError: The disk is full.
        """
        volumes = [volume for volume in (self.mean, self.std) if volume is not None]
        paths = translation_files(path)[: len(volumes)]
        descriptions = (SYNTHETIC_DESCRIPTION, SPREAD_DESCRIPTION)[: len(volumes)]
        for volume, file, description in zip(volumes, paths, descriptions, strict=True):
            write_volume(volume, file, description=description)
        return paths


def translation_files(path: str | Path) -> list[Path]:
    """Return where a translation and its standard deviation are written.

    Args:
        path: The translation.

    Raises:
        ValueError: It does not end in .nii or .nii.gz.
    """
    path = Path(path)
    if not path.name.lower().endswith(NIFTI_ENDINGS):
        raise ValueError(f"{path}: a NIfTI file ends in .nii or .nii.gz.")
    stem = re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE)
    return [path, path.with_name(f"{stem}_std.nii.gz")]


@torch.no_grad()
def translate_volume(
    pipeline: SliceTranslator,
    image: Scan | Mapping[str, Scan | None],
    *,
    out: str | Path | None = None,
    num_samples: int = 1,
    batch_size: int = 8,
    num_inference_steps: int = 50,
    guidance_scale: float = 1.0,
    controlnet_conditioning_scale: float | Sequence[float] = 1.0,
    eta: float = 0.0,
    seed: int = 0,
    coherence_mm: float = 12.0,
) -> VolumeTranslation:
    """Translate a whole scan of any orientation, spacing and size.

    All slices of the pipeline's plane that hold tissue are translated, in a window around the
    tissue, at the training spacing if the scan's differs by more than 5 %. The noise changes slowly
    from slice to slice (see `coherent_noise`), and the noise that a scheduler draws in its steps is
    the same in all slices, so neighbouring slices fit together as far as the network allows. Where
    the scan is exactly 0 around its tissue, as after skull stripping, so is the result. A scan that
    looks like a CT, or like another part of the body, is translated with a warning.

    Args:
        pipeline: The pipeline.
        image: A file or a `Volume` of the first condition, or a dictionary from conditions to
            them; a missing scan or None counts as 0. They need not have the same grid.
        out: A NIfTI file to write, see `VolumeTranslation.save`; None to write nothing.
        num_samples: Number of samples; 2 or more give their mean and standard deviation.
        batch_size: Slices to translate at once; the result does not depend on it.
        num_inference_steps: Denoising steps.
        guidance_scale: How much to follow the prompt, see the call.
        controlnet_conditioning_scale: Weight of the ControlNet, one or one for each.
        eta: η of DDIM, 0 to 1.
        seed: Seed of the first sample; sample k, counted from 0, has `seed + k`.
        coherence_mm: Standard deviation of the Gaussian that smooths the noise across slices; 0 for
            independent slices, infinity for the same noise in all.

    Returns:
        The translation, with exactly the size and the affine of the first scan.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A scan cannot be used, or an argument does not fit.
    """
    counts = {"num_samples": num_samples, "batch_size": batch_size}
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name}={count} must be at least 1.")
    if out is not None:
        translation_files(out)

    # 1. read, on the grid of the first scan
    scans = _by_condition(image, pipeline.conditions)
    stored = {name: read_scan(scan, name) for name, scan in scans.items()}
    normalised = {name: normalise(stored[name], scan, name) for name, scan in scans.items()}
    grids = on_one_grid(normalised, pipeline.config.plane)
    ready = {name: _to_spacing(grid, pipeline.config.spacing_mm) for name, grid in grids.items()}

    # 2. cut slices
    first = next(iter(ready.values()))
    usual, multiple = pipeline.window()
    warn_of_other_size(first, usual, pipeline.config.spacing_mm)
    size = _window_size(first.array, usual, multiple=multiple)
    start = tissue_window(first.array, size)
    indices = np.flatnonzero(foreground(first.array).any(axis=(1, 2))).tolist()
    slices = _cut(ready, pipeline.conditions, indices, start=start, size=size)

    # 3. sample
    def translate(batch: range, noise: Tensor, step_seed: int) -> np.ndarray:
        output = pipeline(
            slices[batch],
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            controlnet_conditioning_scale=controlnet_conditioning_scale,
            eta=eta,
            latents=noise[[indices[place] for place in batch]],
            # What the scheduler draws in a step is the same in all slices.
            generator=[torch.Generator().manual_seed(step_seed) for _ in batch],
            output_type="np",
        )
        return np.asarray(output.images)[..., 0]

    noises = _noises(
        (first.size[0], *pipeline.latent_shape(size)),
        sigma_slices=coherence_mm / first.spacing_mm[0],
        seeds=range(seed, seed + num_samples),
    )
    places = range(len(indices))
    batches = [places[i : i + batch_size] for i in range(0, len(places), batch_size)]
    with _progress(pipeline, num_samples * len(batches)) as bar:
        maps = _mean_and_std(
            np.concatenate([translate(batch, *noise) for batch in bar(batches)]) for noise in noises
        )

    # 4. put back
    grid, scan = next(iter(grids.values())), next(iter(stored.values()))
    volumes = [_put_back(values, first, indices, start) for values in maps]
    translation = VolumeTranslation(*(_as_stored(volume, grid, scan) for volume in volumes))
    if out is not None:
        translation.save(out)
    return translation


def _by_condition(
    image: Scan | Mapping[str, Scan | None], conditions: Sequence[str]
) -> dict[str, Scan]:
    """Return the given scans in the order of the conditions."""
    given = image if isinstance(image, Mapping) else {conditions[0]: image}
    found = {name: given.get(name) for name in conditions}
    scans = {name: scan for name, scan in found.items() if scan is not None}
    unknown = set(given) - set(conditions)
    if unknown or not scans:
        raise ValueError(
            f"image has the conditions {sorted(map(str, given))}; give at least one of"
            f" {list(conditions)}, and no others."
        )
    for name, scan in scans.items():
        if not is_scan(scan):
            raise ValueError(f"{name} is a {type(scan).__name__}; give a file or a diffct.Volume.")
    return scans


def _to_spacing(volume: Volume, spacing_mm: Sequence[float] | None) -> Volume:
    """Resample slices to the training spacing (row, column), unless they nearly have it."""
    depth, *here = volume.spacing_mm
    if spacing_mm is None or np.allclose(here, spacing_mm, rtol=_SPACING_TOLERANCE, atol=0):
        return volume
    return resample(volume, (depth, *spacing_mm))


def _window_size(
    array: np.ndarray, usual: tuple[int, int] | None, *, multiple: int
) -> tuple[int, int]:
    """Return the training size (H, W), or the next multiple where the tissue is larger."""
    tissue = foreground(array)
    sizes = []
    for axis, length in ((1, usual[0] if usual else 0), (2, usual[1] if usual else 0)):
        held = np.flatnonzero(tissue.any(axis=tuple({0, 1, 2} - {axis})))
        extent = int(held[-1] - held[0] + 1) if held.size else 1
        sizes.append(max(length, -(-extent // multiple) * multiple if extent > length else 0))
    return sizes[0], sizes[1]


def _cut(
    scans: Mapping[str, Volume],
    conditions: Sequence[str],
    indices: Sequence[int],
    *,
    start: Sequence[int],
    size: Sequence[int],
) -> Tensor:
    """Cut a window out of slices, (slices, conditions, H, W), 0 where a scan is missing."""
    slices = np.zeros((len(indices), len(conditions), *size), dtype=np.float32)
    for channel, name in enumerate(conditions):
        for place, index in enumerate(indices if name in scans else ()):
            slices[place, channel] = cut_slice(scans[name], index, start=start, size=size).array[0]
    return torch.from_numpy(slices)


def _noises(
    shape: tuple[int, ...], *, sigma_slices: float, seeds: Iterable[int]
) -> Iterator[tuple[Tensor, int]]:
    """Draw, for each sample, the noise of all slices and a seed for the noise in the steps."""
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        # Not `seed` itself, which would draw the first slice's noise once more.
        step_seed = int(torch.randint(2**62, (), generator=generator))
        noise = coherent_noise(shape[0], shape[1:], sigma_slices=sigma_slices, generator=generator)
        yield noise, step_seed


def _mean_and_std(samples: Iterable[np.ndarray]) -> list[np.ndarray]:
    """Return mean and standard deviation of arrays that come one by one; of a single one, itself.

    Source: Welford 1962, "Note on a Method for Calculating Corrected Sums of Squares and Products".
    """
    mean = squares = np.zeros(())
    number = 0
    for number, sample in enumerate(samples, start=1):
        change = sample - mean
        mean = mean + change / number
        squares = squares + change * (sample - mean)
    if number == 1:
        return [mean.astype(np.float32)]
    return [mean.astype(np.float32), np.sqrt(squares / (number - 1)).astype(np.float32)]


def _put_back(
    slices: np.ndarray, frame: Volume, indices: Sequence[int], start: Sequence[int]
) -> Volume:
    """Return a volume of 0 on the grid of `frame` with slices (n, H, W) put in their places."""
    whole = replace(frame, array=np.zeros_like(frame.array))
    for index, values in zip(indices, slices, strict=True):
        place = cut_slice(whole, index, start=start, size=values.shape)
        put_slice(replace(place, array=values[None]), whole)
    return whole


def _as_stored(volume: Volume, grid: Volume, stored: Volume) -> Volume:
    """Bring a translation from the training grid onto the stored scan's, and mask it likewise.

    Args:
        volume: The translation.
        grid: The scan, turned to the plane.
        stored: The scan in its own intensities, as it is stored.
    """
    if volume.size != grid.size or not np.allclose(volume.affine, grid.affine):
        volume = resample_onto(volume, grid)
    turned = reorient(volume, stored.orientation)
    array = turned.array.astype(np.float32)
    array[removed_background(stored.array)] = 0
    # The stored scan's own affine, without the rounding errors of turning there and back.
    return replace(stored, array=array, unit="[0, 1]")


@contextmanager
def _progress(
    pipeline: SliceTranslator, total: int
) -> Iterator[Callable[[Sequence[range]], Iterator[range]]]:
    """Show one bar over all batches and samples, instead of the pipeline's own for each batch."""
    own = dict(getattr(pipeline, "_progress_bar_config", {}))
    bar = tqdm(total=total, desc="translating", unit="batch", disable=own.get("disable", False))

    def counted(batches: Sequence[range]) -> Iterator[range]:
        for batch in batches:
            yield batch
            bar.update()

    pipeline.set_progress_bar_config(disable=True)
    try:
        with bar:
            yield counted
    finally:
        pipeline.set_progress_bar_config(**own)
