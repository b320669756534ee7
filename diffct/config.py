"""Experiments as typed YAML: dataclass schema, file, `key=value` overrides.

A key that the schema does not know, or a value of the wrong type, is an error that names it and the
nearest key that exists.
"""

import argparse
import dataclasses
import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException, ValidationError

Schema = TypeVar("Schema")


def load_config(schema: type[Schema], path: Path, overrides: Sequence[str] = ()) -> Schema:
    """Read an experiment.

    Args:
        schema: A dataclass, its fields typed, nested dataclasses as sections.
        path: A YAML file.
        overrides: `section.key=value` strings, as typed on a command line; the last one wins.

    Returns:
        An instance of `schema`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A key is unknown, a value has the wrong type, or the YAML cannot be parsed.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no configuration file {path}.")
    for override in overrides:
        if "=" not in override:
            raise ValueError(f"{override!r} is not an override; write section.key=value.")
    base = OmegaConf.structured(schema)
    try:
        from_file = OmegaConf.load(path)
    except Exception as error:  # PyYAML's errors share no public base with OmegaConf's
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(from_file, DictConfig):
        raise ValueError(f"{path} must hold sections and keys, not a list or a single value.")
    try:
        merged = OmegaConf.merge(base, from_file, OmegaConf.from_dotlist(list(overrides)))
        return OmegaConf.to_object(merged)
    except ConfigKeyError as error:
        known = _keys(schema)
        wrong = error.full_key or str(error)
        raise ValueError(f"Unknown configuration key {wrong!r}.{_nearest(wrong, known)}") from error
    except ValidationError as error:
        raise ValueError(f"Configuration key {error.full_key!r}: {error.msg}") from error
    except OmegaConfBaseException as error:
        raise ValueError(f"The configuration cannot be read: {error}") from error


def check_arguments(section: str, arguments: Mapping[str, Any], target: Callable[..., Any]) -> None:
    """Raise a ValueError if a free-form section holds a key that `target` does not take.

    Args:
        section: Name of the section, for the message.
        arguments: The section; keys that begin with an underscore are diffusers' own.
        target: The class or function that the section is passed to.
    """
    known = set(inspect.signature(target).parameters) - {"self", "args", "kwargs"}
    for key in arguments:
        if key not in known and not key.startswith("_"):
            raise ValueError(
                f"Unknown configuration key '{section}.{key}'.{_nearest(key, known, section)}"
            )


def save_config(config: object, path: Path) -> None:
    """Write a configuration as YAML, complete with defaults."""
    OmegaConf.save(OmegaConf.structured(config), path)


def config_differences(saved: Path, config: object) -> list[str]:
    """Return the keys whose values differ between a saved configuration and `config`, sorted."""
    old = _flatten(OmegaConf.to_container(OmegaConf.load(saved)))
    # Through YAML as well, which knows lists but no tuples.
    as_saved = OmegaConf.create(OmegaConf.to_yaml(OmegaConf.structured(config)))
    new = _flatten(OmegaConf.to_container(as_saved))
    return sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))


def flat_config(config: object) -> dict[str, str]:
    """Return a configuration as {"section.key": "value"}, as trackers accept it."""
    values = _flatten(OmegaConf.to_container(OmegaConf.structured(config)))
    return {key: str(value) for key, value in values.items()}


def read_command_line(
    schema: type[Schema], *, default: Path, description: str, arguments: Sequence[str] | None
) -> tuple[Schema, bool]:
    """Read the command line that every training script shares.

    Args:
        schema: See `load_config`.
        default: The configuration used when none is named.
        description: First lines of the help text.
        arguments: The words after the script's name; None for those of this process.

    Returns:
        The configuration, and whether to resume.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, default=default, help=f"YAML file ({default.name})")
    parser.add_argument(
        "--resume", action="store_true", help="go on from the last checkpoint, if there is one"
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="e.g. optim.lr=2e-4")
    options = parser.parse_intermixed_args(arguments)
    try:
        return load_config(schema, options.config, options.overrides), options.resume
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))


def _keys(schema: type, prefix: str = "") -> list[str]:
    """Return the dotted names of all keys of a dataclass schema."""
    names = []
    for field in dataclasses.fields(schema):
        names.append(prefix + field.name)
        if dataclasses.is_dataclass(field.type):
            names += _keys(field.type, f"{prefix}{field.name}.")
    return names


def _nearest(wrong: str, known: Iterable[str], section: str | None = None) -> str:
    """Return a sentence that names the nearest known keys, or nothing."""
    known = list(known)
    matches = difflib.get_close_matches(wrong, known, n=2, cutoff=0.5)
    if not matches:
        # The right key in the wrong section.
        leaf = wrong.rpartition(".")[2]
        matches = [key for key in known if key.rpartition(".")[2] == leaf]
    names = [f"'{section}.{match}'" if section else f"'{match}'" for match in matches]
    return f" Did you mean {' or '.join(names)}?" if names else ""


def _flatten(values: Any, prefix: str = "") -> dict[str, Any]:  # noqa: ANN401 - YAML is untyped
    """Return nested mappings as one mapping with dotted keys."""
    if not isinstance(values, dict):
        return {prefix.rstrip("."): values}
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flatten(value, f"{prefix}{key}.")
    return flat
