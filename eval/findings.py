"""Whether prompts matter: which of the findings asked for are on sampled phantom films.

    python -m diffct.eval.findings outputs/cxr-ldm/pipeline --manifest outputs/cxr/phantoms

samples films from prompts that ask for one thing each, and as many from empty prompts with the same
noise. Findings are read off the films by their physics (`diffct.phantoms.chest.findings`), with
thresholds set on the manifest's training films, and the rates are compared with those on its
held-out films (the best that the reader can find), on the same encoded and decoded (the best that
the autoencoder lets through), and on the films of empty prompts (chance).

The reader is made for phantom films and calibrated on them. On radiographs of persons its findings
mean nothing.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from itertools import chain, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr
from tqdm.auto import tqdm

from diffct.atomic import atomic_file
from diffct.config import folder_or_id, path_argument
from diffct.cores import share_cores
from diffct.data.manifest import Manifest, ManifestRow, read_manifest
from diffct.figures.contact_sheet import save_contact_sheet
from diffct.hub import load_pipeline
from diffct.imaging.radiograph import read_radiograph, resize_shorter_side
from diffct.phantoms.chest.findings import HEART_SIZES, KINDS, SEVERITIES, FindingReader, Reading
from diffct.phantoms.chest.measurements import expected_half, measure_film
from diffct.phantoms.chest.outline import SHORTER_SIDE
from diffct.phantoms.chest.requests import (
    SUBJECTS,
    Rate,
    Request,
    balanced_requests,
    every_request,
)
from diffct.training.run import plain_errors

QUESTIONS = {
    "present": "asked finding there",
    "side": "… only on the asked side",
    "wrong side": "… only on the other side",
    "zone": "… in the asked zone",
    "severity": "… of the asked severity",
    "heart size": "heart of the asked size",
    "absent": "denied finding not there",
}
SOURCES = ("sampled", "empty prompt", "decoded", "held-out")
EXPLANATION = """\
Each cell: rate (hits/films; 95 % interval after Wilson). "Sampled" are films of prompts that ask
for one thing each, "empty prompt" films sampled with the same noise and no prompt, "held-out"
phantom films that show just what was asked, "decoded" the same through the autoencoder. Side counts
films with the asked finding; zone and severity those that have it on the asked side; the heart
counts where nothing hides it. Absence counts all films of empty prompts, for each finding."""

# The films of a small model are blurred and noisy; the thresholds shall not hang on sharpness.
_MOST_BLUR_PX, _NOISE = 1.0, 0.005
_PAIRS_DRAWN = 24

Judged = list[tuple[Request, Reading | None]]


@plain_errors()
def main(arguments: Sequence[str] | None = None) -> None:
    """Sample, read, compare, and write the report."""
    options = _parse(arguments)
    share_cores()
    manifest = read_manifest(options.manifest)
    known = [*manifest.split("validation"), *manifest.split("test")]
    _check_truth([*manifest.split("train"), *known], options.manifest)
    pipeline = load_pipeline(options.pipeline, device=options.device)
    pipeline.set_progress_bar_config(disable=True)
    training = manifest.split("train")[: options.calibration_films]
    reader, expected = calibrate(manifest, training, seed=options.seed)

    requests = balanced_requests(options.prompts)
    films = {
        "sampled": sample(pipeline, [request.prompt for request in requests], options=options),
        "empty prompt": sample(pipeline, [""] * len(requests), options=options),
        "decoded": decode(pipeline, manifest, known, batch_size=options.batch_size),
        "held-out": _read_films(manifest, known),
    }
    readings = {source: read_films(films[source], reader, expected) for source in SOURCES}
    judged = _judge(requests, known, readings)
    report = {
        "protocol": {
            **{name: getattr(options, name) for name in ("prompts", "steps", "guidance_scale")},
            **{"seed": options.seed, "training_films": len(training), "held_out_films": len(known)},
        },
        "films_without_a_chest": {source: readings[source].count(None) for source in SOURCES},
        "rates": hit_rates(judged),
        "amounts": amounts_by_grade(judged),
        "thresholds": asdict(reader),
    }
    _write(report, options.out)
    pairs = (
        zip(requests, films["sampled"], strict=True),
        zip(known, films["held-out"], strict=True),
    )
    _draw(*map(list, pairs), options.out / "films.png")


def _judge(
    requests: Sequence[Request],
    known: Sequence[ManifestRow],
    readings: dict[str, list[Reading | None]],
) -> dict[str, Judged]:
    """Pair what was read with what was asked."""
    cases = every_request()
    judged = {source: list(zip(requests, readings[source], strict=True)) for source in SOURCES[:2]}
    # How often a finding is absent by itself is told by all films that nothing was asked of.
    judged["empty prompt"] = [
        *(pair for pair in judged["empty prompt"] if pair[0].subject != "absence"),
        *product(cases["absence"], readings["empty prompt"]),
    ]
    for source in SOURCES[2:]:
        judged[source] = [
            (request, reading)
            for request in chain(*cases.values())
            for row, reading in zip(known, readings[source], strict=True)
            if request.is_met_by(row.facts)
        ]
    return judged


def calibrate(
    manifest: Manifest, rows: Sequence[ManifestRow], *, seed: int
) -> tuple[FindingReader, np.ndarray]:
    """Set a reader's thresholds on films of known truth, a little blurred and noisy.

    Args:
        manifest: Where the films are.
        rows: The films, phantoms of every kind.
        seed: Of blur and noise.

    Returns:
        The reader, and the expected half that its measurements need.

    Raises:
        ValueError: A finding, severity or heart size is not among the films.
    """
    rng = np.random.default_rng(seed)
    films = []
    for film in _read_films(manifest, rows):
        blurred = gaussian_filter(film, rng.uniform(0, _MOST_BLUR_PX))
        films.append(np.clip(blurred + _NOISE * rng.standard_normal(film.shape), 0, 1))
    clear = [film for film, row in zip(films, rows, strict=True) if not row.facts["findings"]]
    expected = expected_half(clear)
    measurements = [measure_film(film, expected) for film in tqdm(films, desc="calibrating")]
    return FindingReader.fit(measurements, [row.facts for row in rows]), expected


def sample(
    pipeline: DiffusionPipeline, prompts: Sequence[str], *, options: argparse.Namespace
) -> list[np.ndarray]:
    """Sample a film of each prompt: number i has the seed `seed + i`.

    Args:
        pipeline: A `CXRTextToImagePipeline`.
        prompts: What the films shall show.
        options: Of the command.

    Returns:
        Films in [0, 1], the shorter side 128 pixels.
    """
    films = []
    starts = range(0, len(prompts), options.batch_size)
    for start in tqdm(starts, desc="sampling" if any(prompts) else "empty prompts", unit="batch"):
        batch = list(prompts[start : start + options.batch_size])
        seeds = range(options.seed + start, options.seed + start + len(batch))
        output = pipeline(
            prompt=batch,
            num_inference_steps=options.steps,
            guidance_scale=options.guidance_scale,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            output_type="np",
        )
        films += [resize_shorter_side(film, SHORTER_SIDE) for film in output.films()]
    return films


@torch.no_grad()
def decode(
    pipeline: DiffusionPipeline, manifest: Manifest, rows: Sequence[ManifestRow], *, batch_size: int
) -> list[np.ndarray]:
    """Encode films and decode them again.

    Args:
        pipeline: Its autoencoder is used.
        manifest: Where the films are.
        rows: The films, all of one size.
        batch_size: How many at once.

    Returns:
        Films in [0, 1], the shorter side 128 pixels.
    """
    films, vae = [], pipeline.vae
    for start in tqdm(range(0, len(rows), batch_size), desc="decoding", unit="batch"):
        batch = [read_radiograph(manifest.path(row)) for row in rows[start : start + batch_size]]
        pixels = torch.from_numpy(np.stack(batch))[:, None].to(vae.device, vae.dtype) * 2 - 1
        decoded = vae.decode(vae.encode(pixels).latent_dist.mode()).sample
        decoded = (decoded.float().clamp(-1, 1) / 2 + 0.5).cpu().numpy()[:, 0]
        films += [resize_shorter_side(film, SHORTER_SIDE) for film in decoded]
    return films


def read_films(
    films: Sequence[np.ndarray], reader: FindingReader, expected: np.ndarray
) -> list[Reading | None]:
    """Read films; None stands for a film that shows no chest."""
    measurements = (measure_film(film, expected) for film in tqdm(films, desc="reading"))
    return [None if found is None else reader.read(found) for found in measurements]


def hit_rates(judged: dict[str, Judged]) -> list[dict[str, Any]]:
    """Count how often films are as asked.

    Args:
        judged: For each source, what was asked and what was read.

    Returns:
        For each question and subject (for denied findings their kind) a `Rate` for each source.
    """
    rows = []
    for question in QUESTIONS:
        answers = {
            source: [
                (request.kind or request.subject, answer[question])
                for request, reading in judged[source]
                if question in (answer := request.judge(reading))
            ]
            for source in SOURCES
        }
        asked = {about for source in SOURCES for about, _ in answers[source]}
        for about in [name for name in SUBJECTS if name in asked] + ["all"] * (len(asked) > 1):
            rates = {
                source: Rate.of(hit for name, hit in answers[source] if about in (name, "all"))
                for source in SOURCES
            }
            rows.append({"question": question, "about": about, **rates})
    return rows


def amounts_by_grade(judged: dict[str, Judged]) -> list[dict[str, Any]]:
    """Average the measured figure over the films of each asked grade.

    Args:
        judged: For each source, what was asked and what was read.

    Returns:
        For each subject and source the means, the counts, and Spearman's rank correlation between
        grade and figure (None where it is not defined).
    """
    rows = []
    for subject in (*KINDS, "heart"):
        grades = HEART_SIZES if subject == "heart" else SEVERITIES
        for source in SOURCES:
            found = [
                (grades.index(request.grade), amount)
                for request, reading in judged[source]
                if request.subject == subject and (amount := request.amount(reading)) is not None
            ]
            by_grade = [[amount for rank, amount in found if rank == n] for n in range(len(grades))]
            rows.append(
                {
                    "about": subject,
                    "source": source,
                    "means": [float(np.mean(some)) if some else None for some in by_grade],
                    "counts": [len(some) for some in by_grade],
                    "spearman": _rank_correlation(found),
                }
            )
    return rows


def _rank_correlation(pairs: Sequence[tuple[int, float]]) -> float | None:
    """Return Spearman's coefficient; None where one of both is everywhere the same."""
    ranks, amounts = (np.array([pair[n] for pair in pairs]) for n in (0, 1))
    if len(pairs) < 3 or not np.ptp(ranks) or not np.ptp(amounts):
        return None
    return float(spearmanr(ranks, amounts).statistic)


