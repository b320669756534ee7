"""The findings section: whether sampled phantom films show the findings that prompts ask for.

Films are sampled from prompts that ask for one thing each, and as many from empty prompts with the
same noise. A reader finds findings on the films by their physics (`diffct.phantoms.chest.findings`)
with thresholds set on the manifest's training films. The rates are compared with those on held-out
films (the best that the reader can find), on the same films through the autoencoder (the best that
a model with it can show), and on the films of empty prompts (chance).

The reader is made for phantom films and calibrated on them. On radiographs of persons its results
are meaningless.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain, product
from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline
from scipy.ndimage import gaussian_filter
from tqdm.auto import tqdm

from diffct.data.manifest import SPLITS, Manifest, ManifestRow
from diffct.eval.config import EvaluationConfig
from diffct.eval.figures import Figure, Number, Table
from diffct.eval.findings_counts import SOURCES, Amounts, Asked, Judged, amounts_by_grade, hit_rates
from diffct.eval.image_sets import pictures_of_manifest
from diffct.eval.inputs import Inputs
from diffct.eval.protocol import protocol_card
from diffct.eval.reconstruction import reconstruct
from diffct.eval.samples import guidance
from diffct.eval.section import Picture, Section
from diffct.figures.contact_sheet import save_contact_sheet
from diffct.imaging.radiograph import read_radiograph, resize_shorter_side
from diffct.metrics.intervals import Estimate
from diffct.phantoms.chest.findings import FindingReader, Reading
from diffct.phantoms.chest.measurements import expected_half, measure_film
from diffct.phantoms.chest.outline import SHORTER_SIDE
from diffct.phantoms.chest.requests import Rate, Request, all_requests, balanced_requests
from diffct.pipelines.denoising import guide_of

THRESHOLDS = "thresholds"
_QUESTIONS = {
    "present": "asked finding there",
    "side": "… only on the asked side",
    "wrong side": "… only on the other side",
    "zone": "… in the asked zone",
    "severity": "… of the asked severity",
    "heart size": "heart of the asked size",
    "absent": "denied finding not there",
}
_EXPLANATION = (
    "Each cell: rate (hits/films; 95 % interval after Wilson). Sampled: films of prompts that ask"
    " for one thing each; empty prompt: films sampled with the same noise and no prompt; held-out:"
    " phantom films that show what was asked; decoded: the same films through the autoencoder. The"
    " side is counted among films with the asked finding; zone and severity among those that have"
    " it on the asked side; the heart where nothing hides it; absence among all films of empty"
    " prompts, for each finding."
)
_ROLES = {"sampled": "samples", "held-out": "held_out"}

_PROMPTS = 160
_MAX_CALIBRATION = 2000  # training films
# A small model's films are blurred and noisy; the thresholds must not depend on sharpness.
_MAX_BLUR_PX, _NOISE = 1.0, 0.005
_PAIRS_DRAWN = 24


@dataclass(frozen=True)
class Hits(Estimate):
    """The rate of films that are as requested.

    Attributes:
        hits: Number of films that are as requested.
        count: Number of all films that the rate is about.
    """

    hits: int = 0
    count: int = 0

    @classmethod
    def from_rate(cls, rate: Rate) -> "Hits":
        """Convert a rate; without films its value is NaN."""
        share = rate.hits / rate.count if rate.count else float("nan")
        return cls(share, interval=rate.interval, hits=rate.hits, count=rate.count)


def measure(inputs: Inputs) -> Section:
    """Sample films of balanced prompts, read them, and compare requests with findings.

    Raises:
        ValueError: The pipeline takes no prompts, or the data are not phantom films of a manifest.
    """
    pipeline, config = inputs.pipeline, inputs.config
    if pipeline is None or guide_of(pipeline) != "prompt":
        raise ValueError(f"{inputs.name} takes no prompts, so no finding can be asked of it.")
    manifest = phantom_films(inputs)
    known = [*manifest.split("validation"), *manifest.split("test")]
    training = manifest.split("train")[:_MAX_CALIBRATION]
    reader, expected = calibrate(manifest, training, seed=config.seed)
    requests = balanced_requests(config.number or _PROMPTS)
    pipeline.set_progress_bar_config(disable=True)
    films = {
        "sampled": sample(pipeline, [request.prompt for request in requests], config),
        "empty prompt": sample(pipeline, [""] * len(requests), config),
        "decoded": decode(pipeline, manifest, known, batch_size=config.batch_size),
        "held-out": _read_films(manifest, known),
    }
    readings = {source: read_films(films[source], reader, expected) for source in SOURCES}
    judged = _judge(requests, known, readings)
    rates, amounts = hit_rates(judged), amounts_by_grade(judged)
    chestless = {source: readings[source].count(None) for source in SOURCES}
    path = Path(config.out) / "findings.png"
    drawn = _draw(
        list(zip(requests, films["sampled"], strict=True)),
        list(zip(known, films["held-out"], strict=True)),
        path,
    )
    splits = [split for split in SPLITS if manifest.split(split)]
    return Section(
        name="findings",
        title="Findings asked for",
        protocol=protocol_card(
            "findings",
            sets={s: pictures_of_manifest(manifest, s, title=f"{s} films") for s in splits},
            settings={"training_films": len(training), "held_out_films": len(known)},
            pipeline={
                **inputs.model,
                "prompts": len(requests),
                "seed": config.seed,
                "steps": config.steps,
                "guidance_scale": guidance(pipeline, config.guidance_scale),
                "scheduler": type(pipeline.scheduler).__name__,
            },
            synthetic=True,
        ),
        figures=[
            *_figures(rates, amounts),
            *(Figure("films without a chest", n, of=_role(s)) for s, n in chestless.items()),
            Figure(THRESHOLDS, asdict(reader)),
        ],
        tables=[_rate_table(rates), _amount_table(amounts)],
        pictures=[Picture(path, "Sampled films, each beside a held-out film of what was asked.")]
        if drawn
        else [],
        remarks=[f"Films without a chest: {', '.join(f'{n} {s}' for s, n in chestless.items())}."],
    )


def phantom_films(inputs: Inputs) -> Manifest:
    """Return the manifest, whose rows hold the truth about its films; refuse other data."""
    manifest = inputs.cohort.held_out.manifest
    if manifest is None:
        raise ValueError("Findings are read off films of a manifest only: diffct phantom chest.")
    rows = manifest.rows
    unknown = sum("heart_size" not in row.facts or "findings" not in row.facts for row in rows)
    if unknown:
        raise ValueError(
            f"{unknown} of {len(rows)} films have no truth in their facts. This measures phantom"
            " films only; write some with diffct phantom chest."
        )
    return manifest


def foresee(inputs: Inputs) -> list[str]:
    """Say, before anything is sampled, what will not be measured, and why."""
    try:
        phantom_films(inputs)
    except ValueError as error:
        return [f"Findings: {error}"]
    return []


def _role(source: str) -> str:
    return _ROLES.get(source, source)


def _figures(rates: Sequence[Asked], amounts: Sequence[Amounts]) -> list[Figure]:
    """List rates by question and subject, and amounts by subject."""
    found = [
        Figure(f"{row.question}, {row.about}", Hits.from_rate(row.rates[source]), of=_role(source))
        for row in rates
        for source in SOURCES
    ]
    return found + [
        Figure(
            f"amount, {row.about}",
            {"means": row.means, "counts": row.counts, "spearman": row.spearman},
            of=_role(row.source),
        )
        for row in amounts
    ]


def _rate_table(rates: Sequence[Asked]) -> Table:
    rows = [
        (_QUESTIONS[row.question], row.about, *(str(row.rates[source]) for source in SOURCES))
        for row in rates
    ]
    return Table("Films as asked", ("", "about", *SOURCES), rows, note=_EXPLANATION)


def _amount_table(amounts: Sequence[Amounts]) -> Table:
    rows = [
        (
            row.about,
            row.source,
            ", ".join(
                "–" if mean is None else f"{mean:.3g} ({count})"
                for mean, count in zip(row.means, row.counts, strict=True)
            ),
            Number(row.spearman, digits=2),
        )
        for row in amounts
    ]
    return Table(
        "Mean of the measured figure by asked grade (films)",
        ("about", "films", "from least to most", "rank correlation"),
        rows,
    )


def _judge(
    requests: Sequence[Request],
    known: Sequence[ManifestRow],
    readings: dict[str, list[Reading | None]],
) -> dict[str, Judged]:
    """Pair each reading with what was requested."""
    cases = all_requests()
    judged = {source: list(zip(requests, readings[source], strict=True)) for source in SOURCES[:2]}
    # All films of empty prompts show how often a finding is absent without a request.
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
        manifest: The manifest of the films.
        rows: The films, phantoms of every kind.
        seed: Seed of blur and noise.

    Returns:
        The reader, and the expected half that its measurements need.

    Raises:
        ValueError: A finding, severity or heart size is not among the films.
    """
    rng = np.random.default_rng(seed)
    films = []
    for film in _read_films(manifest, rows):
        blurred = gaussian_filter(film, rng.uniform(0, _MAX_BLUR_PX))
        films.append(np.clip(blurred + _NOISE * rng.standard_normal(film.shape), 0, 1))
    clear = [film for film, row in zip(films, rows, strict=True) if not row.facts["findings"]]
    expected = expected_half(clear)
    measurements = [measure_film(film, expected) for film in tqdm(films, desc="calibrating")]
    return FindingReader.fit(measurements, [row.facts for row in rows]), expected


