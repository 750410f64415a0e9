"""The table of a run's curves."""

import io

import numpy as np
import pytest
import xarray as xr
from rich.console import Console

from phasescope.curve import curves, table

CELLS = ("seed", "step", "layer")
COORDS = {"seed": [0, 1], "step": [0, 1, 2], "layer": ["logits", "predense"]}


@pytest.fixture
def measures() -> dict[str, xr.Dataset]:
    generator = np.random.default_rng(0)

    def drawn(*last: int) -> np.ndarray:
        return generator.uniform(size=(2, 3, 2, *last))

    loss = drawn(2)
    loss[:, :, 0, 1] = np.nan  # the second decoder was not asked for at logits
    decode = xr.Dataset({"test_mse": ((*CELLS, "decoder"), loss)}, {**COORDS, "decoder": ["linear", "deconvolution"]})
    probe = xr.Dataset({"accuracy": ((*CELLS, "classifier"), drawn(1))}, {**COORDS, "classifier": ["ridge"]})
    probe["network_accuracy"] = (("seed", "step"), generator.uniform(size=(2, 3)))
    transfer = xr.Dataset(
        {"accuracy": ((*CELLS, "label", "classifier"), drawn(2, 1))},
        {**COORDS, "label": ["ink", "quadrant"], "classifier": ["ridge"]},
    )
    return {"decode": decode, "probe": probe, "transfer-digits": transfer}


def test_a_column_for_every_decoder_classifier_and_label(measures):
    found = curves(measures, "predense")
    assert [name.replace("\n", " ") for name in found] == [
        *("loss, linear", "loss, deconvolution", "accuracy, network", "accuracy, ridge"),
        *("digits, ink, ridge", "digits, quadrant, ridge"),
    ]
    ink = measures["transfer-digits"].accuracy.sel(layer="predense", label="ink", classifier="ridge")
    np.testing.assert_array_equal(found["digits,\nink,\nridge"], ink)
    # What was not asked for has no column.
    assert "loss,\ndeconvolution" not in curves(measures, "logits")


def test_measures_of_other_steps_and_layers_stand_in_their_own_rows(measures):
    """As after `dvc repro decode` alone, where `probe` still knows the settings of before."""
    measures["probe"] = measures["probe"].isel(step=[0, 2]).assign_coords(step=[0, 4])
    measures["transfer-digits"] = measures["transfer-digits"].sel(layer=["logits"])
    found = curves(measures, "predense")
    assert not any("digits" in name for name in found)
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(table(found))
    rows = [line.split() for line in console.export_text().splitlines() if line.strip()[:1].isdigit()]
    assert [row[0] for row in rows] == ["0", "1", "2", "4"]
    network = measures["probe"].network_accuracy
    assert [row[5:6] != ["–"] for row in rows] == [True, False, False, True]
    assert f"{network.sel(step=4).mean().item():.4f}" in rows[3]


def test_numbers_are_means_over_seeds_with_their_spread(measures):
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(table(curves({"decode": measures["decode"]}, "predense")))
    values = measures["decode"].test_mse.sel(layer="predense", decoder="linear", step=2)
    text = console.export_text()
    assert f"{values.mean().item():.4f} ±{values.std(ddof=1).item():.4f}" in text
    assert "n = 2 seeds" in text
    alone = {"decode": measures["decode"].isel(seed=[0])}
    console.print(table(curves(alone, "predense")))
    assert "±" not in console.export_text()
