"""Compare translated brain slices with the true ones, beside translations that learn nothing.

    python -m diffct.eval.fidelity outputs/brain/controlnet/pipeline --manifest outputs/brain/slices

translates the slices of held-out subjects and prints PSNR, mean absolute error and MS-SSIM (mean
and standard deviation over slices), and how the autoencoder alone does, which no translation in its
latent space beats. Where the manifest has labels of lesions, as phantoms have, it also tells
whether they are found at their places. It writes fidelity.json and fidelity.png.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from diffct import FlairToT1Pipeline
from diffct.atomic import atomic_file
from diffct.data.brain import BrainDataConfig, ConditionImages, pick_evenly
from diffct.data.brain_rows import BrainSlice
from diffct.data.comparison import save_translation
from diffct.data.images import ImageDataset
from diffct.data.manifest import SPLITS, Manifest, ManifestRow, read_manifest
from diffct.data.pairs import PairedDataset
from diffct.data.phantoms.brain_anatomy import LESION, WHITE
from diffct.data.radiograph import read_radiograph
from diffct.hub import load_pipeline
from diffct.metrics.lesions import lesion_figures
from diffct.metrics.similarity import ms_ssim_kernel, to_film
from diffct.metrics.translation import BASELINES, FIGURES, translation_errors

_TRAINING_SLICES = 400  # that baselines learn from; they have two numbers or one curve to learn
_DRAWN = 6

Pair = tuple[Tensor, Tensor]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    options = _parse(arguments)
    manifest = read_manifest(options.manifest)
    rows = pick_evenly(manifest.split(options.split), options.slices)
    if not rows:
        raise SystemExit(f"{options.manifest}: no row has the split {options.split!r}.")
    pipeline = load_pipeline(options.pipeline, device=options.device)
    if not isinstance(pipeline, FlairToT1Pipeline):
        raise SystemExit(
            f"{options.pipeline} is a {type(pipeline).__name__}; it translates nothing."
        )
    pipeline.set_progress_bar_config(disable=True)
    conditions, truths = read_pairs(manifest, rows, names=pipeline.conditions)
    results = {"diffct": translate(pipeline, conditions, options)}
    results["autoencoder alone"] = reconstruct(pipeline, truths, options.batch_size)
    seen = pick_evenly(manifest.split("train"), _TRAINING_SLICES)
    examples = read_pairs(manifest, seen, names=pipeline.conditions)
    for name, fit in BASELINES.items():
        results[name] = fit(examples[0][:, :1], examples[1])(conditions[:, :1])
    figures = measure(results, truths, manifest, rows)
    report = {"protocol": protocol(options, rows, truths), "figures": figures}
    print(format_table(report))
    options.out.mkdir(parents=True, exist_ok=True)
    with atomic_file(options.out / "fidelity.json") as partial:
        partial.write_text(json.dumps(report, indent=2) + "\n")
    chosen = np.linspace(0, len(rows) - 1, min(_DRAWN, len(rows))).round().astype(int)
    save_translation(
        conditions[chosen],
        results["diffct"][chosen],
        truths[chosen],
        options.out / "fidelity.png",
        names=pipeline.conditions,
    )
    print(f"Figures and pictures: {options.out / 'fidelity.json'}, {options.out / 'fidelity.png'}")


def read_pairs(manifest: Manifest, rows: Sequence[ManifestRow], *, names: Sequence[str]) -> Pair:
    """Read slices: conditions (N, C, H, W) and truths (N, 1, H, W), in [0, 1]."""
    size = read_radiograph(manifest.path(rows[0]), smallest_side=1).shape
    config = BrainDataConfig(size=list(size), conditions=list(names))
    images = ImageDataset(manifest, rows, size=size)
    pairs = PairedDataset(images, ConditionImages(manifest, rows, config=config))
    batches = list(tqdm(DataLoader(pairs, batch_size=32), desc="reading", unit="batch"))
    stacked = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
    return stacked["condition"], to_film(stacked["image"])


def translate(
    pipeline: FlairToT1Pipeline, conditions: Tensor, options: argparse.Namespace
) -> Tensor:
    """Translate slices, each with the seed of its number, (N, 1, H, W) in [0, 1]."""
    made = []
    starts = range(0, len(conditions), options.batch_size)
    for start in tqdm(starts, desc="translating", unit="batch"):
        batch = conditions[start : start + options.batch_size]
        seeds = range(options.seed + start, options.seed + start + len(batch))
        output = pipeline(
            batch,
            num_inference_steps=options.steps,
            guidance_scale=options.guidance_scale,
            controlnet_conditioning_scale=options.conditioning_scale,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            output_type="pt",
        )
        made.append(output.images.float().cpu())
    return torch.cat(made)


@torch.no_grad()
def reconstruct(pipeline: FlairToT1Pipeline, truths: Tensor, batch_size: int) -> Tensor:
    """Pass the true images through the autoencoder, (N, 1, H, W) in [0, 1]."""
    made = []
    for batch in truths.split(batch_size):
        latents = pipeline.vae.encode((batch * 2 - 1).to(pipeline.device)).latent_dist.mode()
        made.append(to_film(pipeline.vae.decode(latents).sample).cpu())
    return torch.cat(made)


def measure(
    results: dict[str, Tensor], truths: Tensor, manifest: Manifest, rows: Sequence[ManifestRow]
) -> dict[str, dict[str, Any]]:
    """Return the figures of each translation, and of the truth as far as lesions go."""
    labels = read_labels(manifest, rows)
    figures: dict[str, dict[str, Any]] = {}
    for name, images in {**results, "true T1w": truths}.items():
        figures[name] = {}
        if name != "true T1w":
            errors = translation_errors(images, truths)
            for figure, column in zip(FIGURES, errors.T, strict=True):
                figures[name][figure] = {"mean": column.mean().item(), "sd": column.std().item()}
        if labels is not None:
            planes = (image.numpy() for image in images[:, 0])
            found = lesion_figures(
                (plane, own == WHITE + 1, own == LESION + 1)
                for plane, own in zip(planes, labels, strict=True)
            )
            figures[name]["lesions"] = None if found is None else asdict(found)
    return figures


def read_labels(manifest: Manifest, rows: Sequence[ManifestRow]) -> list[np.ndarray] | None:
    """Read the labels of phantoms' tissues; None for other data, whose labels mean other things."""
    slices = [BrainSlice.from_row(row) for row in rows]
    if not all(piece.labels and piece.synthetic for piece in slices):
        return None
    return [np.asarray(Image.open(manifest.folder / str(piece.labels))) for piece in slices]


