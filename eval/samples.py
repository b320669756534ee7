"""Samples of a pipeline in lossless files: what is measured is what would be shared."""

import json
from collections.abc import Sequence
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
from diffusers import DiffusionPipeline

from diffct.atomic import atomic_folder
from diffct.cohort_folder import holds_cohort, record_cohort
from diffct.eval.cohorts import Cohort
from diffct.eval.conditions import read_conditions
from diffct.eval.image_sets import (
    SAMPLES,
    ImageSet,
    pictures_of_folder,
    volumes_of_folder,
)
from diffct.eval.run_folder import read_settings
from diffct.eval.screening import Cut, screen
from diffct.imaging.radiograph import write_png
from diffct.pipelines.denoising import (
    guide_of,
    makes_volumes,
    shows_patients,
    takes_guidance,
)
from diffct.pipelines.outputs import CT3DPipelineOutput, TextToImagePipelineOutput

_VOLUMES, _IMAGES = 16, 200
_SENTENCES = 4  # of a held-out report, as in training


def make_samples(
    pipeline: DiffusionPipeline,
    model: dict[str, Any],
    folder: Path,
    *,
    cohort: Cohort,
    number: int,
    seed: int,
    steps: int,
    batch_size: int,
    guidance_scale: float | None = None,
    empty_prompt: bool = False,
) -> tuple[ImageSet, dict[str, Any]]:
    """Sample into a folder, unless exactly these samples are there already.

    Volumes are unconditional; films have the prompts of evenly picked held-out reports (or the
    empty prompt); translations have evenly picked held-out conditions.

    Args:
        pipeline: A pipeline of diffct.
        model: Its name and hash, as `describe_model` returns them.
        folder: The folder to write into: 16-bit PNG, or NIfTI in HU.
        cohort: The cohort whose held-out prompts or conditions are used.
        number: Number of samples.
        seed: Seed of the first sample; sample i has `seed + i`.
        steps: Number of denoising steps.
        batch_size: Number of samples drawn at once.
        guidance_scale: Guidance scale; None for the pipeline's default.
        empty_prompt: Whether films have the empty prompt.

    Returns:
        The samples that can be measured, and a description of the pipeline and of how it was run,
        for the protocol.

    Raises:
        ValueError: `folder` holds something else, or all samples hold NaN.
    """
    if not hasattr(pipeline, "sample_many"):
        raise ValueError(
            f"a {type(pipeline).__name__} is none of diffct's pipelines: sample it yourself, and"
            " evaluate the folder of its samples."
        )
    settings: dict[str, Any] = {
        "number": number,
        "seed": seed,
        "steps": steps,
        "scheduler": type(pipeline.scheduler).__name__,
    }
    if takes_guidance(pipeline):
        settings["guidance_scale"] = guidance_scale = guidance(pipeline, guidance_scale)
    if guide_of(pipeline) == "prompt":
        settings["prompts"] = "empty" if empty_prompt else "held-out"
    described = {**model, **settings}
    # Through JSON, to equal what is read from the file.
    parameters = json.loads(json.dumps({"kind": "samples", **described}))
    if not holds_cohort(folder, parameters):
        with atomic_folder(folder) as partial:
            _write_samples(
                pipeline,
                partial,
                held_out=cohort.held_out,
                number=number,
                guidance_scale=guidance_scale,
                empty_prompt=empty_prompt,
                run={"seed": seed, "batch_size": batch_size, "steps": steps},
            )
            record_cohort(partial, parameters)
    return _read_samples(pipeline, folder, cohort.held_out, number), described


def _read_samples(
    pipeline: DiffusionPipeline, folder: Path, held_out: ImageSet, number: int
) -> ImageSet:
    """Read the samples back from disk, as samples of other models are read."""
    if makes_volumes(pipeline):
        config = pipeline.config
        made = volumes_of_folder(
            folder, title=SAMPLES, window_hu=config.window_hu, spacing_mm=config.spacing_mm
        )
    else:
        made = pictures_of_folder(folder, title=SAMPLES)
    if shows_patients(pipeline):
        # A translation belongs to the patient of its condition, for intervals and for privacy.
        true = held_out.pick(number)
        true = true.select([_number_of(path) % len(true) for path in made.files])
        made = replace(made, patients=true.patients, rows=true.rows)
    lost = number - len(made)
    made = screen(made)
    if lost:
        note = (
            f"**{lost} of {number} samples cannot be measured**: the model made NaN or infinity of"
            " them. All figures are of the others."
        )
        made = replace(made, notes=(note, *made.notes))
    return made


