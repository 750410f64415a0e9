"""The command `phasescope`."""

import json
import secrets
import sys
from collections.abc import Iterable, Sequence
from contextlib import chdir, redirect_stdout, suppress
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.filesize import decimal
from rich.table import Table

from phasescope import mechanisms, own, phases, stage, timescales
from phasescope.errors import UserError
from phasescope.progress import Progress, wide_console
from phasescope.stage import guarded
from phasescope.store.adopt import addresses
from phasescope.store.cache import CellCache
from phasescope.store.manifest import StoreError

Project = Annotated[Path, typer.Argument(help="the project's folder")]

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
cache_app = typer.Typer(no_args_is_help=True, help="See or clear the finished cells that are kept.")
app.add_typer(cache_app, name="cache")


def _examples(*lines: str) -> str:
    """What stands below a command's options; the first character keeps the lines apart."""
    return "\b\n" + "\n".join(["Examples:", *(f"  {line}" for line in lines)])


@app.callback()
def main() -> None:
    """See the learning phases of neural networks.

    The pipeline itself is run by `dvc repro`. These commands look at what it made, and bring things in and out.
    """


@app.command(epilog=_examples("phasescope show", "phasescope show ~/other-project"))
def show(project: Project = Path()) -> None:
    """Print the phases, time scales and mechanisms of all runs."""
    sys.exit(guarded(lambda: _show(project)))


@app.command("ls", epilog=_examples("phasescope ls"))
def list_runs(project: Project = Path()) -> None:
    """List the runs that are here, at a glance.

    Their networks, seeds, steps, bytes and taps, and the phases of the first tap.
    """
    sys.exit(guarded(lambda: _list(project)))


@app.command(epilog=_examples("phasescope budget"))
def budget(project: Project = Path()) -> None:
    """Print what every run will keep and compute.

    Bytes, files and fits as params.yaml has them, and hours on this machine.
    """
    sys.exit(guarded(lambda: _budget(project)))


@app.command(epilog=_examples("phasescope convergence --tolerance 0.05", "phasescope convergence --run digits-vgg8"))
def convergence(
    project: Project = Path(),
    tolerance: Annotated[
        float, typer.Option(min=0, help="share of the optimum's training loss that a decoder may be above it")
    ] = 0.02,
    run: Annotated[str | None, typer.Option(help="of this run alone")] = None,
) -> None:
    """Print which trained decoders ended far from their optimum.

    Far is a training loss that is above that of the exact decoder by more than the tolerance.
    """
    sys.exit(guarded(lambda: _convergence(project, tolerance, run)))


@app.command(epilog=_examples("phasescope curve runs/digits-vgg8", "phasescope curve runs/digits-vgg8 --tap predense"))
def curve(
    run: Annotated[Path, typer.Argument(help="the run's folder, such as runs/digits-vgg8")],
    tap: Annotated[str | None, typer.Option(help="the layer (default: the first that there is)")] = None,
) -> None:
    """Print the losses and accuracies of a run at one layer.

    A row for every step; means over the seeds, ± the standard deviation.
    """
    sys.exit(guarded(lambda: _curve(run, tap)))


