"""Missing values: the words that programs write where a table has no value."""

_DASHES = ("-", "--", "–", "—")  # Excel makes the longer ones
# What pandas counts as missing. As a whole cell "None" is such a word, too: written by pandas or by
# a person it says nothing. A sentence ends in a full stop: "None." is one.
_WORDS = ("", "nan", "-nan", "nat", "n/a", "#n/a", "#n/a n/a", "na", "#na", "<na>", "null", "none")
_NUMBERS = ("1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan")
_WHOLE_CELLS = frozenset((*_DASHES, *_WORDS, *_NUMBERS))
# No words of any language, so that they are missing inside a text as well.
_NO_WORDS = frozenset(("nan", "-nan", "nat", "n/a", "#n/a", "<na>"))


def is_missing(cell: str) -> bool:
    """Say whether a whole cell stands for "no value", such as `nan`, `N/A`, `None` or nothing.

    Args:
        cell: Its text; capitals and white space around it do not matter.
    """
    return cell.strip().casefold() in _WHOLE_CELLS


def is_no_sentence(sentence: str) -> bool:
    """Say whether a sentence of a text is only a missing value that was pasted into it.

    Words that a reader could have meant, such as "None", are sentences.

    Args:
        sentence: Its text; a full stop after it does not matter.
    """
    return sentence.strip().rstrip(".").casefold() in _NO_WORDS
