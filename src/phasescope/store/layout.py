"""How the arrays of a kept directory lie in its files, checked before anything is decoded.

A store may come from anywhere. It is read only if its metadata is of the kind that phasescope writes, if the manifest
lists every chunk that an array declares, and if no file claims to hold more than zstd could have put into it.
"""

import itertools
import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import numpy as np
from numcodecs import zstd
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from phasescope.store.files import StoreError, plain, remedy, require_few_parts
from phasescope.store.manifest import Manifest
from phasescope.store.names import damaged, placed

#: The name of the Zarr group inside every committed directory, beside its manifest.
GROUP = "arrays.zarr"
METADATA = f"{GROUP}/zarr.json"
#: A block of zstd is at most 128 KiB and at least 4 bytes (RFC 8878), so nothing is compressed by more.
RATIO = (128 << 10) // 4
#: The most bytes that one chunk decodes to, unless its file is a quarter as long.
CHUNK_BYTES = 1 << 30
#: The most bytes of all coordinates that are read when a store is opened, and the most texts.
INDEX_BYTES = 64 << 20
INDEX_TEXTS = 1 << 16
#: The most texts in any array, and the most bytes of them.
TEXTS = 1 << 22
TEXT_BYTES = 64 << 20

Length = Annotated[int, Field(ge=0, le=2**48)]
Chunk = Annotated[int, Field(ge=1, le=2**48)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class _Nothing(_Strict):
    pass


class _Endian(_Strict):
    endian: Literal["little"]


class _Bytes(_Strict):
    name: Literal["bytes"]
    configuration: _Endian | _Nothing | None = None


class _Text(_Strict):
    name: Literal["vlen-utf8"]
    configuration: _Nothing | None = None


class _ZstdOptions(_Strict):
    level: Annotated[int, Field(ge=-100, le=22)]
    checksum: Literal[True]


class _Zstd(_Strict):
    name: Literal["zstd"]
    configuration: _ZstdOptions


class _Crc32c(_Strict):
    name: Literal["crc32c"]
    configuration: _Nothing | None = None


class _Shards(_Strict):
    chunk_shape: tuple[Chunk, ...]
    codecs: tuple[_Bytes, _Zstd]
    index_codecs: tuple[_Bytes, _Crc32c]
    index_location: Literal["start"]


class _Sharding(_Strict):
    name: Literal["sharding_indexed"]
    configuration: _Shards


class _Grid(_Strict):
    chunk_shape: tuple[Chunk, ...]


class _Regular(_Strict):
    name: Literal["regular"]
    configuration: _Grid


class _Separator(_Strict):
    #: Dots. Stores of before have a slash, and with it a folder for every index.
    separator: Literal[".", "/"]


class _Keys(_Strict):
    name: Literal["default"]
    configuration: _Separator


class ArrayMetadata(_Strict):
    """What is said of one array."""

    zarr_format: Literal[3]
    node_type: Literal["array"]
    data_type: Literal[
        "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
        "float16", "float32", "float64", "string",
    ]  # fmt: skip
    shape: tuple[Length, ...]
    dimension_names: tuple[str, ...] = ()
    chunk_grid: _Regular
    chunk_key_encoding: _Keys
    codecs: tuple[_Sharding] | tuple[_Bytes, _Zstd] | tuple[_Text, _Zstd]
    fill_value: bool | int | float | str
    attributes: dict[str, Any] = {}
    storage_transformers: tuple[()] = ()

    @property
    def text(self) -> bool:
        """Whether the values are texts, whose length nothing says beforehand."""
        return self.data_type == "string"

    @property
    def file_shape(self) -> tuple[int, ...]:
        """Elements along each dimension in one file."""
        return self.chunk_grid.configuration.chunk_shape

    @property
    def sharded(self) -> bool:
        """Whether a file holds several chunks, behind an index of them."""
        return isinstance(self.codecs[0], _Sharding)

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """Elements along each dimension that are decoded at once."""
        first = self.codecs[0]
        return first.configuration.chunk_shape if isinstance(first, _Sharding) else self.file_shape

    @property
    def chunk_bytes(self) -> int:
        """Bytes that one chunk decodes to; the least of them, for texts."""
        return math.prod(self.chunk_shape) * (4 if self.text else np.dtype(self.data_type).itemsize)

    @property
    def chunks_per_file(self) -> int:
        """How many chunks one file holds."""
        return math.prod(whole // part for whole, part in zip(self.file_shape, self.chunk_shape, strict=True))

    @property
    def grid(self) -> tuple[int, ...]:
        """How many files there are along each dimension."""
        return tuple(-(-length // part) for length, part in zip(self.shape, self.file_shape, strict=True))

    def file(self, name: str, place: tuple[int, ...]) -> str:
        """The file at this place of the grid of an array of this name, as a manifest lists it."""
        return f"{GROUP}/{name}/{self.chunk_key_encoding.configuration.separator.join(['c', *map(str, place)])}"

    def files(self, name: str) -> Iterator[str]:
        """The files of an array of this name."""
        for place in itertools.product(*map(range, self.grid)):
            yield self.file(name, place)

    def fault(self) -> str | None:
        """What about the shapes is not as phasescope writes them, if anything."""
        rank = len(self.shape)
        if not rank == len(self.dimension_names) == len(self.file_shape) == len(self.chunk_shape):
            return "its numbers of dimensions differ"
        if len(set(self.dimension_names)) != rank or not all(map(plain, self.dimension_names)):
            return "its dimensions are not named"
        if isinstance(self.codecs[0], _Text) != self.text:
            return "its codec does not fit its type"
        for length, whole, part in zip(self.shape, self.file_shape, self.chunk_shape, strict=True):
            if whole % part or part > max(length, 1) or whole >= max(length, 1) + part:
                return "its chunks do not fit its shape"
        return None


class _Consolidated(_Strict):
    kind: Literal["inline"]
    must_understand: Literal[False]
    metadata: dict[str, ArrayMetadata]


class GroupMetadata(_Strict):
    """What is said of a group and all its arrays."""

    zarr_format: Literal[3]
    node_type: Literal["group"]
    attributes: dict[str, Any] = {}
    consolidated_metadata: _Consolidated

    @property
    def arrays(self) -> dict[str, ArrayMetadata]:
        """The arrays by name."""
        return self.consolidated_metadata.metadata


def checked(manifest: Manifest, text: bytes) -> GroupMetadata:
    """The metadata of the directory's group, whose `zarr.json` holds `text`.

    Raises:
        StoreError: it is not of the kind that phasescope writes, or does not fit the manifest.
    """
    where = f"{manifest.path / METADATA}"
    try:
        require_few_parts(text)
        group = GroupMetadata.model_validate_json(text)
    except ValueError as error:
        told = str(error)
        if isinstance(error, ValidationError):
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            told = f"{'.'.join(map(str, first['loc'])) or 'all of it'!r:.150}: {first['msg']}"
        raise StoreError(
            f"{where} is not of the kind that phasescope writes ({told:.300}): {remedy(manifest.path)}"
        ) from None
    listed: dict[str, int] = {}
    for file in manifest.files:
        name, place = placed(file)
        if place is not None:
            listed[name] = listed.get(name, 0) + 1
    for name, array in group.arrays.items():
        fault = array.fault() or _fault_of_files(manifest, name, array, listed.get(name, 0))
        if not plain(name) or "/" in name or fault:
            raise StoreError(f"{where}: array {name!r:.60} cannot be read ({fault}): {remedy(manifest.path)}")
    fault = _fault_of_dimensions(group)
    if fault:
        raise StoreError(f"{where}: {fault}: {remedy(manifest.path)}")
    return group


def _fault_of_files(manifest: Manifest, name: str, array: ArrayMetadata, listed: int) -> str | None:
    if math.prod(array.grid) != listed:
        return f"it declares {math.prod(array.grid)} files, and the manifest lists {listed}"
    decoded = array.chunk_bytes * array.chunks_per_file
    for file in array.files(name):
        if file not in manifest.files:
            return f"{file} is not in the manifest"
        length = manifest.files[file]["bytes"]
        if decoded > RATIO * length or array.chunk_bytes > max(CHUNK_BYTES, 4 * length):
            return f"{file} cannot hold as much as it declares"
        # Where zstd gains nothing it adds less than a 64th, and 100 bytes to each chunk.
        if length > (TEXT_BYTES if array.text else decoded + decoded // 64 + 100 * array.chunks_per_file):
            return f"{file} is longer than what it declares"
    if array.text and (math.prod(array.chunk_shape) > TEXTS or array.grid != (1,) * len(array.grid)):
        return "it declares too many texts"
    return None


def _fault_of_dimensions(group: GroupMetadata) -> str | None:
    lengths: dict[str, int] = {}
    eager = texts = 0
    for name, array in group.arrays.items():
        for dimension, length in zip(array.dimension_names, array.shape, strict=True):
            if lengths.setdefault(dimension, length) != length:
                return f"its arrays differ in the length of {dimension!r:.60}"
        if name in array.dimension_names:
            if len(array.shape) != 1:
                return f"the coordinate {name!r:.60} has more than its own dimension"
            eager += array.chunk_bytes * math.prod(array.grid) * array.chunks_per_file
            texts += array.shape[0] * array.text
    if eager > INDEX_BYTES or texts > INDEX_TEXTS:
        return "its coordinates are too long to be read"
    return None


def check_frames(manifest: Manifest, file: str, array: ArrayMetadata, data: bytes) -> None:
    """Check that a file of an array decodes to exactly what the metadata declares, without decoding numbers.

    Raises:
        StoreError: it does not.
    """
    if array.sharded:
        index = np.frombuffer(data[: 16 * array.chunks_per_file], "<u8")
        frames = index.reshape(-1, 2).tolist() if len(index) == 2 * array.chunks_per_file else []
        sound = len(frames) > 0 and sum(length for _, length in frames) <= len(data)
        sound = sound and all(start + length <= len(data) for start, length in frames)
        sound = sound and all(_declared(data, start) == array.chunk_bytes for start, _ in frames)
    elif array.text:
        sound = _declared(data, 0) <= TEXT_BYTES and _texts(data) == math.prod(array.chunk_shape)
    else:
        sound = _declared(data, 0) == array.chunk_bytes
    if not sound:
        raise damaged(manifest, file, "does not hold what its metadata declares")


def _declared(data: bytes, start: int) -> float:
    """The bytes that a zstd frame says it decodes to (RFC 8878, section 3.1.1.1); infinity if it says nothing."""
    header = data[start : start + 18] if start < len(data) else b""
    if len(header) < 6 or header[:4] != b"\x28\xb5\x2f\xfd":
        return math.inf
    flags = header[4]
    single = flags >> 5 & 1
    width = (single, 2, 4, 8)[flags >> 6]
    first = 5 + (1 - single) + (0, 1, 2, 4)[flags & 3]
    if width == 0:
        return math.inf
    return int.from_bytes(header[first : first + width], "little") + (256 if width == 2 else 0)


def _texts(data: bytes) -> int:
    """How many texts a file says it holds: the first number of the codec vlen-utf8."""
    try:
        return int.from_bytes(zstd.decompress(data)[:4], "little")
    except (RuntimeError, ValueError):
        return -1
