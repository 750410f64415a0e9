"""The mechanisms of feature learning, judged by the numbers at two times."""

import numpy as np
import pytest

from phasescope.errors import UserError
from phasescope.theory.mechanisms import mechanisms


@pytest.mark.parametrize(
    ("alignment", "norm", "kernel", "named"),
    [
        ((0.0, 0.06), (1, 1), (1, 1.2), "alignment"),
        ((0.3, 0.1), (1, 1), (1, 0.9), "disalignment"),
        ((-0.3, 0.1), (1, 1), (1, 0.9), "disalignment"),  # through zero: the layers are less aligned, not more
        ((-0.1, 0.3), (1, 1), (1, 2), "alignment"),
        ((0.1, 0.1), (1, 1.1), (1, 1.1), "rescaling"),
        ((0.1, 0.1), (1, 0.9), (1, 0.9), "rescaling"),
        ((0.0, 0.04), (1, 1.05), (1, 0.96), "kernel"),
        ((0.0, 0.9), (1, 3), (1, 1), "alignment, rescaling, kernel"),  # as with very unequal learning rates
        ((0.1, 0.1), (0, 1), (0, 1), "rescaling"),  # from nothing
        ((0.1, 0.1), (0, 0), (0, 0), ""),
        ((np.nan, 0.1), (1, np.inf), (1, np.nan), "rescaling"),
    ],
)
def test_a_mechanism_is_a_change_above_the_tolerance(alignment, norm, kernel, named):
    found = mechanisms(alignment, norm, kernel)
    names = ("alignment", "disalignment", "rescaling", "kernel")
    assert ", ".join(name for name in names if getattr(found, name)) == named


def test_the_first_and_the_last_time_count_for_many_at_once():
    rng = np.random.default_rng(0)
    alignment, norm, kernel = rng.uniform(-1, 1, (7, 3, 5)), rng.uniform(1, 2, (7, 3, 5)), rng.uniform(1, 2, (7, 1, 5))
    found = mechanisms(alignment, norm, kernel, tolerance=0.3)
    for place in np.ndindex(3, 5):
        one = mechanisms(alignment[[0, 6], *place], norm[[0, 6], *place], kernel[[0, 6], 0, place[1]], tolerance=0.3)
        assert [array[place] for array in found] == list(one)
    output = np.log(np.abs(alignment[6] * norm[6] / alignment[0] / norm[0]))
    np.testing.assert_allclose(found.output_growth, output, rtol=1e-12)
    assert 0 < found.alignment.sum() < 15
    np.testing.assert_array_equal(found.kernel, np.broadcast_to(found.kernel[0], (3, 5)))


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (((0, 1), (1, 1), (1, 1), 0.0), "mechanisms: tolerance is 0.0; it must be a finite number above 0"),
        (((0, 1), 1.0, (1, 1)), "mechanisms: norm has the shape (); its first dimension must be the time"),
        (
            (np.ones((2, 3)), np.ones((2, 4)), np.ones(2)),
            "mechanisms: shapes alignment (2, 3), norm (2, 4), kernel (2,) do not go together; "
            "give arrays that broadcast",
        ),
    ],
)
def test_bad_input_is_told_in_one_line(given, line):
    with pytest.raises(UserError) as caught:
        mechanisms(*given)
    assert str(caught.value) == line
