"""The mechanisms of feature learning: what changed between the first and the last time of a pair of layers.

The output of two layers is their norms' product N times how far they are aligned, ζ, so that over any training

    Δ ln|f| = Δ ln|ζ| + Δ ln N.

Layers align, or disalign, or are rescaled, and where the tangent kernel K stays as it was they learn as a kernel method
does. Alignment, disalignment and rescaling are the "Three Mechanisms of Feature Learning in a Linear Network"
(arXiv:2401.07085); the thresholds are ours. Numbers alone are judged here, whatever network they come from.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from phasescope.errors import UserError

#: Changes of this much and less are none.
TOLERANCE = 0.05


class Mechanisms(NamedTuple):
    """Which mechanisms there were and by how much, each array of the shape (…) of what was given at one time.

    More than one may be there. A number that is not finite speaks for no mechanism.
    """

    alignment: NDArray[np.bool_]  #: |ζ| rose by more than the tolerance
    disalignment: NDArray[np.bool_]  #: |ζ| fell by more than the tolerance
    rescaling: NDArray[np.bool_]  #: ln N changed by more than the tolerance, up or down
    kernel: NDArray[np.bool_]  #: ln K changed by no more than the tolerance
    alignment_change: NDArray[np.float64]  #: |ζ| at the end less |ζ| at the start
    alignment_growth: NDArray[np.float64]  #: Δ ln|ζ|
    norm_growth: NDArray[np.float64]  #: Δ ln N
    kernel_growth: NDArray[np.float64]  #: Δ ln K

    @property
    def output_growth(self) -> NDArray[np.float64]:
        """Δ ln|f|, which the alignment and the norms share between them; (…)."""
        return self.alignment_growth + self.norm_growth


def mechanisms(alignment: ArrayLike, norm: ArrayLike, kernel: ArrayLike, tolerance: float = TOLERANCE) -> Mechanisms:
    """Judge training by its first and its last time.

    Args:
        alignment: ζ, (time, …); its sign does not matter.
        norm: N, the product of the layers' norms, (time, …).
        kernel: K, the size of the tangent kernel, (time, …).
        tolerance: ε > 0; an absolute one of |ζ|, a relative one of N and K (of their logarithms).

    Returns:
        Arrays (…), to which the three broadcast.

    Raises:
        UserError: for a tolerance that is not above 0, arrays without a time axis, or arrays that do not broadcast.
    """
    if not 0 < tolerance < np.inf:
        raise UserError(f"mechanisms: tolerance is {tolerance}; it must be a finite number above 0")
    given = {"alignment": alignment, "norm": norm, "kernel": kernel}
    arrays = {name: np.asarray(values, dtype=np.float64) for name, values in given.items()}
    for name, values in arrays.items():
        if not (values.ndim and len(values)):
            raise UserError(f"mechanisms: {name} has the shape {values.shape}; its first dimension must be the time")
    try:
        ends: Any = np.broadcast_arrays(*(values[[0, -1]] for values in arrays.values()))
    except ValueError:
        shapes = ", ".join(f"{name} {values.shape}" for name, values in arrays.items())
        raise UserError(f"mechanisms: shapes {shapes} do not go together; give arrays that broadcast") from None
    zeta, *_ = magnitudes = np.abs(ends)
    # Zero at one end grows without bounds; zero at both, or what is no number, does not say how much.
    with np.errstate(divide="ignore", invalid="ignore"):
        change = zeta[1] - zeta[0]
        alignment_growth, norm_growth, kernel_growth = np.subtract(*np.log(magnitudes[:, ::-1]).swapaxes(0, 1))
    return Mechanisms(
        alignment=change > tolerance,
        disalignment=change < -tolerance,
        rescaling=np.abs(norm_growth) > tolerance,
        kernel=np.abs(kernel_growth) <= tolerance,
        alignment_change=change,
        alignment_growth=alignment_growth,
        norm_growth=norm_growth,
        kernel_growth=kernel_growth,
    )