def sample(
    pipeline: DiffusionPipeline, prompts: Sequence[str], config: EvaluationConfig
) -> list[np.ndarray]:
    """Sample one film for each prompt: film i has the seed `seed + i`.

    Returns:
        Films in [0, 1], the shorter side 128 pixels.
    """
    films = []
    made = pipeline.sample_many(
        range(config.seed, config.seed + len(prompts)),
        conditions=prompts,
        batch_size=config.batch_size,
        steps=config.steps,
        guidance_scale=config.guidance_scale,
    )
    for _, output in made:
        films += [resize_shorter_side(film, SHORTER_SIDE) for film in output.films()]
    return films


def decode(
    pipeline: DiffusionPipeline, manifest: Manifest, rows: Sequence[ManifestRow], *, batch_size: int
) -> list[np.ndarray]:
    """Encode films and decode them again.

    Args:
        pipeline: The pipeline with the autoencoder.
        manifest: The manifest of the films.
        rows: The films, all of one size.
        batch_size: Number of films at once.

    Returns:
        Films in [0, 1], the shorter side 128 pixels.
    """
    films = []
    for start in tqdm(range(0, len(rows), batch_size), desc="decoding", unit="batch"):
        batch = [read_radiograph(manifest.path(row)) for row in rows[start : start + batch_size]]
        decoded = reconstruct(pipeline.vae, torch.from_numpy(np.stack(batch))[:, None])
        films += [resize_shorter_side(film, SHORTER_SIDE) for film in decoded[:, 0].numpy()]
    return films


