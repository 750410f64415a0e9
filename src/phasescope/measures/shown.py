"""The features of a layer that Figure 4 shows, and their distributions over training."""

import numpy as np
import xarray as xr

from phasescope.measures.distributions import choose_features, histograms
from phasescope.measures.samples import Samples
from phasescope.params.distributions import DistributionsSettings


def shown_features(activations: xr.DataArray, samples: Samples, settings: DistributionsSettings) -> xr.Dataset:
    """Histograms of a few features of one seed and layer, over all steps with common bins.

    Args:
        activations: (step, sample, feature), read step by step.
        samples: labels and split of the same samples.
        settings: which features, and the number of bins.

    Returns:
        `density` (row, step, class, bin), `zero` (row, step, class) and `edge` (row, end), as `histograms`;
        `feature_index` (row), −1 where the layer has fewer features than rows, its attribute `fixed` the features that
        were not chosen for being selective.

    Raises:
        UserError: activations hold NaN or infinite values.
    """
    rows = np.arange(len(settings.fixed) + settings.selective)
    chosen = choose_features(activations.isel(step=-1).load(), samples, settings)
    steps = [activations.isel(step=step).load().isel(feature=chosen) for step in range(activations.sizes["step"])]
    shown = histograms(xr.concat(steps, "step"), samples, settings)
    shown = shown.drop_vars("feature").rename(feature="row").assign_coords(row=rows[: len(chosen)])
    shown["feature_index"] = ("row", np.array(chosen, dtype=np.int64))
    filled = shown.reindex(row=rows, fill_value={"feature_index": -1}).drop_vars("row")
    filled["feature_index"].attrs = {"long_name": "index of the feature", "fixed": list(settings.fixed)}
    return filled
