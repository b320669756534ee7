"""The registration of diffct's classes with diffusers' loader, without importing diffusers.

Models are recorded by their name under "diffct", not by the path of their module, so that files can
move without breaking published models, and loading from the Hub works. diffusers' loader looks up a
recorded model and its base `ModelMixin` in `diffct`, and a recorded pipeline, like the class that
`AutoModel` finds in a config, in `diffusers` itself. None of this is documented by diffusers, hence
its pinned minor version.
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_LOADER = "diffusers.pipelines.pipeline_loading_utils"


def register_with_diffusers(*names: str) -> None:
    """Let diffusers find classes of `diffct`: now, or as soon as its loader is imported.

    Args:
        names: Pipelines for `DiffusionPipeline.from_pretrained`, and models for
            `AutoModel.from_pretrained`.
    """
    if _LOADER in sys.modules:
        _register(sys.modules[_LOADER], names)
    else:
        sys.meta_path.insert(0, _LoaderFinder(names))


class _LoaderFinder(MetaPathFinder):
    """Finds diffusers' loader as Python does; its import then registers diffct's classes."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find the loader, and nothing else."""
        spec = PathFinder.find_spec(name, path, target) if name == _LOADER else None
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            execute(module)
            _register(module, self.names)

        spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


def _register(loader: ModuleType, names: Sequence[str]) -> None:
    """Let diffusers' loader find models, and its packages find classes, in `diffct`."""
    methods = {"ModelMixin": ["save_pretrained", "from_pretrained"]}
    loader.LOADABLE_CLASSES["diffct"] = methods
    loader.ALL_IMPORTABLE_CLASSES.update(methods)

    def find_class(name: str) -> Any:  # noqa: ANN401 - a class of diffct
        # model_index.json says "CT3DPipeline (pip install diffct; ...)", see `recorded_name`.
        own = name.partition(" (")[0]
        if own in names:
            return getattr(importlib.import_module("diffct"), own)
        raise AttributeError(name)

    # A module's own `__getattr__` is called before that of its class, which raises the final error.
    for package in ("diffusers", "diffusers.pipelines"):
        sys.modules[package].__getattr__ = find_class  # type: ignore[method-assign]
