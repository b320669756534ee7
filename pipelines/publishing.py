"""Saving and sharing, the same for every pipeline of diffct: safetensors and a model card."""

import json
import logging
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Self

import torch
from diffusers import DiffusionPipeline
from huggingface_hub import ModelCard, ModelCardData, create_repo

logger = logging.getLogger(__name__)

CARD = """\
# {title}

{summary}

## How to load

```bash
pip install diffct
```

```python
{usage}
```

The library is diffct, generative medical imaging on diffusers. PyPI's project of that name is
another one, a CT projector: where pip brings that, install from the source, `pip install FOLDER`.
After `import diffct`, `DiffusionPipeline.from_pretrained` loads the model, too.

## What it was trained on

{data}

## How it was trained

{training}

## Intended use and limits

{limits}

## Licence

{license}

*Written by diffct from the facts of the training run.*
"""

INSTALL = "pip install diffct; import diffct"

UNKNOWN = "Not recorded: this pipeline was not saved by a diffct training run."
UNSTATED = "Not stated by the publisher. Ask before use."
EVALUATION = "evaluation"

LIMITS = """\
For research on generative models, augmentation and teaching. The images are synthetic: they show no
real patient, must not be used for diagnosis, and must be marked as synthetic wherever they go.
The model can reproduce biases of its training data, and a model trained on few scans can come
close to copying them: check before you share images from private data."""


