"""The page of all settings, written from the configuration classes of the training scripts.

    python docs/write_configuration.py

writes docs/configuration.md; a test fails when the page is not what this program would write.
"""

import dataclasses
import inspect
import math
import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from diffct.config import POSITIVE, may_change
from diffct.train import train_autoencoder, train_controlnet, train_ct3d, train_diffusion
from diffct.training.settings import RunConfig

CONFIGS = train_ct3d.CONFIGS
PAGE = Path(__file__).with_name("configuration.md")
SCRIPTS = {
    "ct3d": (train_ct3d.CT3DConfig, "ct3d/diffusion.yaml", "ct.md"),
    "autoencoder": (train_autoencoder.AutoencoderConfig, "cxr/autoencoder.yaml", "chest-films.md"),
    "diffusion": (train_diffusion.TextToImageConfig, "cxr/diffusion.yaml", "chest-films.md"),
    "controlnet": (
        train_controlnet.ControlTrainingConfig,
        "brain/controlnet.yaml",
        "contrast-translation.md",
    ),
}
"""The configuration class of each script, its default experiment, and the page about it."""

INTRODUCTION = """\
<!-- Written by docs/write_configuration.py from the configuration classes. Do not edit. -->

# Configuration

An experiment is a YAML file (`--config`), and any setting in it can be replaced on the command line
as `section.key=value`:

```bash
diffct train ct3d data.folder=/path/to/scans "data.size=[32,128,128]" optim.lr=2e-4
```

Texts are taken as they stand (`"data.folder=/data/scans #2"`), lists and numbers are YAML; `~` and
`$VARIABLES` in paths are expanded. A key that does not exist, or a value of the wrong type or out
of its bounds, is an error that names the key. A run keeps its complete settings in `config.yaml` in
its folder, and `--resume` reads them from there; then only settings marked ↻ may be changed.

"Default" is the value of a setting that the YAML file leaves out. Without `--config`, a script uses
the default experiment, whose file stands at the end of its section. Intervals and lengths are
counted in *updates*, steps of the optimiser; `_mm` is millimetres, `_hu` Hounsfield units, `_px`
pixels.
"""


def main() -> None:
    """Write the page."""
    PAGE.write_text(make_page(), encoding="utf-8")
    print(PAGE)


def make_page() -> str:
    """Return the page's Markdown."""
    parts = [INTRODUCTION, "\n## All scripts\n", _sections(RunConfig, title="The run")]
    for name, (schema, experiment, page) in SCRIPTS.items():
        parts.append(f"\n## {name}\n\n`diffct train {name}`, see [its page]({page}).\n")
        parts.append(_sections(schema, title="The experiment", without=RunConfig))
        parts.append(_experiment(experiment))
    return "\n".join(parts).rstrip() + "\n"


def _sections(schema: type, *, title: str, without: type | None = None) -> str:
    """Return a table for each section of a schema; of those that `without` has, nothing."""
    known = set() if without is None else {field.name for field in dataclasses.fields(without)}
    own = [field for field in dataclasses.fields(schema) if field.name not in known]
    plain = [field for field in own if not dataclasses.is_dataclass(field.type)]
    meanings = read_meanings(schema)
    parts = [_table(f"### {title}", "", plain, meanings, schema, schema)] if plain else []
    for field in own:
        if dataclasses.is_dataclass(field.type):
            parts += _nested(field.type, field.name, meanings.get(field.name), schema)
    return "\n".join(parts)


def _nested(schema: type, name: str, meaning: str | None, root: type) -> Iterator[str]:
    """Yield the table of a section of `root`, and those of the sections in it."""
    meanings = read_meanings(schema)
    meaning = meaning or inspect.cleandoc(schema.__doc__).partition("\n\n")[0]
    fields = dataclasses.fields(schema)
    plain = [field for field in fields if not dataclasses.is_dataclass(field.type)]
    yield _table(f"### `{name}`\n\n{meaning}", f"{name}.", plain, meanings, schema, root)
    for field in fields:
        if dataclasses.is_dataclass(field.type):
            yield from _nested(field.type, f"{name}.{field.name}", meanings.get(field.name), root)


