"""The report of an evaluation: its sections, as files and in a notebook."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from html import escape
from pathlib import Path
from typing import Any

from diffct import __version__
from diffct.eval.cohorts import Cohort
from diffct.eval.inputs import Inputs
from diffct.eval.report_page import render_report, write_report
from diffct.eval.section import Section, anonymise, write_json, write_section

PAGE, FIGURES = "report.html", "metrics.json"


@dataclass(frozen=True)
class Report:
    """The findings of an evaluation, without names of patients' files.

    Attributes:
        name: Name of the model or of the samples.
        data: Name of the data for readers.
        summary: Names and values that summarise model, data and settings.
        synthetic: Whether the data are phantoms.
        sections: One for each measurement; if it was not possible, with the reason.
        rest: Sections of the measurements that have not been made yet.
        origin: How the report was made, such as the command; shown at its end.
    """

    name: str
    data: str
    summary: Mapping[str, str]
    synthetic: bool
    sections: tuple[Section, ...]
    rest: tuple[Section, ...] = ()
    origin: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Section:
        """Return the section of a measurement; a KeyError names the existing ones."""
        found = {section.name: section for section in self.sections}
        if name not in found:
            raise KeyError(f"{name}: measured are {', '.join(found) or 'none'}.")
        return found[name]

    @property
    def measured(self) -> list[Section]:
        """The sections that have figures."""
        return [section for section in self.sections if section.figures]

    @property
    def figures(self) -> dict[str, Any]:
        """All figures as JSON values, by measurement and name."""
        return {section.name: section.json()["figures"] for section in self.measured}

    def save(self, folder: str | Path, *, origin: Mapping[str, str] | None = None) -> Path:
        """Write report.html, metrics.json, and the JSON of each measurement.

        Args:
            folder: The folder to write into.
            origin: How the report was made, for its end; None for its own `origin`.

        Returns:
            The path of report.html.
        """
        folder = Path(folder)
        write_json(self.json(), folder / FIGURES)
        for section in self.measured:
            write_section(section, folder)
        write_report(
            [*self.sections, *self.rest],
            folder / PAGE,
            title=self._title,
            summary=self.summary,
            synthetic=self.synthetic,
            origin=self.origin if origin is None else origin,
        )
        return folder / PAGE

    def json(self) -> dict[str, Any]:
        """Return all measurements with their protocols as JSON values."""
        return {
            "source": self.name,
            "data": self.data,
            "date": self.summary["Date"],
            "measurements": {section.name: section.json() for section in self.measured},
            "not_measured": {s.name: s.missing[0] for s in self.sections if not s.figures},
        }

    @property
    def _title(self) -> str:
        return f"Evaluation of {self.name}"

    def _repr_html_(self) -> str:
        """Show the page in a notebook, in a frame, so that its style applies to nothing else."""
        page = render_report(
            [*self.sections, *self.rest],
            title=self._title,
            summary=self.summary,
            synthetic=self.synthetic,
        )
        frame = 'style="width: 100%; height: 80vh; border: 0"'
        return f'<iframe title="{escape(self._title)}" srcdoc="{escape(page)}" {frame}></iframe>'


def make_report(
    inputs: Inputs,
    sections: Sequence[Section],
    rest: Sequence[Section] = (),
    *,
    data_name: str | None = None,
) -> Report:
    """Make a report that can be shared.

    Args:
        inputs: The inputs of the measurements.
        sections: Their sections; errors in them may name files of patients.
        rest: Sections of the measurements that have not been made yet.
        data_name: Name of the data for readers; None for a general one.
    """
    cohort = inputs.cohort
    names = _file_names(cohort)
    data = data_name or ("synthetic phantoms" if cohort.synthetic else "the publisher's data")
    summary = {
        "Model" if inputs.pipeline is not None else "Samples": inputs.name,
        "Data": data,
        "Training images": "not known" if cohort.train is None else str(len(cohort.train)),
        "Held-out images": str(len(cohort.held_out)),
        "Seed": str(inputs.config.seed),
        "diffct": __version__,
        "Date": date.today().isoformat(),
    }
    return Report(
        inputs.name,
        data,
        summary,
        cohort.synthetic,
        tuple(anonymise(section, names) for section in sections),
        tuple(rest),
    )


def _file_names(cohort: Cohort) -> dict[str, str]:
    """Return replacements for the file names of patients' images.

    The name of a DICOM folder may be any word, so only its whole path is replaced.
    """
    return {
        text: f"image {number} of the {images.name}"
        for images in (cohort.train, cohort.held_out)
        if images is not None
        for number, path in enumerate(images.files, 1)
        for text in (str(path), *([path.name] if path.suffix else []))
    }
