"""Outputs of the pipelines, and the files that they are saved as."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers.utils import BaseOutput
from PIL import Image

from diffct.figures.montage import save_montage
from diffct.imaging.ct_export import write_ct_series
from diffct.imaging.dx_export import write_dx
from diffct.imaging.radiograph import write_png
from diffct.imaging.volume import Volume, reorient, write_volume

SYNTHETIC_DESCRIPTION = "Synthetic: made by a diffusion model"
"""The description in the header of every NIfTI file."""
_NOTES = {"Comment": "Synthetic: sampled from a diffusion model, shows no real patient."}


def as_array(values: np.ndarray | torch.Tensor) -> np.ndarray:
    """Return values as a NumPy array; tensors of any device and type become float32."""
    if not isinstance(values, torch.Tensor):
        return np.asarray(values)
    return values.detach().cpu().float().numpy()


@dataclass
class CT3DPipelineOutput(BaseOutput):
    """Sampled CT volumes.

    Args:
        volumes: Hounsfield units, (batch, depth, height, width), float32; index order and
            orientation are those of `diffct.Volume`. Latents if `output_type` asked for them.
        affine: (4, 4), from array indices (d, h, w, 1) to world millimetres (RAS+).
        spacing_mm: Voxel size (d, h, w).
    """

    volumes: np.ndarray | torch.Tensor
    affine: np.ndarray
    spacing_mm: tuple[float, float, float]

    def save(
        self,
        folder: str | Path,
        *,
        first_index: int = 0,
        window_hu: Sequence[float] | None = None,
        dicom: bool = False,
    ) -> list[Path]:
        """Write each volume as NIfTI (int16 HU) and as a PNG montage, atomically.

        Args:
            folder: Created if missing.
            first_index: Number of the first file.
            window_hu: The HU that pictures and DICOM show black and white; None for a window that
                fits the volumes.
            dicom: Whether to also write a CT series, marked synthetic: a folder of the same name.

        Returns:
            The paths of the NIfTI files; each has a PNG of the same name beside it.

        Raises:
            ValueError: These are latents.
        """
        volumes = as_array(self.volumes)
        if volumes.ndim != 4:
            raise ValueError("These are latents, not volumes; sample them as np or pt.")
        paths = []
        for index, volume in enumerate(volumes, start=first_index):
            path = Path(folder) / f"sample-{index:04d}.nii.gz"
            # Columns, rows, slices: the axis order of scanners' files.
            stored = reorient(Volume(volume, self.affine), "LPS")
            write_volume(stored, path, description=SYNTHETIC_DESCRIPTION)
            picture = path.with_name(f"sample-{index:04d}.png")
            save_montage([volume], picture, spacing_mm=self.spacing_mm, window_hu=window_hu)
            if dicom:
                series = path.with_name(f"sample-{index:04d}")
                write_ct_series(Volume(volume, self.affine), series, window_hu=window_hu)
            paths.append(path)
        return paths


@dataclass
class TextToImagePipelineOutput(BaseOutput):
    """Sampled gray images.

    Args:
        images: Pictures, an array or a tensor, as `output_type` says.
    """

    images: list[Image.Image] | np.ndarray | torch.Tensor

    def films(self) -> list[np.ndarray]:
        """Return each image as float32 (height, width) in [0, 1].

        Raises:
            ValueError: These are latents.
        """
        if isinstance(self.images, torch.Tensor):
            if self.images.shape[1] != 1:
                raise ValueError("These are latents, not images; decode them first.")
            arrays = as_array(self.images[:, 0])
        elif isinstance(self.images, np.ndarray):
            arrays = self.images[..., 0] if self.images.ndim == 4 else self.images
        else:
            arrays = np.stack([np.asarray(image) for image in self.images])
        full = np.iinfo(arrays.dtype).max if arrays.dtype.kind == "u" else 1
        return list(arrays.astype(np.float32) / full)

    def save(
        self,
        folder: str | Path,
        *,
        first_index: int = 0,
        dicom: bool = False,
        prompts: Sequence[str] | None = None,
        pixel_spacing_mm: float | None = None,
    ) -> list[Path]:
        """Write each image as 16-bit PNG with a note that it is synthetic, atomically.

        Args:
            folder: Created if missing.
            first_index: Number of the first file.
            dicom: Whether to also write a radiograph (DX) of the same name, marked synthetic.
            prompts: What the images were sampled from, for their DICOM files; None for nothing.
            pixel_spacing_mm: Pixel spacing of DICOM files; None for a nominal one, see `write_dx`.

        Returns:
            The paths of the PNG files. Images sampled as "pil" have 8 bits only.

        Raises:
            ValueError: These are latents, or the spacing is impossible.
        """
        paths = []
        for index, image in enumerate(self.films()):
            paths.append(Path(folder) / f"sample-{first_index + index:04d}.png")
            write_png(image, paths[-1], notes=_NOTES)
            if dicom:
                write_dx(
                    image,
                    paths[-1].with_suffix(".dcm"),
                    prompt=None if prompts is None else prompts[index],
                    pixel_spacing_mm=pixel_spacing_mm,
                )
        return paths


CXRTextToImagePipelineOutput = TextToImagePipelineOutput
"""What a `CXRTextToImagePipeline` returns: films are gray images."""


@dataclass
class ContrastTranslationPipelineOutput(TextToImagePipelineOutput):
    """Translated images.

    Args:
        images: Pictures, an array or a tensor, as `output_type` says; of several
            samples, their mean.
        std: Standard deviation of the samples in each pixel, in units of [0, 1]: an array
            (images, height, width, 1), or a tensor (images, 1, height, width) if the images are
            one. None for a single sample.
    """

    std: np.ndarray | torch.Tensor | None = None


def mean_and_std(
    images: torch.Tensor, num_samples: int, output_type: str
) -> tuple[torch.Tensor, np.ndarray | torch.Tensor | None]:
    """Return the mean of the samples of each image, and their standard deviation.

    Args:
        images: (images x num_samples, 1, H, W), the samples of an image one after the other.
        num_samples: Number of samples of each image.
        output_type: Type of the images, which determines the form of the standard deviation.

    Returns:
        (images, 1, H, W), and `ContrastTranslationPipelineOutput.std`.
    """
    if num_samples == 1:
        return images, None
    samples = images.unflatten(0, (-1, num_samples))
    mean, std = samples.mean(dim=1), samples.std(dim=1)
    return mean, std if output_type == "pt" else std.permute(0, 2, 3, 1).cpu().numpy()


FlairToT1PipelineOutput = ContrastTranslationPipelineOutput
"""What a `FlairToT1Pipeline` returns."""
