"""Which modules are the code of a stage, and what happens when they are edited while the pipeline runs."""

import sys
from pathlib import Path

import pytest

from closure import ROOT, reached
from phasescope import imports, stage
from phasescope.errors import UserError

SCRIPTS = sorted((ROOT / "stages").glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_the_code_of_a_stage_is_its_script_and_exactly_what_grimp_says_it_imports(script):
    found = imports.digests(script)
    files = {ROOT / "src" / Path(*name.split(".")) for name in found if "/" not in name}
    names = {(path / "__init__.py" if path.is_dir() else path.with_suffix(".py")) for path in files}
    assert names == {ROOT / file for file in reached(script)}
    assert set(found) - {f"stages/{script.name}"} == {name for name in found if name.split(".")[0] == "phasescope"}
    assert imports.changed(script, found) == []


def test_every_part_of_a_module_counts_but_what_only_type_checkers_read(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from phasescope import training\nelse:\n    from phasescope import progress\n"
        "def late():\n    from phasescope.models import zoo\n"
        "import phasescope.schedule, numpy\n"
    )
    modules = [name for name in imports.digests(script) if "/" not in name]
    assert {
        "phasescope",
        "phasescope.models",
        "phasescope.models.zoo",
        "phasescope.schedule",
        "phasescope.progress",
    } <= set(modules)
    assert "phasescope.training" not in modules


def test_an_edited_file_and_one_that_is_gone_are_named(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import phasescope.schedule\n")
    recorded = imports.digests(script)
    script.write_text("import phasescope.schedule  # edited\n")
    gone = {"phasescope.no_such_module": "0" * 64}
    assert imports.changed(script, recorded | gone) == [f"{tmp_path.name}/script.py", "phasescope.no_such_module"]


def test_a_damaged_record_is_one_line_and_not_a_traceback(tmp_path, monkeypatch):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "script.json").write_text('{"phasescope": ')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(tmp_path / "script.py"), raising=False)
    with pytest.raises(UserError, match=r"code/script.json is damaged: remove it and run `dvc repro`"):
        stage._require_code_of_record()
