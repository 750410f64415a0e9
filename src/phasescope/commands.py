"""What the commands of `phasescope` do: thin, on the functions that the stages use.

What takes long to import is imported by the commands that need it.
"""

import json
import secrets
import sys
from collections.abc import Iterable, Sequence
from contextlib import chdir, redirect_stdout, suppress
from pathlib import Path

from rich import box
from rich.filesize import decimal
from rich.table import Table

from phasescope import metrics, own, stage
from phasescope.errors import UserError
from phasescope.progress import Progress, wide_console
from phasescope.store.adopt import addresses
from phasescope.store.manifest import StoreError


def list_runs(project: Path) -> None:
    """Print a row for every run that is here, and what of them is damaged."""
    from phasescope import listing

    runs = list(listing.listed(project))
    there = (project / stage.METRICS).exists()
    wide_console().print(listing.table(runs, stage.phases(project) if there else {}))
    for run in runs:
        for what in run.damaged:
            print(what)


def advise(path: Path, target: str, label: str | None, per_class: int | None, as_json: bool) -> None:
    """Print which checkpoint and layer of a run to transfer from, as a table or as JSON."""
    from phasescope.advice import advise as decide
    from phasescope.advice_table import few_labels, plain, table
    from phasescope.run import open_run

    run, measured, losses = open_run(path), None, None
    with suppress(StoreError):
        measured = run.measure(f"advise-{target}")
    if measured is None or label not in (None, *measured.label.values):
        from phasescope.advise import measure_now  # with torch, which takes seconds
        from phasescope.compute import choose

        with redirect_stdout(sys.stderr):  # what is told of the progress
            measured = measure_now(run, target, label, choose(cluster=False), stage.cache(run.root))
    label = label or str(measured.label.values[0])
    with suppress(StoreError):
        losses = run.measure("decode").test_mse.isel(decoder=0)
    advice = decide(measured, label, per_class, losses)
    few = {} if per_class else few_labels(measured, label, losses)
    told = run.name, target, advice, few, measured.pixel_accuracy.sel(label=label).item()
    if as_json:
        print(json.dumps(plain(*told), indent=2, allow_nan=False))
    else:
        wide_console().print(table(*told), highlight=False)


def export_checkpoint(path: Path, step: int, seed: int, output: Path | None) -> None:
    """Write a checkpoint to a file, and print its name."""
    from phasescope.export import export
    from phasescope.run import open_run

    run = open_run(path)
    file = output or Path(f"{run.name}-seed-{seed}-step-{step}.safetensors")
    export(run, seed, step, file)
    print(file)


