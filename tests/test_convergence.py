"""How far trained decoders are from the exact one: as rows, as a table, and from the command line."""

import numpy as np
import pytest
import xarray as xr
from rich.console import Console
from typer.testing import CliRunner

from phasescope.cli import app
from phasescope.convergence import report, table
from phasescope.store import arrays, commit

STEPS = [0, 1, 16, 32, 64]


def decoded(excess=((0.3, 0.1, 0.02, 0.05, 0.01), (0.3, 0.0, 0.0, 0.0, 0.0))):
    """An exact decoder, and one that is trained at `logits` and above it by ``excess`` (seed, step)."""
    layers, decoders = ["logits", "predense"], ["linear", "linear-adam"]
    coords = {"seed": range(len(excess)), "step": STEPS, "layer": layers, "decoder": decoders}
    share = np.full((len(excess), len(STEPS), 2, 2), np.nan)
    share[:, :, 0, 1] = excess
    optimum = np.full(share.shape, np.nan)
    optimum[:, :, 0, 1] = 0.5
    variables = {"optimum_mse": optimum, "excess": share, "test_excess": share / 2 - 0.02}
    return xr.Dataset({name: (tuple(coords), values) for name, values in variables.items()}, coords)


def test_cells_beyond_the_tolerance_are_named():
    found = report(decoded())
    assert [(row["seed"], row["step"]) for row in found.beyond] == [(0, 0), (0, 1), (0, 32), (1, 0)]
    of = {"layer": "logits", "decoder": "linear-adam", "seed": 0, "step": 32}
    assert found.beyond[2] == {**of, "train": 0.05, "test": pytest.approx(0.005)}
    assert str(found) == "4 of 10 cells, from step 32 on 1 of 4"
    assert str(report(decoded(), tolerance=0.1)) == "2 of 10 cells, from step 32 on 0 of 4"


def test_a_training_that_diverged_is_beyond_every_tolerance():
    found = report(decoded([[0.0, np.nan, 0.0, 0.0, np.inf]]), tolerance=1e9)
    assert [row["step"] for row in found.beyond] == [1, 64]
    assert printed({"a": found}).count("diverged") == 4


def test_an_optimum_of_zero_is_not_a_training_that_diverged():
    """With as many features as samples the exact decoder leaves nothing, and nothing is a share of that."""
    decode = decoded()
    decode["optimum_mse"] = decode.optimum_mse.where(decode.step > 0, 0.0)
    decode["excess"] = decode.excess.where(decode.step > 0)
    assert str(report(decode)) == "2 of 8 cells, from step 32 on 1 of 4"


def test_without_a_trained_linear_decoder_there_is_nothing_to_tell():
    for decode in (decoded().drop_vars(["optimum_mse", "excess", "test_excess"]), decoded() * np.nan):
        assert str(report(decode)) == "no trained decoder"


def test_where_no_optimum_is_known_the_last_epoch_is_told():
    losses = np.full((2, 5, 2, 2, 3), np.nan)
    losses[:, :, 0, 1] = [1.0, 0.8, 0.7]
    decode = decoded().drop_vars(["optimum_mse", "excess", "test_excess"])
    decode = decode.assign(epoch_mse=(("seed", "step", "layer", "decoder", "epoch"), losses))
    decode = decode.assign_coords(decoder=["linear", "deconvolution"])
    assert str(report(decode)) == "deconvolution, whose optimum is not known, still fell by 12.5 % in the last epoch"
    assert str(report(decode.isel(epoch=[0]))) == "no trained decoder"
    # Where it is known, it says more.
    both = decoded().assign(epoch_mse=(("seed", "step", "layer", "decoder", "epoch"), losses))
    assert str(report(both)) == "4 of 10 cells, from step 32 on 1 of 4"


def printed(reports):
    console = Console(width=100)
    with console.capture() as capture:
        console.print(table(reports))
    return capture.get()


def test_the_table_says_how_far():
    lines = printed({"a": report(decoded()), "b": report(decoded([[0.0] * 5]))}).splitlines()
    assert "a logits linear-adam 0 32 +5.0 +0.5" in [" ".join(line.split()) for line in lines]


@pytest.fixture
def project(tmp_path):
    """A folder with the results of two runs."""
    for run in ("a", "b"):
        with commit.scratch(tmp_path / "results" / run / "decode") as scratch:
            arrays.write_dataset(scratch.path / arrays.GROUP, decoded())
            scratch.commit("decode", {})
    return tmp_path


def call(*arguments):
    done = CliRunner().invoke(app, ["convergence", *map(str, arguments)])
    return done.exit_code, done.stdout, done.stderr


def test_the_command_prints_all_runs_or_one(project):
    code, shown, told = call(project)
    assert (code, told) == (0, "")
    assert shown.count("linear-adam") == 8
    assert shown.splitlines()[-3:] == [
        "further than 2 % from the optimum, by training loss:",
        "a: 4 of 10 cells, from step 32 on 1 of 4",
        "b: 4 of 10 cells, from step 32 on 1 of 4",
    ]
    code, shown, told = call(project, "--run", "b", "--tolerance", "0.5")
    assert (code, told) == (0, "")
    assert shown.splitlines() == [
        "further than 50 % from the optimum, by training loss:",
        "b: 0 of 10 cells, from step 32 on 0 of 4",
    ]


def test_mistakes_are_told_in_one_line(project):
    folder, empty = project / "results", project / "empty"
    assert call(project, "--run", "aa") == (1, "", f"{folder}: unknown run 'aa'; did you mean 'a'? known: a, b\n")
    told = f"{empty / 'results'} holds no result of `decode`: run `dvc repro`, or `dvc pull`\n"
    assert call(empty) == (1, "", told)
    (folder / "a" / "decode" / "manifest.json").unlink()
    code, _, told = call(project)
    assert code == 1
    assert told.startswith(f"{folder}/a/decode")
    assert told.count("\n") == 1
