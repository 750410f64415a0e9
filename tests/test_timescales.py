"""When what happens: the rules on curves whose answers are known by construction, and what is written of them."""

import numpy as np
import pytest
from xarray import DataArray, Dataset

from phasescope.params.phases import PhasesSettings
from phasescope.timescales import decline, first, frame, table, time_scales

RULES = PhasesSettings()
STEPS = [0, 1, 2, 4, 8, 16, 32, 64, 128]


def curve(values, steps=STEPS) -> DataArray:
    return DataArray(np.array(values, dtype=float), {"step": steps}, ("step",))


def test_the_first_step_at_a_level():
    accuracy = curve([0, 0.1, 0.5, 0.998, 0.999, 0.5, 1, 1, 1])
    assert first(accuracy, 0.999) == 8
    assert first(accuracy, 0.05) == 1
    assert first(accuracy, 1.1) is None


@pytest.mark.parametrize(
    ("values", "start", "expected"),
    [
        # M = 10 at 4, m_T = 0: it leaves the highest tenth after 16 (9.0), and reaches the lowest at 64 (1.0).
        ([1, 2, 3, 10, 9.5, 9, 5, 1, 0], 0, (16, 64)),
        # What came before the start does not count: the highest value from 8 on is 9.5, and 1.0 is not within a tenth.
        ([1, 2, 3, 10, 9.5, 9, 5, 1, 0], 8, (16, 128)),
        # A plateau, then a fall in one step.
        ([7, 7, 7, 7, 7, 7, 7, 7, 4], 0, (64, 128)),
        # From the first step on.
        ([8, 4, 2, 1, 0.5, 0.3, 0.2, 0.1, 0.1], 0, (0, 8)),
        # Less than 5 % of the largest value: no decline.
        ([10, 10, 10, 10, 10, 10, 10, 10, 9.6], 0, (None, None)),
        ([1, 2, 3, 4, 5, 6, 7, 8, 9], 0, (None, None)),
        # Lower in between, and back: it has not declined at its end.
        ([9, 9, 9, 3, 3, 3, 9, 9, 9], 0, (None, None)),
        # A single value is no curve.
        ([9, 9, 9, 3, 3, 3, 9, 9, 1], 128, (None, None)),
        # Steps at which nothing is known are passed over.
        ([10, 10, np.nan, 10, np.nan, 5, np.nan, np.nan, 0], 0, (4, 128)),
    ],
)
def test_where_a_decline_begins_and_ends(values, start, expected):
    assert decline(curve(values), start, RULES) == expected


def test_the_rules_are_settings():
    values = curve([10, 10, 10, 8, 6, 4, 2, 1, 0])
    assert decline(values, 0, RULES) == (2, 64)
    assert decline(values, 0, PhasesSettings(margin=0.25)) == (4, 32)
    assert decline(curve([10, 9], [0, 1]), 0, PhasesSettings(decline=0.2)) == (None, None)


@pytest.fixture
def found():
    """Two seeds: the first groks and is compressed, the second only fits."""
    grokked, not_grokked = [0, 0, 0, 0, 0, 0, 0.5, 1, 1], [0, 0, 0, 0, 0, 0, 0.1, 0.1, 0.1]
    fitted = [0, 0, 0.5, 1, 1, 1, 1, 1, 1]
    falls, stays = [4, 4, 6, 9, 10, 10, 5, 0.1, 0], [4, 4, 6, 9, 10, 11, 12, 13, 14]

    def seeds(*curves):
        return (("seed", "step"), np.array(curves, dtype=float))

    coords = {"seed": [3, 5], "step": STEPS}
    training = Dataset(
        {
            "train_accuracy": seeds(fitted, fitted),
            "test_accuracy": seeds(grokked, not_grokked),
            "test_loss": seeds(falls, stays),
        },
        coords,
    )
    told = np.stack([[[7] * 6 + [6, 5, 4], [7] * 9], [[7] * 9, [7] * 9]], axis=-1).astype(float)  # seed, step, layer
    information = Dataset({"i_x": (("seed", "step", "layer", "estimator"), told[..., None])}, coords)
    information = information.assign_coords(layer=["predense", "logits"], estimator=["gaussian"])
    complexity = Dataset(
        {
            "linear_mapping_number": (("seed", "step", "layer"), np.ones((2, 9, 1))),
            "local_complexity": (("seed", "step", "nonlinearity", "part"), np.ones((2, 9, 1, 2))),
        },
        {**coords, "layer": ["blocks.0"], "nonlinearity": ["blocks.0.1"], "part": ["train", "test"]},
    )
    return time_scales(training, information, complexity, RULES)


def test_every_curve_of_a_run(found):
    assert found["seeds"] == [3, 5]
    assert found["fit"] == [4, 4]
    assert found["generalise"] == [64, None]
    assert [(one["curve"], one["layer"], one["onset"], one["end"]) for one in found["declines"]] == [
        ("test_loss", "", [16, None], [64, None]),
        ("i_x", "predense", [16, None], [128, None]),
        ("i_x", "logits", [None, None], [None, None]),
        ("linear_mapping_number", "blocks.0", [None, None], [None, None]),
        ("local_complexity", "blocks.0.1", [None, None], [None, None]),
    ]


def test_rows_and_table_say_none_where_there_is_none(found):
    rows = frame({"run": found})
    assert {"run": "run", "seed": 3, "curve": "test_loss", "layer": "", "onset": 16, "end": 64} in rows
    assert {"run": "run", "seed": 5, "curve": "generalise", "onset": None} in rows
    assert len(rows) == 2 * (2 + 5)
    shown = table({"run": found})
    cells = [list(column.cells) for column in shown.columns]
    assert list(zip(*cells, strict=True))[:4] == [
        ("run", "training samples fitted", "", "4", "", "2 of 2"),
        ("", "test samples too", "", "64", "", "1 of 2"),
        ("", "second descent of the test loss", "", "16", "64", "1 of 2"),
        ("", "compression, I(T;X)", "predense", "16", "128", "1 of 2"),
    ]
    assert cells[3][4] == cells[4][4] == "none"


def test_a_run_that_never_fits_has_no_time_scales():
    steps = {"seed": [0], "step": [0, 1]}
    never = Dataset({name: (("seed", "step"), [[0.1, 0.2]]) for name in ("train_accuracy", "test_accuracy")}, steps)
    never["test_loss"] = (("seed", "step"), [[2.0, 1.0]])
    found = time_scales(never, None, None, RULES)
    assert found == {
        "seeds": [0],
        "fit": [None],
        "generalise": [None],
        "declines": [{"curve": "test_loss", "layer": "", "onset": [None], "end": [None]}],
    }