@app.command(
    epilog=_examples(
        "phasescope advise runs/digits-vgg8 --target digits --label quadrant",
        "phasescope advise runs/digits-vgg8 --target digits --label ink --per-class 10 --json",
    )
)
def advise(
    run: Annotated[Path, typer.Argument(help="the run's folder, such as runs/digits-vgg8")],
    target: Annotated[str, typer.Option(help="the dataset to transfer to, as `datasets` in params.yaml names it")],
    label: Annotated[
        str | None, typer.Option(help="what is to be told: class, ink, quadrant, colour or colour-raw")
    ] = None,
    per_class: Annotated[int | None, typer.Option(help="rank for so few labels of each class: 5, 10 or 100")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Say which checkpoint and layer to transfer from.

    All are ranked by the held-out accuracy of a linear classifier on the target, with what the last one would cost.
    Read from results/ if the stage `advise` has measured that target and label, or else measured now.
    """
    sys.exit(guarded(lambda: _advise(run, target, label, per_class, as_json)))


@app.command(
    epilog=_examples(
        "phasescope export runs/digits-vgg8 --step 64",
        "phasescope export runs/digits-vgg8 --step 64 --seed 2 --output best.safetensors",
    )
)
def export(
    run: Annotated[Path, typer.Argument(help="the run's folder, such as runs/digits-vgg8")],
    step: Annotated[int, typer.Option(help="of the checkpoint")],
    seed: Annotated[int, typer.Option(help="of the checkpoint")] = 0,
    output: Annotated[
        Path | None, typer.Option(help="file to write", show_default="RUN-seed-K-step-S.safetensors")
    ] = None,
) -> None:
    """Write a checkpoint as safetensors, with where it comes from.

    It loads into the plain network: network.load_state_dict(safetensors.torch.load_file(FILE)).
    """
    sys.exit(guarded(lambda: _export(run, step, seed, output)))


@app.command(
    "import",
    epilog=_examples(
        "phasescope import mine ~/saved --dataset digits --model vgg8 --tap logits --tap predense",
        "phasescope import mine 'saved/step_{step}.pt' --dataset digits --model my_module:build",
    ),
)
def take(
    name: Annotated[str, typer.Argument(help="of the run to be, such as mine")],
    source: Annotated[str, typer.Argument(help="folder of the checkpoints, or a path such as 'saved/step_{step}.pt'")],
    dataset: Annotated[str, typer.Option(help="of params.yaml, that the network was trained on")],
    model: Annotated[str, typer.Option(help="a name, torchvision:NAME, my_module:build, or settings: '{name: …}'")],
    pattern: Annotated[
        str | None, typer.Option(help="of the names in the folder, such as 'epoch=*-step={step}.ckpt'; {seed} too")
    ] = None,
    tap: Annotated[
        list[str] | None, typer.Option(help="keep the activations there, not at the taps of all runs; repeat it")
    ] = None,
    loss: Annotated[
        str | None, typer.Option(help="that the network was trained with", show_default="that of train")
    ] = None,
) -> None:
    """Make a run from checkpoints that others saved.

    Every file (.pt, .pth, .ckpt, .safetensors) is read, without running anything in it, and fitted to the network; then
    the files are brought into checkpoints/NAME (hard links, where that is possible) and the run is added to
    params.yaml. If anything is wrong, nothing is changed.
    """
    sys.exit(guarded(lambda: _import(name, source, dataset, model, pattern, tap, loss)))


@app.command(
    epilog=_examples(
        "phasescope theory",
        "phasescope theory feature-strength --outputs 10,100 --strengths 2",
        "phasescope theory linear-network --widths 100,10000",
    )
)
def theory(
    model: Annotated[str | None, typer.Argument(help="feature-strength or linear-network (default: both)")] = None,
    outputs: Annotated[
        str | None, typer.Option(help="feature-strength: numbers of classes, l", show_default="10,100,1000")
    ] = None,
    strengths: Annotated[
        str | None, typer.Option(help="feature-strength: strengths of strong samples, k", show_default="2,3,5")
    ] = None,
    widths: Annotated[
        str | None, typer.Option(help="linear-network: numbers of units, d", show_default="100, and so on to 1000000")
    ] = None,
) -> None:
    """Print the tables of the models that are solved.

    Where the error of the feature-strength model has its minima, its bump and its end, and when; and in which phase the
    linear network is under the usual parametrisations, with networks of several widths beside the theory.
    """
    sys.exit(guarded(lambda: _theory(model, outputs, strengths, widths)))


@app.command(
    epilog=_examples(
        "phasescope verify",
        "phasescope verify runs/digits-vgg8 --full",
        "phasescope verify --regenerate 3",
        "phasescope verify --full --mend && dvc pull",
    )
)
def verify(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="projects, parts of them, or kept directories (default: this folder)")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="hash every file; else lengths are compared")] = False,
    regenerate: Annotated[
        int, typer.Option(min=0, metavar="K", help="compute K random cells of the activations again, and compare")
    ] = 0,
    seed: Annotated[
        int | None, typer.Option(min=0, help="of the choice of those cells (default: a new one each time)")
    ] = None,
    mend: Annotated[
        bool, typer.Option("--mend", help="remove damaged files, in DVC's cache too, so that they can come back")
    ] = False,
) -> None:
    """Check what is kept against its manifests.

    Everything that is wrong is said, a line each; the exit code is 1 then.
    """
    sys.exit(guarded(lambda: _verify(paths or [Path()], full or mend, regenerate, seed, mend)))


@cache_app.command("list", epilog=_examples("phasescope cache list"))
def list_cells(project: Project = Path()) -> None:
    """Print how many cells are kept, of what kind, and their bytes."""
    sys.exit(guarded(lambda: wide_console().print(_cells(stage.cache(project)))))


@cache_app.command(
    epilog=_examples("phasescope cache clear --unused", "phasescope cache clear --kind decode --kind probe")
)
def clear(
    project: Project = Path(),
    kind: Annotated[list[str] | None, typer.Option(help="clear these kinds alone, as `list` names them")] = None,
    unused: Annotated[bool, typer.Option("--unused", help="keep the cells of what is in runs/ and results/")] = False,
) -> None:
    """Remove finished cells; what is needed is computed again."""
    sys.exit(guarded(lambda: _clear(project, kind or [], unused)))


def _list(project: Path) -> None:
    from phasescope import listing

    runs = list(listing.listed(project))
    metrics = project / stage.METRICS
    wide_console().print(listing.table(runs, stage.phases(project) if metrics.exists() else {}))
    for run in runs:
        for what in run.damaged:
            print(what)


def _advise(path: Path, target: str, label: str | None, per_class: int | None, as_json: bool) -> None:
    from phasescope.advice import advise as decide
    from phasescope.advice_table import few_labels, plain
    from phasescope.advice_table import table as advice_table
    from phasescope.advise import known
    from phasescope.compute import choose
    from phasescope.run import open_run

    run = open_run(path)
    with redirect_stdout(sys.stderr):  # what is told of the progress
        measured, label = known(run, target, label, choose(), stage.cache(run.root))
    losses = None
    with suppress(StoreError):
        losses = run.measure("decode").test_mse.isel(decoder=0)
    advice = decide(measured, label, per_class, losses)
    few = {} if per_class else few_labels(measured, label, losses)
    told = run.name, target, advice, few, measured.pixel_accuracy.sel(label=label).item()
    if as_json:
        print(json.dumps(plain(*told), indent=2, allow_nan=False))
    else:
        wide_console().print(advice_table(*told), highlight=False)


def _export(path: Path, step: int, seed: int, output: Path | None) -> None:
    from phasescope.export import export as write
    from phasescope.run import open_run

    run = open_run(path)
    file = output or Path(f"{run.name}-seed-{seed}-step-{step}.safetensors")
    write(run, seed, step, file)
    print(file)


def _import(
    name: str, source: str, dataset: str, model: str, pattern: str | None, taps: list[str] | None, loss: str | None
) -> None:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    from phasescope import own
    from phasescope.intake import take as bring

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
    taken = bring(name, source, run, pattern)
    print(
        f"{name}: {len(taken.seeds) * len(taken.steps)} checkpoints, seeds {taken.seeds}, steps {taken.steps}, "
        f"in checkpoints/ as {taken.pattern}; other files left out: {taken.left_out}"
    )
    print(f"params.yaml has the run {name}; now: dvc repro")


def _budget(project: Path) -> None:
    # torch takes seconds to import, and no other command needs it.
    from phasescope.budget import budget, table
    from phasescope.budget.work import measured
    from phasescope.compute import choose
    from phasescope.params.settings import jobs
    from phasescope.resolve import recorded, resolve

    if not (project / "params.yaml").is_file():
        raise UserError(f"{project / 'params.yaml'} is not there: run this in the project's folder")
    compute = choose()
    own.trust()  # what params.yaml names is the project's
    with chdir(project):
        settings = resolve(Path("params.yaml"))
        trainings = jobs(settings, recorded(stage.CONFIGS))
        found = budget(settings, stage.DATASETS, compute.workers, trainings)
    wide_console().print(table(found, measured(compute)))


def _show(project: Path) -> None:
    console = wide_console()
    tables = ((stage.METRICS, phases), (stage.TIME_SCALES, timescales), (stage.MECHANISMS, mechanisms))
    for file, module in tables:
        results = stage.phases(project, file)
        try:
            console.print(module.table(results))
        except (KeyError, TypeError, ValueError, AttributeError):
            raise stage.damaged(project / file) from None
    figures = sorted((project / "figures").glob("*.svg"))
    if figures:
        console.print("figures:", *(str(path) for path in figures), highlight=False, soft_wrap=True, sep="\n  ")


def _curve(path: Path, tap: str | None) -> None:
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


def _convergence(project: Path, tolerance: float, only: str | None) -> None:
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


def _theory(model: str | None, outputs: str | None, strengths: str | None, widths: str | None) -> None:
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


def _verify(paths: list[Path], full: bool, count: int, seed: int | None, mend: bool) -> None:
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
        tell(regenerate(recordings, count, secrets.randbelow(2**32) if seed is None else seed, choose()))
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


def _cells(cache: CellCache) -> Table:
    shown = Table(box=box.SIMPLE_HEAD)
    shown.add_column("kind")
    for heading in ("cells", "bytes", "freed by clearing"):
        shown.add_column(heading, justify="right")
    for kind, kept in cache.kept().items():
        shown.add_row(kind, str(kept.cells), decimal(kept.bytes), decimal(kept.alone))
    shown.caption = f"in {cache.root}; what runs/ or DVC's cache has too takes no bytes of its own"
    return shown


def _clear(project: Path, kinds: list[str], unused: bool) -> None:
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
