"""Train a 3D CT diffusion model and save it as a pipeline.

    accelerate launch -q --config_file accelerate_config.yaml train/train_ct3d.py

trains a small network on a synthetic pelvis cohort, on any machine. For your own scans:

    accelerate launch -q --config_file accelerate_config.yaml train/train_ct3d.py \
        data.folder=/path/to/scans output_dir=outputs/my-scans

Another experiment: --config train/configs/ct3d_thesis.yaml. After a crash, the same command with
--resume gives the same weights as a run that was never interrupted.
"""

import diffct  # isort: skip - before torch: it tells how threads wait

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from diffct.atomic import atomic_folder
from diffct.config import PATH, read_command_line, within
from diffct.data.volumes import CTDataConfig, TrainingVolumes
from diffct.figures.montage import save_montage
from diffct.hub import load_pipeline
from diffct.models import UNet3DModel
from diffct.phantoms.bootstrap import load_run_volumes
from diffct.pipelines import CT3DPipeline
from diffct.pipelines.scheduler_check import make_scheduler, replace_scheduler
from diffct.sections import check_arguments, section_named
from diffct.training.checkpoints import Progress
from diffct.training.denoising import Denoising, unconditional, voxels
from diffct.training.loop import Events, fit
from diffct.training.objectives import DiffusionObjective, ObjectiveConfig
from diffct.training.run import (
    averaged_weights,
    make_gradient_step,
    make_loader,
    plain_errors,
    restore_run,
    run_facts,
    start_run,
)
from diffct.training.settings import RunConfig
from diffct.training.steps import GradientStep
from diffct.training.summary import Split, announce
from diffct.training.validation import make_validation

CONFIGS = Path(__file__).parent / "configs"


@dataclass
class PreviewConfig:
    """Pictures of samples during training.

    Args:
        volumes: How many.
        steps: Denoising steps of each.
        scheduler: What to sample with, e.g. ddpm, ddim, dpm++ or a diffusers class.
    """

    volumes: int = field(default=2, metadata=within(1))
    steps: int = field(default=25, metadata=within(1))
    scheduler: str = "ddim"