def read_films(
    films: Sequence[np.ndarray], reader: FindingReader, expected: np.ndarray
) -> list[Reading | None]:
    """Read the findings of films; None stands for a film that shows no chest."""
    measurements = (measure_film(film, expected) for film in tqdm(films, desc="reading"))
    return [None if found is None else reader.read(found) for found in measurements]


def _draw(
    sampled: Sequence[tuple[Request, np.ndarray]],
    known: Sequence[tuple[ManifestRow, np.ndarray]],
    path: Path,
) -> bool:
    """Draw sampled films, each beside a held-out film that meets its request, where there is one.

    Returns:
        Whether anything was drawn.
    """
    films, titles = [], []
    for index in np.unique(np.linspace(0, len(sampled) - 1, _PAIRS_DRAWN).astype(int)):
        request, film = sampled[index]
        alike = [(row, other) for row, other in known if request.is_met_by(row.facts)]
        if alike and alike[0][1].shape == film.shape:
            # Of the films that meet the request, the one with the fewest findings.
            films += [film, min(alike, key=lambda pair: len(pair[0].facts["findings"]))[1]]
            titles += [request.prompt, "held-out film"]
    if films:
        save_contact_sheet(films, path, titles=titles, columns=8)
    return bool(films)


def _read_films(manifest: Manifest, rows: Sequence[ManifestRow]) -> list[np.ndarray]:
    """Read films at the size at which they are measured."""
    return [
        resize_shorter_side(read_radiograph(manifest.path(row)), SHORTER_SIDE)
        for row in tqdm(rows, desc="films")
    ]
