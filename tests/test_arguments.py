"""Values on command lines are read, or refused by name."""

import argparse
from pathlib import Path

import pytest

from diffct.arguments import check_counts, finite_number, path_argument


def test_paths_on_command_lines_may_begin_at_home(monkeypatch, capsys):
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.delenv("NOWHERE", raising=False)
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=path_argument)
    assert parser.parse_args(["--out=~/my samples"]).out == Path("/home/someone/my samples")
    with pytest.raises(SystemExit):
        parser.parse_args(["--out=$NOWHERE/x"])
    assert "argument --out: $NOWHERE/x: the environment variable" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["nan", "-inf"])
def test_an_argument_is_a_finite_number(text):
    with pytest.raises(argparse.ArgumentTypeError, match=f"{text} is not a finite number"):
        finite_number(text)
    assert finite_number("7.5") == 7.5


def test_a_count_below_one_is_refused_by_its_option():
    check_counts(argparse.Namespace(batch_size=1, number=3), "batch_size", "number")
    with pytest.raises(ValueError, match="--batch-size must be at least 1, not 0"):
        check_counts(argparse.Namespace(batch_size=0), "batch_size")