def take(
    name: str, source: str, dataset: str, model: str, pattern: str | None, taps: list[str] | None, loss: str | None
) -> None:
    """Make a run from a folder of checkpoints, and print what was found and what is next."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    from phasescope import intake

    def parsed(option: str, text: str) -> object:
        try:
            return YAML(typ="safe", pure=True).load(text)
        except YAMLError:
            raise UserError(f"--{option}: {text!r} is not readable as YAML; give a name, or '{{name: …}}'") from None

    own.trust()  # the user names it
    run = {"dataset": dataset, "model": parsed("model", model)}
    if loss is not None:
        run["train"] = {"loss": loss}
    if taps:
        given = [(tap, parsed("tap", tap)) for tap in taps]
        run["activations"] = {"taps": [found if isinstance(found, dict) else tap for tap, found in given]}
    taken = intake.take(name, source, run, pattern)
    print(
        f"{name}: {len(taken.seeds) * len(taken.steps)} checkpoints, seeds {taken.seeds}, steps {taken.steps}, "
        f"in checkpoints/ as {taken.pattern}; other files left out: {taken.left_out}"
    )
    print(f"params.yaml has the run {name}; now: dvc repro")


def show_budget(project: Path, workers: int | None = None, images: Sequence[str] = ()) -> None:
    """Print what every run of a project will keep and compute, with so many workers and these numbers of images."""
    # With torch, which takes seconds to import.
    from phasescope.budget import Count, budget, table
    from phasescope.budget.speed import measured
    from phasescope.compute import choose
    from phasescope.params.settings import jobs
    from phasescope.resolve import recorded, resolve

    if not (project / "params.yaml").is_file():
        raise UserError(f"{project / 'params.yaml'} is not there: run this in the project's folder")
    compute, counts = choose(workers=workers, cluster=False), {}
    for given in images:
        name, _, numbers = given.partition("=")
        parts = numbers.split(",")
        if not (name and len(parts) == 3 and all(part.isdecimal() and int(part) > 0 for part in parts)):
            raise UserError(f"--images {given}: expected NAME=TRAINING,TEST,CLASSES, such as photos=5000,1000,10")
        counts[name] = Count(*map(int, parts))
    own.trust()  # what params.yaml names is the project's
    with chdir(project):
        settings = resolve(Path("params.yaml"))
        trainings = jobs(settings, recorded(stage.CONFIGS))
        found = budget(settings, stage.DATASETS, compute.workers, trainings, counts)
        known = {name: run.run for name, run in found.runs.items() if run is not None}
        wide_console().print(table(found, measured(compute, known)))


def show(project: Path) -> None:
    """Print the tables of a project, and where its figures are."""
    console = wide_console()
    for _, _, table in metrics.tables(project):
        console.print(table)
    figures = sorted((project / "figures").glob("*.svg"))
    if figures:
        console.print("figures:", *(str(path) for path in figures), highlight=False, soft_wrap=True, sep="\n  ")


def curve(path: Path, tap: str | None) -> None:
    """Print the losses and accuracies of a run at a layer."""
    from phasescope.curve import curves
    from phasescope.curve import table as curve_table
    from phasescope.errors import unknown
    from phasescope.run import open_run

    run = open_run(path)
    folder = run.root / stage.RESULTS / run.name
    found = [path.name for what in ("decode", "probe", "transfer-*") for path in sorted(folder.glob(what))]
    measures = {name: run.measure(name) for name in found}
    if not measures:
        raise UserError(f"{folder} holds no results: run `dvc repro`, or `dvc pull`")
    layers = list(dict.fromkeys(str(layer) for measure in measures.values() for layer in measure.layer.values))
    if tap not in (None, *layers):
        raise UserError(f"{path}: {unknown(str(tap), layers, 'tap')}")
    console = wide_console()
    console.print(f"{run.name}, {tap or layers[0]}", highlight=False)
    console.print(curve_table(curves(measures, tap or layers[0])))


def convergence(project: Path, tolerance: float, only: str | None) -> None:
    """Print where trained decoders ended further from their optimum than the tolerance."""
    from phasescope.convergence import report, table
    from phasescope.errors import unknown
    from phasescope.store.run import StoredRun

    folder = project / stage.RESULTS
    runs = sorted(path.parent.name for path in folder.glob("*/decode"))
    if not runs:
        raise UserError(f"{folder} holds no result of `decode`: run `dvc repro`, or `dvc pull`")
    if only is not None and only not in runs:
        raise UserError(f"{folder}: {unknown(only, runs, 'run')}")
    reports = {run: report(StoredRun(run, project).measure("decode"), tolerance) for run in ([only] if only else runs)}
    if any(found.beyond for found in reports.values()):
        wide_console().print(table(reports))
    print(f"further than {100 * tolerance:g} % from the optimum, by training loss:")
    for name, found in reports.items():
        print(f"{name}: {found}")


def theory(model: str | None, outputs: str | None, strengths: str | None, widths: str | None) -> None:
    """Print the tables of one model that is solved, or of both."""
    from phasescope.errors import unknown
    from phasescope.theory.feature_strength import tables
    from phasescope.theory.linear_network import tables as network_tables

    first, second = models = ["feature-strength", "linear-network"]
    if model not in (None, *models):
        raise UserError(f"theory: {unknown(str(model), models, 'model')}")
    for option, given, owner in (
        ("outputs", outputs, first),
        ("strengths", strengths, first),
        ("widths", widths, second),
    ):
        if given is not None and model not in (None, owner):
            raise UserError(f"--{option} is of the model {owner}: leave it out, or ask for that model")
    classes = _numbers("outputs", outputs, tables.OUTPUTS, "10,100", 10**6)
    strong = _numbers("strengths", strengths, tables.STRENGTHS, "2,3", 100)
    units = _numbers("widths", widths, network_tables.WIDTHS, "100,10000", 10**12)
    shown = []
    if model != second:
        shape, times = tables.shape(classes, strong), tables.times(classes, strong)
        shown += [tables.printed(shape, "shape"), tables.printed(times, "times")]
    if model != first:
        shown += network_tables.printed(network_tables.parametrisations(units))
    wide_console().print(*shown, sep="\n")


def _numbers(option: str, text: str | None, usual: Sequence[float], example: str, most: float) -> list[float]:
    """What an option lists, or what is usual where it is not given."""
    if text is None:
        return [*usual]
    try:
        numbers = list(dict.fromkeys(map(float, text.split(","))))
    except ValueError:
        raise UserError(f"--{option}: {text[:60]!r} is no list of numbers; give such as --{option} {example}") from None
    if max(numbers) > most:
        raise UserError(f"--{option}: {max(numbers):g} is above {most:g}, and no more is computed; give less")
    return numbers


def verify(paths: list[Path], full: bool, count: int, seed: int | None, mend: bool) -> None:
    """Print everything that is wrong with what is kept; damaged files are removed to `mend` them."""
    from phasescope.store import verify

    wrong = 0
    damaged: list[Path] = []  # those that are missing too

    def tell(findings: Iterable[verify.Finding]) -> None:
        nonlocal wrong
        for finding in findings:
            print(finding, flush=True)
            wrong += not finding.note
            if finding.file is not None:
                damaged.append(finding.file)

    found: dict[verify.Kept, None] = {}
    for path in paths:
        try:
            found |= dict.fromkeys(verify.kept(path))
        except StoreError as error:
            tell([verify.Finding(str(error))])
    check = verify.Check(full)
    megabytes = sum(map(verify.length, found)) // 10**6 if full else 0
    with Progress(["verify (MB)" if full else "verify"], max(1, megabytes if full else len(found))) as progress:
        for place in found:
            tell(check.directory(place, lambda read: progress.update(0, read // 10**6) if full else None))
            tell(check.references(place))
            if place.kind == "activations":
                tell(verify.out_of_line(place))
            if not full:
                progress.update(0, check.directories)
    if count:
        from phasescope.compute import choose  # with torch, which takes seconds
        from phasescope.regenerate import regenerate

        recordings = [place for place in found if place.kind == "activations"]
        tell(regenerate(recordings, count, secrets.randbelow(2**32) if seed is None else seed, choose(cluster=False)))
    summary = check.summary()
    if mend and damaged:
        from phasescope.store.remote import forget  # with DVC, which takes a second

        there = [file for file in damaged if file.is_file()]
        objects = sum(forget(file) for file in there)
        print(f"{len(there)} damaged files removed here, {objects} in DVC's cache: now `dvc pull` or `dvc repro`")
        wrong -= len(damaged)
    if wrong:
        raise UserError(f"{wrong} {'problem' if wrong == 1 else 'problems'} in {summary}")
    if not damaged:
        print(f"all well in {summary}")


def list_cells(project: Path) -> None:
    """Print how many cells are kept, of what kind, and their bytes."""
    cache = stage.cache(project)
    shown = Table(box=box.SIMPLE_HEAD)
    shown.add_column("kind")
    for heading in ("cells", "bytes", "freed by clearing"):
        shown.add_column(heading, justify="right")
    for kind, kept in cache.kept().items():
        shown.add_row(kind, str(kept.cells), decimal(kept.bytes), decimal(kept.alone))
    shown.caption = f"in {cache.root}; what runs/ or DVC's cache has too takes no bytes of its own"
    wide_console().print(shown)


def clear(project: Path, kinds: list[str], unused: bool) -> None:
    """Remove cells of some kinds, or of all, and print what went."""
    cache = stage.cache(project)
    known = list(cache.kept())
    for kind in kinds:
        if kind not in known:
            raise UserError(f"no cells of kind {kind!r} in {cache.root}; there are: {', '.join(known) or 'none'}")
    used: set[str] = set()
    for path, made_with in stage.kept(project) if unused else []:
        with suppress(StoreError):  # what is absent or damaged uses nothing
            used |= addresses(path, made_with)
    gone = [cache.clear(kind, frozenset(used)) for kind in kinds or known]
    count, freed = sum(kept.cells for kept in gone), sum(kept.alone for kept in gone)
    print(f"{count} cells removed from {cache.root}, {decimal(freed)} freed")
