"""The models of a folder: finds them, loads new versions, keeps the old one until the new one answers."""

import contextlib
import ctypes
import gc
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nlp_rnn import files
from nlp_rnn.errors import ConfigError
from nlp_rnn.serving.request_errors import RequestError, invalid

logger = logging.getLogger(__name__)

_UNLOAD_SECONDS = 1.0  # a version that was replaced is unloaded after so long

Load = Callable[[str, int, Path], Any]
Fingerprint = frozenset[tuple[str, int, int]]


@dataclass
class VersionState:
    """What a client is told about a version.

    Attributes:
      state: START, LOADING, AVAILABLE, UNLOADING or END.
      code, message: why it is not served, if it does not load.
    """

    state: str
    code: str = "OK"
    message: str = ""


@dataclass(frozen=True)
class _Versions:
    """The served versions of a model, exchanged as a whole so that requests see one state, and the newest number."""

    newest: int
    models: dict[int, Any]


class ModelStore:
    """The models under a folder, NAME/VERSION/saved_model.pb, as in TensorFlow Serving.

    Of each model the newest version that loads is served, and those that labels name. `update` changes what is served;
    one thread may call it while others call the rest.

    Args:
      folder: of the models.
      load: loads a version: (name, version, folder) -> ServedModel.
      labels: model -> label -> version.
    """

    def __init__(self, folder: Path, load: Load, labels: dict[str, dict[str, int]] | None = None) -> None:
        self._folder, self._load, self._labels = folder, load, labels or {}
        self._served: dict[str, _Versions] = {}
        self._states: dict[str, dict[int, VersionState]] = {}
        self._loaded: dict[tuple[str, int], Fingerprint] = {}  # the files when they were loaded
        self._broken: dict[tuple[str, int], Fingerprint] = {}
        self._retired: list[Any] = []
        self._stopped = threading.Event()
        self._is_complete = False
        self._lost: set[str] = set()
        self._has_changed = False  # since memory was settled

    # --- for requests ---

    def find(self, name: str, version: int | None = None, label: str | None = None) -> Any:
        """The served version that a request names; by default the newest.

        Raises:
          RequestError: if it is not served.
        """
        served = self._served.get(name)
        if label is not None:
            version = self._labels.get(name, {}).get(label)
            if served is None or version not in served.models:
                raise invalid(f"Unrecognized servable version label: {label}")
        number = served.newest if served and version is None else version
        if served and number in served.models:
            return served.models[number]
        self.check_complete()
        request = f"Latest({name})" if version is None else f"Specific({name}, {version})"
        raise RequestError("NOT_FOUND", f"Servable not found for request: {request}")

    def check_complete(self) -> None:
        """Checks that the models on disk were loaded or found broken.

        Raises:
          RequestError: if they are still being loaded for the first time.
        """
        if not self._is_complete:
            raise RequestError("UNAVAILABLE", "models are still being loaded; try again in some seconds")

    def states(self, name: str, version: int | None = None, label: str | None = None) -> dict[int, VersionState]:
        """The states of a model's versions, the newest first.

        Raises:
          RequestError: if there is no such version.
        """
        if label is not None:
            version = self.find(name, label=label).version
        states = self._states.get(name, {})
        if version is not None:
            if version not in states:
                raise RequestError("NOT_FOUND", f"Could not find version {version} of model {name}")
            return {version: states[version]}
        if not states:
            raise RequestError("NOT_FOUND", f"Could not find any versions of model {name}")
        return dict(sorted(states.items(), reverse=True))

    @property
    def is_ready(self) -> bool:
        """Whether all models were loaded or found broken, and at least one is served."""
        return self._is_complete and bool(self._served)

    @property
    def folder(self) -> Path:
        """The folder of the models."""
        return self._folder

    def set_labels(self, labels: dict[str, dict[str, int]]) -> None:
        """Replaces the labels of the named models.

        Raises:
          RequestError: if a version is not served.
        """
        for name, versions in labels.items():
            served = self._served.get(name)
            for label, version in versions.items():
                if served is None or version not in served.models:
                    raise RequestError(
                        "FAILED_PRECONDITION",
                        f"label {label} names version {version} of model {name}, which is not served",
                    )
        self._labels = {**self._labels, **labels}

    def newest(self) -> list[Any]:
        """The newest served version of each model, by name."""
        return [served.models[served.newest] for _, served in sorted(self._served.items())]

    def all_served(self) -> list[Any]:
        """All served versions."""
        return [model for _, served in sorted(self._served.items()) for model in served.models.values()]

    # --- for the thread that updates ---

    def watch(self, poll_seconds: float) -> None:
        """Calls `update` again and again, until `stop`."""
        while not self._stopped.is_set():
            try:
                self.update()
            except OSError as error:
                logger.error("%s: cannot be read (%s); the loaded models stay served", self._folder, error.strerror)
            self._stopped.wait(min(poll_seconds, _UNLOAD_SECONDS) if self._retired else poll_seconds)

    def stop(self) -> None:
        """Ends `watch` soon."""
        self._stopped.set()

    def update(self) -> None:
        """Loads what is new on the disk, and unloads what the update before this one replaced.

        Not what this one replaces: requests that have just found it do not count as its users yet.
        """
        self._unload_unused()
        self._settle()
        paths = find_versions(self._folder)
        for name in sorted(paths):
            self._update_model(name, paths[name])
        for name in self._served:
            if name not in paths and name not in self._lost:
                logger.warning("%s: has no versions in %s any more; the loaded ones stay served", name, self._folder)
        self._lost = set(self._served) - set(paths)
        self._settle()
        self._is_complete = True

    def _settle(self) -> None:
        if self._has_changed:
            self._has_changed = False
            _settle_memory()

    def _unload_unused(self) -> None:
        for model in [model for model in self._retired if not model.users]:
            self._retired.remove(model)
            model.release()
            served = self._served.get(model.name)
            if served is None or model.version not in served.models:  # else it has been loaded again
                self._states[model.name][model.version] = VersionState("END")
            self._has_changed = True
            logger.info("%s: version %d is unloaded", model.name, model.version)

    def _update_model(self, name: str, on_disk: dict[int, Path]) -> None:
        before = self._served.get(name, _Versions(0, {}))
        loaded = dict(before.models)
        newest = next((v for v in sorted(on_disk, reverse=True) if self._is_loaded(name, v, on_disk[v], loaded)), None)
        if newest is None:
            return
        wanted = {newest}
        for version in self._labels.get(name, {}).values():
            if version in on_disk and self._is_loaded(name, version, on_disk[version], loaded):
                wanted.add(version)
        models = {version: loaded[version] for version in wanted}
        replaced = [version for version, model in before.models.items() if models.get(version) is not model]
        if models.keys() == before.models.keys() and not replaced and before.newest == newest:
            return
        self._served[name] = _Versions(newest, models)
        self._retired += [before.models[version] for version in replaced]
        for version in replaced:
            self._states[name][version] = VersionState("UNLOADING")
        for version in wanted:
            self._states[name][version] = VersionState("AVAILABLE")
        logger.info("%s: version %d is served", name, newest)

    def _is_loaded(self, name: str, version: int, folder: Path, loaded: dict[int, Any]) -> bool:
        """Loads a version, unless its files have not changed since it was loaded or found broken.

        Returns:
          whether it can be served; if its files were exchanged for broken ones, as it was before.
        """
        is_loaded, files = version in loaded, _fingerprint(folder)
        if (is_loaded and self._loaded[name, version] == files) or self._broken.get((name, version)) == files:
            return is_loaded
        states = self._states.setdefault(name, {})
        if not is_loaded:
            states[version] = VersionState("LOADING")
        start = time.monotonic()
        try:
            loaded[version] = self._load(name, version, folder)
        except Exception as error:  # whatever is wrong with a version, the others must stay served
            self._broken[name, version] = files
            text = " ".join(str(error).split()) if isinstance(error, ConfigError) else repr(error)[:300]
            if is_loaded:
                logger.error("%s: version %d has changed, but stays served as before: %s", name, version, text)
                return True
            states[version] = VersionState("END", "FAILED_PRECONDITION", "the version does not load; see the log")
            logger.error("%s: version %d is not served: %s", name, version, text)
            return False
        self._loaded[name, version], self._has_changed = files, True
        logger.info("%s: version %d loaded in %.1f s", name, version, time.monotonic() - start)
        return True


def _settle_memory() -> None:
    """Gives the memory of unloaded models back to the system, and keeps the garbage collector away from loaded ones.

    A model and its functions refer to each other, so that only the collector frees them. It would also search the half
    a million objects of TensorFlow while requests wait.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    with contextlib.suppress(OSError, AttributeError):  # glibc only
        ctypes.CDLL(None).malloc_trim(0)


def find_versions(folder: Path) -> dict[str, dict[int, Path]]:
    """The SavedModels under a folder: name -> version -> its folder."""
    paths: dict[str, dict[int, Path]] = {}
    for model in folder.iterdir() if folder.is_dir() else ():
        if model.name.startswith("."):
            continue
        for number, version in files.versions(model).items():
            if (version / "saved_model.pb").is_file():
                paths.setdefault(model.name, {})[number] = version
    return paths


def _fingerprint(folder: Path) -> Fingerprint:
    """Names, sizes and times of the files below a folder."""
    facts = [(path, path.stat()) for path in folder.rglob("*") if path.is_file()]
    return frozenset((str(path), fact.st_size, fact.st_mtime_ns) for path, fact in facts)