@dataclass
class CT3DConfig(RunConfig):
    """The experiment.

    Args:
        data: The scans.
        unet: Arguments of `UNet3DModel`.
        scheduler: A diffusers scheduler configuration, its class under `_class_name`.
        objective: The loss.
        preview: Pictures of samples during training.
        initial_weights: A pipeline folder or Hub id whose network to start from.
        license: Licence of the model, for its card, as the Hub names it.
    """

    data: CTDataConfig = field(default_factory=CTDataConfig)
    unet: dict[str, Any] = field(default_factory=dict)
    scheduler: dict[str, Any] = field(default_factory=dict)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    preview: PreviewConfig = field(default_factory=PreviewConfig)
    initial_weights: str | None = field(default=None, metadata=PATH)
    license: str | None = None


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and train."""
    config, resume = read_command_line(
        CT3DConfig, default=CONFIGS / "ct3d.yaml", description=__doc__, arguments=arguments
    )
    with plain_errors():
        train(config, resume=resume)


def train(config: CT3DConfig, *, resume: bool) -> None:
    """Train as configured; see `main`."""
    # 1. the run
    scheduler = make_scheduler(config.scheduler, default="ddpm")
    replace_scheduler(scheduler, config.preview.scheduler, steps=config.preview.steps)
    objective = DiffusionObjective(scheduler, **vars(config.objective))
    unet = make_unet(config)
    accelerator = start_run(config, resume=resume)
    folder = Path(config.output_dir)

    # 2. data
    cohort = load_cohort(config, accelerator)
    loader = make_loader(config, cohort.train, accelerator=accelerator)

    # 3. network and step
    if config.train.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    layout = torch.channels_last_3d if config.train.channels_last else torch.contiguous_format
    model, loader = accelerator.prepare(unet.to(memory_format=layout), loader)

    denoising = Denoising(
        objective, voxels, unconditional(model, layout=layout), accelerator.autocast
    )
    step = make_gradient_step(config, accelerator=accelerator, model=model, losses=denoising)
    progress, checkpoints = restore_run(config, accelerator=accelerator, step=step)
    splits = count_scans(cohort)
    announce(
        config, [step], splits=splits, size=config.data.size, images="scans", batches=len(loader)
    )

    # 4. train
    events = make_events(
        config,
        accelerator=accelerator,
        cohort=cohort,
        denoising=denoising,
        step=step,
        progress=progress,
    )
    fit(
        accelerator,
        step,
        config=config.train,
        loader=loader,
        progress=progress,
        checkpoints=checkpoints,
        events=events,
        folder=folder,
        seed=config.seed,
    )
    accelerator.print(
        f"Done. Pipeline: {folder / 'pipeline'} (best on validation: {folder / 'pipeline-best'}),"
        f" loss curve: {folder / 'loss.png'}, previews, if any: {folder / 'previews'}."
    )
    accelerator.end_training()


def make_events(
    config: CT3DConfig,
    *,
    accelerator: Accelerator,
    cohort: TrainingVolumes,
    denoising: Denoising,
    step: GradientStep,
    progress: Progress,
) -> Events:
    """Say how this system validates, draws previews and saves; all by the moving average."""

    def pipeline(facts: dict[str, Any] | None = None) -> CT3DPipeline:
        return CT3DPipeline(
            unet=accelerator.unwrap_model(step.model),
            scheduler=make_scheduler(config.scheduler, default="ddpm"),
            window_hu=[float(bound) for bound in config.data.window_hu],
            spacing_mm=cohort.describe()["median_spacing_mm"],
            size=list(config.data.size),
            training=facts,
        )

    def save(path: Path) -> None:
        if accelerator.is_main_process:
            facts = training_facts(config, cohort, progress.history)
            with averaged_weights(step), atomic_folder(path) as partial:
                pipeline(facts).save_pretrained(partial, repo_id=path.name)

    def preview(path: Path) -> None:
        if accelerator.is_main_process:
            with averaged_weights(step), accelerator.autocast():
                draw_preview(pipeline(), config, path)
        accelerator.wait_for_everyone()

    validate = make_validation(
        config,
        accelerator=accelerator,
        step=step,
        denoising=denoising,
        samples=cohort.validation,
    )
    return Events(validate=validate, preview=preview, save=save)


def make_unet(config: CT3DConfig) -> UNet3DModel:
    """Build the network of the `unet` section, or load the weights to start from."""
    check_arguments("unet", config.unet, UNet3DModel)
    if config.unet.get("num_class_embeds") or config.unet.get("class_embed_type"):
        raise ValueError("This script trains without classes: remove unet.num_class_embeds.")
    torch.manual_seed(config.seed)
    with section_named("unet"):
        unet = UNet3DModel(**config.unet)
    if (unet.config.in_channels, unet.config.out_channels) != (1, 1):
        raise ValueError("Scans have one channel: unet.in_channels and out_channels must be 1.")
    if config.initial_weights is not None:
        start = load_pipeline(config.initial_weights, device="cpu")
        if not isinstance(start, CT3DPipeline):
            found = type(start).__name__
            raise ValueError(f"initial_weights={config.initial_weights} is a {found}, no CT model.")
        try:
            unet.load_state_dict(start.unet.state_dict())
        except RuntimeError as error:
            raise ValueError(
                f"initial_weights={config.initial_weights} do not fit the unet section: {error}"
            ) from error
    return unet


def load_cohort(config: CT3DConfig, accelerator: Accelerator) -> TrainingVolumes:
    """Load the scans; the main process prepares them, and the others then find them prepared."""
    output, main = Path(config.output_dir), accelerator.is_main_process
    with accelerator.main_process_first():
        return load_run_volumes(config.data, output=output, seed=config.seed, main=main)


def count_scans(cohort: TrainingVolumes) -> list[Split]:
    """Count scans and patients of both sides."""
    sides = ("train", "validation")
    return [Split.count(side, cohort.manifest.split(side)) for side in sides]


def training_facts(
    config: CT3DConfig, cohort: TrainingVolumes, history: Sequence[dict[str, float]]
) -> dict[str, Any]:
    """Collect what the model card says about this run; no identifiers."""
    synthetic = cohort.synthetic
    return run_facts(config, history) | {
        "data": "synthetic pelvis CT phantoms" if synthetic else "CT scans of the publisher",
        "synthetic": synthetic,
        "license": config.license or ("apache-2.0" if synthetic else "other"),
        "cohort": cohort.describe(),
        "min_snr_gamma": config.objective.min_snr_gamma,
        "diffct_version": diffct.__version__,
    }


def draw_preview(pipeline: CT3DPipeline, config: CT3DConfig, path: Path) -> None:
    """Sample a few volumes with fixed noise and write them as one picture."""
    pipeline.scheduler = replace_scheduler(pipeline.scheduler, config.preview.scheduler)
    pipeline.set_progress_bar_config(desc="preview", leave=False)
    output = pipeline(
        config.preview.volumes,
        num_inference_steps=config.preview.steps,
        generator=torch.Generator().manual_seed(config.seed),
    )
    save_montage(list(output.volumes), path, spacing_mm=output.spacing_mm)


if __name__ == "__main__":
    main()
