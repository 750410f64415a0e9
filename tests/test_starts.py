"""Starting a stage imports no more of the large libraries than it needs."""

import subprocess
import sys
from pathlib import Path

import pytest

STAGES = Path(__file__).parents[1] / "stages"
WITH_TORCH = ["activations", "advise", "complexity", "kernel", "resolve", "train", "transfer"]
#: What a script must not have imported before `main` runs, unless it is told so here.
CHECK = """
import runpy, sys
large = {"matplotlib", "matplotlib.pyplot", "PIL", "sklearn", "torch", "torch._dynamo", "torchvision"}
for line in sys.stdin.read().splitlines():
    script, *needed = line.split()
    runpy.run_path(script)
    loaded = large.intersection(sys.modules)
    assert loaded == set(needed), (script, loaded)
"""


@pytest.mark.parametrize("torch", [False, True], ids=["without-torch", "with-torch"])
def test_no_stage_imports_a_large_library_that_it_does_not_need(torch):
    """In two processes, for what one script imported cannot be told from what the next one does."""
    others = sorted({script.stem for script in STAGES.glob("*.py")} - {*WITH_TORCH, "figures"})
    lines = [f"{STAGES}/{name}.py torch" for name in WITH_TORCH]
    if not torch:
        # Last, for it alone draws; PIL comes with matplotlib.
        lines = [*(f"{STAGES}/{name}.py" for name in others), f"{STAGES}/figures.py matplotlib PIL"]
    subprocess.run([sys.executable, "-c", CHECK], input="\n".join(lines), text=True, check=True)
