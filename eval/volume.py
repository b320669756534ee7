"""Translate a whole scan and compare it with the true one: geometry, flicker, error, uncertainty.

    python -m diffct.eval.volume PIPELINE FLAIR.nii.gz T1w.nii.gz \
        --num-samples 4 --out volume

prints whether grid and affine are those of the input, PSNR and MAE, the mean difference of
neighbouring slices beside that of the true T1w (a ratio above 1 is flicker), and how well the
standard deviation over samples tells where the error is: rank correlation over all voxels, over
those of tissue beside what an exact map would reach, and over tissue blurred by 4 pixels. It writes
the translated NIfTI, its standard deviation, translated_volume.json, and two pictures: slices, and
cuts across all slices.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffct import FlairToT1Pipeline
from diffct.config import folder_or_id, path_argument
from diffct.cores import share_cores
from diffct.eval.protocol import describe_pipeline, file_hash, protocol_card
from diffct.eval.section import write_json
from diffct.figures.comparison import save_translation
from diffct.hub import load_pipeline
from diffct.imaging.intensity import foreground, robust_range, to_unit_range
from diffct.imaging.slices import turn_to_plane
from diffct.imaging.volume import Volume, read_stored
from diffct.metrics.volumes import (
    exact_map_correlation,
    slice_to_slice_difference,
    uncertainty_correlation,
)
from diffct.training.run import plain_errors

_DRAWN = 5
_REGION_PX = 4.0


@plain_errors()
def main(arguments: Sequence[str] | None = None) -> None:
    """Translate, measure, print and write."""
    options = _parse(arguments)
    share_cores()
    pipeline = load_pipeline(options.pipeline, device=options.device)
    if not isinstance(pipeline, FlairToT1Pipeline):
        raise ValueError(
            f"{options.pipeline} is a {type(pipeline).__name__}; it translates nothing."
        )
    flair, truth = (read_stored(path) for path in (options.flair, options.t1w))
    if truth.size != flair.size or not np.allclose(truth.affine, flair.affine, atol=1e-3):
        raise ValueError("The T1w is not on the FLAIR's grid, so voxels cannot be compared.")
    options.out.mkdir(parents=True, exist_ok=True)
    made_file = options.out / "translated.nii.gz"
    pipeline.translate_volume(
        options.flair,
        out=made_file,
        num_samples=options.num_samples,
        batch_size=options.batch_size,
        num_inference_steps=options.steps,
        guidance_scale=options.guidance_scale,
        seed=options.seed,
    )
    made = read_stored(made_file)
    figures = {
        "same shape": made.size == flair.size,
        "largest difference of the affines (mm)": float(np.abs(made.affine - flair.affine).max()),
    }
    volumes = [_unit(flair), _unit(truth), made]
    if options.num_samples > 1:
        volumes.append(read_stored(options.out / "translated_std.nii.gz"))
    planes = [turn_to_plane(volume, pipeline.config.plane).array for volume in volumes]
    figures |= compare(*planes)
    for name, value in figures.items():
        print(f"{name:<42}{value:.6g}" if isinstance(value, float) else f"{name:<42}{value}")
    values = {"protocol": protocol(options), "figures": figures}
    write_json(values, options.out / "translated_volume.json")
    draw(planes, options.out / "translated_volume.png", name=pipeline.conditions[0])


def protocol(options: argparse.Namespace) -> dict[str, Any]:
    """Say what was measured, and how; scans are named by the hash of their bytes."""
    names = ("num_samples", "steps", "guidance_scale", "seed")
    scans = {"flair": options.flair, "t1w": options.t1w}
    return protocol_card(
        "translated volume",
        sets={},
        settings={
            "intensities": "each scan's own robust range as [0, 1]; whole volumes",
            "files_sha256": {name: file_hash(path) for name, path in scans.items()},
        },
        pipeline=describe_pipeline(
            options.pipeline, {name: getattr(options, name) for name in names}
        ),
        synthetic=None,
    )


def compare(
    flair: np.ndarray,
    truth: np.ndarray,
    made: np.ndarray,
    deviation: np.ndarray | None = None,
) -> dict[str, Any]:
    """Return the figures of a translated volume.

    Args:
        flair: Intensities in [0, 1], (slices, rows, columns).
        truth: The true T1w, likewise.
        made: The translation, likewise.
        deviation: Its standard deviation over samples, if there are several.
    """
    tissue = foreground(truth) | foreground(flair)
    error = np.abs(made - truth)
    steps = [slice_to_slice_difference(volume, tissue) for volume in (made, truth)]
    figures: dict[str, Any] = {
        "PSNR (dB)": float(-10 * np.log10(np.square(error).mean())),
        "MAE": float(error.mean()),
        "MAE in tissue": float(error[tissue].mean()),
        "slice-to-slice difference, translated": steps[0],
        "slice-to-slice difference, true T1w": steps[1],
        "ratio": steps[0] / steps[1],
    }
    if deviation is not None:
        everywhere = np.ones_like(tissue)
        figures |= {
            "uncertainty and error, all voxels": uncertainty_correlation(
                deviation, error, everywhere
            ),
            "uncertainty and error, tissue": uncertainty_correlation(deviation, error, tissue),
            "... if the map were exact": exact_map_correlation(deviation, tissue),
            "uncertainty and error, regions of tissue": uncertainty_correlation(
                deviation, error, tissue, blur_px=_REGION_PX
            ),
        }
    return figures


def draw(planes: Sequence[np.ndarray], path: Path, *, name: str) -> None:
    """Draw some slices, and cuts across all slices, where flicker shows.

    Args:
        planes: FLAIR, true T1w, translation, and its standard deviation if there is one, each
            (slices, rows, columns).
        path: The PNG of the slices; that of the cuts lies beside it.
        name: Of the condition.
    """
    held = np.flatnonzero(foreground(planes[1]).any(axis=(1, 2)))
    rows = np.flatnonzero(foreground(planes[1]).any(axis=(0, 2)))
    for axis, places, file in ((0, held, path.name), (1, rows, f"{path.stem}_across.png")):
        chosen = places[np.linspace(0, len(places) - 1, _DRAWN + 2).round().astype(int)[1:-1]]
        cuts = [np.moveaxis(plane, axis, 0)[chosen] for plane in planes]
        # Across slices, the lowest row is the last of the picture.
        cuts = [cut if axis == 0 else cut[:, ::-1] for cut in cuts]
        flair, truth, made, *deviation = (
            torch.from_numpy(np.ascontiguousarray(cut))[:, None] for cut in cuts
        )
        save_translation(
            flair,
            made,
            truth,
            path.with_name(file),
            names=[name],
            deviations=deviation[0] if deviation else None,
        )


def _unit(volume: Volume) -> Volume:
    """Bring a scan to [0, 1] by its own robust range."""
    array = to_unit_range(volume.array, robust_range(volume.array, "scan"))
    return replace(volume, array=array, unit="[0, 1]")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "pipeline", type=folder_or_id, help="folder or Hub id of a FlairToT1Pipeline"
    )
    parser.add_argument("flair", type=path_argument, help="the scan to translate")
    parser.add_argument("t1w", type=path_argument, help="the true T1w, on the same grid")
    parser.add_argument("--num-samples", type=int, default=4, help="samples (4)")
    parser.add_argument("--steps", type=int, default=25, help="denoising steps (25)")
    parser.add_argument("--guidance-scale", type=float, default=1.0, help="of the prompt (1)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first sample (0)")
    parser.add_argument("--batch-size", type=int, default=16, help="slices at once (16)")
    parser.add_argument("--device", help="cuda, cpu, ... (a GPU if there is one)")
    parser.add_argument("--out", type=path_argument, default=Path("volume"), help="folder (volume)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
