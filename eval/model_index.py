"""The model-index: figures on a pipeline's model card, as the Hugging Face Hub shows them.

A section contributes its figures of samples and those without a role, each with the estimates and
floats one level inside its value (`Figure.parts`). Figures of other roles and methods do not
describe this pipeline and are left out, as are values that are not finite.
"""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard
from huggingface_hub.repocard_data import eval_results_to_model_index

from diffct.atomic import atomic_file
from diffct.eval.distribution import BANDWIDTH
from diffct.eval.figures import OWN_METHOD, Figure
from diffct.eval.findings import THRESHOLDS
from diffct.eval.section import Section
from diffct.metrics.intervals import Estimate
from diffct.pipelines.publishing import EVALUATION

_NO_METRICS = (BANDWIDTH, THRESHOLDS)
_MEASURED_BY = {"measured_by": "diffct"}


def add_to_model_card(
    folder: Path, sections: Sequence[Section], *, data_name: str, task: str
) -> int:
    """Put figures into the model card of a saved pipeline.

    All earlier figures by diffct are replaced, also those on other data; the rest of the card
    stays. The figures also go into `model_index.json`, so that a pipeline loaded afterwards writes
    them into every new card.

    Args:
        folder: The folder that `save_pretrained` wrote.
        sections: The sections of the report.
        data_name: Name of the data for readers; it is published.
        task: The Hub's name of the task, e.g. "text-to-image".

    Returns:
        The number of figures.

    Raises:
        FileNotFoundError: The folder holds no pipeline with a model card.
    """
    card_path, index_path = folder / "README.md", folder / "model_index.json"
    for path in (card_path, index_path):
        if not path.is_file():
            raise FileNotFoundError(
                f"{folder} has no {path.name}: give the folder of a pipeline saved by diffct."
            )
    card = ModelCard.load(card_path)
    results = [
        result
        for section in sections
        if section.figures
        for result in _section_results(section, data_name=data_name, task=task)
    ]
    others = [result for result in card.data.eval_results or [] if not _is_own(result)]
    name = card.data.model_name or folder.resolve().name
    both = [*others, *results]
    # The Hub would refuse an empty model-index.
    card.data.model_name, card.data.eval_results = (name, both) if both else (None, None)
    _store(index_path, eval_results_to_model_index(name, results)[0]["results"])
    with atomic_file(card_path) as partial:
        card.save(partial)
    return len(results)


def _section_results(section: Section, *, data_name: str, task: str) -> Iterator[EvalResult]:
    """Write the figures of a section as results."""
    # The Hub's library merges results of the same task, type and split under the name of the first,
    # so the type must be unique to this data.
    words = "".join(sign if sign.isalnum() else " " for sign in data_name.lower()).split()
    facts = _MEASURED_BY | {
        "version": section.protocol["versions"]["diffct"],
        "measurement": section.name,
        "images": {role: facts["images"] for role, facts in section.protocol["sets"].items()},
        "phantoms": section.protocol["phantoms"],
    }
    for figure, compared in _figures(section):
        found = figure.value
        estimate = found if isinstance(found, Estimate) else Estimate(found)
        value, interval = estimate.value, estimate.interval
        if not math.isfinite(value):
            continue
        bounds = [float(bound) for bound in interval or () if math.isfinite(bound)]
        yield EvalResult(
            task_type=task,
            dataset_type="-".join(["diffct", *words]),
            dataset_name=data_name,
            dataset_split="held-out",
            metric_type=figure.title,
            metric_name=f"{figure.title}, {compared}",
            metric_value=float(value),
            metric_args=facts | ({"interval_95": bounds} if len(bounds) == 2 else {}),
        )


def _figures(section: Section) -> Iterator[tuple[Figure, str]]:
    """List the figures of the pipeline itself, each with the images that it describes."""
    methods = any(figure.of == OWN_METHOD for figure in section.figures)
    both = {figure.metric for figure in section.figures if figure.of == "held_out"}
    for figure in section.figures:
        if figure.metric in _NO_METRICS or (methods and figure.of != OWN_METHOD):
            continue
        compared = section.title.lower()
        if figure.of == "samples":
            # If held-out images have the figure too, it describes a single set.
            compared = "samples" if figure.metric in both else "samples and held-out"
        elif figure.of not in (None, OWN_METHOD):
            continue
        for part in figure.parts():
            yield part, compared


def _is_own(result: EvalResult) -> bool:
    """Return whether diffct wrote a result."""
    return _MEASURED_BY.items() <= (result.metric_args or {}).items()


def _store(index_path: Path, results: list[dict[str, Any]]) -> None:
    """Put results into the pipeline's config, replacing earlier ones."""
    index = json.loads(index_path.read_text(encoding="utf-8"))
    index["training"] = {**(index.get("training") or {}), EVALUATION: results}
    with atomic_file(index_path) as partial:
        # As diffusers writes it.
        partial.write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")
