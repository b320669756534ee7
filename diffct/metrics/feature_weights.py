"""Weights of foreign feature networks, read without running any code in their files."""

import hashlib
import pickle
import warnings
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.serialization import SourceChangeWarning, safe_globals

# The first bytes of a file written by PyTorch before 1.6.
_LEGACY_START = pickle.dumps(torch.serialization.MAGIC_NUMBER, protocol=2)
_UNREADABLE = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    TypeError,
    ValueError,
    KeyError,
    IndexError,
    AttributeError,
    SafetensorError,
)


def file_sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file, 64 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_weights(path: str | Path, *, classes: Sequence[type] = ()) -> dict[str, Tensor]:
    """Read a state dict from safetensors or from a file of `torch.save`.

    The state dict may lie under "state_dict", and its keys may begin with "module.",
    as those of a network wrapped for several GPUs do.

    Args:
        path: The file.
        classes: For a network that was pickled as a whole, the classes that it is made of. Nothing
            else is unpickled.

    Returns:
        Weights by name, on the CPU.

    Raises:
        ValueError: The file holds no state dict, or objects of other classes.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = _read_torch(path, classes)
        if isinstance(found, Mapping) and "state_dict" in found:
            found = found["state_dict"]
        if isinstance(found, nn.Module):
            found = found.state_dict()
        if not all(isinstance(weight, Tensor) for weight in found.values()):
            raise ValueError("not all entries are tensors")
        return {name.removeprefix("module."): weight for name, weight in found.items()}
    except _UNREADABLE as error:
        # PyTorch's own message would advise to unpickle without a check.
        raise ValueError(f"{path}: is refused, as it does not hold weights alone.") from error


def fill_weights(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Fill a network with weights, which must be exactly its own by name and shape.

    Args:
        network: The network.
        weights: Weights by name.

    Raises:
        ValueError: Names or shapes differ; the message says how many, and names the first.
    """
    own = network.state_dict()
    differences = {
        "missing": [name for name in own if name not in weights],
        "unknown": [name for name in weights if name not in own],
        "of another shape": [
            name for name in own if name in weights and weights[name].shape != own[name].shape
        ],
    }
    found = [f"{len(names)} {what} ({names[0]}, …)" for what, names in differences.items() if names]
    if found:
        raise ValueError(f"weights {', '.join(found)}")
    network.load_state_dict(weights)


def _read_torch(path: Path, classes: Sequence[type]) -> Any:  # noqa: ANN401 - any pickled object
    with path.open("rb") as file:
        legacy = file.read(len(_LEGACY_START)) == _LEGACY_START
    if not (legacy and classes):
        with safe_globals(list(classes)):
            return torch.load(path, map_location="cpu", weights_only=True)
    # PyTorch's weights_only cannot read whole networks in the old format, so Python's unpickler
    # applies the same rule, an allow-list.
    with warnings.catch_warnings():
        # The old format stores the source code of the classes; only the weights are used.
        warnings.simplefilter("ignore", SourceChangeWarning)
        return torch.load(
            path, map_location="cpu", weights_only=False, pickle_module=_allow_only(classes)
        )


def _allow_only(classes: Sequence[type]) -> type:
    """Return a pickle module for `torch.load` that can create only these classes."""
    makers: list[Any] = [
        *classes,
        torch._utils._rebuild_tensor_v2,
        torch._utils._rebuild_parameter,
        OrderedDict,
    ]
    allowed: dict[tuple[str, str], object] = {
        (one.__module__, one.__qualname__): one for one in makers
    }
    allowed["__builtin__", "set"] = set  # Python 2's name, which the format uses

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> object:
            if (module, name) not in allowed:
                raise pickle.UnpicklingError(f"{module}.{name} is not allowed")
            return allowed[module, name]

    def load(file: IO[bytes], **options: Any) -> object:  # noqa: ANN401 - as pickle takes them
        return Unpickler(file, **options).load()

    return type("AllowListPickle", (), {"Unpickler": Unpickler, "load": staticmethod(load)})
