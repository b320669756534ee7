"""Configuration files, overrides, and what is said about mistakes."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from diffct.config import check_arguments, config_differences, load_config, save_config


@dataclass
class Optim:
    lr: float = 1e-3
    warmup_updates: int = 10
    betas: tuple[float, float] = (0.9, 0.999)


@dataclass
class Experiment:
    seed: int = 0
    optim: Optim = field(default_factory=Optim)
    unet: dict[str, Any] = field(default_factory=dict)


def write(folder: Path, text: str) -> Path:
    path = folder / "experiment.yaml"
    path.write_text(text)
    return path


def test_file_and_overrides_are_typed(tmp_path):
    path = write(tmp_path, "optim: {lr: 1e-4}\nunet: {layers: 2}")
    config = load_config(Experiment, path, ["seed=3", "optim.lr=2e-4", "unet.layers=3"])
    assert config == Experiment(seed=3, optim=Optim(lr=2e-4), unet={"layers": 3})


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("optim: {warmup_update: 5}", [], r"'optim.warmup_update'.*'optim.warmup_updates'"),
        ("", ["optim.learning=1"], "'optim.learning'"),
        ("lr: 1e-4", [], r"'lr'.*'optim.lr'"),
        ("optim: {lr: fast}", [], r"'optim.lr'.*fast"),
        ("seed: [1, 2]", [], "'seed'"),
        ("", ["seed"], "section.key=value"),
        ("a: [", [], "not valid YAML"),
        ("- 1", [], "must hold sections"),
    ],
)
def test_mistakes_are_named_with_the_nearest_key(tmp_path, text, overrides, message):
    with pytest.raises(ValueError, match=message):
        load_config(Experiment, write(tmp_path, text), overrides)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.yaml"):
        load_config(Experiment, tmp_path / "nothing.yaml")


def test_free_form_sections_are_checked_against_what_they_configure():
    def network(channels: int, layers: int) -> None: ...

    check_arguments("unet", {"channels": 1, "_class_name": "x"}, network)
    with pytest.raises(ValueError, match=r"'unet.channel'.*'unet.channels'"):
        check_arguments("unet", {"channel": 1}, network)


def test_a_saved_configuration_differs_only_where_it_was_changed(tmp_path):
    save_config(Experiment(unet={"a": 1}), tmp_path / "saved.yaml")
    assert config_differences(tmp_path / "saved.yaml", Experiment(unet={"a": 1})) == []
    changed = Experiment(optim=Optim(lr=5.0), unet={"a": 2})
    assert config_differences(tmp_path / "saved.yaml", changed) == ["optim.lr", "unet.a"]
