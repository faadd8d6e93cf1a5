"""Names on the Hugging Face hub, through huggingface_hub: its cache, HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE hold.

Only the configuration, the tokenizer's files and one format of weights are fetched. huggingface_hub takes over twenty
seconds to find out that there is no network; a short probe finds out first, and then the cache is all there is.
"""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path

from refbert.checkpoint.reading import WEIGHTS, weight_map
from refbert.checkpoint.sentence_modules import (
    MODEL_SETTINGS,
    MODULE_WEIGHTS,
    MODULES,
    TRANSFORMER_SETTINGS,
    read_modules,
)
from refbert.checkpoint.tensorflow_file import data_files
from refbert.config import CONFIG_FILES
from refbert.errors import CheckpointError, warn
from refbert.files.reading import expanded, is_directory, is_file
from refbert.models import shipped

PROBE_SECONDS = 3.0

# A model can do without these; whoever needs one says so.
_OPTIONAL = (
    "tokenizer.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
)  # fmt: skip
_WEIGHTS = (*WEIGHTS, "bert_model.ckpt.index")

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?")


class _Absent(Exception):
    """A file, or a whole repository, is not there (or, without a network, not in the cache)."""


def resolve(name: str | Path, *, revision: str | None = None) -> Path:
    """`locate`, and in it the checkpoint: a sentence-transformers model's Transformer may be further down."""
    return read_modules(locate(name, revision=revision)).transformer


def locate(name: str | Path, *, revision: str | None = None) -> Path:
    """A model that comes with refbert or a local directory, never touching the network; else a hub name's.

    ``name``: a name in `refbert.models` ("small-english", "small-chinese"; a directory that is called so is
    "./small-english", or any `Path`), a directory, or a hub name such as "google-bert/bert-base-uncased"
    ("bert-base-uncased" is the same), which is downloaded into the hub's cache unless there is a directory of that
    name.
    ``revision``: a branch, tag or commit on the hub; a local directory has none. Raises `CheckpointError` for a path
    that is not a directory, a name that the hub does not have or does not give out, and a hub that cannot be reached
    when the cache does not hold the model.
    """
    if name == "":
        raise CheckpointError("no model named: a directory or a hub name is expected")
    own = None if isinstance(name, Path) else shipped(name)
    if own is not None:
        # Whoever names it means the one in the package, wherever the command is given.
        if os.path.isdir(name):
            instead = f"not the directory of that name here; say ./{name} for the directory"
            warn(f"{name} is the model that comes with refbert, {instead}", stacklevel=3)
        return own
    path = expanded(name, CheckpointError)
    if is_directory(path, CheckpointError):
        return path
    if is_file(path, CheckpointError):
        raise CheckpointError(f"{name}: a file; name the directory that holds the checkpoint and its configuration")
    if isinstance(name, Path) or not _NAME.fullmatch(name):
        raise CheckpointError(f"{name}: no such directory")
    # The hub redirects the names from before there were owners; the cache may know either.
    candidates = (f"google-bert/{name}", name) if name.startswith("bert-") and "/" not in name else (name,)
    return _from_hub(candidates, revision)


def _from_hub(candidates: tuple[str, ...], revision: str | None) -> Path:
    from huggingface_hub import constants

    name = candidates[0]
    offline = bool(constants.HF_HUB_OFFLINE)
    online = not offline and _reachable(constants.ENDPOINT)
    failure: CheckpointError | None = None
    for candidate in candidates:
        try:
            return _Snapshot(candidate, revision, online=online).fetch()
        except _Absent:
            continue
        except CheckpointError as error:
            failure = failure or error
    if failure is not None:
        raise failure
    if online:
        raise CheckpointError(
            f"{name}: neither a local directory nor a model at {constants.ENDPOINT} (or it is private: set HF_TOKEN)"
        )
    why = "HF_HUB_OFFLINE is set" if offline else f"{constants.ENDPOINT} cannot be reached"
    raise CheckpointError(
        f"{name}: not a local directory, not (wholly) in the cache {constants.HF_HUB_CACHE}, and {why}; "
        "load it once with a network, or name a directory"
    )


