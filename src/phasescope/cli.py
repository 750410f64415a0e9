"""The command `phasescope`: its words, options and help. What the commands do is in `commands`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from phasescope import commands
from phasescope.stage import guarded

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
    sys.exit(guarded(lambda: commands.show(project)))


@app.command("ls", epilog=_examples("phasescope ls"))
def list_runs(project: Project = Path()) -> None:
    """List the runs that are here, at a glance.

    Their networks, seeds, steps, bytes and taps, and the phases of the first tap.
    """
    sys.exit(guarded(lambda: commands.list_runs(project)))


@app.command(
    epilog=_examples(
        "phasescope budget", "phasescope budget --workers 16", "phasescope budget --images imagenet=1281167,50000,1000"
    )
)
def budget(
    project: Project = Path(),
    workers: Annotated[
        int | None,
        typer.Option(help="hours with so many pieces of work at a time", show_default="one for each core"),
    ] = None,
    images: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=TRAINING,TEST,CLASSES", help="how many a dataset has that is not prepared yet"),
    ] = None,
) -> None:
    """Print what every run will keep and compute.

    Bytes, files, cells and fits as params.yaml has them, and hours on machines like this one.
    """
    sys.exit(guarded(lambda: commands.show_budget(project, workers, images or [])))


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
    sys.exit(guarded(lambda: commands.convergence(project, tolerance, run)))


@app.command(epilog=_examples("phasescope curve runs/digits-vgg8", "phasescope curve runs/digits-vgg8 --tap predense"))
def curve(
    run: Annotated[Path, typer.Argument(help="the run's folder, such as runs/digits-vgg8")],
    tap: Annotated[str | None, typer.Option(help="the layer (default: the first that there is)")] = None,
) -> None:
    """Print the losses and accuracies of a run at one layer.

    A row for every step; means over the seeds, ± the standard deviation.
    """
    sys.exit(guarded(lambda: commands.curve(run, tap)))


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
    sys.exit(guarded(lambda: commands.advise(run, target, label, per_class, as_json)))


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
    sys.exit(guarded(lambda: commands.export_checkpoint(run, step, seed, output)))


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
    sys.exit(guarded(lambda: commands.take(name, source, dataset, model, pattern, tap, loss)))


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
    sys.exit(guarded(lambda: commands.theory(model, outputs, strengths, widths)))


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
    sys.exit(guarded(lambda: commands.verify(paths or [Path()], full or mend, regenerate, seed, mend)))


@cache_app.command("list", epilog=_examples("phasescope cache list"))
def list_cells(project: Project = Path()) -> None:
    """Print how many cells are kept, of what kind, and their bytes."""
    sys.exit(guarded(lambda: commands.list_cells(project)))


@cache_app.command(
    epilog=_examples("phasescope cache clear --unused", "phasescope cache clear --kind decode --kind probe")
)
def clear(
    project: Project = Path(),
    kind: Annotated[list[str] | None, typer.Option(help="clear these kinds alone, as `list` names them")] = None,
    unused: Annotated[bool, typer.Option("--unused", help="keep the cells of what is in runs/ and results/")] = False,
) -> None:
    """Remove finished cells; what is needed is computed again."""
    sys.exit(guarded(lambda: commands.clear(project, kind or [], unused)))
