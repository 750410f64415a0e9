"""The iterations at which a network is looked at: 0 and the powers of two, and for its loss more often if asked."""


def checkpoint_steps(iterations: int) -> list[int]:
    """Steps of the checkpoints of a training of ``iterations`` updates: 0, 1, 2, 4, … ≤ iterations.

    A step counts finished updates, so step 0 is the initialisation
    (Schneider & Prabhushankar 2024, "iterations 2^i").

    >>> checkpoint_steps(10)
    [0, 1, 2, 4, 8]
    """
    return [0] + [1 << i for i in range(iterations.bit_length())]


def evaluation_steps(iterations: int, every: int | None) -> list[int]:
    """Steps at which loss and accuracy are looked at: the checkpoints and, if asked, multiples of ``every``.

    >>> evaluation_steps(10, every=3)
    [0, 1, 2, 3, 4, 6, 8, 9]
    """
    more = range(0, iterations + 1, every) if every else ()
    return sorted({*checkpoint_steps(iterations), *more})


def is_checkpoint(step: int) -> bool:
    """Whether a checkpoint is taken after so many updates: at 0 and at powers of two.

    >>> [step for step in range(10) if is_checkpoint(step)]
    [0, 1, 2, 4, 8]
    """
    return step & (step - 1) == 0
