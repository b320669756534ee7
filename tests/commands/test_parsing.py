"""A wrong word on the command line is answered with a suggestion."""

import pytest

from diffct.cli import main


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["sample", "p", "--guidence-scale", "3"], "diffct sample: .* Did you mean --guidance-sc"),
        (["sample", "p", "--height", "32"], "Did you mean --size H W?"),
        (["translate", "p", "s", "--out", "o", "--num-samples", "2"], "Did you mean --number?"),
        (["phantom", "chest", "--number", "1", "--out", "o", "--films", "2"], "mean --number?"),
        (["prepare", "phantom-cxr"], "Did you mean diffct phantom chest?"),
        (["train", "ct3d", "--resum2"], "diffct train ct3d: .* Did you mean --resume?"),
        (["prepare", "brian"], "choose from"),
    ],
)
def test_a_wrong_word_is_answered_with_what_it_may_mean(words, answer, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert all(part in said for part in answer.split(" .* "))


def test_a_shortened_option_is_taken():
    with pytest.raises(SystemExit, match="--number must be at least 1, not 0"):
        main(["phantom", "chest", "--num", "0", "--out", "o"])
