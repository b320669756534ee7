"""The report on reconstructions that ends the training of an autoencoder."""

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from diffusers import AutoencoderKL, AutoModel
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from diffct.atomic import atomic_file
from diffct.data.epoch import Samples
from diffct.figures.comparison import save_comparison
from diffct.imaging.transforms import from_model_range
from diffct.metrics.similarity import ms_ssim, multi_scale
from diffct.training.reconstruction import LatentStatistics, latent_sums, write_scaling_factor

Images = TypeVar("Images", bound=Samples)


@dataclasses.dataclass(frozen=True)
class Reconstructions(Generic[Images]):
    """The images of each split, and the errors and pictures of their reconstructions.

    Args:
        accelerator: The run's accelerator; each process takes its share of the images.
        images: Data sets by the names of their splits, including "train" and "validation".
        batch_size: Images per batch.
        workers: Processes that read images.
        max_drawn: Number of images in a picture.
    """

    accelerator: Accelerator
    images: Mapping[str, Images]
    batch_size: int
    workers: int
    max_drawn: int

    def batches(self, split: str) -> Iterator[Tensor]:
        """Yield this process's share of a split in batches, on the device."""
        images, accelerator = self.images[split], self.accelerator
        share = range(accelerator.process_index, len(images), accelerator.num_processes)
        loader = DataLoader(
            Subset(images, share), batch_size=self.batch_size, num_workers=self.workers
        )
        for batch in loader:
            yield batch["image"].to(accelerator.device)

    def errors(self, reconstruct: Callable[[Tensor], Tensor], split: str) -> Tensor:
        """Return the errors of all images of a split, (N, 2); see `reconstruction_errors`."""
        rows = reconstruction_errors(reconstruct, self.batches(split))
        return torch.stack(gather_object(rows))

    @torch.no_grad()
    def draw(self, reconstruct: Callable[[Tensor], Tensor], path: Path) -> None:
        """Draw the first images beside their reconstructions: held-out ones if there are any."""
        split = (
            self.images["validation"] if len(self.images["validation"]) else self.images["train"]
        )
        chosen = [split[index]["image"] for index in range(min(self.max_drawn, len(split)))]
        originals = torch.stack(chosen).to(self.accelerator.device)
        save_comparison(from_model_range(originals), from_model_range(reconstruct(originals)), path)


def measure_autoencoders(
    run: Path,
    reconstructions: Reconstructions,
    *,
    size: Sequence[int],
    scaling_factor: float | None,
) -> Path:
    """Measure the saved autoencoders of a run: scaling factors, errors and pictures.

    Args:
        run: The run's folder; the scaling factors are written into its autoencoders.
        reconstructions: The images.
        size: Size of the images.
        scaling_factor: The factor that latents are multiplied by; None measures it.

    Returns:
        The path of the report, a JSON file. It is written last: if it exists, the autoencoders are
        measured already and nothing is done.
    """
    report = run / "reconstruction.json"
    if report.exists():
        return report
    accelerator = reconstructions.accelerator
    figures: dict[str, dict[str, Any]] = {}
    for name in ("autoencoder", "autoencoder-best"):
        folder = run / name
        if not folder.exists():
            continue
        autoencoder = AutoModel.from_pretrained(str(folder)).to(accelerator.device).eval()
        sums = gather_object([latent_sums(autoencoder, reconstructions.batches("train"))])
        statistics = LatentStatistics.from_sums(torch.stack(sums).sum(dim=0))
        factor = scaling_factor or statistics.scaling_factor
        accelerator.print(f"{name}: scaling_factor {factor}; {statistics}")
        figures[name] = {"scaling_factor": factor, "latents": dataclasses.asdict(statistics)}

        def reconstruct(image: Tensor, network: AutoencoderKL = autoencoder) -> Tensor:
            return network(image).sample

        for split in ("validation", "test"):
            if len(reconstructions.images[split]):
                rows = reconstructions.errors(reconstruct, split)
                figures[name][split] = summarise(rows, size=size)
                accelerator.print(f"  {split}: {describe(figures[name][split])}")
        if accelerator.is_main_process:
            write_scaling_factor(folder, factor)
            if name == "autoencoder":
                reconstructions.draw(reconstruct, report.with_suffix(".png"))
    if accelerator.is_main_process:
        with atomic_file(report) as partial:
            partial.write_text(json.dumps(figures, indent=2) + "\n")
    return report


@torch.no_grad()
def reconstruction_errors(
    reconstruct: Callable[[Tensor], Tensor], images: Iterable[Tensor]
) -> list[Tensor]:
    """Compare images with their reconstructions.

    Args:
        reconstruct: The autoencoder.
        images: Batches (B, 1, H, W) or (B, 1, D, H, W) in [-1, 1].

    Returns:
        For each image a tensor (2,) on the CPU: the mean absolute difference in units of [0, 1],
        and MS-SSIM.
    """
    rows: list[Tensor] = []
    for batch in images:
        image = from_model_range(batch)
        reconstruction = from_model_range(reconstruct(batch))
        l1 = (reconstruction - image).abs().flatten(1).mean(dim=1)
        rows += torch.stack([l1, ms_ssim(reconstruction, image)], dim=1).cpu()
    return rows


def summarise(rows: Tensor, *, size: Sequence[int]) -> dict[str, Any]:
    """Summarise what `reconstruction_errors` returns.

    Args:
        rows: (N, 2).
        size: Size of the images, as in `multi_scale`.

    Returns:
        The number of images, the mean and standard deviation of both errors over images, and the
        window and number of scales of MS-SSIM.
    """
    summary: dict[str, Any] = {"images": len(rows)}
    for name, column in zip(("l1", "ms_ssim"), rows.T, strict=True):
        deviation = column.std(correction=0)
        summary[name] = {"mean": round(column.mean().item(), 5), "sd": round(deviation.item(), 5)}
    chosen = multi_scale(size)
    return summary | {"ms_ssim_kernel": chosen.kernel, "ms_ssim_scales": len(chosen.weights)}


def describe(summary: dict[str, Any]) -> str:
    """Return one line of text about what `summarise` returns."""
    l1, similarity = summary["l1"], summary["ms_ssim"]
    chosen = f"{summary['ms_ssim_scales']} scales, window {summary['ms_ssim_kernel']}"
    return (
        f"MS-SSIM {similarity['mean']:.4f} ± {similarity['sd']:.4f} ({chosen}),"
        f" L1 {l1['mean']:.4f} ± {l1['sd']:.4f}, {summary['images']} images"
    )
