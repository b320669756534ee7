"""`diffct evaluate`: all that suits a pipeline, as one report. `diffct compare`: two results."""

import argparse
import json
from datetime import date
from pathlib import Path
from typing import Any

from diffct import __version__
from diffct.evaluation.inputs import add_input_arguments, read_inputs
from diffct.evaluation.measurements import suiting
from diffct.evaluation.model_index import add_to_model_card
from diffct.evaluation.protocol import differences
from diffct.evaluation.report import write_report
from diffct.evaluation.section import write_json

_VALUE, _INTERVAL = "value", "interval"


def add_evaluate(commands: "argparse._SubParsersAction") -> None:
    """Describe `diffct evaluate`."""
    parser = commands.add_parser(
        "evaluate", help="measure quality and privacy of a pipeline or of samples: report.html"
    )
    add_input_arguments(parser, out="evaluation")
    parser.add_argument(
        "--model-card",
        action="store_true",
        help="write the figures into the pipeline's model card, as the Hub reads them",
    )
    parser.add_argument(
        "--data-name", help="what the model card calls the data (phantoms, or real)"
    )
    parser.set_defaults(run=_evaluate)


def _evaluate(options: argparse.Namespace) -> None:
    """Measure, and write report.html and metrics.json."""
    if options.model_card:
        needed = [Path(options.source) / name for name in ("model_index.json", "README.md")]
        if not all(path.is_file() for path in needed):
            raise ValueError("--model-card needs the folder of a pipeline with its README.md.")
    inputs = read_inputs(options)
    sections = suiting(inputs)
    for section in sections:
        print(section.markdown(), end="\n\n")
    synthetic = inputs.cohort.synthetic
    name = _name(Path(options.source))
    data = options.data_name or ("synthetic phantoms" if synthetic else "the publisher's data")
    values = {
        "source": name,
        "data": data,
        "date": date.today().isoformat(),
        "measurements": {section.name: section.json() for section in sections},
    }
    write_json(values, options.out / "metrics.json")
    summary = {
        "Model" if inputs.pipeline is not None else "Samples": name,
        "Data": data,
        "Training images": str(len(inputs.cohort.train)),
        "Held-out images": str(len(inputs.cohort.held_out)),
        "Seed": str(options.seed),
        "diffct": __version__,
        "Date": values["date"],
    }
    path = options.out / "report.html"
    title = f"Evaluation of {name}"
    write_report(sections, path, title=title, summary=summary, synthetic=synthetic)
    print(f"Report: {path}, figures with their protocols: {options.out / 'metrics.json'}")
    if options.model_card:
        task = type(inputs.pipeline).card_task or "unconditional-image-generation"
        number = add_to_model_card(Path(options.source), sections, data_name=data, task=task)
        print(f"{number} figures are in the model card {Path(options.source) / 'README.md'}")


def _name(source: Path) -> str:
    """Name a model or samples by their folder, with the run's where training called it so."""
    if source.name == "pipeline" and source.is_dir():
        return "/".join(source.resolve().parts[-2:])
    return source.name


def add_compare(commands: "argparse._SubParsersAction") -> None:
    """Describe `diffct compare`."""
    parser = commands.add_parser(
        "compare", help="put two results side by side, if their protocols are the same"
    )
    parser.add_argument("first", type=Path, help="metrics.json, or the JSON of one measurement")
    parser.add_argument("second", type=Path, help="another one")
    parser.add_argument("--force", action="store_true", help="compare despite other protocols")
    parser.set_defaults(run=_compare)


def _compare(options: argparse.Namespace) -> None:
    """Print both results, or say why they cannot be compared."""
    first, second = (_read_measurements(path) for path in (options.first, options.second))
    shared = [name for name in first if name in second]
    if not shared:
        raise ValueError("The two files have no measurement in common.")
    for name in shared:
        apart = differences(first[name]["protocol"], second[name]["protocol"])
        if apart and not options.force:
            listed = "\n- ".join(apart[:10])
            raise ValueError(
                f"The protocols of {name} differ, so its figures do not compare (--force compares"
                f" them all the same):\n- {listed}"
            )
        print(f"\n## {name}" + (" (DIFFERENT PROTOCOLS)" if apart else ""))
        mine, other = (dict(_leaves(result["figures"])) for result in (first[name], second[name]))
        print("\n| | first | second |\n|---|---|---|")
        for figure in mine:
            if figure in other:
                print(f"| {figure} | {mine[figure]} | {other[figure]} |")


def _read_measurements(path: Path) -> dict[str, Any]:
    """Read the measurements of a file, by name."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: is no JSON.") from error
    found = values.get("measurements") or {path.stem: values}
    if not all("protocol" in result and "figures" in result for result in found.values()):
        raise ValueError(f"{path}: is no result of diffct's evaluation: it has no protocol.")
    return {result["protocol"]["measurement"]: result for result in found.values()}


def _leaves(figures: Any, place: str = "") -> "list[tuple[str, str]]":  # noqa: ANN401 - JSON
    """List numbers, with their intervals where there are some."""
    if isinstance(figures, dict) and _VALUE in figures:
        text = f"{figures[_VALUE]:.4g}"
        if figures.get(_INTERVAL):
            low, high = figures[_INTERVAL]
            text += f" [{low:.4g}, {high:.4g}]"
        return [(place, text)]
    if isinstance(figures, dict):
        return [
            leaf
            for name, inner in figures.items()
            for leaf in _leaves(inner, f"{place}, {name}" if place else name)
        ]
    if isinstance(figures, int | float) and not isinstance(figures, bool):
        return [(place, f"{figures:.4g}")]
    return []
