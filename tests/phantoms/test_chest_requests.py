"""Requests of prompts, and the judgement of films by them."""

from collections import Counter

import pytest

from diffct.phantoms.chest.findings import ReadFinding, Reading
from diffct.phantoms.chest.requests import SUBJECTS, Rate, Request, balanced_requests


def reading(*findings, heart="normal", ratio=0.45):
    return Reading(tuple(ReadFinding(*f, amount=1.5) for f in findings), ratio, heart)


LEFT = Request("effusion", "Large left pleural effusion.", "effusion", "left", None, "large")
NODULE = Request("nodule", "…", "nodule", "right", "upper", "small")


def test_prompts_ask_for_every_case_equally_often_in_their_words():
    requests = balanced_requests(160)
    assert set(Counter(request.subject for request in requests).values()) == {26, 27}
    assert [request.subject for request in requests[:6]] == list(SUBJECTS)
    for request in requests:
        words = request.prompt.lower()
        for asked in (request.side, request.zone):
            assert asked is None or asked in words
        assert ("no " in words) == (request.subject == "absence")
        opposite = {"left": "right", "right": "left"}.get(request.side, "left")
        assert opposite not in words
    cases = {(r.kind, r.side, r.zone, r.grade) for r in requests if r.subject != "absence"}
    assert len(cases) == 6 + 6 + 12 + 12 + 4
    # The second round has the same requests in other words.
    fluid = [request for request in requests if request.subject == "effusion"]
    assert fluid[0].prompt != fluid[6].prompt
    assert fluid[0].prompt == fluid[12].prompt


@pytest.mark.parametrize(
    ("request_", "found", "answers"),
    [
        (LEFT, reading(), {"present": False}),
        (
            LEFT,
            reading(("effusion", "left", None, "large")),
            {"present": True, "side": True, "wrong side": False, "severity": True},
        ),
        (
            LEFT,
            reading(("effusion", "left", None, "small"), ("effusion", "right", None, "large")),
            {"present": True, "side": False, "wrong side": False, "severity": False},
        ),
        (
            LEFT,
            reading(("effusion", "right", None, "large"), ("nodule", "left", "upper", "large")),
            {"present": True, "side": False, "wrong side": True},
        ),
        (
            NODULE,
            reading(("nodule", "right", "lower", "small")),
            {"present": True, "side": True, "wrong side": False, "severity": True, "zone": False},
        ),
        (Request("absence", "…", "nodule"), reading(), {"absent": True}),
        (
            Request("absence", "…", "nodule"),
            reading(("nodule", "left", "upper", "small")),
            {"absent": False},
        ),
        (Request("heart", "…", grade="mild"), reading(heart="severe"), {"heart size": False}),
        (Request("heart", "…", grade="mild"), reading(heart=None), {}),
        (LEFT, None, {"present": False}),
        (Request("heart", "…", grade="mild"), None, {"heart size": False}),
        # Noise shows no effusion, and still is not what was asked for.
        (Request("absence", "…", "effusion"), None, {"absent": False}),
    ],
)
def test_a_film_is_judged_by_what_was_asked(request_, found, answers):
    assert request_.judge(found) == answers


def test_the_amount_is_that_of_the_asked_side_only():
    assert LEFT.amount(reading(("effusion", "left", None, "large"))) == 1.5
    assert LEFT.amount(reading(("effusion", "right", None, "large"))) is None
    assert LEFT.amount(None) is None
    heart = Request("heart", "…", grade="mild")
    assert heart.amount(reading(heart="mild", ratio=0.55)) == 0.55
    assert heart.amount(reading(heart=None, ratio=float("nan"))) is None


def test_a_known_film_meets_a_request_when_it_shows_just_that():
    left = {"kind": "effusion", "side": "left", "zone": None, "severity": "large"}
    right = left | {"side": "right"}
    facts = {"heart_size": "mild", "cardiothoracic_ratio": 0.54}
    assert LEFT.is_met_by(facts | {"findings": [left]})
    assert not LEFT.is_met_by(facts | {"findings": [left, right]})
    assert not LEFT.is_met_by(facts | {"findings": [left | {"severity": "small"}]})
    assert Request("absence", "…", "nodule").is_met_by(facts | {"findings": [left]})
    assert not Request("absence", "…", "effusion").is_met_by(facts | {"findings": [right]})
    assert Request("heart", "…", grade="mild").is_met_by(facts | {"findings": []})


def test_rates_carry_wilsons_interval():
    rate = Rate.from_answers([True] * 8 + [False] * 2)
    assert rate.interval == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert str(rate) == "80 % (8/10; 49–94)"
    assert str(Rate.from_answers([])) == "–"
    assert Rate.from_answers([]).interval == (0, 1)
