"""Files → a repository of the hub, in one commit; what goes wrong in one sentence, never with the token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from taxadiffusion.errors import CheckpointError, SettingsError
from taxadiffusion.sharing.new_folder import new_folder

RepoType = Literal["model", "dataset"]

Files = Mapping[str, bytes | Path]
"""Path in the repository → its content, or the file that holds it."""

_LOG_IN = "set HF_TOKEN to a token that may write, or run `hf auth login`"


@dataclass(frozen=True, slots=True)
class Destination:
    """A repository: "owner/name" (or "name", the user's own). update: it may be there already."""

    repo: str
    kind: RepoType
    private: bool = False
    update: bool = False


def size_of(content: bytes | Path) -> int:
    """Bytes."""
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def check_destination(to: Destination) -> None:
    """What can be known without the network. Raises `SettingsError` for a name that no repository has, or no token."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(to.repo)
    except HFValidationError as error:
        raise SettingsError(f"{to.repo!r} is no name of a repository; write OWNER/NAME: {error}") from error
    if get_token() is None:
        raise SettingsError(f"no token of the hub is known: {_LOG_IN}")


def upload(files: Files, to: Destination, message: str) -> str:
    """Make the repository and commit the files; the address of the commit.

    Raises `SettingsError` where the hub refuses (no or a bad token, no right, the name is taken), `CheckpointError`
    where it cannot be reached or fails. Nothing is committed unless all is.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    # Of the HTTP library that this version of the hub's client stands on: httpx or httpx2.
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # isort: skip

    check_destination(to)
    api = HfApi()
    operations = [
        CommitOperationAdd(name, content if isinstance(content, bytes) else str(content))
        for name, content in sorted(files.items())
    ]
    try:
        repo = api.create_repo(to.repo, repo_type=to.kind, private=to.private or None, exist_ok=to.update)
        commit = api.create_commit(repo.repo_id, operations, commit_message=message, repo_type=to.kind)
    except OfflineModeIsEnabled as error:
        raise SettingsError("HF_HUB_OFFLINE is set, so nothing is sent: unset it, or look with --dry-run") from error
    except HfHubHTTPError as error:
        raise _refused(error, to) from error
    except (HTTPError, ConnectionError, TimeoutError) as error:
        raise CheckpointError(
            f"the hub at {api.endpoint} cannot be reached ({type(error).__name__}); nothing was committed: "
            "look to the network and run the command again"
        ) from error
    except (RuntimeError, ValueError) as error:  # a file's transfer broke, or the hub refuses the card
        raise CheckpointError(f"{to.repo}: the upload failed, nothing was committed: {error}") from error
    return str(commit.commit_url)


def _refused(error: object, to: Destination) -> SettingsError | CheckpointError:
    """By the hub's answer; what it says is shown, what was sent to it (the token among it) never."""
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    said = getattr(error, "server_message", None) or ""
    told = f" (the hub says: {said})" if said else ""
    if status == 409:
        return SettingsError(f"{to.repo}: is there already; choose another name, or give --update to add to it{told}")
    if status == 401:
        return SettingsError(f"{to.repo}: the hub does not take the token: {_LOG_IN}{told}")
    if status == 403:
        return SettingsError(f"{to.repo}: the token may not write there: use one that may, or your own name{told}")
    return CheckpointError(f"{to.repo}: the hub answers {status}, nothing was committed{told}")


def save_files(files: Files, out: Path) -> None:
    """Write them below the new folder `out`. Raises `SettingsError` where it exists, `DataError` as `new_folder`."""
    with new_folder(out) as folder:
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.read_bytes())
