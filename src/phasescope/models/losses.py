"""The losses that networks are trained with, of classes and of numbers, and what of the samples is told right."""

from collections.abc import Callable

import torch
from torch.nn import functional

from phasescope import own
from phasescope.errors import UserError
from phasescope.params.base import is_own


def mean_squared_error(outputs: torch.Tensor, targets: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
    """(f − y)², mean over outputs.

    Args:
        outputs: f, (sample, output).
        targets: y: numbers (sample, output), or classes (sample,) int64, which are 1 at their own output, 0 elsewhere.
        reduction: over samples, "mean", "sum" or "none".
    """
    return _over_samples(_squares(outputs, targets).mean(dim=1), reduction)


def half_squared_error(outputs: torch.Tensor, targets: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
    """½ Σ (f − y)² over outputs; the rest is as for `mean_squared_error`."""
    return _over_samples(_squares(outputs, targets).sum(dim=1) / 2, reduction)


#: From outputs (sample, output), targets (sample,) or (sample, output), and `reduction` as torch's losses have it.
LOSSES: dict[str, Callable[..., torch.Tensor]] = {
    "cross-entropy": functional.cross_entropy,
    # Σ max(0, 1 − o_y + o_j) over the other classes j, by the number of classes; the paper does not give its form.
    "hinge": functional.multi_margin_loss,
    "mse": mean_squared_error,
    "half-squared-error": half_squared_error,
}
#: Squares are of one-hot classes, standardised ink, or the numbers of a model, none of which has a unit.
UNITS: dict[str, str] = {"cross-entropy": "nat", "hinge": "1", "mse": "1", "half-squared-error": "1"}


def loss_of(name: str) -> Callable[..., torch.Tensor]:
    """The loss of that name: from outputs (sample, output), targets, and `reduction` as torch's losses have it.

    One of the user's own is called with outputs and targets, and gives the loss of each sample, (sample,).

    Raises:
        UserError: of one of the user's own: it cannot be loaded; or, when called, it fails or gives something else.
    """
    if not is_own(name):
        return LOSSES[name]

    function = own.load(name)

    def loss(outputs: torch.Tensor, targets: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
        with own.telling(name):
            losses = function(outputs, targets)
        if not isinstance(losses, torch.Tensor) or losses.shape != (len(outputs),):
            given = tuple(losses.shape) if isinstance(losses, torch.Tensor) else type(losses).__name__
            raise UserError(f"{name}: gives {given}, where the loss of each sample is expected, ({len(outputs)},)")
        if outputs.requires_grad and not losses.requires_grad:
            raise UserError(f"{name}: gives a loss without a gradient; compute it from the outputs with torch alone")
        return _over_samples(losses, reduction)

    return loss


def told_right(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """1 where the largest output is that of the class and 0 elsewhere, (sample,); NaN where the target is a number."""
    if targets.is_floating_point():
        return torch.full((len(outputs),), torch.nan, device=outputs.device)
    return (outputs.argmax(1) == targets).float()


def _squares(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    if not targets.is_floating_point():
        targets = functional.one_hot(targets, outputs.shape[1])
    return (outputs - targets).square()


def _over_samples(losses: torch.Tensor, reduction: str) -> torch.Tensor:
    match reduction:
        case "mean":
            return losses.mean()
        case "sum":
            return losses.sum()
    return losses
