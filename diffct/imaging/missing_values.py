"""Missing values: the words that programs write into empty cells of a table."""

_DASHES = ("-", "--", "–", "—")  # Excel writes the longer ones
# The words that pandas reads as missing. A whole cell "None" is missing, too, whoever wrote it; but
# "None." with its full stop is a sentence.
_WORDS = ("", "nan", "-nan", "nat", "n/a", "#n/a", "#n/a n/a", "na", "#na", "<na>", "null", "none")
_NUMBERS = ("1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan")
_WHOLE_CELLS = frozenset((*_DASHES, *_WORDS, *_NUMBERS))
# These are not words of any language, so they are missing values inside a text as well.
_NO_WORDS = frozenset(("nan", "-nan", "nat", "n/a", "#n/a", "<na>"))


def is_missing(cell: str) -> bool:
    """Return whether a whole cell means "no value", such as `nan`, `N/A`, `None` or an empty one.

    Args:
        cell: Its text; capitals and surrounding white space do not matter.
    """
    return cell.strip().casefold() in _WHOLE_CELLS


def is_no_sentence(sentence: str) -> bool:
    """Return whether a sentence of a text is only a missing value that was pasted into it.

    Words that a radiologist could have meant, such as "None", are sentences.

    Args:
        sentence: Its text; a full stop after it does not matter.
    """
    return sentence.strip().rstrip(".").casefold() in _NO_WORDS