def protocol(
    options: argparse.Namespace, rows: Sequence[ManifestRow], truths: Tensor
) -> dict[str, Any]:
    """Say what was measured, so that figures can be compared."""
    return {
        "split": options.split,
        "slices": len(rows),
        "subjects": len({row.patient for row in rows}),
        "size": list(truths.shape[2:]),
        "range": [0, 1],
        "ms_ssim_kernel": ms_ssim_kernel(truths.shape[2:]),
        "steps": options.steps,
        "guidance_scale": options.guidance_scale,
        "controlnet_conditioning_scale": options.conditioning_scale,
        "seed": options.seed,
        "synthetic": all(bool(row.facts.get("synthetic")) for row in rows),
    }


def format_table(report: dict[str, Any]) -> str:
    """Write the figures as Markdown tables."""
    shown = report["protocol"]
    lines = [
        f"{shown['slices']} slices of {shown['subjects']} {shown['split']} subjects"
        f"{', SYNTHETIC' if shown['synthetic'] else ''};"
        f" MS-SSIM with a window of {shown['ms_ssim_kernel']}",
        "",
        "| | PSNR (dB) | MAE | MS-SSIM |",
        "|---|---|---|---|",
    ]
    for name, figures in report["figures"].items():
        if "mae" in figures:
            cells = [_cell(figures[f], d) for f, d in zip(FIGURES, (2, 4, 4), strict=True)]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    found = {name: row["lesions"] for name, row in report["figures"].items() if row.get("lesions")}
    if found:
        lines += [
            "",
            f"Lesions ({next(iter(found.values()))['lesions']}, slice by slice):",
            "",
            "| | found | Dice | distance (pixels) | false per slice |",
            "|---|---|---|---|---|",
        ]
        lines += [
            f"| {name} | {row['found']:.0%} | {row['dice']:.3f} | {row['distance_px']:.2f} |"
            f" {row['false_per_slice']:.2f} |"
            for name, row in found.items()
        ]
    return "\n".join(lines)


def _cell(figure: dict[str, float], digits: int) -> str:
    """Write mean and standard deviation."""
    return f"{figure['mean']:.{digits}f} ± {figure['sd']:.{digits}f}"


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pipeline", help="folder or Hub id of a FlairToT1Pipeline")
    parser.add_argument("--manifest", type=Path, required=True, help="prepared slices")
    parser.add_argument("--split", choices=SPLITS, default="test", help="which subjects (test)")
    parser.add_argument("--slices", type=int, help="how many, evenly picked (all)")
    parser.add_argument("--steps", type=int, default=25, help="denoising steps (25)")
    parser.add_argument("--guidance-scale", type=float, default=1.0, help="of the prompt (1)")
    parser.add_argument("--conditioning-scale", type=float, default=1.0, help="of control (1)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first slice (0)")
    parser.add_argument("--batch-size", type=int, default=16, help="slices at once (16)")
    parser.add_argument("--device", help="cuda, cpu, ... (a GPU if there is one)")
    parser.add_argument("--out", type=Path, default=Path("fidelity"), help="folder (fidelity)")
    options = parser.parse_args(arguments)
    for name in ("steps", "batch_size"):
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1.")
    return options


if __name__ == "__main__":
    main()
