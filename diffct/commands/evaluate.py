"""`diffct evaluate`: a report on the quality and privacy of a pipeline or of samples."""

import argparse
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from diffct.arguments import finite_number, folder_or_id, path_argument
from diffct.eval.config import NAMES, EvaluationConfig

if TYPE_CHECKING:
    from diffct.eval.inputs import Inputs
    from diffct.eval.report import Report
    from diffct.eval.section import Section

_DEFAULTS = EvaluationConfig()


def add_evaluate(commands: "argparse._SubParsersAction") -> None:
    """Describe `diffct evaluate`."""
    parser = commands.add_parser(
        "evaluate", help="measure quality and privacy of a pipeline or of samples: report.html"
    )
    parser.add_argument(
        "source",
        type=folder_or_id,
        help="pipeline (folder or Hub id), or a folder of samples or of an autoencoder",
    )
    _add_data(parser)
    parser.add_argument(
        "--only",
        type=_measurements,
        metavar="NAME,...",
        help=f"which measurements: {', '.join(NAMES)} (all that apply to the system; findings and"
        " volume only if named)",
    )
    _add_sampling(parser)
    _add_networks(parser)
    _add_scan(parser)
    parser.add_argument(
        "--max-images",
        type=int,
        help="use at most this many images of each set (all); privacy always uses all",
    )
    parser.add_argument("--device", help="cuda, cpu, ... (a GPU if there is one)")
    parser.add_argument(
        "--out", type=path_argument, default=_DEFAULTS.out, help=f"folder ({_DEFAULTS.out})"
    )
    parser.add_argument(
        "--model-card",
        action="store_true",
        help="write the figures into the pipeline's model card, in the Hub's format",
    )
    parser.add_argument(
        "--data-name",
        help="name of the data in the report and the model card (synthetic phantoms, or the"
        " publisher's data)",
    )
    parser.set_defaults(run=_evaluate)


def _add_data(parser: argparse.ArgumentParser) -> None:
    """Describe the real images."""
    parser.add_argument(
        "--data",
        type=path_argument,
        required=True,
        help="manifest, output_dir of a training run, or a folder of held-out images",
    )
    parser.add_argument(
        "--train",
        type=path_argument,
        help="folder of training images, if --data is a folder of held-out images; without it,"
        " privacy is not measured, and figures have no yardstick",
    )
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        metavar=("H", "W"),
        help="crop real pictures to this size around their centres, as training did (the size that"
        " the pipeline was trained at)",
    )
    parser.add_argument(
        "--patient-pattern",
        metavar="REGEX",
        help="the patient of each file of --data and --train: a regular expression with one (group)"
        " that is found in each path inside its folder, as in data.patient_pattern (DICOM's"
        " PatientID; otherwise every image counts as a patient of its own)",
    )
    parser.add_argument(
        "--split",
        choices=("validation", "test"),
        help="the held-out split of a manifest (test)",
    )
    parser.add_argument(
        "--window-hu",
        type=finite_number,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="for folders of CT (the pipeline's, or -1000 1000)",
    )


def _add_sampling(parser: argparse.ArgumentParser) -> None:
    """Describe how a pipeline is loaded and sampled."""
    parser.add_argument("--variant", help="of the pipeline's weights, e.g. fp16 (none)")
    parser.add_argument("--revision", help="branch, tag or commit on the Hub (main)")
    parser.add_argument(
        "--number",
        type=int,
        help="number of samples (16 volumes, 200 films, all held-out slices; 160 prompts that ask"
        " for findings, 4 translations of a whole scan)",
    )
    parser.add_argument(
        "--steps", type=int, default=_DEFAULTS.steps, help=f"denoising steps ({_DEFAULTS.steps})"
    )
    parser.add_argument(
        "--guidance-scale",
        type=finite_number,
        help="how much to follow the prompts (the pipeline's own)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=_DEFAULTS.seed,
        help=f"seed of the first sample ({_DEFAULTS.seed})",
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        default=_DEFAULTS.batch_size,
        help=f"samples drawn at once ({_DEFAULTS.batch_size})",
    )
    parser.add_argument(
        "--empty-prompt",
        action="store_true",
        help="sample films from the empty prompt instead of prompts from held-out reports",
    )


