"""`diffct evaluate`: all that suits a pipeline, as one report."""

import argparse
from datetime import date
from pathlib import Path

from diffct import __version__
from diffct.evaluation.inputs import add_input_arguments, read_inputs
from diffct.evaluation.measurements import suiting
from diffct.evaluation.model_index import add_to_model_card
from diffct.evaluation.report import write_report
from diffct.evaluation.section import write_json


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
