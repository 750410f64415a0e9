"""Put the cells of a finished directory into the cache, before DVC removes the directory to have it made anew.

So a run that was pulled from elsewhere is extended like one that was made here: its training goes on from its last
state, and only what is new is computed.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from phasescope.store import arrays, manifest
from phasescope.store.cache import CellCache
from phasescope.store.manifest import Manifest, StoreError
from phasescope.store.names import placed


def adopt(path: Path, cache: CellCache) -> int:
    """Keep all cells of the directory at `path` that the cache does not have; gives their number.

    Raises:
        StoreError: the directory is not complete, damaged, or says nothing sensible of its cells.
    """
    found = manifest.read(path)
    try:
        cells = found.extra["cells"]
        files = [(kind, *entry) for kind, layers in cells["files"].items() for entry in _files(found, layers)]
        new = [entry for entry in files if not cache.has(_word(entry[0]), entry[1])]
        for kind, key, file in new:
            cache.put(kind, key, path / file, found.files[file]["sha256"])
        return len(new) + sum(_adopt_arrays(path, kind, entry, cache) for kind, entry in cells["arrays"].items())
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        raise StoreError(f"{path / manifest.MANIFEST} does not say which cells it has: run `dvc repro`") from None


def addresses(path: Path, cache: CellCache) -> set[str]:
    """The addresses in the cache of all cells that the directory at `path` consists of.

    Raises:
        StoreError: as `adopt`.
    """
    try:
        cells = manifest.read(path).extra["cells"]
        parts = [keys for layers in cells["files"].values() for keys in layers.values()]
        parts += [entry["keys"] for entry in cells["arrays"].values()]
        return {cache.address(key) for keys in parts for key in np.array(keys, dtype=object).flat if key is not None}
    except (KeyError, TypeError, ValueError, AttributeError):
        raise StoreError(f"{path / manifest.MANIFEST} does not say which cells it has: run `dvc repro`") from None


def _files(found: Manifest, layers: dict[str, Any]) -> list[tuple[str, str]]:
    """Key and file of every cell that is a file of its own."""
    names = {(array, *(place or ())[:2]): name for name in found.files for array, place in [placed(name)]}
    return [
        (key, names[layer, seed, step])
        for layer, keys in layers.items()
        for (seed, step), key in np.ndenumerate(np.array(keys, dtype=object))
    ]


def _adopt_arrays(path: Path, kind: str, entry: dict[str, Any], cache: CellCache) -> int:
    """Keep the cells that are parts of larger arrays."""
    keys = np.array(entry["keys"], dtype=object)
    known = [(position, key) for position, key in np.ndenumerate(keys) if key is not None]
    new = [(position, key) for position, key in known if not cache.has(_word(kind), key)]
    if new:
        stored = arrays.open_dataset(path / arrays.GROUP)[entry["names"]]
        stored = stored.drop_vars([name for name in stored.coords if name not in entry["coords"]])
        values: xr.Dataset = arrays.load(stored, str(path))
        for position, key in new:
            place = dict(zip(entry["dims"], position, strict=True)) | entry.get("select", {})
            cell = values.isel(place, missing_dims="ignore")
            cache.save(kind, key, cell.drop_attrs(deep=False).assign_attrs(entry["attributes"]))
    return len(new)


def _word(name: str) -> str:
    """A kind whose name is safe as that of a folder."""
    if not re.fullmatch(r"[a-z-]{1,64}", name):
        raise ValueError(name)
    return name