def _add_networks(parser: argparse.ArgumentParser) -> None:
    """Describe the networks that compare images."""
    parser.add_argument(
        "--feature-network",
        action="append",
        default=[],
        metavar="NAME=WEIGHTS",
        help="xrv-densenet121-all, radimagenet-resnet50, medicalnet-resnet50 ... with the file of"
        " its weights; repeat for more (networks of random weights, marked as such)",
    )
    parser.add_argument(
        "--lpips", choices=("squeeze", "alex", "vgg"), help="network of --lpips-weights (squeeze)"
    )
    parser.add_argument(
        "--lpips-weights", type=path_argument, help="its ImageNet weights; without them, no LPIPS"
    )


def _add_scan(parser: argparse.ArgumentParser) -> None:
    """Describe what "volume" measures."""
    parser.add_argument(
        "--scan", type=path_argument, help="for --only volume: the scan to translate, e.g. a FLAIR"
    )
    parser.add_argument(
        "--truth", type=path_argument, help="what its translation should be, on the same grid"
    )


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
    from diffct.cores import share_cores
    from diffct.eval.evaluation import choose_measurements, measure_each
    from diffct.eval.inputs import read_inputs
    from diffct.eval.report import FIGURES, PAGE, make_report

    if options.model_card:
        needed = [Path(options.source) / name for name in ("model_index.json", "README.md")]
        if not all(path.is_file() for path in needed):
            raise ValueError("--model-card needs the folder of a pipeline with its README.md.")
    names = [field.name for field in fields(EvaluationConfig) if hasattr(options, field.name)]
    config = EvaluationConfig(**{name: getattr(options, name) for name in names})
    share_cores()
    inputs = read_inputs(options.source, options.data, config)
    inputs.load_networks()
    planned = choose_measurements(inputs, options.only)
    origin = {"Command": options.command, "Working folder": str(Path.cwd())}
    sections: list[Section] = []

    def save() -> "Report":
        rest = [m.missing("The evaluation ended before it.") for m in planned[len(sections) :]]
        report = make_report(inputs, sections, rest, data_name=options.data_name)
        report.save(options.out, origin=origin)
        return report

    report = save()
    try:
        for section in measure_each(inputs, planned):
            sections.append(section)
            print(section.markdown(), end="\n\n")
            report = save()
    except KeyboardInterrupt:
        print(f"\nStopped. What is measured so far: {options.out / PAGE}")
        raise
    print(f"Report: {options.out / PAGE}, figures with their protocols: {options.out / FIGURES}")
    if options.model_card and report.measured:
        _add_to_card(Path(options.source), report, inputs)
    _report_failures(report, inputs)


def _add_to_card(folder: Path, report: "Report", inputs: "Inputs") -> None:
    """Write the figures into a pipeline's model card."""
    from diffct.eval.model_index import add_to_model_card

    assert inputs.pipeline is not None  # a card is a pipeline's, see `_evaluate`
    task = type(inputs.pipeline).card_task or "unconditional-image-generation"
    number = add_to_model_card(folder, report.measured, data_name=report.data, task=task)
    print(f"{number} figures are in the model card {folder / 'README.md'}")


def _report_failures(report: "Report", inputs: "Inputs") -> None:
    """End with an error if a measurement failed for a reason that was not known before."""
    expected = {"privacy"} if inputs.cohort.train is None else set()
    failed = [section for section in report.sections if not section.figures]
    lines = [f"{section.title} is not measured: {section.missing[0]}" for section in failed]
    if {section.name for section in failed} <= expected:
        print("\n".join(lines))
    else:
        raise ValueError("\n".join(lines))
