"""Labelled arrays in a Zarr v3 group that any reader opens.

Every array carries its dimension names; coordinates are arrays like the others. Chunks are compressed with zstd and
carry a checksum, so that a flipped bit is an error and never a wrong number. Large arrays are sharded: one file per
cell, written whole. Bytes are reproducible: no clock, no path, attributes in sorted order.
"""

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import xarray as xr
import zarr
from zarr.codecs import ZstdCodec

from phasescope.store import layout, manifest
from phasescope.store.files import MEND
from phasescope.store.manifest import StoreError
from phasescope.store.verified import open_verified

T = TypeVar("T", xr.Dataset, xr.DataArray)

GROUP = layout.GROUP
#: Inner chunks of at most this many bytes.
CHUNK_BYTES = 2 << 20
#: Shards of arrays that have no cells, such as the images of a dataset.
SHARD_BYTES = 256 << 20


def create_group(
    path: Path, attributes: Mapping[str, Any] | None = None, coordinates: tuple[str, ...] = ()
) -> zarr.Group:
    """An empty Zarr group; `coordinates` names the arrays that label others without being a dimension themselves."""
    merged = dict(attributes or {})
    if coordinates:
        merged["coordinates"] = " ".join(sorted(coordinates))
    return zarr.open_group(path, mode="w", zarr_format=3, attributes=_sorted(merged))


def create(
    group: zarr.Group,
    name: str,
    dims: tuple[str, ...],
    shape: tuple[int, ...],
    dtype: np.dtype | type | str,
    *,
    cell: int = 0,
    units: str = "1",
    **attributes: Any,
) -> zarr.Array:
    """An array whose first `cell` dimensions count cells: one shard (one file) per cell.

    Unwritten cells read as NaN (floats), so that an absent shard never passes for data; all chunks are written, also
    those that are all zero. With `cell=0` the whole array is one file, unless it is large.
    """
    dtype = np.dtype(dtype)
    chunks, shards = chunks_and_shards(shape, dtype, cell)
    return group.create_array(
        name,
        shape=shape,
        # Variable-length text is the only text type that Zarr v3 has specified.
        dtype=str if dtype.kind in "UTO" else dtype,
        chunks=chunks,
        shards=None if shards is None else _sharded(shards),
        compressors=ZstdCodec(level=1, checksum=True),
        fill_value=np.nan if dtype.kind == "f" else ("" if dtype.kind in "UTO" else 0),
        dimension_names=dims,
        # With slashes every index of a chunk is a folder, through each of which DVC walks for each stage that reads it.
        chunk_key_encoding={"name": "default", "separator": "."},
        attributes=_sorted({"units": units, **attributes}),
        config={"write_empty_chunks": True},
        overwrite=True,
    )


def write(group: zarr.Group, name: str, dims: tuple[str, ...], values: Any, **attributes: Any) -> None:
    """Write a whole array at once."""
    values = np.asarray(values)
    create(group, name, dims, values.shape, values.dtype, **attributes)[...] = values


def write_dataset(path: Path, dataset: xr.Dataset) -> None:
    """Write an xarray Dataset that fits into memory, coordinates and attributes included."""
    labels = tuple(str(name) for name in dataset.coords if name not in dataset.dims)
    group = create_group(path, {str(k): v for k, v in dataset.attrs.items()}, labels)
    for name in sorted(map(str, dataset.variables)):
        variable = dataset.variables[name]
        attributes = {str(k): v for k, v in variable.attrs.items()}
        write(group, name, tuple(map(str, variable.dims)), variable.values, **attributes)
    finish(path)


def finish(path: Path) -> None:
    """Consolidate the metadata, as the last write: opening then takes one read, which matters on remotes."""
    with warnings.catch_warnings():
        # zarr warns that the specification of Zarr v3 does not have this yet; readers that do not know it pass over it.
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(path, zarr_format=3)


def load(lazy: T, what: str) -> T:
    """Read the values of a Dataset or DataArray that was opened lazily; `what` names it in the error.

    Raises:
        StoreError: its files are damaged.
    """
    try:
        return lazy.load()
    except (RuntimeError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise StoreError(f"{what} is damaged ({reason}): {MEND}") from None


def open_dataset(path: Path) -> xr.Dataset:
    """The group of a committed directory; array values are read, and checked, when they are asked for.

    Raises:
        StoreError: the directory around the group is absent, incomplete or damaged.
    """
    return open_verified(manifest.read(path.parent))


def reopen(path: Path) -> zarr.Group:
    """A group that is being built, for writing shards into arrays that exist."""
    return zarr.open_group(path, mode="r+", use_consolidated=False)


def open_array(path: Path, name: str) -> zarr.Array:
    """An array of a group that is being built."""
    return zarr.open_array(path / name, mode="r+")


def write_cell(array: zarr.Array, cell: tuple[int, ...], values: np.ndarray) -> None:
    """Write one cell of a sharded array as one whole file.

    A file that is there is not written into but replaced: it may also be a cell in the cache, and one in DVC's.
    """
    shard(array, cell).unlink(missing_ok=True)
    # The setting is not kept in the metadata, so it is lost when an array is opened again.
    with zarr.config.set({"array.write_empty_chunks": True}):
        array[cell] = values


def shard(array: zarr.Array, cell: tuple[int, ...]) -> Path:
    """The file that holds a cell."""
    inner = (0,) * (array.ndim - len(cell))
    return Path(str(array.store_path).removeprefix("file://"), array.metadata.encode_chunk_key((*cell, *inner)))


def _sharded(shape: tuple[int, ...]) -> Any:
    """Shards with their index at the start, where parts of them can be read from any remote.

    Untyped, for zarr 3.1 asks for an enumeration here that zarr 3.2 has deprecated; both take the text.
    """
    return {"shape": shape, "index_location": "start"}


def chunks_and_shards(
    shape: tuple[int, ...], dtype: np.dtype, cell: int
) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    """Chunk and shard shapes: a shard is one cell, cut into inner chunks along the next dimension."""
    whole = tuple(max(length, 1) for length in shape)
    if dtype.kind in "UTO" or (cell == 0 and math.prod(whole) * dtype.itemsize <= CHUNK_BYTES) or cell == len(shape):
        return (1,) * cell + whole[cell:], None
    row = math.prod(whole[cell + 1 :]) * dtype.itemsize
    rows = min(whole[cell], max(1, CHUNK_BYTES // row))
    # A shard must hold a whole number of chunks; it may reach over the end of the array.
    per_shard = math.ceil(whole[cell] / rows)
    if cell == 0:
        per_shard = min(per_shard, max(1, SHARD_BYTES // (rows * row)))
    inner, outer = (rows, *whole[cell + 1 :]), (rows * per_shard, *whole[cell + 1 :])
    return (1,) * cell + inner, (1,) * cell + outer


def _sorted(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {key: attributes[key] for key in sorted(attributes)}
