"""The command line itself: what `ls` lists, and help that is right."""

import json
import os
import shlex
import subprocess
import sys

import click
import pytest
import typer

from conftest import BARE
from phasescope import cli, own

GROUP = typer.main.get_command(cli.app)


def commands(group=GROUP, words=()):
    """Every command with the words it is called by."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*words, name))
        else:
            yield (*words, name), command


def run(*arguments: str) -> None:
    """Run a command; it ends with SystemExit."""
    GROUP.main(list(arguments), prog_name="phasescope")


def test_ls_lists_what_there_is(tiny, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    (folder,) = (tiny / "runs").iterdir()
    with pytest.raises(SystemExit, match="0"):
        run("ls", str(tiny))
    told = capsys.readouterr().out
    (row,) = [line.split() for line in told.splitlines() if line.split()[:1] == [folder.name]]
    import phasescope

    opened = phasescope.open_run(folder)
    assert str(len(opened.seeds)) in row
    assert f"{opened.steps[0]}–{opened.steps[-1]}" in row
    assert all(tap in told for tap in opened.taps)
    # What is damaged is said, and the rest is listed.
    manifest = folder / "activations" / "manifest.json"
    manifest.write_text(manifest.read_text()[:-20])
    with pytest.raises(SystemExit, match="0"):
        run("ls", str(tiny))
    told = capsys.readouterr().out
    assert f"{folder}/activations" in told
    assert folder.name in told.splitlines()[3]


def test_ls_without_runs_says_what_to_do(tmp_path, capsys):
    with pytest.raises(SystemExit, match="1"):
        run("ls", str(tmp_path))
    told = capsys.readouterr().err
    assert told == f"{tmp_path} has no runs/: name a project's folder, or run `dvc repro` or `dvc pull` in it\n"


@pytest.mark.parametrize(("words", "command"), [*commands()])
def test_help_has_a_short_line_and_examples_that_can_be_typed(words, command):
    assert len(command.get_short_help_str(80)) <= 63, "a list of commands on 80 columns would cut it"
    assert not command.get_short_help_str(80).endswith("...")
    lines = [line.strip() for line in command.epilog.split("\n")[2:]]
    assert lines
    for line in lines:
        program, *typed = shlex.split(line.split(" && ")[0])
        assert (program, *typed[: len(words)]) == ("phasescope", *words)
        context = click.Context(command)
        command.parse_args(context, typed[len(words) :])


def test_the_shell_completes_commands():
    environment = {"_PHASESCOPE_COMPLETE": "complete_bash", "COMP_WORDS": "phasescope ver", "COMP_CWORD": "1"}
    program = "from phasescope.cli import app; app(prog_name='phasescope')"
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.stdout.split() == ["verify"]


def test_a_name_that_is_markup_is_text(tiny, capsys, monkeypatch):
    from phasescope.store import manifest

    monkeypatch.setenv("COLUMNS", "200")
    (folder,) = (tiny / "runs").iterdir()
    path = folder / "train" / "manifest.json"
    found = json.loads(path.read_text())
    del found["sha256"]
    found["settings"]["dataset"] = "[/x]"
    path.write_text(manifest.sealed(found))
    with pytest.raises(SystemExit, match="0"):
        run("ls", str(tiny))
    assert "[/x]" in capsys.readouterr().out


def test_the_budget_knows_networks_of_ones_own(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv(own.TRUST, raising=False)
    (tmp_path / "own").mkdir()
    code = "from torch import nn\ndef build(resolution, outputs):\n"
    code += "    return nn.Sequential(nn.Flatten(), nn.Linear(resolution**2, outputs))\n"
    (tmp_path / "own" / "budgeted.py").write_text(code)
    params = BARE.replace("{name: vgg8}", "budgeted:build") + "activations: {taps: [logits]}\n"
    (tmp_path / "params.yaml").write_text(params)
    with own.trusted(True), pytest.raises(SystemExit, match="0"):  # the block takes back what the command says
        run("budget", str(tmp_path))
    assert "small" in capsys.readouterr().out
