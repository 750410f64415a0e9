"""What the arrays are that the theory gives: units and a name in words, as attributes that any reader shows."""

from xarray import Dataset

from phasescope.theory import arrays

#: By the name of a variable or coordinate: what it is, and its unit where it has one.
NAMES: dict[str, tuple[str, ...]] = {
    "outputs": ("l, number of classes",),
    "strength": ("k, attributes of strong samples",),
    "inputs": ("d, number of attributes",),
    "learning_rate": ("λ, learning rate",),
    "noise": ("σ, standard deviation of noise on the probability that the decoder reads",),
    "step": ("updates made so far", "iterations"),
    "decoder": ("line over the probability of the attribute's class",),
    "group": ("group of samples: of the attribute's class or of another one, weak or strong",),
    "stage": ("point of the course of learning",),
    # of one parameter set
    "error": ("R, reconstruction error of an attribute (mean squared)",),
    "gap": ("Δ, gap between the sums of own and of other weights",),
    "constant_until": ("last step of the constant phase", "iterations"),
    "minimum_at": ("step of the least R", "iterations"),
    "constant": ("there is a constant phase",),
    "fall": ("R falls",),
    "rise": ("R rises after its minimum",),
    "fall_share": ("1 − R(minimum)/R(0)",),
    "rise_share": ("R(last step)/R(minimum) − 1",),
    "end_ratio": ("R(last step)/R(0)",),
    # of the stages of Figure 5
    "stage_gap": ("Δ at the stage; NaN where there is no such stage",),
    "stage_error": ("R at the stage",),
    "probability": ("softmax probability of the attribute's class",),
    "target": ("the attribute itself",),
    "intercept": ("decoder's reconstruction where the probability is 0",),
    "slope": ("decoder's slope over the probability",),
    # over the gap
    "curve_gap": ("Δ, gap between the sums of own and of other weights",),
    "curve_error": ("R over the gap",),
    # of the tables
    "shape_initial": ("l·R at step 0",),
    "shape_minimum": ("l·R as Δ → 0, and at the second minimum",),
    "shape_bump": ("l·R at its bump; NaN where there is none",),
    "shape_final": ("l·R as t → ∞",),
    "shape_bump_gap": ("Δ of the bump",),
    "shape_second_minimum_gap": ("Δ of the second minimum",),
    "times_corollary": ("λ·d·t at the end of Corollary 4's interval", "iterations"),
    "times_leaving": ("λ·d·t at which R is twice its minimum; NaN for never", "iterations"),
    "times_bump": ("λ·d·t of the bump; NaN for never", "iterations"),
    "times_second_minimum": ("λ·d·t of the second minimum; NaN for never", "iterations"),
    "times_regained": ("λ·d·t at which R is at 90 % of its final value", "iterations"),
    # of the map and of the scaling
    "map_outputs": ("l, number of classes",),
    "map_rate": ("λ·d, learning rate times number of attributes",),
    "map_constant": ("there is a constant phase",),
    "map_fall": ("R falls",),
    "map_rise": ("R rises after its minimum",),
    "map_resolved": ("R is at most twice its first minimum at step 1, which is not beyond the bump",),
    "corollary_rate": ("λ·d above which Corollary 4's interval is empty",),
    "resolved_rate": ("λ·d above which step 1 leaps over the first minimum",),
    "rise_rate": ("λ·d above which step 1 leaps over the second minimum",),
    "time_rate": ("λ·d below which the second minimum comes after the last step",),
    "scaling_initial": ("R at step 0",),
    "scaling_minimum": ("R at its minima",),
    "scaling_bump": ("R at its bump; NaN where there is none",),
    "scaling_final": ("R as t → ∞",),
}


def labelled(dataset: Dataset, prefix: str = "") -> Dataset:
    """The same, each variable and coordinate with its ``long_name`` and ``units``; that of a variable has a prefix."""
    return arrays.labelled(dataset, NAMES, prefix)
