"""Experiments as typed YAML: dataclass schema, file, `key=value` overrides.

An unknown key, or a value of the wrong type, is an error that names it and the nearest existing
key. The schema also determines how an override is read: the value of a text is taken literally,
numbers are decimal, and only other values are YAML. In a setting that is a path (its field has
`metadata=PATH`), ~ and environment variables are expanded, and existing paths become absolute.
"""

import dataclasses
import difflib
import math
import re
import typing
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, TypeVar

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException, ValidationError

from diffct.arguments import expand_path

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Schema = TypeVar("Schema", bound="DataclassInstance")

PATH = {"path": True}
"""The metadata of a field that is a path: `field(default=None, metadata=PATH)`.

A further entry, "words", lists values that are not paths.
"""


def within(lowest: float, highest: float = math.inf) -> dict[str, tuple[float, float]]:
    """Return the metadata of a field whose numbers are `lowest` to `highest`."""
    return {"within": (lowest, highest)}


FREE = {"free": True}
"""The metadata of a field, or of a section, that may differ between a run and its resumption."""


POSITIVE = within(math.nextafter(0, 1))
"""The metadata of a field whose numbers are more than 0."""
_MISSING = "???"  # OmegaConf's mark of a missing value


def load_config(schema: type[Schema], path: Path, overrides: Sequence[str] = ()) -> Schema:
    """Read an experiment.

    Args:
        schema: A dataclass, its fields typed, nested dataclasses as sections.
        path: A YAML file.
        overrides: `section.key=value` strings, as typed on a command line; the last one wins. A
            text is taken literally ("null" is None, if None is allowed), a number is decimal, and
            other values are YAML.

    Returns:
        An instance of `schema`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A key is unknown, a value has the wrong type or is out of its bounds, the YAML
            cannot be parsed, or a path names an environment variable that is not set.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no configuration file {path}.")
    try:
        from_file = OmegaConf.load(path)
    except Exception as error:  # PyYAML's errors share no public base with OmegaConf's
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(from_file, DictConfig):
        raise ValueError(f"{path} must hold sections and keys, not a list or a single value.")
    with _mistakes_named(schema, f"{path}: "):
        merged = OmegaConf.merge(OmegaConf.structured(schema), from_file)
    for override in overrides:
        changes = _read_override(schema, override)
        with _mistakes_named(schema, f"{override}: "):
            merged = OmegaConf.merge(merged, changes)
    with _mistakes_named(schema, f"{path}: "):
        config: Any = OmegaConf.to_object(merged)
    _refuse_nan(config)
    _refuse_out_of_bounds(config)
    _expand_paths(config)
    return config


@contextmanager
def _mistakes_named(schema: "type[DataclassInstance]", place: str) -> Iterator[None]:
    """Turn OmegaConf's errors into ValueErrors that name the key; `place` begins them."""
    try:
        yield
    except ConfigKeyError as error:
        known = _keys(schema)
        wrong = error.full_key or str(error)
        raise ValueError(
            f"{place}Unknown configuration key {wrong!r}.{nearest_keys(wrong, known)}"
        ) from error
    except ValidationError as error:
        reason = (error.msg or str(error)).splitlines()[0]
        # For an override that OmegaConf cannot represent, the override itself names the key.
        key = f"Configuration key {error.full_key!r}: " if error.full_key else ""
        raise ValueError(f"{place}{key}{reason}") from error
    except (OmegaConfBaseException, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{place}The configuration cannot be read: {reason}") from error


def _refuse_nan(config: "DataclassInstance") -> None:
    """Refuse NaN and infinity, which make comparisons with bounds meaningless, in all settings."""
    for key, value in _flatten(dataclasses.asdict(config)).items():
        numbers = value if isinstance(value, list | tuple) else [value]
        if any(isinstance(number, float) and not math.isfinite(number) for number in numbers):
            raise ValueError(f"Configuration key {key!r} is {value}; give finite numbers.")


def _refuse_out_of_bounds(config: "DataclassInstance", prefix: str = "") -> None:
    """Refuse numbers that the metadata of their fields exclude, see `within`."""
    for field in dataclasses.fields(config):
        key, value = prefix + field.name, getattr(config, field.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            _refuse_out_of_bounds(value, f"{key}.")
        elif "within" in field.metadata and value is not None:
            lowest, highest = bounds = field.metadata["within"]
            values = value.values() if isinstance(value, dict) else value
            numbers = [value] if isinstance(value, int | float) else values
            if not all(lowest <= number <= highest for number in numbers):
                upwards = "more than 0" if bounds == POSITIVE["within"] else f"{lowest} or more"
                accepted = upwards if math.isinf(highest) else f"{lowest} to {highest}"
                raise ValueError(f"Configuration key {key!r} is {value}; give {accepted}.")


def _read_override(schema: type, override: str) -> DictConfig:
    """Read `section.key=value` by the type of the key."""
    key, equals, text = override.partition("=")
    if not equals or not re.fullmatch(r"[\w-]+(\.[\w-]+)*", key):
        raise ValueError(f"{override!r} is not an override; write section.key=value.")
    kind, may_be_none = _field_type(schema, key)
    if dataclasses.is_dataclass(kind) and not text.startswith("{"):
        first = dataclasses.fields(kind)[0].name
        raise ValueError(f"{override!r}: {key} is a section; set its keys, e.g. {key}.{first}=...")
    if text == _MISSING:
        raise ValueError(f"{override!r}: {_MISSING} cannot be a value; it marks a missing one.")
    value: Any
    if may_be_none and text in ("", "null", "Null", "NULL"):
        value = None
    elif kind is str:
        value = _without_interpolation(text)
    elif kind in (int, float):
        value = _read_number(key, text, kind)
    elif typing.get_origin(kind) in (list, tuple):
        item = typing.get_args(kind)[0]
        texts = _read_items(key, text, item)
        read = _without_interpolation if item is str else partial(_read_number, key, kind=item)
        value = [read(one) for one in texts]
    else:
        try:
            return OmegaConf.from_dotlist([override])
        except yaml.YAMLError as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"{override!r} is not valid YAML: {reason}") from error
        except OmegaConfBaseException as error:
            raise ValueError(f"{override!r} cannot be read: {error}") from error
    for name in reversed(key.split(".")):
        value = {name: value}
    return OmegaConf.create(value)


def _field_type(schema: type, key: str) -> tuple[Any, bool]:
    """Return the type of a dotted key and whether None is allowed; (None, False) if unknown.

    Keys within free-form sections have no type of their own.
    """
    kind: Any = schema
    for name in key.split("."):
        if not dataclasses.is_dataclass(kind):
            return None, False
        kind = typing.get_type_hints(kind).get(name)
    kinds = [each for each in typing.get_args(kind) if each is not NoneType]
    may_be_none = NoneType in typing.get_args(kind)
    return (kinds[0] if may_be_none and len(kinds) == 1 else kind), may_be_none


def _read_number(key: str, text: str, kind: type[int] | type[float]) -> int | float:
    """Read a decimal number; YAML would read 010 as 8 and 1:30 as 90."""
    try:
        return kind(text)
    except ValueError as error:
        what = "a whole number" if kind is int else "a number"
        raise ValueError(f"Configuration key {key!r} needs {what}, not {text!r}.") from error


def _read_items(key: str, text: str, kind: type) -> list[str]:
    """Read a list, [a, "b, with a comma"], as texts; `kind` is the type of its items."""
    try:
        items = yaml.load(text, yaml.BaseLoader)
    except yaml.YAMLError:
        items = None
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        what, example = ("texts", '"first", "second"') if kind is str else ("numbers", "1, 2")
        raise ValueError(
            f"Configuration key {key!r} needs a list of {what}, not {text!r}: write"
            f" '{key}=[{example}]', quotes included."
        )
    return items


def _without_interpolation(text: str) -> str:
    """Escape a text for OmegaConf, in which ${...} would refer to another key."""
    return re.sub(r"(\\*)\$\{", lambda found: 2 * found[1] + r"\${", text)


def _expand_paths(config: "DataclassInstance", prefix: str = "") -> None:
    """Expand ~ and environment variables in paths, and make existing paths absolute."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            _expand_paths(value, f"{prefix}{field.name}.")
        elif "path" in field.metadata and value not in (None, *field.metadata.get("words", ())):
            try:
                path = expand_path(value)
            except ValueError as error:
                raise ValueError(f"{prefix}{field.name}: {error}") from error
            # A run may be resumed and evaluated from other folders. A path that does not exist may
            # be a Hub id; the run's own folder stays relative, since it may be moved.
            if field.name != "output_dir" and Path(path).exists():
                path = str(Path(path).absolute())
            setattr(config, field.name, path)


def save_config(config: "DataclassInstance", path: Path) -> None:
    """Write a configuration as YAML, complete with defaults."""
    path.write_text(_as_yaml(config), encoding="utf-8")


def config_differences(saved: Path, config: "DataclassInstance") -> list[str]:
    """Return the keys whose values differ between a saved configuration and `config`, sorted."""
    texts = (_as_yaml(each) for each in (load_config(type(config), saved), config))
    old, new = (_flatten(OmegaConf.to_container(OmegaConf.create(text))) for text in texts)
    return sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))


def may_change(schema: "type[DataclassInstance] | DataclassInstance", key: str) -> bool:
    """Return whether a dotted key may differ between a run and its resumption, see `FREE`."""
    name, _, rest = key.partition(".")
    known = {field.name: field for field in dataclasses.fields(schema)}
    if name not in known:
        return False
    field = known[name]
    return "free" in field.metadata or (
        dataclasses.is_dataclass(field.type) and may_change(field.type, rest)
    )


def flat_config(config: "DataclassInstance") -> dict[str, str]:
    """Return a configuration as {"section.key": "value"}, as trackers accept it."""
    return {key: str(value) for key, value in _flatten(dataclasses.asdict(config)).items()}


def _as_yaml(config: "DataclassInstance") -> str:
    """Return a configuration as YAML from which `load_config` reads the same configuration."""
    return OmegaConf.to_yaml(OmegaConf.create(_escape_texts(dataclasses.asdict(config))))


def _escape_texts(values: Any) -> Any:  # noqa: ANN401 - YAML is untyped
    """Return nested values with all texts escaped, see `_without_interpolation`."""
    if isinstance(values, dict):
        return {key: _escape_texts(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [_escape_texts(value) for value in values]
    return _without_interpolation(values) if isinstance(values, str) else values


def _keys(schema: "type[DataclassInstance] | DataclassInstance", prefix: str = "") -> list[str]:
    """Return the dotted names of all keys of a dataclass schema."""
    names = []
    for field in dataclasses.fields(schema):
        names.append(prefix + field.name)
        if dataclasses.is_dataclass(field.type):
            names += _keys(field.type, f"{prefix}{field.name}.")
    return names


def nearest_keys(wrong: str, known: Iterable[str], section: str | None = None) -> str:
    """Return a sentence that names the nearest known keys, or nothing.

    Args:
        wrong: The unknown key.
        known: The known keys.
        section: The section of these keys; None for all sections.
    """
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
