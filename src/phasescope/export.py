"""A checkpoint as a file that others can load: its state_dict as safetensors, and where it comes from."""

import json
from importlib.metadata import version
from pathlib import Path

from phasescope.run import Run
from phasescope.store.commit import write_file


def export(run: Run, seed: int, step: int, path: Path) -> None:
    """Write the weights of a checkpoint, as its training left them, to a file of safetensors.

    `network.load_state_dict(safetensors.torch.load_file(path))` puts them into the plain network. The file's metadata
    say in `phasescope`, as JSON: run, seed, step, settings of the training, SHA-256 of the weights and of the manifests
    of training and dataset, and the version.

    Raises:
        UserError: there is no such checkpoint.
        StoreError: the store is absent, incomplete or damaged.
    """
    from safetensors.torch import save

    weights = run.weights(seed, step)
    about = {
        "run": run.name,
        "seed": seed,
        "step": step,
        "training": run.trained_with.model_dump(),
        "weights": run.weights_digest(seed, step),
        "manifest": run.training_digest,
        "dataset": run.trained_on,
        "version": version("phasescope"),
    }
    write_file(path, save(weights, {"phasescope": json.dumps(about), "format": "pt"}))
