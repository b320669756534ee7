"""What the pipelines return."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers.utils import BaseOutput

from diffct.data.montage import save_montage
from diffct.data.volume import Volume, write_nifti


@dataclass
class CT3DPipelineOutput(BaseOutput):
    """Sampled CT volumes.

    Args:
        volumes: Hounsfield units, (batch, depth, height, width), float32; index order and
            orientation are those of `diffct.Volume`.
        affine: (4, 4), from array indices (d, h, w, 1) to world millimetres (RAS+).
        spacing_mm: Voxel size (d, h, w).
    """

    volumes: np.ndarray | torch.Tensor
    affine: np.ndarray
    spacing_mm: tuple[float, float, float]

    def save(self, folder: str | Path, *, first_index: int = 0) -> list[Path]:
        """Write each volume as NIfTI (int16 HU) and as a PNG montage, atomically.

        Args:
            folder: Created if missing.
            first_index: Number of the first file.

        Returns:
            The paths of the NIfTI files; each has a PNG of the same name beside it.
        """
        paths = []
        for index, volume in enumerate(np.asarray(self.volumes), start=first_index):
            path = Path(folder) / f"sample-{index:04d}.nii.gz"
            write_nifti(Volume(volume, self.affine), path)
            picture = path.with_name(f"sample-{index:04d}.png")
            save_montage([volume], picture, spacing_mm=self.spacing_mm)
            paths.append(path)
        return paths
