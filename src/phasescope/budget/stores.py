"""How many files and bytes a kept directory takes, from the shapes of its arrays."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from phasescope.store.arrays import chunks_and_shards
from phasescope.store.files import JSON_BYTES, JSON_PARTS

# Bytes of text, as they are in the stores of the default project: the metadata of an array in one file and in shards,
# with an entry of a table of weights, and how much of all that the metadata of the group repeats; a manifest without
# its entries, of a file and of the fingerprint of a cell, and of the hash of a checkpoint.
PLAIN, SHARDED, ENTRY, REPEATED = 745, 1440, 200, 1.4
MANIFEST, FILE, FINGERPRINT, HASH = 1100, 152, 44, 82
#: What zstd and a shard add to a chunk: headers, checksums, its place in the index.
FRAME = 20


class Array(NamedTuple):
    """An array of a store."""

    shape: tuple[int, ...]
    dtype: str  #: "text", or what numpy calls it
    #: Bytes on the disk of a byte in memory, measured; of texts, of a whole one.
    ratio: float = 1.0
    cell: int = 0  #: leading dimensions that count cells, one file each
    entries: int = 0  #: of a table in its attributes

    @property
    def files(self) -> int:
        """Files with numbers, beside the one with its metadata."""
        chunks, shards = self._layout
        return self._pieces(shards or chunks)

    @property
    def bytes(self) -> float:
        """Bytes on the disk, of the numbers."""
        itemsize = 1 if self.dtype == "text" else np.dtype(self.dtype).itemsize
        return math.prod(self.shape) * itemsize * self.ratio + FRAME * self._pieces(self._layout[0])

    @property
    def metadata(self) -> int:
        """Bytes of its metadata."""
        return (PLAIN if self._layout[1] is None else SHARDED) + ENTRY * self.entries

    @property
    def _layout(self) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
        return chunks_and_shards(self.shape, np.dtype("O" if self.dtype == "text" else self.dtype), self.cell)

    def _pieces(self, piece: tuple[int, ...]) -> int:
        return math.prod(math.ceil(length / part) for length, part in zip(self.shape, piece, strict=True))


@dataclass(frozen=True)
class Store:
    """A kept directory: a group of arrays and a manifest."""

    arrays: Mapping[str, Array]
    fingerprints: int = 0  #: of cells, in the manifest
    hashes: int = 0  #: of checkpoints, in the manifest

    @property
    def files(self) -> int:
        """Files, all metadata included."""
        return 2 + sum(1 + array.files for array in self.arrays.values())

    @property
    def manifest(self) -> int:
        """Bytes of the manifest."""
        return MANIFEST + FILE * (self.files - 1) + FINGERPRINT * self.fingerprints + HASH * self.hashes

    @property
    def bytes(self) -> int:
        """Bytes of all files, compressed as they are on the disk."""
        metadata = sum(array.metadata for array in self.arrays.values())
        numbers = sum(array.bytes for array in self.arrays.values())
        return round(numbers + (1 + REPEATED) * metadata + self.manifest)

    @property
    def readable(self) -> bool:
        """Whether its manifest is one that a reader accepts (see `store.files`)."""
        return self.manifest <= JSON_BYTES and self.files <= JSON_PARTS
