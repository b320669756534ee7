"""Reports of the chest phantom: true sentence by sentence, complete, and varied."""

import re
from collections import defaultdict
from itertools import product

import numpy as np
import pytest

from diffct.phantoms.chest import report as chest_report
from diffct.phantoms.chest.report import write_report
from diffct.phantoms.chest.truth import (
    HEART_RATIOS,
    ChestFinding,
    ChestTruth,
    draw_truth,
)

KIND_WORDS = {
    "effusion": r"effusion|costophrenic|pleural spaces",
    "consolidation": r"consolidation|airspace|pneumonia|opacity",
    "nodule": r"nodule",
    "pneumothorax": r"pneumothorax|collapsed",
}
DENIES = re.compile(r"\b(no|neither|not|clear|sharp|unremarkable|normal)\b", re.I)
HEART_WORDS = r"heart|cardiac|cardiomegaly"
EVERYTHING_WELL = r"acute cardiopulmonary|chest radiograph\.|normal chest|lungs"
SEVERITIES = {"small", "moderate", "large"}


def reports(count: int) -> list[tuple[ChestTruth, list[str]]]:
    pairs = []
    for seed in range(count):
        truth_rng, report_rng = np.random.default_rng(seed).spawn(2)
        truth = draw_truth(truth_rng)
        pairs.append((truth, write_report(truth, report_rng)))
    return pairs


@pytest.fixture(scope="module")
def many() -> list[tuple[ChestTruth, list[str]]]:
    return reports(3000)


def contradiction(sentence: str, truth: ChestTruth) -> str | None:
    """Return why a sentence is wrong for a film."""
    text = sentence.lower()
    denies = DENIES.search(text) is not None
    sides = {side for side in ("left", "right") if side in text}
    for kind, words in KIND_WORDS.items():
        if not re.search(words, text):
            continue
        present = {f.side for f in truth.findings if f.kind == kind}
        if denies and present & (sides or {"left", "right"}):
            return f"denies the {kind}"
        if not denies and (not present or not sides <= {f.side for f in truth.findings}):
            return f"invents a {kind}"
    if re.search(HEART_WORDS, text):
        if denies != (truth.heart_size == "normal"):
            return "the heart is of another size"
        named = {"mild": "mild", "moderate": "moderate", "severe": "severe|massive"}
        if not denies and not re.search(named[truth.heart_size], text):
            return "the heart is enlarged to another degree"
    if denies and not sides and re.search(EVERYTHING_WELL, text) and truth.findings:
        return "calls a film with findings clear"
    if re.search("acute cardiopulmonary|normal chest|unremarkable chest", text):
        return None if truth.heart_size == "normal" else "calls an enlarged heart normal"
    if denies and re.search("lung is|of the .* lung|clear .* lung|hemithorax", text):
        if sides & {f.side for f in truth.findings}:
            return "calls a side with a finding clear"
    return None


def test_no_sentence_contradicts_its_film(many: list[tuple[ChestTruth, list[str]]]):
    wrong = [
        (sentence, why, truth)
        for truth, sentences in many
        for sentence in sentences
        if (why := contradiction(sentence, truth))
    ]
    assert wrong == []


def test_the_search_for_contradictions_finds_some(many: list[tuple[ChestTruth, list[str]]]):
    effusion = ChestTruth("mild", 0.53, (ChestFinding("effusion", "left", None, "large"),))
    for sentence in (
        "No pleural effusion.",
        "No left-sided pleural effusion.",
        "The costophrenic angles are sharp.",
        "The lungs are clear.",
        "The left lung is clear.",
        "There is a large right pleural effusion.",
        "There is a small nodule in the left upper lung.",
        "The heart is not enlarged.",
        "Severe cardiomegaly.",
        "Normal chest.",
    ):
        assert contradiction(sentence, effusion), sentence
    assert not contradiction("No pleural effusion on the right.", effusion)
    # The reports of other patients are mostly wrong for this one.
    wrong = [any(contradiction(s, effusion) for s in sentences) for _, sentences in many]
    assert np.mean(wrong) > 0.9


