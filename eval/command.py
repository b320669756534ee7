"""`diffct evaluate`: all that suits a pipeline, as one report."""

import argparse
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from diffct import __version__
from diffct.eval.cohorts import Cohort
from diffct.eval.inputs import Inputs, add_input_arguments, read_inputs
from diffct.eval.measurements import NAMES, Measurement, foresee, suiting
from diffct.eval.model_index import add_to_model_card
from diffct.eval.report import write_report
from diffct.eval.section import Section, anonymous, write_json, write_section

_REPORT, _FIGURES = "report.html", "metrics.json"
_INTERRUPTED = 130  # as shells count a stop by Ctrl-C


def add_evaluate(commands: "argparse._SubParsersAction") -> None:
    """Describe `diffct evaluate`."""
    parser = commands.add_parser(
        "evaluate", help="measure quality and privacy of a pipeline or of samples: report.html"
    )
    add_input_arguments(parser, out="evaluation")
    parser.add_argument(
        "--only",
        type=_measurements,
        metavar="NAME,...",
        help=f"which measurements: {', '.join(NAMES)} (those that suit)",
    )
    parser.add_argument(
        "--model-card",
        action="store_true",
        help="write the figures into the pipeline's model card, as the Hub reads them",
    )
    parser.add_argument(
        "--data-name",
        help="what the report and the model card call the data (synthetic phantoms, or the"
        " publisher's data)",
    )
    parser.set_defaults(run=_evaluate)


def _measurements(words: str) -> list[str]:
    """Read names of measurements."""
    names = [name.strip() for name in words.split(",")]
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"there is no measurement {unknown[0]!r}; accepted: {', '.join(NAMES)}"
        )
    return names


def _evaluate(options: argparse.Namespace) -> None:
    """Measure, and write report.html and metrics.json after each measurement."""
    if options.model_card:
        needed = [Path(options.source) / name for name in ("model_index.json", "README.md")]
        if not all(path.is_file() for path in needed):
            raise ValueError("--model-card needs the folder of a pipeline with its README.md.")
    inputs = read_inputs(options)
    # Missing weights are said now, not when everything is sampled.
    if options.feature_network:
        inputs.networks  # noqa: B018 - loads them
    inputs.perceptual  # noqa: B018 - loads it
    planned = suiting(inputs, options.only)
    for gap in foresee(inputs, {measurement.name for measurement in planned}):
        print(f"Will not be measured: {gap}")
    sections: list[Section] = []
    _write(inputs, sections, planned)
    try:
        for measurement in planned:
            sections.append(measurement.attempt(inputs))
            print(sections[-1].markdown(), end="\n\n")
            _write(inputs, sections, planned)
    except KeyboardInterrupt:
        print(f"\nStopped. What is measured so far: {options.out / _REPORT}")
        raise SystemExit(_INTERRUPTED) from None
    measured = [section for section in sections if section.figures]
    print(
        f"Report: {options.out / _REPORT}, figures with their protocols: {options.out / _FIGURES}"
    )
    if options.model_card and measured:
        task = type(inputs.pipeline).card_task or "unconditional-image-generation"
        data = _data_name(inputs)
        number = add_to_model_card(Path(options.source), measured, data_name=data, task=task)
        print(f"{number} figures are in the model card {Path(options.source) / 'README.md'}")
    _say_what_failed(sections, inputs)


def _write(inputs: Inputs, sections: Sequence[Section], planned: Sequence[Measurement]) -> None:
    """Write what is measured so far; the rest says that it is not yet."""
    options, cohort = inputs.options, inputs.cohort
    names = _file_names(cohort)
    sections = [anonymous(section, names) for section in sections]
    name = _name(Path(options.source))
    today = date.today().isoformat()
    write_json(
        {
            "source": name,
            "data": _data_name(inputs),
            "date": today,
            "measurements": {s.name: s.json() for s in sections if s.figures},
            "not_measured": {s.name: s.missing[0] for s in sections if not s.figures},
        },
        options.out / _FIGURES,
    )
    summary = {
        "Model" if inputs.pipeline is not None else "Samples": name,
        "Data": _data_name(inputs),
        "Training images": "not known" if cohort.train is None else str(len(cohort.train)),
        "Held-out images": str(len(cohort.held_out)),
        "Seed": str(options.seed),
        "diffct": __version__,
        "Date": today,
    }
    for section in sections:
        if section.figures:
            write_section(section, options.out)
    rest = [m.missing("The evaluation ended before it.") for m in planned[len(sections) :]]
    write_report(
        [*sections, *rest],
        options.out / _REPORT,
        title=f"Evaluation of {name}",
        summary=summary,
        synthetic=cohort.synthetic,
        origin={"Command": options.command, "Working folder": str(Path.cwd())},
    )


def _file_names(cohort: Cohort) -> dict[str, str]:
    """Return what stands for the file names of patients' images in what is shared.

    The name of a DICOM folder alone may be any word; only its whole path is replaced.
    """
    return {
        text: f"image {number} of the {images.name}"
        for images in (cohort.train, cohort.held_out)
        if images is not None
        for number, path in enumerate(images.files, 1)
        for text in (str(path), *([path.name] if path.suffix else []))
    }


def _say_what_failed(sections: Sequence[Section], inputs: Inputs) -> None:
    """End with an error if something was not measured that nobody could know of before."""
    expected = {"privacy"} if inputs.cohort.train is None else set()
    lines = [f"{s.title} is not measured: {s.missing[0]}" for s in sections if not s.figures]
    if {section.name for section in sections if not section.figures} <= expected:
        print("\n".join(lines))
    else:
        raise ValueError("\n".join(lines))


def _data_name(inputs: Inputs) -> str:
    known = "synthetic phantoms" if inputs.cohort.synthetic else "the publisher's data"
    return inputs.options.data_name or known


def _name(source: Path) -> str:
    """Name a model or samples by their folder, with the run's where training called it so."""
    if source.name == "pipeline" and source.is_dir():
        return "/".join(source.resolve().parts[-2:])
    return source.name
