"""Arrays whose every byte is what the manifest says, read when their values are asked for.

A file is fetched whole when it is first touched, and nothing of it is handed over before its SHA-256 is that of the
manifest: a missing, cut, swapped or foreign file is an error that names the cell, wherever it is noticed.
"""

import asyncio
import hashlib
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import Future
from typing import Any

import numpy as np
import xarray as xr
import zarr
from xarray.backends import BackendArray, BackendEntrypoint
from xarray.core import indexing
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import StorePath

from phasescope.errors import UserError
from phasescope.store.files import JSON_BYTES, StoreError, read_file, remedy
from phasescope.store.layout import GROUP, METADATA, ArrayMetadata, check_frames, checked
from phasescope.store.manifest import Manifest
from phasescope.store.names import damaged

#: Bytes of the files last read that are kept in memory, for whoever asks for another part of them; at least one file.
KEPT_BYTES = 128 << 20


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


class VerifiedStore(Store):
    """The Zarr group of a directory, read-only."""

    supports_writes = False
    supports_deletes = False
    supports_listing = True

    def __init__(self, manifest: Manifest, arrays: dict[str, ArrayMetadata]) -> None:
        super().__init__(read_only=True)
        self.manifest = manifest
        self.arrays = arrays
        self._lock = threading.Lock()
        self._objects: OrderedDict[str, Future[bytes]] = OrderedDict()

    def __reduce__(self) -> tuple[type, tuple[Manifest, dict[str, ArrayMetadata]]]:
        return VerifiedStore, (self.manifest, self.arrays)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, VerifiedStore) and self.manifest == other.manifest

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """A file or a part of it; None where the manifest lists no such file."""
        file = f"{GROUP}/{key}"
        if file not in self.manifest.files:
            return None
        data = await asyncio.to_thread(self._whole, file)
        start, end = 0, len(data)
        match byte_range:
            case RangeByteRequest():
                start, end = byte_range.start, byte_range.end
            case OffsetByteRequest():
                start = byte_range.offset
            case SuffixByteRequest():
                start = max(0, end - byte_range.suffix)
        return prototype.buffer.from_array_like(np.frombuffer(data, "B")[start:end])

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Several of them."""
        return list(await asyncio.gather(*(self.get(key, prototype, part) for key, part in key_ranges)))

    async def exists(self, key: str) -> bool:
        """Whether the manifest lists it."""
        return f"{GROUP}/{key}" in self.manifest.files

    async def set(self, key: str, value: Buffer) -> None:
        """Refused: what is committed never changes."""
        self._check_writable()

    async def delete(self, key: str) -> None:
        """Refused: what is committed never changes."""
        self._check_writable()

    async def list(self) -> AsyncIterator[str]:
        """All files of the group."""
        for file in self.manifest.files:
            if file.startswith(f"{GROUP}/"):
                yield file.removeprefix(f"{GROUP}/")

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """The files whose names begin so."""
        async for key in self.list():
            if key.startswith(prefix):
                yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """The names directly inside a folder."""
        folder = f"{prefix.strip('/')}/".lstrip("/")
        seen = set()
        async for key in self.list_prefix(folder):
            seen.add(key.removeprefix(folder).partition("/")[0])
        for name in sorted(seen):
            yield name

    def _whole(self, file: str) -> bytes:
        """A checked file; asked for several times at once it is fetched once."""
        with self._lock:
            future = self._objects.get(file)
            fetched_here = future is None
            if future is None:
                future = self._objects[file] = Future()
            self._objects.move_to_end(file)
        if fetched_here:
            try:
                data = fetch(self.manifest, file)
                array = self.arrays.get(file.split("/")[1])
                if array is not None and "/c" in file:
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

    def __init__(self, array: zarr.Array, name: str, manifest: Manifest) -> None:
        self._array, self._name, self._manifest = array, name, manifest
        self.shape, self.dtype = array.shape, array.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        array = self._array
        method = {
            indexing.BasicIndexer: array.__getitem__,
            indexing.OuterIndexer: array.oindex.__getitem__,
            indexing.VectorizedIndexer: array.vindex.__getitem__,
        }[type(key)]
        try:
            values = indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.VECTORIZED, method)
        except UserError:
            raise
        except (RuntimeError, ValueError, OSError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise StoreError(
                f"{self._manifest.path}: {self._name} cannot be decoded ({reason:.100}): {remedy(self._manifest.path)}"
            ) from None
        return np.asarray(values, dtype=self.dtype)


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
        store = VerifiedStore(manifest, group.arrays)
        variables = {}
        for name, described in group.arrays.items():
            try:
                content = described.model_dump(mode="json", exclude_unset=True)
                array = zarr.Array.from_dict(StorePath(store, name), content)
            except Exception as error:  # whatever zarr and its codecs raise on metadata that is well-formed
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                told = f"describes an array {name!r:.60} that cannot be read ({reason:.100})"
                raise damaged(manifest, METADATA, told) from None
            values = indexing.LazilyIndexedArray(_Values(array, name, manifest))
            variables[name] = xr.Variable(described.dimension_names, values, described.attributes)
        labels = str(group.attributes.get("coordinates", "")).split()
        attributes = {key: value for key, value in group.attributes.items() if key != "coordinates"}
        return xr.Dataset(variables, attrs=attributes).set_coords([name for name in labels if name in variables])
