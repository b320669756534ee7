"""Configuration files, overrides, and the messages about mistakes."""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from diffct.arguments import expand_path
from diffct.config import (
    PATH,
    config_differences,
    load_config,
    save_config,
)
from diffct.sections import check_arguments
from diffct.train.train_autoencoder import AutoencoderConfig
from diffct.train.train_controlnet import ControlTrainingConfig
from diffct.train.train_ct3d import CT3DConfig
from diffct.train.train_diffusion import TextToImageConfig


@dataclass
class Optim:
    lr: float = 1e-3
    warmup_updates: int = 10
    betas: tuple[float, float] = (0.9, 0.999)


@dataclass
class Data:
    folder: str | None = field(default=None, metadata=PATH)
    pattern: str | None = None
    include: list[str] = field(default_factory=list)
    size: list[int] | None = None


@dataclass
class Experiment:
    seed: int = 0
    name: str = "try"
    data: Data = field(default_factory=Data)
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


def test_numbers_are_decimal_as_people_write_them(tmp_path):
    words = ["seed=010", "data.size=[026, 256, 1_000]", "optim.lr=.5", "optim.betas=[.9, 0_1]"]
    config = load_config(Experiment, write(tmp_path, ""), words)
    assert (config.seed, config.data.size) == (10, [26, 256, 1000])
    assert (config.optim.lr, config.optim.betas) == (0.5, (0.9, 1.0))


TEXTS = [
    "/data/scans #2",
    "007",
    "12:30",
    "1e3",
    "on",
    "null and void",
    "/data/CT: raw",
    r"[a-z]+(\d+)",
    "[1, 2]",
    "{a: b}",
    "@scans",
    "%scans",
    "*.nii.gz",
    "& !x | > ` '",
    '"quoted"',
    "${seed}",
    r"C:\${seed}\\${name}",
    "a=b",
    "  two spaces  ",
    "größe",
    "~",
    "-",
    "2026-11-28",
    "0x10",
    "1_000",
    ".nan",
]


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_taken_as_it_stands(tmp_path, text):
    path = write(tmp_path, "")
    overrides = [f"name={text}", f"data.pattern={text}"]
    config = load_config(Experiment, path, overrides)
    assert (config.name, config.data.pattern) == (text, text)
    # And comes back from the run's own configuration.
    save_config(config, tmp_path / "saved.yaml")
    assert load_config(Experiment, tmp_path / "saved.yaml") == config
    assert config_differences(tmp_path / "saved.yaml", config) == []


def test_values_that_are_not_texts_are_read_by_their_type(tmp_path):
    overrides = [
        "data.pattern=null",
        "data.folder=",
        "data.size=[4, 16, 16]",
        'data.include=[007, on, "a, b", \'*.nii\', null, "${seed}"]',
        "unet.layers=[1, on, 007x]",
        "optim.betas=[0.8, 0.9]",
    ]
    config = load_config(Experiment, write(tmp_path, "data: {pattern: x, folder: y}"), overrides)
    assert config.data == Data(
        size=[4, 16, 16], include=["007", "on", "a, b", "*.nii", "null", "${seed}"]
    )
    assert config.unet == {"layers": [1, True, "007x"]}
    assert config.optim.betas == (0.8, 0.9)
    sizeless = load_config(Experiment, write(tmp_path, "data: {size: [1]}"), ["data.size=null"])
    assert sizeless.data.size is None


def test_files_keep_the_rules_of_yaml(tmp_path):
    text = 'name: "007"\ndata: {pattern: "${name}", include: [a # b\n]}'
    config = load_config(Experiment, write(tmp_path, text), ["name=008"])
    assert config.data == Data(pattern="008", include=["a"])


def test_paths_may_begin_at_home_or_at_a_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SCANS", str(tmp_path / "CT [raw]"))
    monkeypatch.delenv("NOWHERE", raising=False)
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path, "data: {folder: ~/scans}")
    assert load_config(Experiment, path).data.folder == f"{tmp_path}/home/scans"
    for given, meant in {
        "~/a b": f"{tmp_path}/home/a b",
        "$SCANS/2": f"{tmp_path}/CT [raw]/2",
        "${SCANS}/2": f"{tmp_path}/CT [raw]/2",
        "share$": "share$",
    }.items():
        assert load_config(Experiment, path, [f"data.folder={given}"]).data.folder == meant
        # What is no path is left as it is.
        assert load_config(Experiment, path, [f"name={given}"]).name == given
    with pytest.raises(ValueError, match=r"data\.folder: .*NOWHERE is not set"):
        load_config(Experiment, path, ["data.folder=$NOWHERE/scans"])
    (tmp_path / "$NOWHERE").mkdir()
    assert expand_path("$NOWHERE") == "$NOWHERE"
    with pytest.raises(ValueError, match="empty"):
        expand_path("")


