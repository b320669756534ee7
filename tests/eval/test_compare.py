"""`diffct compare`: differences of two results, their direction and their intervals."""

import copy
import json

import pytest

from diffct.cli import main
from diffct.eval.compare import compare_figures
from diffct.eval.directions import direction, is_better, is_under_test

CARD = {"measurement": "distribution", "sets": {"held_out": {"images": 30}}, "versions": {}}
FIRST = {
    "FD[net]": {
        "samples": {"value": 12.0, "standard_error": 1.0, "interval": [10.0, 14.0]},
        "train": {"value": 3.0, "standard_error": None, "interval": None},
    },
    "manifold[net]": {"samples": {"recall": 0.5, "density": 1.4}, "train": {"density": 1.0}},
    "MS-SSIM of pairs": {
        "samples": {"value": 0.60, "interval": [0.58, 0.62], "pairs": 190},
        "held_out": {"value": 0.40, "interval": [0.38, 0.42], "pairs": 190},
    },
    "realism": {"figures": {"body_ml": {"samples": {"value": 90.0}, "distance": 9.0}}},
    "copies": {"samples": 40, "suspicious": 4, "identical": 2},
}


def second():
    figures = copy.deepcopy(FIRST)
    figures["FD[net]"]["samples"] |= {"value": 8.0, "interval": [7.0, 9.0]}
    figures["manifold[net]"]["samples"] = {"recall": 0.4, "density": 0.9}
    figures["MS-SSIM of pairs"]["samples"] |= {"value": 0.25, "interval": [0.2, 0.59]}
    figures["realism"]["figures"]["body_ml"]["distance"] = 10.0
    figures["copies"] |= {"suspicious": 0, "identical": 1}
    return figures


def write(path, figures, card=CARD):
    values = {"measurements": {"distribution": {"protocol": card, "figures": figures}}}
    path.write_text(json.dumps(values))
    return str(path)


def test_each_figure_has_its_direction_and_its_overlap():
    found = {comparison.figure: comparison for comparison in compare_figures(FIRST, second())}
    told = {
        name: (round(c.difference, 6), c.second_is_better, c.intervals_overlap)
        for name, c in found.items()
    }
    assert told == {
        "FD[net], samples": (-4.0, True, False),
        "manifold[net], samples, recall": (-0.1, False, None),
        # 0.9 is nearer to the 1.0 of real images than 1.4 is, and 0.25 nearer to 0.40 than 0.60.
        "manifold[net], samples, density": (-0.5, True, None),
        "MS-SSIM of pairs, samples": (-0.35, True, True),
        "realism, figures, body_ml, samples": (0.0, None, None),
        "realism, figures, body_ml, distance": (1.0, False, None),
        "copies, suspicious": (-4.0, True, None),
        "copies, identical": (-1.0, True, None),
    }


def test_exchanging_the_results_reverses_every_verdict():
    there, back = compare_figures(FIRST, second()), compare_figures(second(), FIRST)
    for one, other in zip(there, back, strict=True):
        assert one.difference == -other.difference
        assert one.intervals_overlap == other.intervals_overlap
        if one.second_is_better is not None:
            assert one.second_is_better is not other.second_is_better


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("psnr", "higher"),
        ("diffct, mae_hu", "lower"),
        ("KID[xrv], axial, samples", "lower"),
        ("FD[xrv], mean of planes, samples", "lower"),
        ("realism, window_distance_hu, bone", "lower"),
        ("diffct, lesions, found", "higher"),
        ("manifold[xrv], samples, coverage", "higher"),
        ("membership attack, auc", "nearer"),
        ("samples nearest to a training patient, chance", "none"),
        ("something new", "none"),
    ],
)
def test_directions(place, expected):
    assert is_under_test(place)
    assert direction(place, {})[0] == expected


@pytest.mark.parametrize(
    "place",
    [
        "KID[net], train",
        "autoencoder alone, psnr",
        "realism, figures, fat_ml, yardstick",
        "realism, window_yardstick_hu, bone",
        "nearest neighbours, anatomy, threshold",
        "nearest neighbours, detail, real_score_quantiles, 0%",
        "copies, held_out_patients",
    ],
)
def test_yardsticks_are_not_under_test(place):
    assert not is_under_test(place)


def test_nearer_counts_on_both_sides():
    assert is_better(0.3, 0.55, "nearer", 0.5) and not is_better(0.55, 0.3, "nearer", 0.5)
    assert is_better(0.4, 0.4, "higher", None) is None


