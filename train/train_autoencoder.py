"""Train an autoencoder of radiographs, or of any two-dimensional images in grey.

    accelerate launch -q --config_file accelerate_config.yaml train/train_autoencoder.py

trains a small network on synthetic chest films, on any machine. For your own films, prepared by
`diffct prepare`:

    accelerate launch -q --config_file accelerate_config.yaml train/train_autoencoder.py \
        --config train/configs/cxr_autoencoder_mimic.yaml data.manifest=/path/to/manifest.jsonl \
        objective.perceptual_backbone=/path/to/squeezenet1_1-b8a52dc0.pth \
        output_dir=outputs/my-autoencoder

After a crash, the same command with --resume gives the same weights as a run that was never
interrupted. When training ends, the latents of the training images are measured and the scaling
factor is written into the autoencoder's config.json: nothing downstream has to be told.
"""

import diffct  # isort: skip # noqa: F401 - before torch: it tells how threads wait

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from diffct.atomic import atomic_file, atomic_folder
from diffct.config import read_command_line, within
from diffct.data.images import (
    ImageAugmentationConfig,
    ImageDataConfig,
    ImageDataset,
    check_images,
)
from diffct.figures.comparison import save_comparison
from diffct.metrics.lpips import load_perceptual
from diffct.metrics.similarity import (
    describe,
    ms_ssim_kernel,
    reconstruction_errors,
    summarise,
    to_film,
)
from diffct.phantoms.bootstrap import load_image_manifest
from diffct.training.adversarial import (
    AdversarialStep,
    make_adversarial_step,
    make_discriminator,
)
from diffct.training.checkpoints import Progress
from diffct.training.loop import Events, fit
from diffct.training.reconstruction import (
    LatentStatistics,
    Reconstruction,
    ReconstructionConfig,
    ReconstructionObjective,
    latent_sums,
    make_autoencoder,
    write_scaling_factor,
)
from diffct.training.run import (
    averaged_weights,
    make_gradient_step,
    make_loader,
    plain_errors,
    restore_run,
    start_run,
)
from diffct.training.settings import OptimConfig, RunConfig
from diffct.training.steps import Batch, GradientStep, Learner
from diffct.training.summary import Split, announce

CONFIGS = Path(__file__).parent / "configs"
SPLITS = ("train", "validation", "test")


@dataclass
class PreviewConfig:
    """Pictures of reconstructions.

    Args:
        images: How many.
    """

    images: int = field(default=4, metadata=within(1))