def test_every_path_of_a_schema_is_known_as_one():
    for schema in (CT3DConfig, AutoencoderConfig, TextToImageConfig, ControlTrainingConfig):
        assert {"output_dir"} < set(paths_of(schema))
    assert set(paths_of(CT3DConfig)) == {
        "output_dir",
        "data.manifest",
        "data.folder",
        "data.split_file",
        "data.cache_dir",
        "initial_weights",
    }


def paths_of(schema: type, prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of a schema's paths."""
    for each in fields(schema):
        if is_dataclass(each.type):
            yield from paths_of(each.type, f"{prefix}{each.name}.")
        elif "path" in each.metadata:
            yield prefix + each.name


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("optim: {warmup_update: 5}", [], r"'optim.warmup_update'.*'optim.warmup_updates'"),
        ("", ["optim.learning=1"], "'optim.learning'"),
        ("lr: 1e-4", [], r"'lr'.*'optim.lr'"),
        ("optim: {lr: fast}", [], r"'optim.lr'.*fast"),
        ("seed: [1, 2]", [], "'seed'"),
        ("", ["seed"], "section.key=value"),
        ("", ["seed=[a-z]+"], r"'seed'.*'\[a-z\]\+'"),
        ("", ["seed=1:30"], "'seed'.*'1:30'"),
        ("", ["seed=0x10"], "'seed'.*'0x10'"),
        ("", ["optim.lr=1:30"], "'optim.lr'.*'1:30'"),
        ("", ["data.size=[3, 1:5]"], r"'data\.size'.*'1:5'"),
        ("", ["data.size=3,4"], r"'data\.size'.*list of numbers"),
        ("", ["data.folder=???"], r"data\.folder=\?\?\?"),
        ("", ["seed=on"], "'seed'.*on"),
        ("", ["unet.a=${"], r"unet\.a"),
        ("", ["unet.a=${b}"], "'b' not found"),
        ("", ["data.include=[*.nii]"], r"'data\.include'.*list of texts.*quotes"),
        ("", ["data.include=x"], r"'data\.include'.*list of texts"),
        ("", ["=x"], "'=x'"),
        ("", ["data=x"], r"data is a section.*data\.folder="),
        ("", ["name.first=x"], "name"),
        ("data: {size: [1]}", ["data.size.0=2"], r"data\.size\.0=2: "),
        ("", ["data.size[0]=2"], "section.key=value"),
        ("data: x", [], "experiment.yaml"),
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


def test_what_a_run_reads_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("scans", "small", "run"):
        (tmp_path / name).mkdir()
    (tmp_path / "empty.yaml").write_text("{}")
    words = ["data.folder=scans", "output_dir=run"]
    config = load_config(CT3DConfig, Path("empty.yaml"), words)
    assert (config.data.folder, config.output_dir) == (str(tmp_path / "scans"), "run")
    # As a run of an earlier version has it.
    Path("run/config.yaml").write_text("data: {folder: scans}\noutput_dir: run")
    assert config_differences(Path("run/config.yaml"), config) == []
    # A folder of that name is not what the word means; what is nowhere may be on the Hub.
    words = ["text_encoder.name=small", "initial_pipeline=user/films"]
    config = load_config(TextToImageConfig, Path("empty.yaml"), words)
    assert (config.text_encoder.name, config.initial_pipeline) == ("small", "user/films")


def test_a_saved_configuration_differs_only_where_it_was_changed(tmp_path):
    save_config(Experiment(unet={"a": 1}), tmp_path / "saved.yaml")
    assert config_differences(tmp_path / "saved.yaml", Experiment(unet={"a": 1})) == []
    changed = Experiment(optim=Optim(lr=5.0), unet={"a": 2})
    assert config_differences(tmp_path / "saved.yaml", changed) == ["optim.lr", "unet.a"]
