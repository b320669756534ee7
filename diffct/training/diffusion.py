"""The training of a denoiser, shared by all diffusion systems."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, Self

from accelerate import Accelerator
from torch import nn

from diffct.config import FREE, within
from diffct.data.epoch import Samples
from diffct.data.manifest import Manifest, SplitName
from diffct.training.checkpoints import Progress
from diffct.training.denoising import Clean, Condition, Denoising
from diffct.training.learner import make_gradient_step
from diffct.training.objectives import DiffusionObjective, NoiseScheduler, ObjectiveConfig
from diffct.training.run import make_loader, run_facts, save_average, train_network
from diffct.training.settings import RunConfig, TrainConfig
from diffct.training.summary import Split
from diffct.training.validation import make_validation


class Pipeline(Protocol):
    """The methods of a pipeline that training uses."""

    def use_scheduler(self, name: str) -> Self:
        """Return the pipeline with another scheduler."""

    def save_pretrained(self, folder: Path, /, *, repo_id: str) -> None:
        """Save for inference."""

    def set_progress_bar_config(self, **settings: str | bool) -> None:
        """Set the options of the progress bar."""


@dataclass
class DenoiserTrainConfig(TrainConfig):
    """The intervals of the training loop, the loading of its data, and validation.

    Args:
        validation_draws: Noise levels per validation sample.
    """

    validation_draws: int = field(default=8, metadata=within(1))


@dataclass
class SamplePreviewConfig:
    """Pictures of samples during training.

    Args:
        steps: Denoising steps of each sample.
        scheduler: Scheduler to sample with: e.g. ddpm, ddim, dpm++ or a diffusers class.
    """

    steps: int = field(default=25, metadata=within(1))
    scheduler: str = "ddim"


@dataclass
class DiffusionConfig(RunConfig):
    """The settings of every training of a denoiser.

    Args:
        objective: The loss.
        preview: Pictures of samples during training.
        license: Licence of the model, for its card, as the Hub names it.
    """

    train: DenoiserTrainConfig = field(default_factory=DenoiserTrainConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    preview: SamplePreviewConfig = field(default_factory=SamplePreviewConfig, metadata=FREE)
    license: str | None = field(default=None, metadata=FREE)


def train_denoiser(
    config: DiffusionConfig,
    accelerator: Accelerator,
    *,
    model: nn.Module,
    scheduler: NoiseScheduler,
    clean: Clean,
    condition: Condition,
    samples: Mapping[SplitName, Samples],
    manifest: Manifest,
    size: Sequence[int],
    images: str,
    facts: Mapping[str, Any],
    make_pipeline: Callable[[dict[str, Any] | None], Pipeline],
    preview: Callable[[Any, Path], None],
    save_product: Callable[[Path, str], None] | None = None,
    product: str = "pipeline",
    final_pipeline: str | None = None,
) -> None:
    """Train a denoiser; its moving average is what is validated, shown and saved.

    Args:
        config: The run's configuration.
        accelerator: The run's accelerator.
        model: The network that learns, prepared.
        scheduler: The noise scheduler that it learns with.
        clean: What is denoised, see `Denoising`.
        condition: Under which condition, closed over `model`.
        samples: The data sets "train" and "validation".
        manifest: Their manifest, whose rows are counted for the summary.
        size: Size of an image, in voxels or pixels.
        images: The word for the images in messages, e.g. "scans".
        facts: What the model card says about the data, see `card_facts`.
        make_pipeline: Makes a pipeline of the networks in their present state; its argument is all
            facts for the model card, or None.
        preview: Writes samples of a pipeline into a PNG file.
        save_product: Saves the result of the run into a folder, if that is less than a pipeline;
            its second argument is a name for the model card.
        product: The name of the folder of the saved result.
        final_pipeline: The name of a folder for the whole pipeline when training ends, if
            `save_product` saves less.
    """
    denoising = Denoising(
        DiffusionObjective(scheduler, **vars(config.objective)),
        clean,
        condition,
        accelerator.autocast,
    )
    make_pipeline(None)  # raises now, not after training, if the model could not be saved
    progress = Progress()
    loader = accelerator.prepare(make_loader(config, samples["train"], accelerator=accelerator))
    step = make_gradient_step(config, accelerator=accelerator, model=model, losses=denoising)

    def save_pipeline(folder: Path, name: str) -> None:
        all_facts = run_facts(config, progress.history) | dict(facts)
        make_pipeline(all_facts).save_pretrained(folder, repo_id=name)

    def draw(path: Path) -> None:
        with accelerator.autocast():
            pipeline = make_pipeline(None).use_scheduler(config.preview.scheduler)
            pipeline.set_progress_bar_config(desc="preview", leave=False)
            preview(pipeline, path)

    train_network(
        config,
        step=step,
        loader=loader,
        progress=progress,
        validate=make_validation(
            step,
            denoising,
            samples["validation"],
            draws=config.train.validation_draws,
            seed=config.seed,
        ),
        preview=draw,
        save=save_pipeline if save_product is None else save_product,
        product=product,
        splits=[Split.count(split, manifest.split(split)) for split in samples],
        size=size,
        images=images,
    )
    folder = Path(config.output_dir)
    if final_pipeline is not None:
        save_average(step, folder / final_pipeline, save_pipeline)
        accelerator.wait_for_everyone()
    accelerator.print(
        f"Done. Model: {folder / (final_pipeline or product)} (best on validation:"
        f" {folder / product}-best), loss curve: {folder / 'loss.png'}, previews, if any:"
        f" {folder / 'previews'}."
    )
    accelerator.end_training()


def card_facts(
    config: DiffusionConfig, *, data: str, synthetic: bool, cohort: Mapping[str, Any]
) -> dict[str, Any]:
    """Collect what the model card says about a run's data and settings, without identifiers.

    Args:
        config: The run's configuration.
        data: What the images are.
        synthetic: Whether they are phantoms.
        cohort: Counts and other properties of the data set.
    """
    return {
        "data": data,
        "synthetic": synthetic,
        "license": config.license or ("apache-2.0" if synthetic else "other"),
        "cohort": dict(cohort),
        "min_snr_gamma": config.objective.min_snr_gamma,
        "diffct_version": version("diffct"),
    }


def manifest_facts(
    config: DiffusionConfig, manifest: Manifest, *, data: str, images: str, patients: str
) -> dict[str, Any]:
    """Collect what the model card says about a run on a manifest, see `card_facts`.

    Args:
        config: The run's configuration.
        manifest: The images.
        data: What they are.
        images: The word for them, e.g. "slices".
        patients: The word for the persons, e.g. "subjects".
    """
    synthetic = all(row.facts.get("synthetic") for row in manifest.rows)
    counts = {f"{split} {images}": len(manifest.split(split)) for split in ("train", "validation")}
    return card_facts(
        config,
        data=("synthetic " if synthetic else "the publisher's own ") + data,
        synthetic=synthetic,
        cohort=counts | {patients: len({row.patient for row in manifest.rows})},
    )