@dataclass
class AutoencoderConfig(RunConfig):
    """The experiment.

    Args:
        data: The images.
        augmentation: Changes of the training images.
        autoencoder: Arguments of diffusers' `AutoencoderKL`.
        objective: The loss.
        discriminator: Arguments of MONAI's `PatchDiscriminator`.
        discriminator_optim: Optimiser of the discriminator; its warm-up begins when it joins in.
        scaling_factor: What latents are to be multiplied by downstream; None measures it.
        preview: Pictures of reconstructions.
    """

    data: ImageDataConfig = field(default_factory=ImageDataConfig)
    augmentation: ImageAugmentationConfig = field(default_factory=ImageAugmentationConfig)
    autoencoder: dict[str, Any] = field(default_factory=dict)
    objective: ReconstructionConfig = field(default_factory=ReconstructionConfig)
    discriminator: dict[str, Any] = field(default_factory=dict)
    discriminator_optim: OptimConfig = field(default_factory=OptimConfig)
    scaling_factor: float | None = None
    preview: PreviewConfig = field(default_factory=PreviewConfig)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and train."""
    config, resume = read_command_line(
        AutoencoderConfig,
        default=CONFIGS / "cxr_autoencoder.yaml",
        description=__doc__,
        arguments=arguments,
    )
    with plain_errors():
        train(config, resume=resume)


def train(config: AutoencoderConfig, *, resume: bool) -> None:
    """Train as configured; see `main`."""
    # 1. the run
    objective = config.objective
    ms_ssim_kernel(config.data.size)
    autoencoder = make_autoencoder(config.autoencoder, size=config.data.size, seed=config.seed)
    discriminator = None
    if objective.adversarial_weight:
        discriminator = make_discriminator(config.discriminator, seed=config.seed)
    perceptual = load_perceptual(objective.perceptual, backbone=objective.perceptual_backbone)
    accelerator = start_run(config, resume=resume)
    folder = Path(config.output_dir)

    # 2. data
    augmented, images = load_images(config, accelerator)
    loader = accelerator.prepare(make_loader(config, augmented, accelerator=accelerator))

    # 3. networks and step
    step = make_step(
        config,
        accelerator=accelerator,
        autoencoder=autoencoder,
        discriminator=discriminator,
        perceptual=perceptual,
    )
    others = [step.discriminator] if isinstance(step, AdversarialStep) else []
    progress, checkpoints = restore_run(config, accelerator=accelerator, step=step, others=others)
    splits = [Split.count(name, each.rows) for name, each in images.items()]
    announce(
        config,
        [step, *others],
        splits=splits,
        size=config.data.size,
        images="images",
        batches=len(loader),
    )

    # 4. train
    fit(
        accelerator,
        step,
        config=config.train,
        loader=loader,
        progress=progress,
        checkpoints=checkpoints,
        events=make_events(
            config, accelerator=accelerator, images=images, step=step, progress=progress
        ),
        folder=folder,
        seed=config.seed,
    )

    # 5. measure
    report = folder / "reconstruction.json"
    if not report.exists():
        finish(config, accelerator=accelerator, images=images, report=report)
    accelerator.print(
        f"Done. Autoencoder: {folder / 'autoencoder'}, figures: {report}, pictures:"
        f" {report.with_suffix('.png')} and, if any, {folder / 'previews'}, loss curve:"
        f" {folder / 'loss.png'}."
    )
    accelerator.end_training()


def load_images(
    config: AutoencoderConfig, accelerator: Accelerator
) -> tuple[ImageDataset, dict[str, ImageDataset]]:
    """Read every image once, and open those to learn from and, unchanged by chance, each split."""
    # The main process writes the synthetic films, the others then find them.
    with accelerator.main_process_first():
        manifest = load_image_manifest(
            config.data,
            output=Path(config.output_dir),
            seed=config.seed,
            main=accelerator.is_main_process,
        )
    share = manifest.rows[accelerator.process_index :: accelerator.num_processes]
    check_images(
        ImageDataset(manifest, share, size=config.data.size),
        show_progress=accelerator.is_main_process,
    )
    augmented = ImageDataset(
        manifest,
        manifest.split("train"),
        size=config.data.size,
        augmentation=config.augmentation,
        seed=config.seed,
    )
    return augmented, {
        split: ImageDataset(manifest, manifest.split(split), size=config.data.size)
        for split in SPLITS
    }


def make_step(
    config: AutoencoderConfig,
    *,
    accelerator: Accelerator,
    autoencoder: AutoencoderKL,
    discriminator: nn.Module | None,
    perceptual: nn.Module | None,
) -> GradientStep | AdversarialStep:
    """Prepare the networks and build the step: adversarial if there is a discriminator."""
    if config.train.gradient_checkpointing:
        autoencoder.enable_gradient_checkpointing()
    layout = torch.channels_last if config.train.channels_last else torch.contiguous_format
    model = accelerator.prepare(Reconstruction(autoencoder).to(memory_format=layout))
    settings = config.objective
    objective = ReconstructionObjective(
        kl_weight=settings.kl_weight,
        perceptual=perceptual and perceptual.to(accelerator.device),
        perceptual_weight=settings.perceptual_weight,
    )

    def reconstruct(batch: Batch, generator: torch.Generator) -> tuple[dict[str, Tensor], Tensor]:
        return objective(model, batch["image"], generator=generator)

    if discriminator is None:
        return make_gradient_step(
            config,
            accelerator=accelerator,
            model=model,
            losses=lambda batch, generator: reconstruct(batch, generator)[0],
        )
    return make_adversarial_step(
        config,
        accelerator=accelerator,
        model=model,
        reconstruct=reconstruct,
        discriminator=accelerator.prepare(discriminator.to(memory_format=layout)),
        discriminator_optim=config.discriminator_optim,
        weight=settings.adversarial_weight,
        start_updates=settings.adversarial_start_updates,
    )


def make_events(
    config: AutoencoderConfig,
    *,
    accelerator: Accelerator,
    images: dict[str, ImageDataset],
    step: Learner,
    progress: Progress,
) -> Events:
    """Say how this system validates, draws previews and saves; all by the moving average."""
    network: Reconstruction = accelerator.unwrap_model(step.model)

    def reconstruct(image: Tensor) -> Tensor:
        return network(image)[0]

    def validate() -> float:
        batches = read_batches(images["validation"], config, accelerator)
        with averaged_weights(step):
            rows = torch.stack(gather_object(reconstruction_errors(reconstruct, batches)))
        l1, similarity = rows.mean(dim=0).tolist()
        accelerator.log({"validation_ms_ssim": similarity}, step=progress.update)
        return l1

    def preview(path: Path) -> None:
        if accelerator.is_main_process:
            with averaged_weights(step):
                draw(reconstruct, images, path, config, accelerator)
        accelerator.wait_for_everyone()

    def save(path: Path) -> None:
        if accelerator.is_main_process:
            with averaged_weights(step), atomic_folder(path) as partial:
                network.autoencoder.save_pretrained(partial)

    return Events(
        validate=validate if len(images["validation"]) else None,
        preview=preview,
        save=save,
        product="autoencoder",
    )


def finish(
    config: AutoencoderConfig,
    *,
    accelerator: Accelerator,
    images: dict[str, ImageDataset],
    report: Path,
) -> None:
    """Measure the saved autoencoders: scaling factors, figures and pictures; the figures last."""
    figures = {}
    for name in ("autoencoder", "autoencoder-best"):
        folder = report.with_name(name)
        if not folder.exists():
            continue
        autoencoder = AutoencoderKL.from_pretrained(folder).to(accelerator.device).eval()
        batches = read_batches(images["train"], config, accelerator)
        sums = gather_object([latent_sums(autoencoder, batches)])
        statistics = LatentStatistics.from_sums(torch.stack(sums).sum(dim=0))
        factor = config.scaling_factor or statistics.scaling_factor
        accelerator.print(f"{name}: scaling_factor {factor}; {statistics}")
        figures[name] = {"scaling_factor": factor, "latents": dataclasses.asdict(statistics)}

        def reconstruct(image: Tensor, network: AutoencoderKL = autoencoder) -> Tensor:
            return network(image).sample

        for split in ("validation", "test"):
            if len(images[split]):
                batches = read_batches(images[split], config, accelerator)
                rows = torch.stack(gather_object(reconstruction_errors(reconstruct, batches)))
                figures[name][split] = summarise(rows, size=config.data.size)
                accelerator.print(f"  {split}: {describe(figures[name][split])}")
        if accelerator.is_main_process:
            write_scaling_factor(folder, factor)
            if name == "autoencoder":
                draw(reconstruct, images, report.with_suffix(".png"), config, accelerator)
    if accelerator.is_main_process:
        with atomic_file(report) as partial:
            partial.write_text(json.dumps(figures, indent=2) + "\n")


def read_batches(
    images: ImageDataset, config: AutoencoderConfig, accelerator: Accelerator
) -> Iterator[Tensor]:
    """Yield this process's share of images in batches, on the device."""
    share = range(accelerator.process_index, len(images), accelerator.num_processes)
    loader = DataLoader(
        Subset(images, share),
        batch_size=config.train.batch_size,
        num_workers=config.train.workers,
    )
    for batch in loader:
        yield batch["image"].to(accelerator.device)


@torch.no_grad()
def draw(
    reconstruct: Callable[[Tensor], Tensor],
    images: dict[str, ImageDataset],
    path: Path,
    config: AutoencoderConfig,
    accelerator: Accelerator,
) -> None:
    """Draw the first validation images, or training ones, beside their reconstructions."""
    shown = images["validation"] if len(images["validation"]) else images["train"]
    chosen = [shown[index]["image"] for index in range(min(config.preview.images, len(shown)))]
    originals = torch.stack(chosen).to(accelerator.device)
    save_comparison(to_film(originals), to_film(reconstruct(originals)), path)


if __name__ == "__main__":
    main()