def _name(number: int) -> str:
    """Return the name of a sample's file without its ending, as pipelines' outputs have it."""
    return f"sample-{number:04d}"


def _number_of(path: Path) -> int:
    """Return the number of a sample from its file name."""
    return int(path.name.split(".")[0].removeprefix("sample-"))


def _write_samples(
    pipeline: DiffusionPipeline,
    folder: Path,
    *,
    held_out: ImageSet,
    number: int,
    guidance_scale: float | None,  # None for volumes only
    empty_prompt: bool,
    run: dict[str, int],
) -> None:
    """Sample into a folder; `run` holds seed, batch size, steps. Samples with NaN get no file."""
    pipeline.set_progress_bar_config(disable=True)
    options: dict[str, Any] = {"batch_size": run["batch_size"], "steps": run["steps"]}
    if takes_guidance(pipeline):
        options["guidance_scale"] = guidance_scale
    if guide_of(pipeline) == "prompt":
        options["conditions"] = _prompts(held_out, number, empty=empty_prompt)
    elif shows_patients(pipeline):
        shown = list(read_conditions(pipeline, held_out.pick(number)))
        options["conditions"] = [shown[index % len(shown)] for index in range(number)]
    seeds = range(run["seed"], run["seed"] + number)
    name = "volumes" if makes_volumes(pipeline) else "images"
    for indices, output in pipeline.sample_many(seeds, **options):
        if guide_of(pipeline) == "image":
            # Without a note in the PNG: protocols hash the files of translations.
            for index, image in zip(indices, output.films(), strict=True):
                if np.isfinite(image).all():
                    write_png(image, folder / f"{_name(index)}.png")
        else:
            _save_finite(output, name, folder, indices[0])
    if not any(folder.iterdir()):
        raise ValueError(
            f"All {number} samples hold NaN or infinity: the model has diverged, or does not take"
            " the precision that it runs in."
        )


def _save_finite(
    output: CT3DPipelineOutput | TextToImagePipelineOutput, name: str, folder: Path, first: int
) -> None:
    """Save the finite samples of a batch, each under its own number."""
    arrays = np.asarray(output[name])
    for index, array in enumerate(arrays, start=first):
        if np.isfinite(array).all():
            replace(output, **{name: array[None]}).save(folder, first_index=index)


def guidance(pipeline: DiffusionPipeline, scale: float | None) -> float:
    """Return a guidance scale, or for None the pipeline's default, to be named in protocols."""
    if scale is not None:
        return scale
    return signature(pipeline.__call__).parameters["guidance_scale"].default


def default_number(pipeline: DiffusionPipeline, cohort: Cohort) -> int:
    """Return the default number of samples; translations are of all held-out slices."""
    if guide_of(pipeline) == "image":
        return len(cohort.held_out)
    return _VOLUMES if makes_volumes(pipeline) else _IMAGES


def training_cut(pipeline: DiffusionPipeline | None, source: Path | None) -> Cut | None:
    """Return how training cut pictures, so that evaluation does the same.

    Args:
        pipeline: The trained pipeline; None for an autoencoder.
        source: The folder of the pipeline or the autoencoder, if there is one.

    Returns:
        The cut of the run beside the folder, otherwise the size that the denoiser was made for;
        None for volumes and if neither is known.
    """
    if makes_volumes(pipeline):
        return None
    known = None if source is None or not source.is_dir() else source.parent
    settings = None if known is None else read_settings(known)
    size = (getattr(pipeline, "config", {}).get("training") or {}).get("size")
    size = size or (settings.data.get("size") if settings is not None else None)
    if size is not None and len(size) == 2:
        return Cut((int(size[0]), int(size[1])))
    usual = getattr(getattr(pipeline, "unet", None), "config", {}).get("sample_size")
    if pipeline is None or usual is None:
        return None
    height, width = usual if isinstance(usual, Sequence) else (usual, usual)
    factor = pipeline.vae_scale_factor
    # A ControlNet may have been trained at another size than the model that it controls.
    return Cut((height * factor, width * factor), if_large_enough=guide_of(pipeline) == "image")


def _prompts(held_out: ImageSet, number: int, *, empty: bool) -> Sequence[str]:
    """Return the prompts of evenly picked held-out reports, repeated if there are too few."""
    if empty or not held_out.rows:
        return [""] * number
    rows = held_out.pick(number).rows
    return [" ".join(rows[index % len(rows)].sentences[:_SENTENCES]) for index in range(number)]
