"""The losses that networks are trained with: cross-entropy, and the multi-class hinge loss."""

from collections.abc import Callable

import torch
from torch.nn import functional

from phasescope.params.train import Loss

#: From logits (batch, class) and labels (batch,), and `reduction`, as torch's losses have it.
LOSSES: dict[Loss, Callable[..., torch.Tensor]] = {
    "cross-entropy": functional.cross_entropy,
    # Σ max(0, 1 − o_y + o_j) over the other classes j, by the number of classes; the paper does not give its form.
    "hinge": functional.multi_margin_loss,
}
UNITS: dict[Loss, str] = {"cross-entropy": "nat", "hinge": "1"}
