"""Stage `decode`: how well the inputs are reconstructed from each layer's activations."""

from phasescope import provenance, stage
from phasescope.measures import cells
from phasescope.measures.decode import decode
from phasescope.params.decode import DecodeSettings
from phasescope.store.run import StoredRun


def main(run: str) -> None:
    """Write results/<run>/decode."""
    settings = stage.settings(f"runs/{run}/decode.json", DecodeSettings)
    provenance.write(f"runs/{run}/decode")
    stored = StoredRun(run)
    measured = cells.measure(stored, "decode", decode, cells.samples_of(stored), settings, stage.cache())
    stored.write_measure("decode", measured.result, settings.model_dump(), measured.cached)


if __name__ == "__main__":
    stage.run(main, "run")
