"""Stage `decode`: how well the inputs are reconstructed from each layer's activations."""

from dataclasses import asdict
from functools import partial
from typing import Any

from phasescope import provenance, stage
from phasescope.compute import choose
from phasescope.measures import cells
from phasescope.measures.decode import decode, decode_trained, settings_of, with_distance
from phasescope.params.decode import DecodeSettings
from phasescope.store.run import StoredRun


def main(run: str, **where: Any) -> None:
    """Write results/<run>/decode."""
    settings = stage.settings(f"runs/{run}/decode.json", DecodeSettings)
    trained = [decoder for decoder in settings.decoders if decoder != "linear"]
    here = choose(**{**where, "device": "cpu"})  # nothing of the exact decoder is computed on a GPU
    chosen = choose(**where) if trained else here
    provenance.write(f"runs/{run}/decode", **asdict(chosen))
    stored, cache = StoredRun(run), stage.cache()
    measured: dict[str, cells.Measured] = {}
    for decoder in settings.decoders:
        mine = settings_of(decoder, settings)
        if decoder == "linear":
            measured[decoder] = cells.measure(stored, "decode", decode, mine, cache, here)
        else:
            train = partial(decode_trained, compute=chosen)
            measured[decoder] = cells.measure(
                stored, f"decode-{decoder}", train, mine, cache, chosen, settings.trained_taps, processes=True
            )
    both = cells.combine(measured, "decoder")
    stored.write_measure("decode", with_distance(both.result), settings.model_dump(), both.cached)


if __name__ == "__main__":
    stage.run(main, "run", device=str, threads=int, workers=int)
