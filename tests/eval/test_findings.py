"""The evaluation of prompts on phantom films."""

import json
from itertools import product

import numpy as np
import pytest

from diffct.cli import main
from diffct.data.manifest import ManifestRow, read_manifest, write_manifest
from diffct.eval.findings import calibrate, read_films
from diffct.eval.findings_counts import amounts_by_grade, hit_rates
from diffct.imaging.radiograph import write_png
from diffct.phantoms.chest.cohort import ChestFinding, ChestTruth, draw_patient, render_film
from diffct.phantoms.chest.findings import SEVERITIES
from diffct.phantoms.chest.requests import all_requests

RATIOS = {"normal": 0.45, "mild": 0.54, "moderate": 0.6, "severe": 0.67}


def render(truth, patient):
    return render_film(draw_patient(truth, np.random.default_rng(patient)))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Phantom films that show every finding in every severity and every heart, with a manifest."""
    folder = tmp_path_factory.mktemp("cohort")
    truths = []
    for round_, severity in product(range(4), SEVERITIES):
        zone, side = ("lower", "upper")[round_ % 2], ("left", "right")[round_ // 2]
        other = "right" if side == "left" else "left"
        for plain, zoned in (("effusion", "nodule"), ("pneumothorax", "consolidation")):
            findings = (plain, side, None, severity), (zoned, other, zone, severity)
            truths.append(ChestTruth("normal", 0.45, tuple(ChestFinding(*f) for f in findings)))
    truths += [ChestTruth(heart, ratio) for heart, ratio in RATIOS.items()] * 3
    splits = ["train"] * len(truths) + ["validation", "test"] * 6
    rows = []
    for number, (truth, split) in enumerate(zip(truths + truths[:12], splits, strict=True)):
        row = ManifestRow(f"{number}.png", str(number), split, facts=truth.to_dict())
        write_png(render(truth, 500 + number), folder / row.image)
        rows.append(row)
    write_manifest(rows, folder / "manifest.jsonl")
    return folder


def test_a_faithful_sampler_differs_from_one_that_swaps_sides_and_one_that_ignores_prompts(cohort):
    manifest = read_manifest(cohort)
    reader, expected = calibrate(manifest, manifest.split("train"), seed=0)
    requests = [request for cases in all_requests().values() for request in cases]
    films = []
    for number, asked in enumerate(requests):
        heart = asked.grade if asked.subject == "heart" else "normal"
        finding = ChestFinding(asked.kind, asked.side, asked.zone, asked.grade)
        findings = (finding,) if asked.side else ()
        films.append(render(ChestTruth(heart, RATIOS[heart], findings), number))
    mirrored = [film[:, ::-1] for film in films]
    shuffled = films[len(films) // 2 :] + films[: len(films) // 2]
    judged = {
        source: list(zip(requests, read_films(some, reader, expected), strict=False))
        for source, some in (
            ("sampled", mirrored),
            ("empty prompt", shuffled),
            ("decoded", []),
            ("held-out", films),
        )
    }
    rates = {(row.question, row.about): row.rates for row in hit_rates(judged)}
    for question in ("present", "absent"):
        rate = rates[question, "all"]
        assert rate["held-out"].hits >= 0.85 * rate["held-out"].count
        assert rate["sampled"].hits >= 0.85 * rate["sampled"].count
    assert rates["present", "all"]["empty prompt"].interval[1] < 0.5
    for question, faithful, swapped in (("side", 1, 0), ("wrong side", 0, 1)):
        rate = rates[question, "all"]
        assert rate["held-out"].hits == pytest.approx(faithful * rate["held-out"].count, abs=2)
        assert rate["sampled"].hits == pytest.approx(swapped * rate["sampled"].count, abs=2)
    assert rates["heart size", "heart"]["held-out"].hits >= 3

    ranks = {(row.about, row.source): row.spearman for row in amounts_by_grade(judged)}
    for about in ("effusion", "pneumothorax", "heart"):
        assert ranks[about, "held-out"] > 0.9
    assert ranks["effusion", "sampled"] is None  # nothing on the asked side


def test_an_untrained_pipeline_shows_nothing_that_was_asked(
    make_cxr_pipeline, cohort, tmp_path, capsys
):
    make_cxr_pipeline().save_pretrained(tmp_path / "pipeline")
    folders = [str(tmp_path / "pipeline"), "--data", str(cohort), "--out", str(tmp_path / "out")]
    options = ["--number", "9", "--steps", "2", "--batch-size", "4", "--device", "cpu"]
    main(["evaluate", *folders, *options, "--only", "findings"])
    report = json.loads((tmp_path / "out" / "findings.json").read_text())
    assert report["protocol"]["pipeline"]["prompts"] == 9
    assert report["protocol"]["settings"]["held_out_films"] == 12
    figures = report["figures"]
    chestless = {"samples": 9, "empty prompt": 9, "decoded": 12, "held_out": 0}
    assert figures["films without a chest"] == chestless
    sampled = figures["present, all"]["samples"]
    assert (sampled["hits"], sampled["count"], sampled["value"]) == (0, 7, 0)
    assert figures["absent, effusion"]["held_out"]["count"] == 6
    assert figures["absent, effusion"]["empty prompt"]["count"] == 9
    assert "| asked finding there | effusion | 0 % (0/2; 0–66) |" in capsys.readouterr().out
    assert "Findings asked for" in (tmp_path / "out" / "report.html").read_text()
    main(["compare", str(tmp_path / "out"), str(tmp_path / "out")])
    printed = capsys.readouterr().out
    assert "| present, all, samples" in printed and "held_out" not in printed


def test_films_of_unknown_truth_are_refused_before_sampling(make_cxr_pipeline, tmp_path):
    make_cxr_pipeline().save_pretrained(tmp_path / "pipeline")
    write_png(np.random.default_rng(0).random((64, 64)), tmp_path / "films" / "0.png")
    rows = [ManifestRow("0.png", "0", "test")]
    write_manifest(rows, tmp_path / "films" / "manifest.jsonl")
    words = [str(tmp_path / "pipeline"), "--data", str(tmp_path / "films"), "--size", "64", "64"]
    with pytest.raises(SystemExit, match="1 of 1 films have no truth"):
        main(["evaluate", *words, "--only", "findings", "--out", str(tmp_path / "out")])
