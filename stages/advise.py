"""Stage `advise`: what tells which checkpoint and layer of a run to transfer from, for the labels of `transfer`."""

from dataclasses import asdict
from typing import Any

from phasescope import provenance, stage
from phasescope.advise import advise
from phasescope.compute import choose
from phasescope.params.transfer import TransferSettings
from phasescope.run import Run


def main(name: str, **where: Any) -> None:
    """Write results/<run>/advise-<dataset>."""
    chosen = choose(**where)
    settings = stage.settings(f"transfer/{name}.json", TransferSettings)
    provenance.write(f"runs/{settings.run}/advise-{settings.dataset}", **asdict(chosen))
    advise(Run(settings.run), stage.DATASETS / settings.dataset, settings, chosen, stage.cache())


if __name__ == "__main__":
    stage.run(main, "name", device=str, threads=int, workers=int)
