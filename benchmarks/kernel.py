"""What the tangent kernel of one checkpoint costs: memory and time of ResNet-10, and time beside explicit Jacobians.

    python benchmarks/kernel.py [--repeats 5]

ResNet-10 of width 1, 64 random images of 3×32×32, 10 logits: in a process of its own, whose largest memory counts. And
VGG-8 of width 0.25, 32 images of 1×16×16, beside a loop that makes the Jacobian of every image and multiplies them. One
thread, mean over the logits.
"""

import argparse
import multiprocessing
import resource
import statistics
import time
from multiprocessing.connection import Connection

import torch

from phasescope.measures.tangent import tangent_kernel
from phasescope.models.zoo import Network, build, place
from phasescope.params.models import ModelName, ModelSettings

CLASSES = 10


def network(name: ModelName, width: float, channels: int, resolution: int) -> Network:
    """A network with PyTorch's first weights, the same one every time."""
    torch.manual_seed(0)
    built = build(ModelSettings(name=name, width=width), channels, resolution, CLASSES)
    return place(built.eval(), torch.device("cpu"))


def plain(network: Network, inputs: torch.Tensor) -> torch.Tensor:
    """The kernel as it is defined, from one gradient after the other."""
    parameters = list(network.parameters())
    jacobians = []
    for sample in inputs:
        logits = network(sample[None])[0]
        rows = [torch.autograd.grad(logit, parameters, retain_graph=True) for logit in logits]
        jacobians.append(torch.stack([torch.cat([part.flatten() for part in row]) for row in rows]).flatten())
    jacobian = torch.stack(jacobians)
    return jacobian.double() @ jacobian.double().T / CLASSES


def resnet(send: Connection, images: int) -> None:
    """Gigabytes before and at most, and seconds of the processor."""
    torch.set_num_threads(1)
    given, inputs = network("resnet10", 1.0, 3, 32), torch.randn(images, 3, 32, 32)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    tangent_kernel(given, inputs)
    taken = time.process_time() - start
    send.send((before / 2**20, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, taken))


def main() -> None:
    """Print seconds, gigabytes, ratios, and how far the kernels are apart."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    context = multiprocessing.get_context("spawn")
    for images in (32, 64):
        receive, send = context.Pipe(duplex=False)
        process = context.Process(target=resnet, args=(send, images))
        process.start()
        before, most, taken = receive.recv()
        process.join()
        print(f"ResNet-10, {images} images: {taken:.1f} s of a processor, {most:.2f} GiB at most, {before:.2f} before")
    small, inputs = network("vgg8", 0.25, 1, 16), torch.randn(32, 1, 16, 16)
    ratios, seconds = [], []
    for repeat in range(given.repeats + 1):
        start = time.process_time()
        found = tangent_kernel(small, inputs)
        between = time.process_time()
        expected = plain(small, inputs)
        if repeat:  # the first one warms up
            seconds.append((between - start, time.process_time() - between))
            ratios.append(seconds[-1][1] / seconds[-1][0])
    for way, values in zip(("module by module", "explicit Jacobians"), zip(*seconds, strict=True), strict=True):
        print(f"VGG-8, {way}:", " ".join(f"{value:.3f}" for value in values), "s of a processor")
    print(f"ratio: median {statistics.median(ratios):.0f}, from {min(ratios):.0f} to {max(ratios):.0f}")
    print(f"relative difference of the kernels: {float((found - expected).norm() / expected.norm()):.1e}")


if __name__ == "__main__":
    main()
