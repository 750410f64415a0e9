"""Writing a run's activations and reading one cell of them, beside `numpy.savez_compressed` and the bare codec.

    python benchmarks/store.py [--repeats 5]

VGG-8 of width 1, trained on digits for 64 iterations, activations at conv-2 (256 maps of 2 × 2), predense and logits,
in half and in single precision. Writing is the whole commit: shards, hashes, manifest, flushed to the disk. Reading is
one (seed, step, layer) of a run that is open, every byte checked, files in the page cache; beside it zstd alone on the
same chunks, into a place that is there, and `numpy.load` of the same cell, a member of its own in the file of
`savez_compressed`. The same for a layer as large as the papers': 12,000 × 512 rectified random features of images.
"""

import math
import shutil
import tempfile
from pathlib import Path

import numpy as np
import random_images
import xarray as xr
from numcodecs import zstd
from side_by_side import Rates, Work, compare, parser, tell, tell_machine, threads

from phasescope import activations, training
from phasescope.compute import Compute
from phasescope.data.digits import load_digits
from phasescope.params.activations import ActivationsSettings, Tap
from phasescope.params.models import ModelSettings
from phasescope.params.train import TrainJob
from phasescope.run import Run
from phasescope.store import arrays, commit, manifest
from phasescope.store.cache import CellCache
from phasescope.store.datasets import write_dataset
from phasescope.store.verified import open_verified

JOB = TrainJob(
    dataset="digits",
    model=ModelSettings(name="vgg8", width=1.0),
    seeds=[0],
    iterations=64,
    batch_size=64,
    learning_rate=0.01,
)
TAPS = [Tap(name="conv-2"), Tap(name="predense"), Tap(name="logits")]


def recorded(root: Path, dtype: str) -> Run:
    """Train, if that is not done yet, and take activations."""
    one, cache = Compute("cpu", 1, 1), CellCache(root / "cache", "benchmark")
    data, trained, target = root / "datasets" / "digits", root / "runs" / "train", root / "runs" / dtype / "activations"
    if not data.exists():
        write_dataset(data, load_digits(32), {})
        training.train(JOB, data, trained, one, "benchmark", cache)
    settings = ActivationsSettings(taps=TAPS, dtype=dtype)
    activations.record(JOB, settings, data, trained, target, one, "benchmark", cache)
    return Run(dtype, root)


def write(values: dict[str, np.ndarray], target: Path) -> None:
    """Keep activations (seed, step, sample, feature) by tap as a stage does."""
    with commit.scratch(target) as scratch:
        path = scratch.path / arrays.GROUP
        group = arrays.create_group(path)
        for tap, array in values.items():
            dims = ("seed", "step", "sample", f"{tap}_feature")
            made = arrays.create(group, tap, dims, array.shape, array.dtype, cell=2)
            for cell in np.ndindex(array.shape[:2]):
                arrays.write_cell(made, cell, array[cell])
        arrays.finish(path)
        scratch.commit("activations", {})


def bare(file: Path, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """The numbers of a shard, with nothing checked."""
    data = memoryview(file.read_bytes())
    chunk = math.prod(arrays.chunks_and_shards((1, 1, *shape), dtype, 2)[0]) * dtype.itemsize
    values = np.empty(shape, dtype)
    flat = values.reshape(-1).view(np.uint8)
    index = np.frombuffer(data, "<u8", count=2 * -(-len(flat) // chunk)).reshape(-1, 2)
    for place, (start, length) in enumerate(index.tolist()):
        target, frame = flat[place * chunk :][:chunk], data[start : start + length]
        if len(target) == chunk:
            zstd.decompress(frame, target)
        else:  # the last one reaches over the end
            target[:] = np.frombuffer(zstd.decompress(frame), np.uint8)[: len(target)]
    return values


def size(path: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def members(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """One array for each cell."""
    return {
        f"{tap}-{seed}-{step}": array[seed, step]
        for tap, array in values.items()
        for seed, step in np.ndindex(array.shape[:2])
    }


def writing(values: dict[str, np.ndarray], target: Path, packed: Path, told: str, repeats: int, rates: Rates) -> None:
    """Print how long it takes and how much it is."""
    cells = members(values)

    def fresh() -> None:
        shutil.rmtree(target, ignore_errors=True)

    measured = compare(lambda: write(values, target), lambda: np.savez_compressed(packed, **cells), repeats, fresh)
    write(values, target)
    total, mine, theirs = sum(array.nbytes for array in values.values()), size(target), packed.stat().st_size
    tell(f"writing {told}, {total / 1e6:.1f} MB", measured, at_least=5, work=Work(bytes=total + mine), rates=rates)
    shares = f"{mine / total:.3f} of the bytes, npz {theirs / total:.3f}"
    print(f"  {shares}: {mine / theirs:.3f} times as large, at most 1.1 wanted")


def reading(folder: Path, packed: Path, tap: str, told: str, repeats: int, rates: Rates) -> None:
    """Print how long the last cell takes, whose file was not read before."""
    opened: dict[str, xr.DataArray] = {}

    def fresh() -> None:
        opened["tap"] = open_verified(manifest.read(folder))[tap]

    fresh()
    step = opened["tap"].sizes["step"] - 1
    cell = opened["tap"].isel(seed=0, step=step).values
    file = folder / arrays.GROUP / tap / f"c.0.{step}.0.0"
    member = f"{tap}-0-{step}"

    def ours() -> np.ndarray:
        return opened["tap"].isel(seed=0, step=step).values

    assert np.array_equal(ours(), bare(file, cell.shape, cell.dtype))
    assert np.array_equal(ours(), np.load(packed)[member])
    least = Work(bytes=file.stat().st_size + cell.nbytes)
    told = f"reading {told}, {cell.nbytes / 1e6:.2f} MB"
    codec = compare(ours, lambda: bare(file, cell.shape, cell.dtype), repeats, fresh)
    tell(f"{told}, beside the codec", codec, at_most=2, work=least, rates=rates)
    tell(f"{told}, beside npz", compare(ours, lambda: np.load(packed)[member], repeats, fresh), at_least=3)


def main() -> None:
    """Print ratios and bytes."""
    given = parser(__doc__).parse_args()
    rates = tell_machine(1)
    inputs = random_images.samples(random_images.dataset()).inputs
    with tempfile.TemporaryDirectory() as folder, threads(1):
        root = Path(folder)
        target, packed = root / "written", root / "packed.npz"
        for dtype in ("float16", "float32"):
            run = recorded(root, dtype)
            values = {tap.name: run.activations(tap.name).values for tap in TAPS}
            for names in (*([tap.name] for tap in TAPS), [tap.name for tap in TAPS]):
                told = f"{' + '.join(names)}, {dtype}"
                writing({name: values[name] for name in names}, target, packed, told, given.repeats, rates)
            for tap in TAPS:
                reading(target, packed, tap.name, f"{tap.name}, {dtype}", given.repeats, rates)
            large = {"large": np.stack([random_images.layer(inputs, seed=seed, dtype=dtype) for seed in (0, 1)])[None]}
            writing(large, target, packed, f"a large layer, {dtype}", given.repeats, rates)
            reading(target, packed, "large", f"a large layer, {dtype}", given.repeats, rates)


if __name__ == "__main__":
    main()
