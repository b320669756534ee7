"""Findings and Impression of radiology reports, cut into sentences.

The rules are made for the reports of MIMIC-CXR: headings in capitals before a colon, wrapped lines,
numbered lists, and `___` where text was removed to protect the patient. They also recognise
headings in lower case, without a colon or in the middle of a line. `___` is left unchanged.
"""

import difflib
import re
from typing import Literal

from diffct.imaging.missing_values import is_no_sentence

SectionName = Literal["findings", "impression"]

# Words that determine the kind of a heading. A heading with none of them, such as "LUNGS:", does
# not start a new section.
_OTHER = (
    *("INDICATION", "INDICATIONS", "HISTORY", "CLINICAL", "REASON", "SYMPTOMS", "DIAGNOSIS"),
    *("COMPARISON", "COMPARISONS", "TECHNIQUE", "EXAMINATION", "EXAM", "STUDY", "PROCEDURE"),
    *("NOTIFICATION", "RECOMMENDATION", "RECOMMENDATIONS", "ADDENDUM", "PRELIMINARY"),
    *("PROVISIONAL", "WET", "REPORT", "DOSE", "DICTATED", "SIGNED", "ATTENDING", "CONTRAST"),
)
_FINDINGS = ("FINDINGS", "FINDING")
_IMPRESSION = ("IMPRESSION", "IMPRESSIONS", "CONCLUSION", "CONCLUSIONS", "OPINION", "SUMMARY")
_MIN_SIMILARITY = 0.85  # of a misspelt heading: accepts "IMPRESSON" and "FINDNGS"

_SECTION_WORDS: dict[SectionName, tuple[str, ...]] = {
    "findings": _FINDINGS,
    "impression": _IMPRESSION,
}

_NAMES = "|".join(sorted({*_OTHER, *_FINDINGS, *_IMPRESSION}, key=len, reverse=True))
_HEADING = re.compile(
    # In capitals at the start of a line: any words before a colon, or known words alone.
    r"^[ \t]*(?P<line>[A-Z][A-Z ()/,&'-]{2,60}?)[ \t]*:"
    rf"|^[ \t]*(?P<bare>(?:FINAL |WET )?(?:{_NAMES}|READ))[ \t]*(?:$|[-–—](?=\s))"
    # In capitals anywhere: the two sections that are used, and those that may follow them.
    r"|\b(?P<inner>FINDINGS|IMPRESSION|RECOMMENDATIONS?|NOTIFICATION)(?:\(S\))?[ \t]*:"
    # In any case at the start of a line or after a sentence.
    r"|(?:^[ \t]*|(?<=[.!?;:])\s+)"
    rf"(?P<soft>(?i:(?:clinical )?(?:{_NAMES})(?: (?:and|for) \w+| ?/ ?\w+|\(s\))?))[ \t]*:",
    re.MULTILINE,
)

_NUMBER = re.compile(r"(?:^[ \t]*|(?<=[.!?;:])[ \t]+)\(?(\d{1,2})[.)](?=\s+\S|[A-Z])", re.MULTILINE)
_BULLET = re.compile(r"^[ \t]*[-*•·](?=\s+\S)", re.MULTILINE)
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
_LETTER = re.compile(r"[^\W\d_]")
# Full stops, also those without a space after them.
_STOP = re.compile(r"[.!?]+[\"')\]]*(?:\s+(?=\S)|(?<=[a-z)]\.)(?=[A-Z][a-z]))")
# Abbreviations whose full stop never ends a sentence.
_TITLES = frozenset(
    "dr drs mr mrs ms prof st vs e.g i.e cf fig figs approx esp incl resp ca dept re".split()
)
# Abbreviations whose full stop ends a sentence only before a capital letter.
_SHORT_FORMS = frozenset(
    "cm mm ml cc kg lb ft hr hrs min sec etc no nos lat ant post sup inf bilat med prox dist vert "
    "max temp pt pts hx dx tx sx fx yo yr yrs mo wk wks lt rt rll lll rul lul rml prev poss prob "
    "mod sm lg seg".split()
)


