"""Write the dvc.yaml of every folder that the pipeline runs in, from one description and from what the code imports.

DVC has one params.yaml for a dvc.yaml, so other settings are another folder, in which the same scripts run. Such a
folder is a DVC repository of its own (`dvc init --subdir`), for all commands but `dvc repro` are about everything in a
repository: as part of this one, a folder that was never run makes `dvc pull` fail (docs/log.md).

Run `python tools/pipeline.py` after a change of the stages below or of what imports what; a test tells when.
"""

import io
from collections.abc import Iterator
from typing import Any

from ruamel.yaml import YAML

from closure import ROOT, reached

#: Folders with a params.yaml, beside the repository itself.
FOLDERS = ("paper", "reproduction", "examples/own-network")

RUN, DATASET, RESULT, PROVENANCE = "runs/${key}", "datasets/${item.dataset}", "results/${key}", "provenance/runs/${key}"
CONFIG = "configs/runs/${key}"
METRICS = ("phases", "timescales", "mechanisms")
#: Written by a stage, and kept in git.
KEPT = {"cache": False, "persist": True}

#: By stage: what it is run for each of, its data, what it writes, what else DVC should know of it, and the files of the
#: package that it reads and no module imports.
STAGES: dict[str, dict[str, Any]] = {
    "resolve": {
        "deps": ["params.yaml", "own", "checkpoints"],
        "outs": [
            {"configs": KEPT},
            {"code": {"persist": True}},
            *(
                {f"watch/{source}": KEPT}
                for source in ("digits", "feature-strength", "binary-operation", "linear-regression")
            ),
        ],
    },
    "prepare": {
        "foreach": "${datasets}",
        "deps": ["configs/datasets/${key}.json", "watch/${item.source}/${key}.json"],
        "outs": ["datasets/${key}", "provenance/datasets/${key}.json"],
    },
    "train": {
        "foreach": "${runs}",
        "deps": [f"{CONFIG}/train.json", DATASET],
        "outs": [f"{RUN}/train", f"{RESULT}/training", f"{PROVENANCE}/train.json"],
    },
    "activations": {
        "foreach": "${runs}",
        "deps": [f"{CONFIG}/train.json", f"{CONFIG}/activations.json", DATASET, f"{RUN}/train"],
        "outs": [f"{RUN}/activations", f"{PROVENANCE}/activations.json"],
    },
    **{
        measure: {
            "foreach": "${runs}",
            "deps": [f"{CONFIG}/{measure}.json", DATASET, f"{RUN}/activations"],
            "outs": [f"{RESULT}/{measure}", f"{PROVENANCE}/{measure}.json"],
        }
        for measure in ("decode", "probe", "distributions", "information")
    },
    **{
        measure: {
            "foreach": "${runs}",
            "deps": [f"{CONFIG}/{measure}.json", DATASET, f"{RUN}/train", f"{RUN}/activations"],
            "outs": [f"{RESULT}/{measure}", f"{PROVENANCE}/{measure}.json"],
        }
        for measure in ("complexity", "kernel")
    },
    **{
        name: {
            "foreach": "${transfer}",
            "deps": ["configs/transfer/${key}.json", "runs/${item.run}/train", "runs/${item.run}/activations", DATASET],
            "outs": [
                f"results/${{item.run}}/{name}-${{item.dataset}}",
                f"provenance/runs/${{item.run}}/{name}-${{item.dataset}}.json",
            ],
        }
        for name in ("transfer", "advise")
    },
    # The dataset of the run has no name here; what the activations were taken of changes with it.
    "measure": {
        "foreach": "${measures}",
        "deps": ["configs/measures/${key}.json", "runs/${item.run}/activations"],
        "outs": ["results/${item.run}/measure-${key}", "provenance/runs/${item.run}/measure-${key}.json"],
    },
    "phases": {
        "deps": ["configs/phases.json", "results"],
        "outs": [*(f"metrics/{name}.csv" for name in METRICS), "provenance/phases.json"],
        "metrics": [f"metrics/{name}.json" for name in METRICS],
    },
    "theory": {"deps": ["configs/theory.json"], "outs": ["theory", "provenance/theory.json"]},
    "figures": {
        "deps": ["configs/figures.json", "results", "metrics/phases.json", "metrics/timescales.json", "theory"],
        "outs": ["figures", "provenance/figures.json"],
    },
    "report": {
        "deps": [
            "configs/figures.json",
            "configs/runs",
            "results",
            *(f"metrics/{name}.{form}" for name in METRICS for form in ("csv", "json")),
            "figures",
            "provenance/runs",
            *(f"provenance/{name}.json" for name in ("phases", "theory", "figures")),
        ],
        "files": [f"src/phasescope/report/{name}" for name in ("page.html", "style.css", "script.js")],
        "outs": ["report.html", "provenance/report.json"],
    },
}