def _reachable(endpoint: str) -> bool:
    """Whether the hub (or the proxy on the way to it) answers at all, whatever it says, within `PROBE_SECONDS`."""
    from huggingface_hub import get_session

    answered = threading.Event()

    def ask() -> None:
        try:
            get_session().head(endpoint, timeout=PROBE_SECONDS)
        except Exception:  # noqa: BLE001 - whatever went wrong, there was no answer
            return
        answered.set()

    # In a thread, because looking up a host name has no timeout of its own.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return answered.is_set()


class _Snapshot:
    """The download of one repository at one revision."""

    def __init__(self, repository: str, revision: str | None, *, online: bool) -> None:
        self.repository = repository
        self.revision = revision
        self.online = online
        self.pinned = False

    def fetch(self) -> Path:
        """Bring everything needed into the cache; the directory that holds it.

        Raises `_Absent` if the repository is not to be found, `CheckpointError` for anything else that is wrong.
        """
        top = self._first((*CONFIG_FILES, MODULES))
        if top is None:
            raise self._lacks("has no config.json and no bert_config.json, so it is not a BERT")
        # From here on the commit is fixed, so that no file can come from a later one.
        root = top.parent
        self.revision, self.pinned = root.name, True
        below = self._modules(root)
        if self._first(tuple(below + name for name in CONFIG_FILES)) is None:
            raise CheckpointError(f"{self.repository}: {below} has no config.json, so it is not a BERT")
        weights = self._first(tuple(below + name for name in _WEIGHTS))
        if weights is None:
            raise self._lacks(f"has no weights (looked for {', '.join(_WEIGHTS)})")
        for file in self._further(weights):
            if self._file(below + file) is None:
                raise self._lacks(f"{file} is missing, although {weights.name} lists it")
        for file in _OPTIONAL:
            self._file(below + file)
        return root

    def _lacks(self, what: str) -> Exception:
        """Without a network it may be the cache alone that lacks it."""
        return CheckpointError(f"{self.repository}: {what}") if self.online else _Absent()

    def _modules(self, root: Path) -> str:
        """Bring the files of sentence-transformers' modules; what the paths of the Transformer's own begin with."""
        if self._file(MODULES) is None:
            return ""
        modules = read_modules(root)
        places = [module.directory.relative_to(root).as_posix() + "/" for module in modules.listed]
        for place in places[1:]:
            self._file(f"{place}config.json")
            self._first(tuple(f"{place}{name}" for name in MODULE_WEIGHTS))
        below = "" if modules.transformer == root else places[0]
        self._file(MODEL_SETTINGS)
        self._first(tuple(f"{below}{name}" for name in TRANSFORMER_SETTINGS))
        return below

    def _first(self, files: tuple[str, ...]) -> Path | None:
        return next((path for path in map(self._file, files) if path is not None), None)

    def _further(self, weights: Path) -> list[str]:
        """The files that an index refers to."""
        if weights.name.endswith(".index.json"):
            return sorted(set(weight_map(weights).values()))
        if weights.suffix == ".index":
            return [file.name for file in data_files(weights)]
        return []

    def _file(self, file: str) -> Path | None:
        """The cached path of one file, downloaded if need be; None if the repository (or the cache) lacks it."""
        from huggingface_hub import _CACHED_NO_EXIST, hf_hub_download, try_to_load_from_cache
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        try:
            # What a commit holds does not change, and the cache also remembers which files a commit lacks.
            cached = try_to_load_from_cache(self.repository, file, revision=self.revision)
            if isinstance(cached, str) and (self.pinned or not self.online):
                return Path(cached)
            # hf_hub_download has a local_files_only=True, but may then still use the network on its own business.
            if not self.online or (self.pinned and cached is _CACHED_NO_EXIST):
                return None
            return Path(hf_hub_download(self.repository, file, revision=self.revision))
        except Exception as error:
            if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
                return None
            raise self._refusal(error, file) from error

    def _refusal(self, error: Exception, file: str) -> Exception:
        from huggingface_hub import constants
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

        if isinstance(error, GatedRepoError):
            why = f"gated; accept its terms at {constants.ENDPOINT}/{self.repository} and set HF_TOKEN"
        elif isinstance(error, RepositoryNotFoundError):
            return _Absent()
        elif isinstance(error, RevisionNotFoundError):
            why = f'has no revision "{self.revision}"'
        else:
            said = [*str(error).strip().splitlines(), type(error).__name__][0]
            why = f"{file} could not be downloaded ({said})"
        return CheckpointError(f"{self.repository}: {why}")