def test_report_has_four_to_eight_sentences_without_repetition(
    many: list[tuple[ChestTruth, list[str]]],
):
    for _, sentences in many:
        assert 4 <= len(sentences) <= 8
        assert len(set(sentences)) == len(sentences)
        for sentence in sentences:
            assert re.fullmatch(r"[A-Z][A-Za-z0-9 ,:-]*\.", sentence), sentence
            assert not re.search(r"\b(\w+) \1\b|  | ,|\ba [aeiou]", sentence), sentence


def test_every_finding_is_named_with_side_and_size(many: list[tuple[ChestTruth, list[str]]]):
    for truth, sentences in many:
        told = [s.lower() for s in sentences if not DENIES.search(s)]
        assert any(re.search(HEART_WORDS, s.lower()) for s in sentences)
        for finding in truth.findings:
            words = KIND_WORDS[finding.kind]
            length = chest_report.NODULE_LENGTH[finding.severity]
            assert any(
                re.search(words, s)
                and (finding.side in s or re.search("bilateral|both", s))
                and (finding.severity in s or (finding.kind == "nodule" and length in s))
                and (not finding.zone or finding.zone in s)
                for s in told
            ), (finding, sentences)


@pytest.mark.parametrize("zone", ["upper", "lower"])
def test_a_single_finding_is_named_in_its_own_words_only(zone: str):
    rng = np.random.default_rng(0)
    for kind, side, severity in product(KIND_WORDS, ("left", "right"), SEVERITIES):
        own_zone = zone if kind in ("consolidation", "nodule") else None
        truth = ChestTruth("normal", 0.45, (ChestFinding(kind, side, own_zone, severity),))
        for _ in range(20):
            for sentence in write_report(truth, rng):
                text = sentence.lower()
                if DENIES.search(text) or not re.search(KIND_WORDS[kind], text):
                    continue
                assert {s for s in ("left", "right") if s in text} == {side}
                assert {s for s in SEVERITIES if s in text} <= {severity}
                if own_zone:
                    assert {z for z in ("upper", "lower") if z in text} == {own_zone}


def test_both_sides_are_named_with_their_own_sizes():
    rng = np.random.default_rng(1)
    findings = tuple(
        ChestFinding("effusion", side, None, size)
        for side, size in (("left", "large"), ("right", "small"))
    )
    for _ in range(100):
        text = " ".join(write_report(ChestTruth("normal", 0.45, findings), rng)).lower()
        pairs = set(
            re.findall(
                r"(large|small)(?: effusion at the| pleural effusion is present)?"
                r"(?: on the)? (left|right)",
                text,
            )
        )
        assert pairs <= {("large", "left"), ("small", "right")}


def test_statements_have_at_least_five_wordings(many: list[tuple[ChestTruth, list[str]]]):
    wordings = defaultdict(set)
    for truth, sentences in many:
        for sentence in sentences:
            if re.search(HEART_WORDS, sentence.lower()) and "," not in sentence:
                wordings[truth.heart_size].add(sentence)
            for finding in truth.findings:
                denied = DENIES.search(sentence)
                if not denied and re.search(KIND_WORDS[finding.kind], sentence.lower()):
                    wordings[finding].add(sentence)
    assert set(HEART_RATIOS) < set(wordings)
    # Eight kinds of place for nodule and consolidation, two for the others, three sizes each.
    assert sum(isinstance(statement, ChestFinding) for statement in wordings) == 36
    assert min(len(texts) for texts in wordings.values()) >= 5


def test_vocabulary_is_a_few_hundred_words_at_most(many: list[tuple[ChestTruth, list[str]]]):
    text = " ".join(sentence for _, sentences in many for sentence in sentences).lower()
    assert 80 < len(set(re.findall(r"[a-z0-9-]+", text))) < 300


def test_same_seed_writes_the_same_report_and_another_seed_another():
    truth = draw_truth(np.random.default_rng(5))
    first, same, other = (write_report(truth, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first == same
    assert first != other


def test_absent_kinds_are_denied_often(many: list[tuple[ChestTruth, list[str]]]):
    for kind, words in KIND_WORDS.items():
        without = [s for t, s in many if kind not in {f.kind for f in t.findings}]
        denied = [any(re.search(words, s.lower()) for s in sentences) for sentences in without]
        assert np.mean(denied) > 0.6, kind