def test_the_table_is_printed_in_line(tmp_path, capsys):
    files = [write(tmp_path / "a b [1].json", FIRST), write(tmp_path / "b.json", second())]
    main(["compare", *files])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len({len(line) for line in lines}) == 1
    (line,) = [line for line in lines if "FD[net]" in line]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells == ["FD[net], samples", "12 [10, 14]", "8 [7, 9]", "-4", "better", "apart"]


def test_json_says_the_same(tmp_path, capsys):
    main(["compare", "--json", write(tmp_path / "a", FIRST), write(tmp_path / "b", second())])
    found = json.loads(capsys.readouterr().out)["distribution"]
    assert found["protocols_differ"] == []
    assert found["figures"][0] == {
        "figure": "FD[net], samples",
        "first": 12.0,
        "second": 8.0,
        "first_interval": [10.0, 14.0],
        "second_interval": [7.0, 9.0],
        "difference": -4.0,
        "better_if": "lower",
        "nearer_to": None,
        "second_is_better": True,
        "intervals_overlap": False,
    }


def test_different_protocols_are_compared_only_with_force(tmp_path, capsys):
    other = CARD | {"sets": {"held_out": {"images": 31}}}
    files = [write(tmp_path / "a", FIRST), write(tmp_path / "b", second(), other)]
    with pytest.raises(SystemExit, match="protocols of distribution differ"):
        main(["compare", *files])
    main(["compare", *files, "--force"])
    assert "DIFFERENT PROTOCOLS" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["nothing", "[1]", '{"measurements": {}}', '{"a": 1}'])
def test_a_file_that_is_no_result_is_named(tmp_path, text):
    (tmp_path / "a").write_text(text)
    with pytest.raises(SystemExit, match=r"a: (is no|holds no)"):
        main(["compare", str(tmp_path / "a"), write(tmp_path / "b", FIRST)])


def test_a_folder_in_place_of_a_result_is_named(tmp_path):
    with pytest.raises(SystemExit, match="there is no such file"):
        main(["compare", str(tmp_path), write(tmp_path / "b", FIRST)])


def test_the_folder_of_an_evaluation_stands_for_its_figures(tmp_path, capsys):
    for name, figures in (("a", FIRST), ("b", second())):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "metrics.json", figures)
    main(["compare", str(tmp_path / "a"), str(tmp_path / "b")])
    assert "FD[net]" in capsys.readouterr().out


@pytest.mark.parametrize(
    "values",
    [[1], 3, {"source": "x"}, {"measurements": [1]}, {"measurements": {"a": 3}},
     {"measurements": {"a": {"protocol": {}, "figures": {"b": 1}}}}],
)  # fmt: skip
def test_json_that_is_no_result_is_refused_in_one_line(tmp_path, values):
    path = tmp_path / "other.json"
    path.write_text(json.dumps(values))
    with pytest.raises(SystemExit, match=r"other\.json: is no result of diffct's evaluation"):
        main(["compare", str(path), str(path)])


def test_missing_values_are_not_compared_and_the_output_is_valid_json(tmp_path, capsys):
    figures = copy.deepcopy(FIRST)
    figures["FD[net]"]["samples"] = {"value": float("nan"), "interval": [float("nan")] * 2}
    figures["manifold[net]"]["samples"]["recall"] = float("inf")
    nothing = write(tmp_path / "nothing.json", figures)
    both = json.loads((tmp_path / "nothing.json").read_text())
    both["measurements"]["privacy"] = {
        "protocol": {"measurement": "privacy"},
        "figures": {"copies": {"suspicious": 1}},
    }
    (tmp_path / "both.json").write_text(json.dumps(both))
    first = write(tmp_path / "first.json", FIRST)
    for pair in ([first, str(tmp_path / "both.json")], [nothing, nothing]):
        main(["compare", *pair, "--json"])
        printed = capsys.readouterr()
        found = json.loads(printed.out, parse_constant=pytest.fail)["distribution"]["figures"]
        told = {comparison["figure"] for comparison in found}
        assert "copies, suspicious" in told
        assert not told & {"FD[net], samples", "manifold[net], samples, recall"}
        main(["compare", *pair])
        assert "nan" not in capsys.readouterr().out.lower()
        assert ("only: privacy" in printed.err) == (pair[0] == first)
