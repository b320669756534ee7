"""Translate a whole scan and compare it with the true one: geometry, flicker, error, uncertainty.

    python -m diffct.eval.translated_volume PIPELINE FLAIR.nii.gz T1w.nii.gz \
        --num-samples 4 --out volume

prints whether grid and affine are those of the input, PSNR and MAE, the mean difference of
neighbouring slices beside that of the true T1w (a ratio above 1 is flicker), and how well the
standard deviation over samples tells where the error is (rank correlation over all voxels, over
those of tissue, and over tissue blurred by 4 pixels). It writes the translated NIfTI, its
standard deviation, translated_volume.json and a picture.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffct import FlairToT1Pipeline
from diffct.atomic import atomic_file
from diffct.data.comparison import save_translation
from diffct.data.intensity import foreground, robust_range, to_unit_range
from diffct.data.slices import turn_to_plane
from diffct.data.volume import Volume, read_stored
from diffct.hub import load_pipeline
from diffct.metrics.volumes import slice_to_slice_difference, uncertainty_correlation

_DRAWN = 5
_REGION_PX = 4.0


def main(arguments: Sequence[str] | None = None) -> None:
    """Translate, measure, print and write."""
    options = _parse(arguments)
    pipeline = load_pipeline(options.pipeline, device=options.device)
    if not isinstance(pipeline, FlairToT1Pipeline):
        raise SystemExit(
            f"{options.pipeline} is a {type(pipeline).__name__}; it translates nothing."
        )
    options.out.mkdir(parents=True, exist_ok=True)
    made_file = options.out / "translated.nii.gz"
    translation = pipeline.translate_volume(
        options.flair,
        out=made_file,
        num_samples=options.num_samples,
        batch_size=options.batch_size,
        num_inference_steps=options.steps,
        guidance_scale=options.guidance_scale,
        seed=options.seed,
    )
    flair, truth, made = (read_stored(path) for path in (options.flair, options.t1w, made_file))
    if truth.size != flair.size or not np.allclose(truth.affine, flair.affine, atol=1e-3):
        raise SystemExit("The T1w is not on the FLAIR's grid, so voxels cannot be compared.")
    deviation = None
    if translation.std is not None:
        deviation = read_stored(made_file.with_name("translated_std.nii.gz"))
    figures = {
        "same shape": made.size == flair.size,
        "largest difference of the affines (mm)": float(np.abs(made.affine - flair.affine).max()),
    }
    planes = [turn_to_plane(unit, pipeline.config.plane) for unit in (_unit(flair), _unit(truth))]
    planes.append(turn_to_plane(made, pipeline.config.plane))
    figures |= compare(
        *(volume.array for volume in planes),
        deviation and turn_to_plane(deviation, pipeline.config.plane).array,
    )
    for name, value in figures.items():
        print(f"{name:<42}{value:.6g}" if isinstance(value, float) else f"{name:<42}{value}")
    with atomic_file(options.out / "translated_volume.json") as partial:
        partial.write_text(json.dumps(figures, indent=2) + "\n")
    draw([volume.array for volume in planes], options.out / "translated_volume.png")


def compare(
    flair: np.ndarray, truth: np.ndarray, made: np.ndarray, deviation: np.ndarray | None
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
            "uncertainty and error, regions of tissue": uncertainty_correlation(
                deviation, error, tissue, blur_px=_REGION_PX
            ),
        }
    return figures


def draw(planes: Sequence[np.ndarray], path: Path) -> None:
    """Draw some slices: FLAIR, translated, true T1w, difference; and a cut through all slices."""
    flair, truth, made = (
        torch.from_numpy(np.ascontiguousarray(plane))[:, None] for plane in planes
    )
    held = np.flatnonzero(foreground(planes[1]).any(axis=(1, 2)))
    chosen = held[np.linspace(0, len(held) - 1, _DRAWN + 2).round().astype(int)[1:-1]]
    save_translation(flair[chosen], made[chosen], truth[chosen], path, names=["condition"])
    # Flicker shows where slices are cut across.
    middle = flair.shape[2] // 2
    across = [volume[:, :, middle].flip(0)[None].contiguous() for volume in (flair, made, truth)]
    across = [volume.permute(0, 2, 1, 3) for volume in across]
    save_translation(*across, path.with_name(f"{path.stem}_across.png"), names=["condition"])


def _unit(volume: Volume) -> Volume:
    """Bring a scan to [0, 1] by its own robust range."""
    return Volume(to_unit_range(volume.array, robust_range(volume.array, "scan")), volume.affine)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pipeline", help="folder or Hub id of a FlairToT1Pipeline")
    parser.add_argument("flair", type=Path, help="the scan to translate")
    parser.add_argument("t1w", type=Path, help="the true T1w, on the same grid")
    parser.add_argument("--num-samples", type=int, default=4, help="samples (4)")
    parser.add_argument("--steps", type=int, default=25, help="denoising steps (25)")
    parser.add_argument("--guidance-scale", type=float, default=1.0, help="of the prompt (1)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first sample (0)")
    parser.add_argument("--batch-size", type=int, default=16, help="slices at once (16)")
    parser.add_argument("--device", help="cuda, cpu, ... (a GPU if there is one)")
    parser.add_argument("--out", type=Path, default=Path("volume"), help="folder (volume)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