def format_report(report: dict[str, Any]) -> str:
    """Write the report's numbers as Markdown tables."""
    protocol = ", ".join(f"{name} {value}" for name, value in report["protocol"].items())
    lines = [f"Protocol: {protocol}.", "", EXPLANATION, ""]
    lines += [f"| | about | {' | '.join(SOURCES)} |", "|---" * (len(SOURCES) + 2) + "|"]
    for row in report["rates"]:
        cells = (QUESTIONS[row["question"]], row["about"], *(str(row[name]) for name in SOURCES))
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "Mean of the measured figure by asked grade (films):", ""]
    lines += ["| about | films | from least to most | rank correlation |", "|---|---|---|---|"]
    for row in report["amounts"]:
        means = (
            "–" if mean is None else f"{mean:.3g} ({count})"
            for mean, count in zip(row["means"], row["counts"], strict=True)
        )
        rank = "–" if row["spearman"] is None else f"{row['spearman']:.2f}"
        lines.append(f"| {row['about']} | {row['source']} | {', '.join(means)} | {rank} |")
    missing = ", ".join(
        f"{count} {name}" for name, count in report["films_without_a_chest"].items()
    )
    return "\n".join([*lines, "", f"Films without a chest: {missing}."])


def _write(report: dict[str, Any], folder: Path) -> None:
    """Print the report, and write it as Markdown and JSON."""
    table = format_report(report)
    print(table)
    numbers = report | {
        "rates": [
            row | {s: asdict(row[s]) | {"interval": row[s].interval} for s in SOURCES}
            for row in report["rates"]
        ]
    }
    texts = {"findings.md": table, "findings.json": json.dumps(numbers, indent=2)}
    for name, text in texts.items():
        with atomic_file(folder / name) as partial:
            partial.write_text(text + "\n", encoding="utf-8")


