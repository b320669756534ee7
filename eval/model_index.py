"""Figures on a pipeline's model card, as the Hugging Face Hub shows them: its model-index.

Which figures of a section: every `Estimate` and every float that is

1. the figure itself: `figures[name]`, or `figures[name]["samples"]` where roles are compared, or
2. one level below it, in a dictionary or a dataclass, as the precision among manifold figures.

Where methods are compared, `figures["diffct"]` stands for `figures`. What is told of other roles
and methods is no figure of this pipeline; whole numbers are counts, deeper figures are details:
they are left out, as is what is not finite.
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard
from huggingface_hub.repocard_data import eval_results_to_model_index

from diffct.atomic import atomic_file
from diffct.eval.reconstruction import NAMES
from diffct.eval.section import Section
from diffct.metrics.intervals import Estimate
from diffct.pipelines.publishing import EVALUATION

_NO_METRICS = ("MMD bandwidth",)  # found from the data, but a setting
_OWN_METHOD = "diffct"  # as `measure_translation` names it
_MEASURED_BY = {"measured_by": "diffct"}


def add_to_model_card(
    folder: Path, sections: Sequence[Section], *, data_name: str, task: str
) -> int:
    """Put figures into the model card of a saved pipeline.

    All earlier figures of diffct are replaced, on whatever data; the rest of the card stays. The
    figures also go into `model_index.json`, so that a pipeline loaded afterwards brings them to
    every card that it writes.

    Args:
        folder: What `save_pretrained` wrote.
        sections: What was measured.
        data_name: What readers call the data; it is published.
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
    # An empty model-index would be refused by the Hub.
    card.data.model_name, card.data.eval_results = (name, both) if both else (None, None)
    _store(index_path, eval_results_to_model_index(name, results)[0]["results"])
    with atomic_file(card_path) as partial:
        card.save(partial)
    return len(results)


def _section_results(section: Section, *, data_name: str, task: str) -> Iterator[EvalResult]:
    """Write the figures of a section as results."""
    # The Hub's library joins results of one task, type and split under the first one's name: the
    # type must be nobody else's.
    words = "".join(sign if sign.isalnum() else " " for sign in data_name.lower()).split()
    facts = _MEASURED_BY | {
        "version": section.protocol["versions"]["diffct"],
        "measurement": section.name,
        "images": {role: facts["images"] for role, facts in section.protocol["sets"].items()},
        "phantoms": section.protocol["phantoms"],
    }
    for name, compared, figure in _figures(section):
        value, interval = (
            (figure.value, figure.interval) if isinstance(figure, Estimate) else (figure, None)
        )
        if not math.isfinite(value):
            continue
        bounds = [float(bound) for bound in interval or () if math.isfinite(bound)]
        yield EvalResult(
            task_type=task,
            dataset_type="-".join(["diffct", *words]),
            dataset_name=data_name,
            dataset_split="held-out",
            metric_type=name,
            metric_name=f"{name}, {compared}",
            metric_value=float(value),
            metric_args=facts | ({"interval_95": bounds} if len(bounds) == 2 else {}),
        )


def _figures(section: Section) -> Iterator[tuple[str, str, Estimate | float]]:
    """List figures with their names, and what of which images they tell."""
    for name, found in section.figures.get(_OWN_METHOD, section.figures).items():
        if name.startswith(_NO_METRICS):
            continue
        compared = section.title.lower()
        if isinstance(found, dict) and "samples" in found:
            # Where held-out images have a figure of their own, it is one of a single set.
            compared = "samples" if "held_out" in found else "samples and held-out"
            found = found["samples"]
        for inner, figure in _leaves(found).items():
            yield _name(name, inner), compared, figure


def _name(name: str, inner: str) -> str:
    """Name a figure as the report does."""
    metric, bracket, network = name.partition("[")
    if not inner:
        return NAMES.get(name, name)
    # As precision[network], not manifold[network], precision.
    return f"{inner}[{network}" if bracket else f"{metric}, {inner}"


def _leaves(found: object) -> dict[str, Estimate | float]:
    """Return a figure by the name "", or those one level below by their names."""
    if isinstance(found, Estimate | float):
        return {"": found}
    if is_dataclass(found):
        found = vars(found)
    if not isinstance(found, dict):
        return {}
    return {
        str(name): inner for name, inner in found.items() if isinstance(inner, Estimate | float)
    }


def _is_own(result: EvalResult) -> bool:
    """Say whether diffct wrote a result."""
    return _MEASURED_BY.items() <= (result.metric_args or {}).items()


def _store(index_path: Path, results: list[dict[str, Any]]) -> None:
    """Put results into the pipeline's config, in place of earlier ones."""
    index = json.loads(index_path.read_text(encoding="utf-8"))
    index["training"] = {**(index.get("training") or {}), EVALUATION: results}
    with atomic_file(index_path) as partial:
        # As diffusers writes it.
        partial.write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")
