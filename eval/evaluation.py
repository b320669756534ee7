"""The evaluation of a pipeline or of samples: all measurements that apply, in one report."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from diffusers import DiffusionPipeline

from diffct.eval import distribution, fidelity, findings, privacy, reconstruction, volume
from diffct.eval.attempts import IMPOSSIBLE
from diffct.eval.config import NAMES, EvaluationConfig
from diffct.eval.inputs import Inputs, read_inputs
from diffct.eval.report import Report, make_report
from diffct.eval.section import PRIVACY, QUALITY, TRUTH, VARIETY, Section, not_measured
from diffct.pipelines.denoising import guide_of


@dataclass(frozen=True)
class Measurement:
    """A measurement, which makes one section of the report.

    Attributes:
        name: Name of its section.
        title: Title of its section for readers.
        module: The module whose `measure(inputs)` makes the section.
        questions: The questions of a reader that it answers.
        is_default: Returns whether it is part of an evaluation for which no measurements were
            chosen, given the pipeline; None stands for samples.
    """

    name: str
    title: str
    module: ModuleType
    questions: tuple[str, ...] = ()
    is_default: Callable[[DiffusionPipeline | None], bool] = lambda pipeline: True

    def missing(self, reason: str) -> Section:
        """Return the section of a measurement that is not possible."""
        return not_measured(self.name, self.title, reason, questions=self.questions)

    def attempt(self, inputs: Inputs) -> Section:
        """Make the section, or one that says why the measurement is not possible."""
        try:
            return self.module.measure(inputs)
        except IMPOSSIBLE as error:
            return self.missing(str(error) or type(error).__name__)


def _has_autoencoder(pipeline: DiffusionPipeline | None) -> bool:
    return getattr(pipeline, "vae", None) is not None


def _translates(pipeline: DiffusionPipeline | None) -> bool:
    return guide_of(pipeline) == "image"


def _never(pipeline: DiffusionPipeline | None) -> bool:
    return False


# In the order of the report, quick ones first.
MEASUREMENTS = (
    Measurement("reconstruction", "Autoencoder", reconstruction, is_default=_has_autoencoder),
    Measurement("fidelity", "Translation", fidelity, (TRUTH,), _translates),
    Measurement("distribution", "Samples as a set", distribution, (QUALITY, VARIETY)),
    Measurement("privacy", "Privacy", privacy, (PRIVACY,)),
    Measurement("findings", "Findings asked for", findings, is_default=_never),
    Measurement("volume", "A whole translated scan", volume, is_default=_never),
)


def evaluate(
    pipeline: str | Path | DiffusionPipeline,
    data: str | Path,
    *,
    only: str | Sequence[str] | None = None,
    data_name: str | None = None,
    config: EvaluationConfig | None = None,
) -> Report:
    """Measure the quality and privacy of a pipeline or of samples.

    Args:
        pipeline: A pipeline, its folder or Hub id; or a folder of samples or of an autoencoder.
        data: A manifest, the `output_dir` of a training run, or a folder of held-out images.
        only: Names of measurements, or one; None for all that apply.
        data_name: Name of the data in the report.
        config: The settings; None for the defaults of the command line.

    Returns:
        The report; `report.save(folder)` writes it. It gives the reason for each measurement that
        was not possible.

    Raises:
        FileNotFoundError: There is no such pipeline, folder or data.
        ValueError: Pipeline and data do not match, or a setting is invalid.

    Examples:
        >>> import diffct
        >>> how = diffct.EvaluationConfig(number=2, steps=2, out="evaluation/example")
        >>> run = "outputs/ct3d/diffusion"
        >>> report = diffct.evaluate(
        ...     f"{run}/pipeline", run, only=["distribution"], config=how
        ... )  # doctest: +ELLIPSIS
        Will not be measured: ...
        >>> report["distribution"]["realism"].figures["body_ml"].held_out.value > 0
        True
        >>> report.save("evaluation/example").name
        'report.html'
    """
    inputs = read_inputs(pipeline, data, config or EvaluationConfig())
    inputs.load_networks()
    measurements = choose_measurements(inputs, [only] if isinstance(only, str) else only)
    return make_report(inputs, list(measure_each(inputs, measurements)), data_name=data_name)


def choose_measurements(inputs: Inputs, only: Sequence[str] | None = None) -> list[Measurement]:
    """List the measurements of these names, or the default ones for the inputs.

    Raises:
        ValueError: There is no measurement of a name, or one needs an option that is missing.
    """
    unknown = [name for name in only or () if name not in NAMES]
    if unknown:
        raise ValueError(f"There is no measurement {unknown[0]!r}; accepted: {', '.join(NAMES)}.")
    _check_scan(inputs.config, wanted="volume" in (only or ()))
    if only:
        return [measurement for measurement in MEASUREMENTS if measurement.name in only]
    return [m for m in MEASUREMENTS if m.is_default(inputs.pipeline)]


def _check_scan(config: EvaluationConfig, *, wanted: bool) -> None:
    """Refuse a scan that has no truth, that nothing measures, or that does not exist."""
    given = {"scan": config.scan, "truth": config.truth}
    for name, path in given.items():
        if wanted and path is None:
            raise ValueError(f"volume needs --{name}: a scan to translate, and what it should be.")
        if not wanted and path is not None:
            raise ValueError(f"--{name} has no meaning without --only volume.")
        if path is not None and not Path(path).exists():
            raise FileNotFoundError(f"--{name} {path}: there is no such file or folder.")


def measure_each(inputs: Inputs, measurements: Sequence[Measurement]) -> Iterator[Section]:
    """Make the sections one by one; first print what will not be measured, and why."""
    for measurement in measurements:
        for gap in foresee(measurement, inputs):
            print(f"Will not be measured: {gap}")
    for measurement in measurements:
        yield measurement.attempt(inputs)


def foresee(measurement: Measurement, inputs: Inputs) -> list[str]:
    """Say, before anything is sampled, which parts will not be measured, and why."""
    known = getattr(measurement.module, "foresee", None)
    return [] if known is None else known(inputs)
