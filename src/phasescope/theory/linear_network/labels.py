"""What the arrays are that the theory gives: units and a name in words, as attributes that any reader shows."""

from xarray import Dataset

from phasescope.theory import arrays

#: By the name of a variable or coordinate: what it is, and its unit where it has one.
NAMES: dict[str, tuple[str, ...]] = {
    # over time
    "initialisation": ("initial weights",),
    "activation": ("activation of the hidden units",),
    "step": ("updates made so far", "iterations"),
    "time": ("time of gradient flow", "iterations"),
    "mean_slope": ("m, mean slope of the activation at zero",),
    "trained_alignment": ("ζ, alignment of the two layers, of a trained network",),
    "trained_norm": ("|u||w|, product of the layers' norms, of a trained network",),
    "theory_alignment": ("ζ, alignment of the two layers, closed form with γm for γ",),
    "theory_norm": ("|u||w|, product of the layers' norms, closed form with γm for γ",),
    "theory_kernel": ("K, tangent kernel of both layers, closed form with γm for γ",),
    "lazy_ratio": ("ρ/b, scale of the output below which learning is lazy, closed form with γm for γ",),
    "start_ratio": ("f(0)/b, initial output, closed form with γm for γ",),
    # over the width
    "parametrisation": ("scaling with the width d",),
    "quantity": ("what is scaled, as d to the power of minus its exponent",),
    "width": ("d, hidden units",),
    "exponent": ("exponent of the quantity",),
    "feature_exponent": ("δ_F, exponent of what features add to the rate D",),
    "kernel_exponent": ("δ_K, exponent of what the initial kernel adds to the rate D",),
    "training": ("what becomes of the rate D",),
    "learning": ("what becomes of the kernel",),
    "draw": ("draw of the initial weights",),
    "drawn_rate": ("D, rate at which learning ends, of drawn weights", "1/iterations"),
    "drawn_kernel": ("K(∞)/K(0) − 1 of drawn weights",),
    "drawn_alignment": ("ζ(∞) of drawn weights",),
    "limit_rate": ("D in the limit of wide networks with f(0) = 0", "1/iterations"),
    "limit_kernel": ("K(∞)/K(0) − 1 in the limit of wide networks with f(0) = 0",),
    "limit_alignment": ("ζ(∞) in the limit of wide networks with f(0) = 0",),
    "rate_slope": ("slope of log D over log d, of drawn weights",),
    "alignment_slope": ("slope of log ζ(∞) over log d, of drawn weights",),
    # of the maps
    "map_scale": ("X, exponent of γσ², with σ² of the layer that learns more slowly",),
    "map_rate": ("Y, exponent of γη̄",),
    "map_training": ("what becomes of the rate D with the width",),
    "map_learning": ("what becomes of the kernel with the width",),
    "map_kernel": ("K/K(0) after the last step of gradient descent; NaN where it diverges",),
    "map_missing": ("(b − f)/(b − f(0)) after the last step of gradient descent; NaN where it diverges",),
    "map_start": ("|f(0)/b|",),
    "map_lazy": ("ρ/|b|",),
    "map_alignment": ("the layers align",),
    "map_disalignment": ("the layers disalign",),
    "map_rescaling": ("the layers are rescaled",),
    "map_kernel_kept": ("the kernel stays as it was",),
}


def labelled(dataset: Dataset) -> Dataset:
    """The same, each variable and coordinate with its ``long_name`` and ``units``."""
    return arrays.labelled(dataset, NAMES)
