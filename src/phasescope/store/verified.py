"""Arrays whose every byte is what the manifest says, read when their values are asked for.

A file is fetched whole when it is first touched, and nothing of it is handed over before its SHA-256 is that of the
manifest: a missing, cut, swapped or foreign file is an error that names the cell, wherever it is noticed.
"""

import hashlib
import threading
from collections import OrderedDict
from concurrent.futures import Future
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray, BackendEntrypoint
from xarray.core import indexing

from phasescope.errors import UserError
from phasescope.store import chunks
from phasescope.store.files import JSON_BYTES, StoreError, read_file, remedy
from phasescope.store.layout import METADATA, ArrayMetadata, check_frames, checked
from phasescope.store.manifest import Manifest
from phasescope.store.names import damaged

#: Bytes of the files last read that are kept in memory, for whoever asks for another part of them; at least one file.
KEPT_BYTES = 32 << 20


def open_verified(manifest: Manifest) -> xr.Dataset:
    """The arrays of a directory; values are read, and checked, when they are asked for.

    Raises:
        StoreError: the metadata or a coordinate is damaged, or not of the kind that phasescope writes.
    """
    return xr.open_dataset(manifest, engine=_Engine)  # type: ignore[arg-type]


def fetch(manifest: Manifest, file: str) -> bytes:
    """A file that the manifest lists, if it is what the manifest says.

    Raises:
        StoreError: it is missing, or not as it was written.
    """
    entry = manifest.files[file]
    try:
        data = read_file(manifest.path, file, entry["bytes"])
    except FileNotFoundError:
        raise damaged(manifest, file, "is missing") from None
    if len(data) != entry["bytes"] or hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise damaged(manifest, file, "is not as it was written")
    return data


class _Files:
    """The files of a directory's arrays, each fetched once while it is kept in memory."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self._lock = threading.Lock()
        self._objects: OrderedDict[str, Future[bytes]] = OrderedDict()

    def __reduce__(self) -> tuple[type, tuple[Manifest]]:
        return _Files, (self.manifest,)

    def get(self, file: str, array: ArrayMetadata) -> bytes:
        """A file of an array, checked; asked for several times at once it is fetched once."""
        with self._lock:
            future = self._objects.get(file)
            fetched_here = future is None
            if future is None:
                future = self._objects[file] = Future()
            self._objects.move_to_end(file)
        if fetched_here:
            try:
                data = fetch(self.manifest, file)
                check_frames(self.manifest, file, array, data)
                future.set_result(data)
            except BaseException as error:
                future.set_exception(error)
            with self._lock:
                self._forget(file)
        return future.result()

    def _forget(self, file: str) -> None:
        """Drop a file that could not be read, and the ones not asked for longest until the others are few enough."""
        if self._objects[file].exception() is not None:
            del self._objects[file]
        lengths = {name: len(future.result()) for name, future in self._objects.items() if future.done()}
        total = sum(lengths.values())
        for name in list(lengths)[:-1]:
            if total > KEPT_BYTES:
                del self._objects[name]
                total -= lengths[name]


class _Values(BackendArray):
    """A stored array as xarray reads it lazily."""

    def __init__(self, array: ArrayMetadata, name: str, files: _Files) -> None:
        self._array, self._name, self._files = array, name, files
        self.shape, self.dtype = array.shape, chunks.dtype(array)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        if isinstance(key, indexing.VectorizedIndexer):
            # Points are read as the smallest block that holds them, of which xarray then picks them.
            return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)
        return self._read(key.tuple)

    def _read(self, key: tuple[int | slice | np.ndarray, ...]) -> np.ndarray:
        def fetched(place: tuple[int, ...]) -> bytes:
            return self._files.get(self._array.file(self._name, place), self._array)

        try:
            return chunks.read(self._array, key, fetched)
        except UserError:
            raise
        except (RuntimeError, ValueError, OSError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            path = self._files.manifest.path
            raise StoreError(f"{path}: {self._name} cannot be decoded ({reason:.100}): {remedy(path)}") from None


class _Engine(BackendEntrypoint):
    """How xarray opens a directory by its manifest, without a look at the attributes' meaning."""

    open_dataset_parameters = ("filename_or_obj", "drop_variables")

    def open_dataset(self, filename_or_obj: Any, *, drop_variables: Any = None) -> xr.Dataset:
        manifest: Manifest = filename_or_obj
        if METADATA not in manifest.files:
            raise damaged(manifest, METADATA, "is missing")
        if manifest.files[METADATA]["bytes"] > JSON_BYTES:
            raise damaged(manifest, METADATA, f"is longer than {JSON_BYTES} bytes")
        group = checked(manifest, fetch(manifest, METADATA))
        files = _Files(manifest)
        variables = {}
        for name, array in group.arrays.items():
            values = indexing.LazilyIndexedArray(_Values(array, name, files))
            variables[name] = xr.Variable(array.dimension_names, values, array.attributes)
        labels = str(group.attributes.get("coordinates", "")).split()
        attributes = {key: value for key, value in group.attributes.items() if key != "coordinates"}
        return xr.Dataset(variables, attrs=attributes).set_coords([name for name in labels if name in variables])
