"""Sources of a model: a folder, the Hugging Face Hub, or the cache of earlier downloads."""

from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path

from huggingface_hub import model_info, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

_TIMEOUT_SECONDS = 10.0


def find_folder(name: str | Path, index: str, *, short_id: bool = False) -> Path | None:
    """Return the folder that a name refers to.

    Args:
        name: A folder, or a Hub id "user/name".
        index: The file that every such model has, e.g. "model_index.json".
        short_id: Whether a Hub id may lack its user, as those of the Hub's first models do.

    Returns:
        The folder, or None if the name may be a Hub id. A name that is written as a path, or whose
        parent is an existing folder, is never a Hub id.

    Raises:
        FileNotFoundError: There is no such folder; the message suggests a similar one.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_file():
        raise FileNotFoundError(f"{name} is a file, not the folder of a model.")
    parts = folder.parts
    written_so = str(name).startswith((".", "~")) or "\\" in str(name)
    lies_in_one = len(parts) == 2 and folder.parent.is_dir()
    if written_so or lies_in_one or not (len(parts) == 2 or (short_id and len(parts) == 1)):
        raise FileNotFoundError(
            f"{name}: there is no such folder.{_suggestion(folder, index)} A model on the Hub is"
            " named user/name; user must not be an existing folder here."
        )
    return None


def only_cached(name: str, *indices: str, short_id: bool = False) -> bool:
    """Return whether a model is on the Hub, but only its earlier download is available.

    Args:
        name: A folder, or a Hub id; see `find_folder`, also for `short_id`.
        indices: Files of which every such model has at least one.
        short_id: Whether the Hub id may lack its user.

    Raises:
        OSError: There is no such folder, or the Hub refuses or cannot be reached, as the message
            says.
    """
    if find_folder(name, indices[-1], short_id=short_id) is not None:
        return False
    with plain_hub_errors(name):
        return not is_reachable(name, *indices)


def is_reachable(
    repository: str, *indices: str, revision: str | None = None, token: str | None = None
) -> bool:
    """Ask the Hub for a repository once; without network, a download would try for half a minute.

    Args:
        repository: "user/name".
        indices: Files of which every such model has at least one.
        revision: Branch, tag or commit; None for the main branch.
        token: Access token; None for the stored login.

    Returns:
        False if the Hub cannot be reached, but the model has been downloaded before.

    Raises:
        ConnectionError: It cannot be reached, and the model was not downloaded before.
        OSError: The Hub refuses, see `plain_hub_errors`.
    """
    try:
        model_info(repository, revision=revision, token=token, timeout=_TIMEOUT_SECONDS)
    except HfHubHTTPError as error:
        if error.response.status_code < 500:
            raise
        cause = f"the Hugging Face Hub answers {error.response.status_code}"
    except OfflineModeIsEnabled:
        cause = "HF_HUB_OFFLINE is set"
    except HTTPError as error:
        cause = f"no network to the Hugging Face Hub ({error})"
    else:
        return True
    cached = (try_to_load_from_cache(repository, index, revision=revision) for index in indices)
    if any(isinstance(path, str) for path in cached):
        return False
    raise ConnectionError(
        f"{repository}: there is no such folder, and it cannot be downloaded: {cause}."
    )


@contextmanager
def plain_hub_errors(repository: str) -> Iterator[None]:
    """Turn the Hub's answers into errors that say what to do.

    Args:
        repository: "user/name".

    Raises:
        FileNotFoundError: There is no such repository, revision or file.
        PermissionError: Access has to be requested.
        ConnectionError: The download was interrupted.
    """
    no_folder = f"{repository}: there is no such folder, and"
    try:
        yield
    except GatedRepoError as error:
        raise PermissionError(
            f"{repository}: its publisher grants access on request. Ask for it on"
            " the model's page, and log in with `hf auth login`."
        ) from error
    except RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"{no_folder} no such repository on the Hub. If it is private, log in with"
            " `hf auth login`."
        ) from error
    except RevisionNotFoundError as error:
        raise FileNotFoundError(f"{repository}: the repository has no such revision.") from error
    except HFValidationError as error:
        raise FileNotFoundError(f"{no_folder} this is not a Hub id: {error}") from error
    except LocalEntryNotFoundError as error:
        raise ConnectionError(f"{repository}: the download was interrupted: {error}") from error
    except EntryNotFoundError as error:
        raise FileNotFoundError(
            f"{repository}: the repository holds no such model: {error}"
        ) from error


def _suggestion(folder: Path, index: str) -> str:
    """Return a sentence with the folder that was probably meant, one similar in its name."""
    there = next((parent for parent in folder.parents if parent.is_dir()), None)
    if there is None:
        return ""
    wrong, *rest = folder.relative_to(there).parts
    names = sorted(path.name for path in there.iterdir() if path.is_dir())
    for close in get_close_matches(wrong, names):
        for meant in (there.joinpath(close, *rest), there / close):
            if any(any(meant.glob(depth + index)) for depth in ("", "*/", "*/*/")):
                return f" Did you mean {meant}?"
    return ""