#: What always runs needs no list of its code; configs/datasets is for the order.
WATCH = {
    "always_changed": True,
    "deps": ["configs/datasets"],
    "outs": [{f"watch/{source}": KEPT} for source in ("mnist", "fashion-mnist", "cifar10", "cifar100", "image-folder")],
}

HEAD = """\
# One stage per (run, kind of analysis). A stage depends on its share of params.yaml under configs/, and on its code under
# code/: `resolve` writes there the digests of its script and of exactly the modules that the script reaches (a test
# compares), so that an edit re-runs what it can change and no more. DVC itself sees the code of `resolve` alone: a hundred
# entries in dvc.lock for every stage of every run would take it most of its time.
# `phases`, `figures` and `report` depend on the whole folder of results, for a list of runs cannot stand in here: they read
# the runs that params.yaml names, refuse to go on where one is missing, and `resolve` clears the results of runs that are
# gone. `report` reads its template, style and script from the package, which no module imports: they stand in its list.
# configs/ is kept in git and stays where it is when `resolve` refuses a mistake (persist). watch/<source>/ says what raw
# files `prepare` reads: `watch` in stages/dvc.yaml writes it, and for what has none (digits), `resolve`.
# `exec`: a shell that stays between DVC and a stage (dash does) would keep the stage running after `kill -9` of DVC.
# Written by tools/pipeline.py: change it there.
"""  # noqa: E501
WATCH_HEAD = """\
# The stage `watch` runs at every `dvc repro` that needs it, to see whether raw images have changed. It stands here, for
# `dvc repro` runs all of the dvc.yaml beside params.yaml, and of this one only what that needs: nothing for the digits,
# whose watch/digits is written by `resolve`. What always runs needs no list of its code; configs/datasets is for the
# order. All that was written is kept (persist, and in git). Written by tools/pipeline.py: change it there.
"""
PLOTS = {"plots": ["figures/png"]}


def files() -> dict[str, str]:
    """The text of every dvc.yaml, by its path in the repository."""
    written = {"dvc.yaml": _text(HEAD, _stages(""), PLOTS), "stages/dvc.yaml": _text(WATCH_HEAD, _watch("stages"))}
    for folder in FOLDERS:
        up = "../" * len(folder.split("/"))
        head = (
            f"# The stages of {up}dvc.yaml for {folder}/params.yaml. Written by tools/pipeline.py: change them there.\n"
        )
        written[f"{folder}/dvc.yaml"] = _text(head, _stages(up), PLOTS)
        head = (
            f"# As {up}../stages/dvc.yaml, for {folder}/params.yaml. Written by tools/pipeline.py: change it there.\n"
        )
        written[f"{folder}/watch/dvc.yaml"] = _text(head, _watch(f"{up}stages"))
    return written


def _stages(up: str) -> Iterator[dict[str, Any]]:
    """The stages, in a folder from which the repository is `up`."""
    for name, about in STAGES.items():
        script = f"stages/{name}.py"
        code = [f"code/{name}.json"] if name != "resolve" else [up + file for file in _all_code()]
        key = " ${key}" if "foreach" in about else ""
        does = {"cmd": f"exec python {up}{script}{key}", **about, "deps": about["deps"] + code}
        does["deps"] += [up + file for file in does.pop("files", [])]
        foreach = does.pop("foreach", None)
        yield {name: {"foreach": foreach, "do": does} if foreach else does}


def _all_code() -> list[str]:
    """The scripts of all stages, and the modules that they reach."""
    scripts = sorted((ROOT / "stages").glob("*.py"))
    modules = set().union(*map(reached, scripts))
    return [script.relative_to(ROOT).as_posix() for script in scripts] + sorted(modules)


def _watch(stages: str) -> Iterator[dict[str, Any]]:
    yield {"watch": {"wdir": "..", "cmd": f"exec python {stages}/watch.py", **WATCH}}


def _text(head: str, stages: Iterator[dict[str, Any]], *more: dict[str, Any]) -> str:
    """A head, and stages with empty lines between them."""
    blocks = "\n".join("".join(f"  {line}" for line in _yaml(stage)) for stage in stages)
    return f"{head}\nstages:\n{blocks}" + "".join("".join(_yaml(part)) for part in more)


def _yaml(content: dict[str, Any]) -> list[str]:
    yaml, text = YAML(), io.StringIO()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 1000
    yaml.representer.ignore_aliases = lambda data: True
    yaml.dump(content, text)
    return text.getvalue().splitlines(keepends=True)


if __name__ == "__main__":
    for name, text in files().items():
        (ROOT / name).write_text(text, encoding="utf-8")
