"""Saving and sharing, the same for every pipeline of diffct: safetensors and a model card."""

import json
import logging
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Self

from diffusers import DiffusionPipeline
from huggingface_hub import ModelCard, ModelCardData, create_repo

logger = logging.getLogger(__name__)

CARD = """\
# {title}

{summary}

## How to load

```python
{usage}
```

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
        header = ModelCardData(
            library_name="diffusers",
            license=license_id,
            tags=["diffct", "medical-imaging", *phantoms],
            pipeline_tag=self.card_task,
            **{"model-index": [{"name": title, "results": results}] if results else None},
        )
        body = CARD.format(
            title=title,
            summary=self.card_summary(),
            usage=self.card_usage(name),
            data=_data_section(facts),
            training=_training_section(facts),
            limits=LIMITS,
            license=license_id if license_id != "other" else UNSTATED,
        )
        return ModelCard(f"---\n{header.to_yaml()}\n---\n\n{body}")

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        **options: Any,  # noqa: ANN401 - diffusers' signature
    ) -> Self:
        """Load a pipeline.

        Args:
            pretrained_model_name_or_path: A folder or Hub id.
            options: Those of `DiffusionPipeline.from_pretrained`.

        Raises:
            FileNotFoundError: The folder lacks components; diffusers would not name them, and would
                make a tokenizer without words.
        """
        folder = Path(pretrained_model_name_or_path)
        needed = set(cls._get_signature_keys(cls)[0]) - {*cls._optional_components, *options}
        missing = sorted(name for name in needed if not any((folder / name).glob("*.json")))
        if folder.is_dir() and missing:
            raise FileNotFoundError(
                f"{folder} is no complete {cls.__name__}: it lacks {', '.join(missing)}. Copy or"
                " download the whole folder again."
            )
        return super().from_pretrained(pretrained_model_name_or_path, **options)

    @classmethod
    def extract_init_dict(
        cls,
        config_dict: dict[str, Any],
        **options: Any,  # noqa: ANN401 - diffusers' signature
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Return what of a saved config the constructor takes; the loader calls it.

        Args:
            config_dict: The content of `model_index.json`.
            options: Those of `from_pretrained`.
        """
        kept = {key: config_dict[key] for key in config_dict if not _is_further(key, config_dict)}
        return super().extract_init_dict(kept, **options)

    def save_pretrained(
        self,
        save_directory: str | Path,
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
        _index_further_folders(folder)
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

        Returns:
            The URL of the commit.
        """
        repo_id = create_repo(repo_id, private=private, token=token, exist_ok=True).repo_id
        with TemporaryDirectory() as folder:
            self.save_pretrained(
                folder, safe_serialization=safe_serialization, variant=variant, repo_id=repo_id
            )
            return self._upload_folder(
                folder, repo_id, token=token, commit_message=commit_message, create_pr=create_pr
            )


def _index_further_folders(folder: Path) -> None:
    """Name the further folders of components in the index, for the download from the Hub.

    Several ControlNets are one component, saved as controlnet, controlnet_1, ...; the index that
    diffusers writes names the first folder only, and its download leaves configs of the others out.
    """
    path = folder / "model_index.json"
    index = json.loads(path.read_text())
    names = [config.parent.name for config in folder.glob("*/config.json")]
    further = {name: [None, None] for name in names if _is_further(name, index)}
    if further:
        path.write_text(json.dumps(index | further, indent=2, sort_keys=True) + "\n")


def _is_further(name: str, index: dict[str, Any]) -> bool:
    """Say whether a folder is a further one of a component, as controlnet_1 of controlnet."""
    component, _, number = name.rpartition("_")
    return number.isdecimal() and isinstance(index.get(component), list | tuple)


def _data_section(facts: dict[str, Any]) -> str:
    """Return what the card says about the training data."""
    if "data" not in facts:
        return UNKNOWN
    lines = [facts["data"][0].upper() + facts["data"][1:] + "."]
    if facts.get("synthetic"):
        lines.append("**No real patient was involved: the model knows procedural phantoms only.**")
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
