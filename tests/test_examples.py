"""The examples of the public classes and of docs/notebook.md say what comes out."""

import doctest
import shutil

import pytest

import phasescope
from closure import ROOT
from phasescope import recorder
from phasescope import run as run_module
from phasescope.store import run as store_run


@pytest.fixture
def place(complete, tmp_path, monkeypatch):
    """A project whose run has the name of the one that the examples speak of."""
    shutil.copytree(complete, tmp_path / "project")
    for folder in ("runs", "results"):
        (tmp_path / "project" / folder / "small").rename(tmp_path / "project" / folder / "digits-vgg8")
    monkeypatch.chdir(tmp_path / "project")


def tried(found: list[doctest.DocTest]) -> int:
    told: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for test in found:
        runner.run(test, out=told.append)
    assert not runner.failures, "".join(told)
    return runner.tries


@pytest.mark.parametrize("module", [run_module, store_run, recorder])
def test_docstrings(module, place):
    assert tried(doctest.DocTestFinder().find(module)) > 3


def test_the_page_about_notebooks(place):
    text = (ROOT / "docs" / "notebook.md").read_text()
    page = doctest.DocTestParser().get_doctest(text, {}, "notebook.md", "docs/notebook.md", 0)
    assert tried([page]) > 10


def test_every_public_name_has_an_example_or_is_an_error():
    for name in phasescope.__all__:
        public = getattr(phasescope, name)
        assert public.__doc__
        assert ">>> " in public.__doc__ or issubclass(public, Exception)
