"""The features that Figure 4 shows, and their distributions, for every seed and layer of a run."""

from collections.abc import Mapping

import numpy as np
import xarray as xr

from phasescope.measures.distributions import choose_features, histograms
from phasescope.measures.samples import Samples
from phasescope.params.distributions import DistributionsSettings


def shown_features(layers: Mapping[str, xr.DataArray], samples: Samples, settings: DistributionsSettings) -> xr.Dataset:
    """Histograms of a few features of each layer, over all steps with common bins.

    Args:
        layers: activations by layer, (seed, step, sample, feature); one cell at a time is read.
        samples: labels and split of the same samples.
        settings: which features, and the number of bins.

    Returns:
        `density` (seed, layer, row, step, class, bin), `zero` (seed, layer, row, step, class) and `edge`
        (seed, layer, row, end), as `histograms`; `feature_index` (seed, layer, row), −1 where a layer has
        fewer features than rows, its attribute `fixed` the features that were not chosen for being selective.

    Raises:
        UserError: activations hold NaN or infinite values.
    """
    rows = np.arange(len(settings.fixed) + settings.selective)
    by_layer = []
    for activations in layers.values():
        by_seed = []
        for seed in range(activations.sizes["seed"]):
            of_seed = activations.isel(seed=seed)
            chosen = choose_features(of_seed.isel(step=-1).load(), samples, settings)
            steps = [of_seed.isel(step=step).load().isel(feature=chosen) for step in range(of_seed.sizes["step"])]
            shown = histograms(xr.concat(steps, "step"), samples, settings)
            shown = shown.drop_vars("feature").rename(feature="row").assign_coords(row=rows[: len(chosen)])
            shown["feature_index"] = ("row", np.array(chosen, dtype=np.int64))
            by_seed.append(shown.reindex(row=rows, fill_value={"feature_index": -1}))
        by_layer.append(xr.concat(by_seed, next(iter(layers.values()))["seed"]))
    names = xr.DataArray(np.array(list(layers), dtype=object), dims="layer", attrs={"long_name": "tap"})
    result = xr.concat(by_layer, names, combine_attrs="override").transpose("seed", "layer", "row", ...)
    result["feature_index"].attrs = {"long_name": "index of the feature", "fixed": list(settings.fixed)}
    return result.drop_vars("row").assign_coords(layer=names)