class PublishedPipeline(DiffusionPipeline):
    """A pipeline that saves safetensors with a model card.

    The config entry `training` holds facts for the card: "data" (one sentence), "images" (what they
    show), "synthetic", "cohort", "losses", "license", "evaluation" (the results of a model-index)
    and any further figures. It travels in `model_index.json` and must hold no identifiers.
    """

    card_task: ClassVar[str | None] = None
    """The Hub's name of what the pipeline does, e.g. "text-to-image"."""

    @classmethod
    def recorded_name(cls) -> str:
        """Return what `model_index.json` calls the class.

        Loading it without diffct fails with "module diffusers has no attribute ...". This name is
        the only text of the model in that message, so it says what to install.
        """
        return f"{cls.__name__} ({INSTALL})"

    def card_summary(self) -> str:
        """Return a paragraph for the model card: what the pipeline makes."""
        raise NotImplementedError

    def card_usage(self, name: str) -> str:
        """Return lines of Python for the model card that load the pipeline and use it."""
        raise NotImplementedError

    def model_card(self, name: str) -> ModelCard:
        """Write the model card.

        Args:
            name: The Hub id or folder that `from_pretrained` will be given.
        """
        facts = dict(self.config.get("training") or {})
        license_id = facts.pop("license", None) or "other"
        results = facts.pop(EVALUATION, None)
        title = name.rpartition("/")[2] or name
        phantoms = ["synthetic-data"] if facts.get("synthetic") else []
        # Passed as a dictionary, since its name is not a Python identifier.
        index: dict[str, Any] = {
            "model-index": [{"name": title, "results": results}] if results else None
        }
        header = ModelCardData(
            # Not "diffusers": the Hub would show how to load it without diffct, which fails.
            library_name="diffct",
            license=license_id,
            tags=["diffusers", "medical-imaging", *phantoms],
            pipeline_tag=self.card_task,
            **index,
        )
        body = CARD.format(
            title=title,
            summary=self._missing_parts() or self.card_summary(),
            usage=self.card_usage(name),
            data=_data_section(facts),
            training=_training_section(facts),
            limits=LIMITS,
            license=license_id if license_id != "other" else UNSTATED,
        )
        return ModelCard(f"---\n{header.to_yaml()}\n---\n\n{body}")

    def _missing_parts(self) -> str:
        """Return what the pipeline lacks, as a paragraph for the model card; "" if nothing."""
        parts = self.components.items()
        missing = [
            name for name, part in parts if part is None and name not in self._optional_components
        ]
        if not missing:
            return ""
        return (
            f"A {type(self).__name__} without some of its parts: load it with"
            f" {_as_arguments(missing)}."
        )

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | PathLike[str],
        **options: Any,  # noqa: ANN401 - diffusers' signature
    ) -> Self:
        """Load a pipeline.

        Args:
            pretrained_model_name_or_path: A folder or Hub id.
            options: Those of `DiffusionPipeline.from_pretrained`; without a `dtype`, all parts are
                float32, whatever type the files have.

        Raises:
            FileNotFoundError: The folder lacks components. (diffusers would not name them, and
                would make a tokenizer without a vocabulary.)
        """
        folder = Path(pretrained_model_name_or_path)
        needed = set(cls._get_signature_keys(cls)[0]) - {*cls._optional_components, *options}
        missing = sorted(name for name in needed if not any((folder / name).glob("*.json")))
        if folder.is_dir() and missing:
            raise FileNotFoundError(
                f"{folder} is not a complete {cls.__name__}: it lacks {', '.join(missing)}. Copy or"
                f" download the whole folder again, or give {_as_arguments(missing)}."
            )
        if options.get("dtype") is None and options.get("torch_dtype") is None:
            # Otherwise transformers keeps the stored type, and the parts may not fit each other.
            options |= {"dtype": torch.float32}
        return super().from_pretrained(pretrained_model_name_or_path, **options)

    @classmethod
    def extract_init_dict(
        cls,
        config_dict: dict[str, Any],
        **options: Any,  # noqa: ANN401 - diffusers' signature
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Return the entries of a saved config that the constructor takes; called by the loader.

        Args:
            config_dict: The content of `model_index.json`.
            options: Those of `from_pretrained`.
        """
        kept = {key: config_dict[key] for key in config_dict if not _is_further(key, config_dict)}
        return super().extract_init_dict(kept, **options)

    def save_pretrained(  # type: ignore[override]  # no flashpack: safetensors only
        self,
        save_directory: str | PathLike[str],
        safe_serialization: bool = True,
        variant: str | None = None,
        max_shard_size: int | str | None = None,
        push_to_hub: bool = False,
        **hub_options: Any,  # noqa: ANN401 - diffusers' signature
    ) -> None:
        """Save the pipeline and its model card into a folder.

        Args:
            save_directory: Created if missing.
            safe_serialization: Has no effect: diffct writes no pickles, which run code when read.
            variant: E.g. "fp16", a part of the weights' file names.
            max_shard_size: Largest size of one weights file.
            push_to_hub: Upload as well.
            hub_options: `repo_id`, the name on the card and on the Hub (default: the folder's),
                and the other options of `push_to_hub`.
        """
        if not safe_serialization:
            logger.warning("safe_serialization=False is ignored: diffct writes safetensors only.")
        super().save_pretrained(save_directory, variant=variant, max_shard_size=max_shard_size)
        folder = Path(save_directory)
        self._complete_index(folder / "model_index.json")
        name = hub_options.pop("repo_id", folder.name)
        self.model_card(name).save(folder / "README.md")
        if push_to_hub:
            self.push_to_hub(name, variant=variant, **hub_options)

    def push_to_hub(
        self,
        repo_id: str,
        commit_message: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        create_pr: bool = False,
        safe_serialization: bool = True,
        variant: str | None = None,
        subfolder: str | None = None,
    ) -> str:
        """Upload the pipeline and its model card; an existing card is replaced.

        Args:
            repo_id: "user/name"; created if missing.
            commit_message: Default "Upload {class name}".
            private: Create the repository as private.
            token: Access token; None for the stored login.
            create_pr: Open a pull request instead of committing.
            safe_serialization: Has no effect, see `save_pretrained`.
            variant: E.g. "fp16".
            subfolder: Folder of the repository, for `load_pipeline(subfolder=)`, without a card;
                None for its root.

        Returns:
            The URL of the commit.
        """
        repo_id = create_repo(repo_id, private=private, token=token, exist_ok=True).repo_id
        with TemporaryDirectory() as folder:
            self.save_pretrained(
                folder, safe_serialization=safe_serialization, variant=variant, repo_id=repo_id
            )
            if subfolder:
                # The Hub shows the root's card, which is not of this pipeline alone.
                (Path(folder) / "README.md").unlink()
            return self._upload_folder(
                folder,
                repo_id,
                token=token,
                commit_message=commit_message,
                create_pr=create_pr,
                subfolder=subfolder,
            )

    @classmethod
    def _complete_index(cls, path: Path) -> None:
        """Complete the index for downloads from the Hub, and for people without diffct.

        Several ControlNets are one component, saved as controlnet, controlnet_1, ...; diffusers
        names the first folder only, and its download omits the configs of the others. Networks of
        diffct are recorded as diffusers', where `diffct.registration` makes them known: otherwise
        a download without diffct would fail with "unet/diffct.py does not exist" before it reaches
        the pipeline's name, which says what to install.
        """
        index = json.loads(path.read_text())
        names = [config.parent.name for config in path.parent.glob("*/config.json")]
        index |= {name: [None, None] for name in names if _is_further(name, index)}
        for name, recorded in index.items():
            if isinstance(recorded, list) and recorded[0] == "diffct":
                index[name] = ["diffusers", recorded[1]]
        index["_class_name"] = cls.recorded_name()
        path.write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")


def _is_further(name: str, index: dict[str, Any]) -> bool:
    """Return whether a folder is a further part of a component, as controlnet_1 of controlnet."""
    component, _, number = name.rpartition("_")
    return number.isdecimal() and isinstance(index.get(component), list | tuple)


def _as_arguments(names: Sequence[str]) -> str:
    """Return components as arguments of `from_pretrained`, for messages."""
    return ", ".join(f"{name}=..." for name in names)


def _data_section(facts: dict[str, Any]) -> str:
    """Return what the card says about the training data."""
    if "data" not in facts:
        return UNKNOWN
    lines = [facts["data"][0].upper() + facts["data"][1:] + "."]
    if facts.get("synthetic"):
        lines.append(
            "**These images are synthetic (phantoms).** What a model that training started from"
            " had learnt is not recorded here."
        )
    return "\n\n".join([*lines, _table(facts.get("cohort", {}))])


def _training_section(facts: dict[str, Any]) -> str:
    """Return what the card says about the training run."""
    losses = {f"last {name}": value for name, value in facts.get("losses", {}).items()}
    elsewhere = ("data", "images", "synthetic", "cohort", "losses")
    rows = {name: facts[name] for name in facts if name not in elsewhere} | losses
    return _table(rows) if rows else UNKNOWN


def _table(rows: dict[str, Any]) -> str:
    """Return a Markdown table of names and values, without those that are None."""
    shown = {n: f"{v:.4g}" if isinstance(v, float) else v for n, v in rows.items() if v is not None}
    lines = [f"| {name.replace('_', ' ')} | {value} |" for name, value in shown.items()]
    return "\n".join(["| | |", "|---|---|", *lines])
