"""A training run's folder: its settings, and the files that they name."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from diffct.config import expand_path

CONFIG = "config.yaml"
SPLIT = "split.json"


def read_settings(run: Path) -> DictConfig | None:
    """Read the settings that a training run has kept; None if the folder is none of a run."""
    path = run / CONFIG
    if not path.is_file():
        return None
    settings = OmegaConf.load(path)
    return settings if isinstance(settings, DictConfig) and "data" in settings else None


def locate(named: str, run: Path, settings: DictConfig) -> Path:
    """Find what a run's settings name, wherever this process works.

    A relative path was meant from the folder in which training was started. That folder is known
    if `output_dir` is relative as well; otherwise this process's folder and those around the run
    are tried.

    Args:
        named: A path in the settings.
        run: The run's folder.
        settings: What `read_settings` returned.

    Raises:
        FileNotFoundError: There is nothing in any of these places.
    """
    path = Path(expand_path(named))
    if path.is_absolute():
        places = [path]
    else:
        places = [start / path for start in (*_origins(run, settings), Path.cwd(), *_around(run))]
    for place in places:
        if place.exists():
            return place
    tried = "" if path.is_absolute() else f" (looked in {', '.join(map(str, _first(places)))}, ...)"
    raise FileNotFoundError(
        f"{run / CONFIG}: names {named}, and there is no such file or folder{tried}. Write its full"
        " path into that file, or work in the folder in which training was started."
    )


def _origins(run: Path, settings: DictConfig) -> list[Path]:
    """Return the folder in which training was started, if the settings tell."""
    output = Path(str(settings.get("output_dir") or "."))
    run = run.resolve()
    parts = output.parts
    if output.is_absolute() or not parts or run.parts[-len(parts) :] != parts:
        return []
    return [Path(*run.parts[: -len(parts)])]


def _around(run: Path) -> list[Path]:
    run = run.resolve()
    return [run, *run.parents]


def _first(places: list[Path]) -> list[Path]:
    return list(dict.fromkeys(places))[:2]
