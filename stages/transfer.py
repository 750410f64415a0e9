"""Stage `transfer`: what else is read off the frozen activations of a run: other images, or other labels of its own."""

from dataclasses import asdict
from typing import Any

from phasescope import provenance, stage
from phasescope.compute import choose
from phasescope.params.transfer import TransferSettings
from phasescope.run import Run
from phasescope.transfer import transfer


def main(name: str, **where: Any) -> None:
    """Write results/<run>/transfer-<dataset>."""
    chosen = choose(**where)
    settings = stage.settings(f"transfer/{name}.json", TransferSettings)
    provenance.write(f"runs/{settings.run}/transfer-{settings.dataset}", **asdict(chosen))
    transfer(Run(settings.run), stage.DATASETS / settings.dataset, settings, chosen, stage.cache())


if __name__ == "__main__":
    stage.run(main, "name", device=str, threads=int, workers=int)
