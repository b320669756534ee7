"""Pipelines from a folder or from the Hugging Face Hub."""

from pathlib import Path
from typing import TYPE_CHECKING

import diffusers
import torch
from diffusers import DiffusionPipeline
from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import RemoteEntryNotFoundError

from diffct.device import find_device
from diffct.model_source import find_folder, is_reachable, plain_hub_errors

if TYPE_CHECKING:
    from diffusers import PipelineQuantizationConfig

_INDEX = "model_index.json"
_MAX_SUGGESTED = 5


def load_pipeline(
    name: str | Path,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | dict[str, torch.dtype] | None = None,
    variant: str | None = None,
    revision: str | None = None,
    subfolder: str | None = None,
    token: str | None = None,
    device_map: str | None = None,
    quantization_config: "PipelineQuantizationConfig | None" = None,
) -> DiffusionPipeline:
    """Load a pipeline of any class from a folder or from the Hub.

    Args:
        name: A folder, or a Hub id "user/name". A name that is written as a path, or whose parent
            is an existing folder, is never looked for on the Hub.
        device: The device to move it to; None for a GPU, or the CPU if there is none.
        dtype: Type of the weights, or a type for each component (and "default"); None for float32,
            whatever type the files have.
        variant: Variant of the weights, e.g. "fp16".
        revision: Branch, tag or commit on the Hub.
        subfolder: Folder of the pipeline within the folder or repository, see `push_to_hub`.
        token: Access token for a private repository; None for the stored login.
        device_map: How diffusers spreads the components, e.g. "balanced"; instead of `device`.
        quantization_config: How diffusers quantises them.

    Returns:
        The pipeline, ready to be called.

    Raises:
        FileNotFoundError: There is no such folder or repository, it holds no pipeline, or the
            pipeline lacks a component.
        PermissionError: Access to the repository has to be requested.
        ConnectionError: The Hub cannot be reached, and the pipeline was not downloaded before.
        ValueError: There is no such device, variant or type, or `device_map` and `device` are both
            given.

    Examples:
        >>> import diffct
        >>> pipeline = diffct.load_pipeline("outputs/ct3d/diffusion/pipeline")
        >>> output = pipeline(batch_size=2, num_inference_steps=4)
        >>> output.volumes.shape  # volumes, slices, rows, columns
        (2, 16, 40, 48)
        >>> output.spacing_mm
        (8.0, 8.0, 8.0)
    """
    if device is not None and device_map is not None:
        raise ValueError(f"device={device} and device_map={device_map}: give one of them.")
    kinds = dtype.values() if isinstance(dtype, dict) else [dtype]
    if not all(kind is None or isinstance(kind, torch.dtype) for kind in kinds):
        raise ValueError(f"dtype={dtype!r} is not a torch.dtype such as torch.float16.")
    place = find_device(device)
    source, offline = _find_source(name, revision=revision, subfolder=subfolder, token=token)
    options = {"revision": revision, "token": token, "local_files_only": offline}
    index = DiffusionPipeline.load_config(source, **options)
    # The class itself, not `DiffusionPipeline`, so that diffct's pipelines check their folder.
    pipeline_class = getattr(diffusers, str(index.get("_class_name")), DiffusionPipeline)
    pipeline = pipeline_class.from_pretrained(
        source,
        # Without a type, transformers keeps the stored type and diffusers does not.
        dtype=dtype or torch.float32,
        variant=variant,
        device_map=device_map,
        quantization_config=quantization_config,
        **options,
    )
    return pipeline if device_map is not None else pipeline.to(place)


def _find_source(
    name: str | Path, *, revision: str | None, subfolder: str | None, token: str | None
) -> tuple[str, bool]:
    """Return the folder or Hub id of a pipeline, and whether only the Hub's cache is available."""
    folder = find_folder(name, _INDEX)
    if folder is not None:
        inner = folder / (subfolder or "")
        if not (inner / _INDEX).is_file():
            raise FileNotFoundError(f"{inner} holds no pipeline (no {_INDEX}). {_advice(inner)}")
        return str(inner), False
    repository, index = str(name), f"{subfolder}/{_INDEX}" if subfolder else _INDEX
    with plain_hub_errors(repository):
        offline = not is_reachable(repository, index, revision=revision, token=token)
        try:
            if not offline:
                hf_hub_download(repository, index, revision=revision, token=token)
        except RemoteEntryNotFoundError as error:
            raise FileNotFoundError(f"{repository} holds no pipeline (no {index}).") from error
        if subfolder is None:
            return repository, offline
        # diffusers downloads pipelines only from the root of a repository.
        root = snapshot_download(
            repository,
            revision=revision,
            token=token,
            allow_patterns=f"{subfolder}/*",
            local_files_only=offline,
        )
        return str(Path(root) / subfolder), False


def _advice(folder: Path) -> str:
    """Return a sentence with the pipelines inside a folder, such as that of a training run."""
    inside = sorted(path.parent for path in folder.glob(f"*/{_INDEX}"))
    if inside:
        return f"Did you mean {' or '.join(map(str, inside[:_MAX_SUGGESTED]))}?"
    return "A training run saves one in <output_dir>/pipeline."
