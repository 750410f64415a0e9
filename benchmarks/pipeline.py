"""The pipeline of DVC: an early version's stages then and now, and what `dvc repro` takes with nothing to do.

    python benchmarks/pipeline.py [--repeats 3] [--then COMMIT]

Both are clones of this repository as it is committed, with the settings and the results that the early commit had: all
stages of a run that it had, for its three digits runs and their three seeds, in an empty cache. `phases` and `figures`
are left out, for they now wait for all stages of a run and tell and draw other things. Then the whole default job runs
once in the newer clone, and `dvc repro` again. Each `dvc repro` is a process of its own.
"""

import argparse
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import side_by_side
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
THEN = "1f935c9"
RUNS = ("digits-f0", "digits-vgg8", "digits-resnet10")
STAGES = ("train", "activations", "decode", "probe", "distributions")
TARGETS = ["prepare@digits", *(f"{stage}@{run}" for run in RUNS for stage in STAGES)]


class Clone:
    """A repository of its own at a commit, whose code is the one that runs there."""

    def __init__(self, path: Path, commit: str) -> None:
        self.path = path
        subprocess.run(["git", "clone", "--quiet", ROOT, path], check=True)
        subprocess.run(["git", "-C", path, "checkout", "--quiet", "--detach", commit], check=True)
        self.environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(path / "src"),
            "DVC_NO_ANALYTICS": "1",
            "DVC_SITE_CACHE_DIR": str(path.with_name(f"{path.name}-site")),
        }

    def repro(self, *targets: str) -> tuple[float, float, str]:
        """Run `dvc repro`: seconds on the clock, those of the processor without workers, and what it said."""
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        command = [Path(sys.executable).with_name("dvc"), "repro", *targets]
        done = subprocess.run(command, cwd=self.path, env=self.environment, capture_output=True, text=True)
        wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode != 0:
            raise SystemExit(f"{self.path.name}: dvc repro failed\n{done.stdout}{done.stderr}")
        return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def settings(then: str, now: str) -> str:
    """The runs and stages of an early params.yaml, in the sections that there are now."""
    yaml = YAML(typ="safe", pure=True)
    early, late = yaml.load(then), yaml.load(now)
    decode = {**early["decode"], "decoders": [early["decode"]["decoder"]]}
    del decode["decoder"]
    kept = {**late, **early, "decode": decode, "transfer": {}, "figures": {**late["figures"], "sets": {}}}
    return json.dumps(kept, indent=1)  # which is YAML too


def largest_difference(then: Path, now: Path) -> float:
    """Of the exact decoders' FVU (here the same cells), over all runs."""
    import xarray as xr

    def fvu(clone: Path, run: str) -> np.ndarray:
        folder = next((clone / "results" / run / "decode").glob("*.zarr"))
        return np.asarray(xr.open_zarr(folder)["fvu"].load()).squeeze()

    return max(float(np.nanmax(np.abs(fvu(then, run) - fvu(now, run)))) for run in RUNS)


def main() -> None:
    """Compare them, and print what nothing to do takes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--then", default=THEN)
    given = parser.parse_args()
    there = ["git", "-C", str(ROOT), "cat-file", "-e", f"{given.then}^{{commit}}"]
    if subprocess.run(there, capture_output=True).returncode:
        raise SystemExit(f"{given.then} is not in this repository: fetch all of its history, or name another by --then")
    side_by_side.tell_machine(side_by_side.cores())
    taken: tuple[list[float], list[float]] = ([], [])
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        for repeat in range(given.repeats):
            now, then = Clone(Path(folder, f"now-{repeat}"), "HEAD"), Clone(Path(folder, f"then-{repeat}"), given.then)
            default = (now.path / "params.yaml").read_text()
            (now.path / "params.yaml").write_text(settings((then.path / "params.yaml").read_text(), default))
            for clone, times in zip((now, then), taken, strict=True):
                times.append(clone.repro(*TARGETS)[0])
            print(f"largest difference of an FVU: {largest_difference(then.path, now.path):.2g}", flush=True)
            shutil.rmtree(then.path)
        side_by_side.tell(f"stages of {given.then}", side_by_side.Comparison(*taken), at_least=1.5)
        (now.path / "params.yaml").write_text(default)
        wall, _, said = now.repro()
        ran = len(re.findall("^Running stage", said, flags=re.MULTILINE))
        print(f"the rest of the default job: {ran} stages, {wall:.0f} s")
        idle = [now.repro() for _ in range(5)]
        assert all("up to date" in said for *_, said in idle)
        for unit, values in (("clock", [each[0] for each in idle]), ("processor", [each[1] for each in idle])):
            print(f"second `dvc repro`, nothing to do: {side_by_side.spread(values, ' s')} of the {unit}, 5 repeats")
        lines = len((now.path / "dvc.lock").read_text().splitlines())
        print(f"dvc.lock: {lines} lines")


if __name__ == "__main__":
    main()
