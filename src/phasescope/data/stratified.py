"""Some of the samples, with as many of each class in proportion."""

import numpy as np

from phasescope.errors import UserError


def stratified(labels: np.ndarray, count: int, seed: int, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Indices of `count` samples drawn at random in proportion to their classes, and of the others, both in order.

    As `sklearn.model_selection.train_test_split` draws them.

    Args:
        labels: (sample,).
        count: how many to draw.
        seed: of the draw.
        what: the samples are, for errors.

    Raises:
        UserError: there are too few samples, or fewer drawn or left than there are classes.
    """
    # It takes a second to import, which only those who ask for some of the samples need to wait.
    from sklearn.model_selection import train_test_split

    most, classes = len(labels), len(np.unique(labels))
    if not classes <= count <= most - classes:
        raise UserError(
            f"train_samples is {count:,}, and {what} are {most:,} of {classes} classes: choose {classes} to "
            f"{most - classes:,}, or leave it out"
        )
    drawn, rest = train_test_split(np.arange(most), train_size=count, random_state=seed, stratify=labels)
    return np.sort(drawn), np.sort(rest)
