"""The iterations at which a network is looked at: 0 and the powers of two."""


def checkpoint_steps(iterations: int) -> list[int]:
    """Steps of the checkpoints of a training of ``iterations`` updates: 0, 1, 2, 4, … ≤ iterations.

    A step counts finished updates, so step 0 is the initialisation
    (Schneider & Prabhushankar 2024, "iterations 2^i").

    >>> checkpoint_steps(10)
    [0, 1, 2, 4, 8]
    """
    return [0] + [1 << i for i in range(iterations.bit_length())]