def report_sections(text: str) -> dict[SectionName, str]:
    """Return the text of a report under Findings and Impression.

    A heading for both counts as findings; conclusion, opinion and summary as impression. Sections
    of the same kind are joined. Preliminary readings are left out.

    Args:
        text: A whole report.

    Returns:
        The text of each section that is present and not empty, with the report's line breaks.
    """
    parts: dict[SectionName, list[str]] = {}
    current, start = None, 0
    for heading in _HEADING.finditer(text):
        kind = _kind(heading[heading.lastgroup or 0])
        if kind is None:
            continue
        if current is not None:
            parts.setdefault(current, []).append(text[start : heading.start()])
        current, start = (None if kind == "other" else kind), heading.end()
    if current is not None:
        parts.setdefault(current, []).append(text[start:])
    joined = {name: "\n\n".join(part.strip() for part in found) for name, found in parts.items()}
    return {name: section for name, section in joined.items() if _LETTER.search(section)}


def split_sentences(text: str) -> list[str]:
    """Cut a text into sentences.

    Args:
        text: Any text; wrapped lines are joined, empty lines and list markers end a sentence.

    Returns:
        The sentences in their order with single spaces, without list markers. Sentences without a
        letter, and missing values that were pasted in ("nan", "N/A"), are left out.
    """
    text = _CONTROL.sub(" ", text.replace("\r\n", "\n").replace("\r", "\n"))
    blocks = re.split(r"\n\s*\n", _cut_list(_BULLET.sub("\n\n", text)))
    sentences = [sentence for block in blocks for sentence in _split_line(" ".join(block.split()))]
    return [s for s in sentences if _LETTER.search(s) and not is_no_sentence(s)]


def report_sentences(text: str) -> list[str]:
    """Return the findings of a report as sentences.

    Args:
        text: A whole report.

    Returns:
        The sentences of Findings, then those of Impression, without repetitions; an empty list if
        the report has neither section.
    """
    sections = report_sections(text)
    used = [sections[name] for name in ("findings", "impression") if name in sections]
    return list(dict.fromkeys(sentence for part in used for sentence in split_sentences(part)))


def _kind(heading: str) -> SectionName | Literal["other"] | None:
    """Return which section a heading starts; None if it starts none."""
    words = re.findall(r"[A-Z]+", heading.upper())
    first = words[0] if words else ""
    # "PRELIMINARY FINDINGS" and "CLINICAL IMPRESSION" are not the final findings and impression.
    if first in ("PROVISIONAL", "PRELIMINARY", "CLINICAL", "WET"):
        return "other"
    for kind, names in _SECTION_WORDS.items():
        if {*words} & {*names} or difflib.get_close_matches(first, names, 1, _MIN_SIMILARITY):
            return kind
    return "other" if {*words} & {*_OTHER} else None


def _cut_list(text: str) -> str:
    """Replace the markers of numbered lists by empty lines; only 1, 2, 3, ... are markers."""
    expected = 1

    def cut(mark: re.Match[str]) -> str:
        nonlocal expected
        # Another number belongs to the text; 1 starts a new list.
        if int(mark[1]) not in (1, expected):
            return mark[0]
        expected = int(mark[1]) + 1
        return "\n\n"

    return _NUMBER.sub(cut, text)


def _split_line(line: str) -> list[str]:
    """Cut a text without line breaks at its full stops."""
    sentences, start = [], 0
    for stop in _STOP.finditer(line):
        if _ends_sentence(line[start : stop.start()], line[stop.end() :]):
            sentences.append(line[start : stop.end()].strip())
            start = stop.end()
    return [*sentences, line[start:].strip()]


def _ends_sentence(before: str, after: str) -> bool:
    """Return whether the full stop between two texts ends a sentence, not an abbreviation."""
    word = before.rstrip().rsplit(" ", 1)[-1].lstrip("(\"'").lower()
    if word in _TITLES or not word:
        return False
    if word in ("no", "nos") and after[0].isdigit():
        return False
    # An initial, or the side in "L. lower lobe".
    if len(word) == 1 and word.isalpha():
        return False
    if word in _SHORT_FORMS or "." in word:
        return after[0].isupper()
    # "level 3. lead" may be a wrapped list or decimal number.
    return after[0].isupper() or after[0] in "_(\"'[" or not word[-1].isdigit()
