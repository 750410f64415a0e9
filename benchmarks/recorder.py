"""A training loop with the recorder beside the same loop without it.

    python benchmarks/recorder.py [--repeats 5] [--threads 2] [--updates 512] [--model vgg8] [--device cpu]

A network of width 1 (or, with `--model mlp`, one of two layers of 256 units, whose updates take a fraction of a
millisecond), batches of 128 random images of 3×32×32 that lie on the device, SGD with momentum, float32. Both loops are
the same but for `record.step()`; the recorded one writes its checkpoints at 0 and 2^i to a folder of its own each time.
"""

import tempfile
from itertools import count
from pathlib import Path

import side_by_side
import torch
from torch import nn

from phasescope.models.zoo import build
from phasescope.params.models import ModelSettings
from phasescope.recorder import Recorder

BATCH = 128


def train(model: str, updates: int, device: str, folder: Path | None) -> None:
    """The loop; recorded, if there is a folder for it."""
    network = build(ModelSettings(name=model), 3, 32, 10).to(device)
    optimiser = torch.optim.SGD(network.parameters(), 0.002, 0.9)
    images, labels = torch.rand(BATCH, 3, 32, 32, device=device), torch.arange(BATCH, device=device) % 10
    record = Recorder(network, folder) if folder else None
    for _ in range(updates):
        optimiser.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
        optimiser.step()
        if record:
            record.step()


def main() -> None:
    """Compare both loops."""
    parser = side_by_side.parser(__doc__)
    parser.add_argument("--updates", type=int, default=512)
    parser.add_argument("--model", default="vgg8")
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    side_by_side.tell_machine(given.threads, given.device)
    with tempfile.TemporaryDirectory() as root, side_by_side.threads(given.threads):
        folders = (Path(root, str(number)) for number in count())
        comparison = side_by_side.compare(
            lambda: train(given.model, given.updates, given.device, next(folders)),
            lambda: train(given.model, given.updates, given.device, None),
            given.repeats,
        )
    side_by_side.tell(f"{given.updates} updates of {given.model}, recorded", comparison, at_most=1.05)


if __name__ == "__main__":
    main()
