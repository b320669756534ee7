"""diffct models in diffusers' loader and on the Hugging Face Hub."""

from pathlib import Path

import diffusers
import torch
from diffusers import DiffusionPipeline
from diffusers.pipelines.pipeline_loading_utils import ALL_IMPORTABLE_CLASSES, LOADABLE_CLASSES


def register(*classes: type) -> None:
    """Let diffusers save and load diffct's classes; `import diffct` calls it.

    Models are then recorded as ["diffct", "UNet3DModel"] instead of by the path of their module, so
    files can move without breaking published models, and loading from the Hub works. The loader
    looks the recorded class and its base `ModelMixin` up in `diffct` itself. None of this is
    documented by diffusers, hence its pinned minor version.

    Args:
        classes: Pipelines that `DiffusionPipeline.from_pretrained` shall find, and models that
            `AutoModel.from_pretrained` shall.
    """
    methods = {"ModelMixin": ["save_pretrained", "from_pretrained"]}
    LOADABLE_CLASSES["diffct"] = methods
    ALL_IMPORTABLE_CLASSES.update(methods)
    for registered in classes:
        setattr(diffusers, registered.__name__, registered)
        if issubclass(registered, DiffusionPipeline):
            # diffusers' tools for pipelines, and its tests, look here.
            setattr(diffusers.pipelines, registered.__name__, registered)


def load_pipeline(
    name: str | Path,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    variant: str | None = None,
    revision: str | None = None,
    token: str | None = None,
) -> DiffusionPipeline:
    """Load a pipeline, of whatever class, from a folder or from the Hub.

    Args:
        name: A folder, or a Hub id "user/name".
        device: Where to put it; None for a GPU if there is one, else the CPU.
        dtype: Type of the weights; None for float32.
        variant: Variant of the weights, e.g. "fp16".
        revision: Branch, tag or commit on the Hub.
        token: Access token for a private repository; None for the stored login.

    Returns:
        The pipeline, ready to be called.

    Raises:
        FileNotFoundError: `name` looks like a folder and holds no pipeline, or lacks a part of it.
    """
    folder = Path(name)
    looks_local = folder.is_dir() or len(folder.parts) > 2 or str(name).startswith((".", "~", "/"))
    if looks_local and not (folder / "model_index.json").is_file():
        raise FileNotFoundError(
            f"{name} holds no pipeline (no model_index.json). A training run saves one in"
            " <output_dir>/pipeline."
        )
    index = DiffusionPipeline.load_config(str(name), revision=revision, token=token)
    # The class itself, not `DiffusionPipeline`, so that diffct's pipelines check their folder.
    pipeline_class = getattr(diffusers, str(index.get("_class_name")), DiffusionPipeline)
    pipeline = pipeline_class.from_pretrained(
        str(name), dtype=dtype, variant=variant, revision=revision, token=token
    )
    return pipeline.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
