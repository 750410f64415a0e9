"""How small codecs make activations, and how fast they are: zstd at several levels, byte and bit shuffling, chunks.

    python benchmarks/codecs.py [--repeats 3]

A cell of VGG-8 of width 1 on digits, trained for 64 iterations: conv-2 behind its ReLU (256 maps of 2 × 2), the same
pooled, predense behind its ReLU, and logits, in half and in single precision. Each codec takes a cell in chunks along
`sample`, with zstd's checksum where it has one; times are of the processor, one thread, the least of the repeats. The
last line is the deflate of `numpy.savez_compressed`. What the stores are written with is marked.
"""

import tempfile
import time
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numcodecs import blosc, zstd
from side_by_side import parser, tell_machine, threads
from store import recorded

from phasescope.store import arrays

#: KiB that a chunk has at most.
CHUNK = arrays.CHUNK_BYTES >> 10
OTHERS = (128, 256, 512, 1024, 4096)
WHOLE = 1 << 20
SHUFFLES = {"shuffle": blosc.SHUFFLE, "bitshuffle": blosc.BITSHUFFLE}

#: Bytes of a chunk compressed, and back into a place of the right length.
Codec = tuple[Callable[[np.ndarray], bytes], Callable[[bytes, np.ndarray], Any]]


def codecs() -> dict[str, Codec]:
    """All that are compared, by name."""
    found: dict[str, Codec] = {}
    for level in (-1, 1, 3, 6):
        found[f"zstd {level}"] = (partial(zstd.compress, level=level, checksum=True), zstd.decompress)
    for inner, level in (("zstd", 1), ("zstd", 3), ("lz4", 1)):
        for name, shuffle in SHUFFLES.items():
            encode = partial(blosc.compress, cname=inner.encode(), clevel=level, shuffle=shuffle)
            found[f"{inner} {level}, {name}"] = (encode, blosc.decompress)
    return found


def least(way: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Seconds of the processor, and what came of it."""
    taken = []
    for _ in range(repeats):
        start = time.thread_time()
        result = way()
        taken.append(time.thread_time() - start)
    return min(taken), result


def measured(cell: np.ndarray, codec: Codec, kibibytes: int, repeats: int) -> tuple[float, float, float]:
    """Share of the bytes, and MB/s of encoding and decoding."""
    encode, decode = codec
    rows = max(1, (kibibytes << 10) // cell[0].nbytes)
    pieces = [cell[start : start + rows] for start in range(0, len(cell), rows)]
    encoding, packed = least(lambda: [encode(piece) for piece in pieces], repeats)
    back = [np.empty_like(piece) for piece in pieces]
    decoding, _ = least(lambda: [decode(*each) for each in zip(packed, back, strict=True)], repeats)
    assert all(np.array_equal(one, other) for one, other in zip(pieces, back, strict=True))
    return sum(map(len, packed)) / cell.nbytes, cell.nbytes / encoding / 1e6, cell.nbytes / decoding / 1e6


def inflate(data: bytes, target: np.ndarray) -> None:
    """As `numpy.load` does."""
    target.reshape(-1).view(np.uint8)[:] = np.frombuffer(zlib.decompress(data), np.uint8)


def main() -> None:
    """Print a table for each cell."""
    given = parser(__doc__, repeats=3).parse_args()
    blosc.use_threads = False
    tell_machine(1)
    chosen = codecs()
    rows = [(name, codec, CHUNK) for name, codec in chosen.items()]
    rows += [("zstd 1", chosen["zstd 1"], kibibytes) for kibibytes in OTHERS]
    rows.append(("deflate 6", (zlib.compress, inflate), WHOLE))
    with tempfile.TemporaryDirectory() as folder, threads(1):
        for dtype in ("float16", "float32"):
            run = recorded(Path(folder), dtype)
            cells = {tap: run.activations(tap).isel(seed=0, step=-1).values for tap in run.taps}
            maps = cells["conv-2"].reshape(-1, 256, 2 * 2)
            cells["conv-2 pooled"] = maps.mean(axis=2, dtype=np.float32).astype(dtype)
            for tap, cell in cells.items():
                told = f"{cell.shape[0]} × {cell.shape[1]}, {cell.nbytes / 1e6:.2f} MB, {np.mean(cell == 0):.0%} zeros"
                print(f"{tap}, {dtype}, {told}")
                print(f"    {'codec':20} {'chunk KiB':>9} {'of bytes':>9} {'encode':>7} {'decode':>7} MB/s")
                for name, codec, kibibytes in rows:
                    length = min(kibibytes, -(-cell.nbytes >> 10))
                    if length == kibibytes or kibibytes in (CHUNK, WHOLE):
                        share, encode, decode = measured(cell, codec, kibibytes, given.repeats)
                        mark = "*" if name == "zstd 1" and kibibytes == CHUNK else " "
                        print(f"  {mark} {name:20} {length:9} {share:9.3f} {encode:7.0f} {decode:7.0f}")


if __name__ == "__main__":
    main()