def _table(
    heading: str,
    prefix: str,
    fields: list[dataclasses.Field],
    meanings: dict[str, str],
    schema: type,
    root: type,
) -> str:
    """Return a heading and a table with a row for each setting."""
    kinds = typing.get_type_hints(schema)
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for field in fields:
        kind = _type_name(kinds[field.name], field) + _bounds(field)
        key = f"{prefix}{field.name}"
        mark = " ↻" if may_change(root, key) else ""
        cells = (f"`{key}`{mark}", kind, _default(field), meanings[field.name])
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return f"{heading}\n\n" + "\n".join(rows) + "\n"


def read_meanings(schema: type) -> dict[str, str]:
    """Return what the docstrings of a configuration class say about its fields.

    Raises:
        ValueError: A field is not described.
    """
    meanings: dict[str, str] = {}
    for cls in reversed(schema.__mro__[:-1]):
        _, _, arguments = re.split(
            r"\n(Args|Attributes):\n|$", inspect.getdoc(cls) or "", maxsplit=1
        )
        own, _, _ = arguments.partition("\n\n")
        for name, text in re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", own, re.MULTILINE):
            meanings[name] = re.sub(r"\bNone\b", "null", re.sub(r"\s+", " ", text))
    missing = [
        field.name
        for field in dataclasses.fields(schema)
        if field.name not in meanings and not dataclasses.is_dataclass(field.type)
    ]
    if missing:
        raise ValueError(f"The docstring of {schema.__name__} does not describe {missing}.")
    return meanings


def _type_name(kind: Any, field: dataclasses.Field) -> str:  # noqa: ANN401 - a type or an alias
    """Return a type as a reader says it."""
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        kinds = typing.get_args(kind)
        names = ["null" if one is type(None) else _type_name(one, field) for one in kinds]
        return " or ".join(names)
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin is list:
        return f"list of {_type_name(inner[0], field)}"
    if origin is tuple:
        return " and ".join(_type_name(one, field) for one in inner if one is not Ellipsis)
    if origin is dict or kind is dict:
        return "mapping"
    if kind is str and "path" in field.metadata:
        return "path"
    return {bool: "true or false", int: "whole number", float: "number", str: "text"}[kind]


def _bounds(field: dataclasses.Field) -> str:
    """Return the bounds of a number as ", ≥ 1", or nothing."""
    if "within" not in field.metadata:
        return ""
    lowest, highest = bounds = field.metadata["within"]
    if bounds == POSITIVE["within"]:
        return ", > 0"
    if math.isinf(highest):
        return "" if math.isinf(lowest) else f", ≥ {lowest:g}"
    return f", {lowest:g} to {highest if isinstance(highest, int) else f'{highest:g}'}"


def _default(field: dataclasses.Field) -> str:
    """Return a default as YAML writes it."""
    if field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    elif field.default is dataclasses.MISSING:
        return "none: must be given"
    else:
        value = field.default
    return f"`{_as_yaml(value)}`"


def _as_yaml(value: Any) -> str:  # noqa: ANN401 - any default
    """Return a value as it is written in YAML, on one line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(_as_yaml(one) for one in value)}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_as_yaml(one)}" for key, one in value.items()) + "}"
    return '""' if value == "" else f"{value}"


def _experiment(name: str) -> str:
    """Return the file of a default experiment, folded."""
    text = (CONFIGS / name).read_text(encoding="utf-8")
    summary = f"<summary>The default experiment, <code>train/configs/{name}</code></summary>"
    return f'<details markdown="1">\n{summary}\n\n```yaml\n{text}```\n\n</details>\n'


if __name__ == "__main__":
    main()
