"""Train a 3D CT diffusion model and save it as a pipeline.

    accelerate launch -q --config_file accelerate_config.yaml train/train_ct3d.py

trains a small network on a synthetic pelvis cohort, on any machine. For your own scans:

    accelerate launch -q --config_file accelerate_config.yaml train/train_ct3d.py \
        data.folder=/path/to/scans output_dir=outputs/my-scans

For another experiment add --config train/configs/ct3d/diffusion-published.yaml. After a crash, the
same command with --resume gives the same weights as a run that was never interrupted.
"""

import diffct  # isort: skip # noqa: F401 - before torch: sets how its threads wait

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from diffct.config import FREE, PATH, within
from diffct.data.volumes import CTDataConfig
from diffct.figures.montage import save_montage
from diffct.hub import load_pipeline
from diffct.models import UNet3DModel
from diffct.phantoms.bootstrap import load_run_volumes
from diffct.pipelines import CT3DPipeline
from diffct.pipelines.outputs import CT3DPipelineOutput
from diffct.pipelines.scheduler_check import make_scheduler, replace_scheduler
from diffct.sections import check_arguments, section_named
from diffct.train import CONFIGS
from diffct.training.denoising import unconditional, voxels
from diffct.training.diffusion import (
    DiffusionConfig,
    SamplePreviewConfig,
    card_facts,
    train_denoiser,
)
from diffct.training.learner import apply_memory_settings, memory_layout
from diffct.training.objectives import DiffusionObjective
from diffct.training.run import load_main_first, start_run
from diffct.training.script import run_script


@dataclass
class PreviewConfig(SamplePreviewConfig):
    """Pictures of samples during training.

    Args:
        volumes: Number of volumes.
    """

    volumes: int = field(default=2, metadata=within(1))


@dataclass
class CT3DConfig(DiffusionConfig):
    """The experiment.

    Args:
        data: The scans.
        unet: Arguments of `UNet3DModel`.
        scheduler: A diffusers scheduler configuration, its class under `_class_name`.
        preview: Pictures of samples during training.
        initial_weights: A pipeline folder or Hub id whose weights the network starts from.
    """

    data: CTDataConfig = field(default_factory=CTDataConfig)
    unet: dict[str, Any] = field(default_factory=dict)
    scheduler: dict[str, Any] = field(default_factory=dict)
    preview: PreviewConfig = field(default_factory=PreviewConfig, metadata=FREE)
    initial_weights: str | None = field(default=None, metadata=PATH)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and train."""
    run_script(train, CT3DConfig, CONFIGS / "ct3d/diffusion.yaml", __doc__, arguments)


def train(config: CT3DConfig, resume: bool) -> None:
    """Train as configured; see `main`."""
    scheduler = make_scheduler(config.scheduler, default="ddpm")
    replace_scheduler(scheduler, config.preview.scheduler, steps=config.preview.steps)
    DiffusionObjective(scheduler, **vars(config.objective))  # raises now, before data is read
    unet = make_unet(config)
    accelerator = start_run(config, resume=resume)
    cohort = load_main_first(load_run_volumes, config.data, config, accelerator)
    described = cohort.describe()
    model = accelerator.prepare(apply_memory_settings(unet, config.train))

    def make_pipeline(facts: dict[str, Any] | None) -> CT3DPipeline:
        return CT3DPipeline(
            unet=unet,
            scheduler=scheduler,
            window_hu=[float(bound) for bound in config.data.window_hu],
            spacing_mm=described["median_spacing_mm"],
            size=list(config.data.size),
            training=facts,
        )

    train_denoiser(
        config,
        accelerator,
        model=model,
        scheduler=scheduler,
        clean=voxels,
        condition=unconditional(model, layout=memory_layout(unet, config.train)),
        samples={"train": cohort.train, "validation": cohort.validation},
        manifest=cohort.manifest,
        size=config.data.size,
        images="scans",
        facts=card_facts(
            config,
            data="synthetic pelvis CT phantoms"
            if cohort.synthetic
            else "CT scans of the publisher",
            synthetic=cohort.synthetic,
            cohort=described,
        ),
        make_pipeline=make_pipeline,
        preview=lambda pipeline, path: draw_preview(pipeline, config, path),
    )


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
            raise ValueError(
                f"initial_weights={config.initial_weights} is a {found}, not a CT3DPipeline."
            )
        try:
            unet.load_state_dict(start.unet.state_dict())
        except RuntimeError as error:
            raise ValueError(
                f"initial_weights={config.initial_weights} do not fit the unet section: {error}"
            ) from error
    return unet


def draw_preview(pipeline: CT3DPipeline, config: CT3DConfig, path: Path) -> None:
    """Sample volumes with fixed noise and draw them in one picture."""
    output = pipeline(
        config.preview.volumes,
        num_inference_steps=config.preview.steps,
        generator=torch.Generator().manual_seed(config.seed),
    )
    assert isinstance(output, CT3DPipelineOutput)  # return_dict is True
    save_montage(list(output.volumes), path, spacing_mm=output.spacing_mm)


if __name__ == "__main__":
    main()