def _draw(
    sampled: Sequence[tuple[Request, np.ndarray]],
    known: Sequence[tuple[ManifestRow, np.ndarray]],
    path: Path,
) -> None:
    """Draw sampled films, each beside a held-out film of what was asked, where there is one."""
    films, titles = [], []
    for index in np.unique(np.linspace(0, len(sampled) - 1, _PAIRS_DRAWN).astype(int)):
        request, film = sampled[index]
        alike = [(row, other) for row, other in known if request.is_met_by(row.facts)]
        if alike and alike[0][1].shape == film.shape:
            # Of the films that show it the one with the least besides.
            films += [film, min(alike, key=lambda pair: len(pair[0].facts["findings"]))[1]]
            titles += [request.prompt, "held-out film"]
    if films:
        save_contact_sheet(films, path, titles=titles, columns=8)


def _read_films(manifest: Manifest, rows: Sequence[ManifestRow]) -> list[np.ndarray]:
    """Read films at the size that they are measured at."""
    return [
        resize_shorter_side(read_radiograph(manifest.path(row)), SHORTER_SIDE)
        for row in tqdm(rows, desc="films")
    ]


def _check_truth(rows: Sequence[ManifestRow], path: Path) -> None:
    """Refuse films that are no phantoms."""
    unknown = sum("heart_size" not in row.facts or "findings" not in row.facts for row in rows)
    if unknown:
        raise ValueError(
            f"{path}: {unknown} of {len(rows)} films have no truth in their facts. This measures"
            " phantom films only; write some with diffct prepare phantom-cxr."
        )


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "pipeline", type=folder_or_id, help="folder or Hub id of a text-to-image pipeline"
    )
    parser.add_argument(
        "--manifest", type=path_argument, required=True, help="phantom films and reports"
    )
    parser.add_argument("--prompts", type=int, default=160, help="how many (160)")
    parser.add_argument("--guidance-scale", type=float, default=7.0, help="how strictly (7)")
    parser.add_argument("--steps", type=int, default=50, help="denoising steps (50)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first film (0)")
    parser.add_argument("--batch-size", type=int, default=16, help="films sampled at once (16)")
    parser.add_argument(
        "--calibration-films", type=int, default=2000, help="training films at most (2000)"
    )
    parser.add_argument("--device", help="cuda, cpu, ... (a GPU if there is one)")
    parser.add_argument(
        "--out", type=path_argument, default=Path("findings"), help="folder (findings)"
    )
    options = parser.parse_args(arguments)
    for name in ("prompts", "steps", "batch_size", "calibration_films"):
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1.")
    return options


if __name__ == "__main__":
    main()
