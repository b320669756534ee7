"""What a report opens with: answers to a reader's questions, told by word, shape and colour."""

from collections.abc import Iterator, Sequence
from html import escape

from diffct.eval.section import PRIVACY, QUALITY, TRUTH, VARIETY, Section, State, Verdict

_ALWAYS_ASKED = (QUALITY, VARIETY, PRIVACY)
_ORDER = (TRUTH, *_ALWAYS_ASKED)
# A tick in a circle, a mark in a triangle, a cross in an octagon, a dash in a broken circle: as far
# apart in black and white as in colour.
_SHAPES: dict[State, str] = {
    "good": '<circle cx="12" cy="12" r="10"/><path d="M7 12.5l3.4 3.4L17 9"/>',
    "in doubt": '<path d="M12 2.5L22.5 21h-21z"/><path d="M12 9.5v5.5M12 17.6v.8"/>',
    "bad": '<path d="M8 2h8l6 6v8l-6 6H8l-6-6V8z"/><path d="M8.2 8.2l7.6 7.6M15.8 8.2l-7.6 7.6"/>',
    "not measured": '<circle cx="12" cy="12" r="10" stroke-dasharray="3 3"/><path d="M8 12h8"/>',
}


def list_answers(sections: Sequence[Section]) -> str:
    """Write every answer of the sections, and which question nobody answers."""
    items = "\n".join(
        _item(verdict, section) for verdict, section in sorted(_answers(sections), key=_place)
    )
    return f'<ul class="answers" aria-label="Answers">\n{items}\n</ul>'


def _answers(sections: Sequence[Section]) -> Iterator[tuple[Verdict, Section | None]]:
    for section in sections:
        for verdict in section.verdicts:
            yield verdict, section
    asked = {verdict.question for section in sections for verdict in section.verdicts}
    for question in _ALWAYS_ASKED:
        if question not in asked:
            yield Verdict(question, "not measured", "No measurement here answers it."), None


def _place(answer: tuple[Verdict, Section | None]) -> int:
    question = answer[0].question
    return _ORDER.index(question) if question in _ORDER else len(_ORDER)


def _item(verdict: Verdict, section: Section | None) -> str:
    """Write one answer, with the way to its figures."""
    question = escape(verdict.question)
    if section is not None:
        question = f'<a href="#{escape(section.name)}">{question}</a>'
    return (
        f'<li class="answer {verdict.state.replace(" ", "-")}">\n'
        f'<svg viewBox="0 0 24 24" aria-hidden="true">{_SHAPES[verdict.state]}</svg>\n'
        f'<div><p class="question">{question} <b>{verdict.state}</b></p>\n'
        f"<p>{escape(verdict.sentence[:1].upper() + verdict.sentence[1:])}</p></div>\n</li>"
    )
