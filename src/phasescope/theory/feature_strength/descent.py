"""Full gradient descent on all weights, and R measured by least squares: what the closed forms are held to.

Nothing here uses the symmetry of the model, so that the closed forms can be compared with it. All in float64.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import softmax

from phasescope.theory.arrays import Array, increasing_steps
from phasescope.theory.feature_strength.model import FeatureStrength, samples


def start(model: FeatureStrength, seed: int | None = None) -> Array:
    """Initial weights (output, input) as in Assumption 2: all 1/d, or with a seed drawn from N(0, 1/d)."""
    inputs = samples(model).inputs.shape[1]
    if seed is None:
        return np.full((int(model.outputs), inputs), 1 / inputs)
    return np.random.default_rng(seed).normal(scale=inputs**-0.5, size=(int(model.outputs), inputs))


def descend(model: FeatureStrength, weights: Array, steps: ArrayLike) -> Array:
    """Weights (step, output, input) at the given steps of full-batch gradient descent (Eq. 5).

    w_yj += (λ/n) Σ_x (1[y is the class of x] − q_y(x)) x_j, cross-entropy without bias. The paper's Eq. 9 prints the
    indicator as 1[y' = y'], which is always 1.

    Args:
        model: one parameter set.
        weights: (output, input) at step 0.
        steps: whole, from 0 on, increasing.

    Raises:
        UserError: if the model holds arrays of parameter sets, or for other steps.
    """
    numbers = increasing_steps(steps)
    given = samples(model)
    right = np.eye(int(model.outputs))[given.label]
    pull = float(model.learning_rate) / len(given.label)
    current, found, done = weights.astype(np.float64), np.empty((len(numbers), *weights.shape)), 0
    for place, step in enumerate(numbers.tolist()):
        for _ in range(step - done):
            wrong = right - softmax(given.inputs @ current.T, axis=1)
            current = current + pull * wrong.T @ given.inputs
        found[place], done = current, step
    return found


def logits(model: FeatureStrength, weights: Array) -> Array:
    """What the layer gives for every sample, (..., sample, output), of weights (..., output, input)."""
    return samples(model).inputs @ np.swapaxes(weights, -1, -2)


def from_softmax(model: FeatureStrength, weights: Array, noise: float = 0.0) -> Array:
    """R of the best linear decoder with bias of all l probabilities, (...) of weights (..., output, input).

    Eq. 6 and 7 with the softmax probabilities q as the decoder's input, which Eq. 14 and Figure 5 use;
    Definition 3 says outputs o, see `from_logits`.

    Args:
        model: one parameter set.
        weights: (..., output, input).
        noise: standard deviation σ of independent noise on each probability.
    """
    return _errors(softmax(logits(model, weights), axis=-1), samples(model).inputs, noise)


def from_logits(model: FeatureStrength, weights: Array) -> Array:
    """The same of the outputs o, as Definition 3 has it: zero from the first step on."""
    return _errors(logits(model, weights), samples(model).inputs, 0.0)


def _errors(features: Array, targets: Array, noise: float) -> Array:
    found = [reconstruction_error(one, targets, noise) for one in features.reshape(-1, *features.shape[-2:])]
    return np.reshape(found, features.shape[:-2])


def reconstruction_error(features: Array, targets: Array, noise: float = 0.0) -> float:
    """Mean squared error of the best affine map of features to targets, refitted, mean over samples and targets.

    Noise of standard deviation σ on the features adds σ² ‖slopes‖² to the error in expectation; the map is the best
    with it, which is ridge regression with n σ².

    Args:
        features: (sample, feature).
        targets: (sample, target).
        noise: σ ≥ 0.
    """
    count, width = features.shape
    columns = np.hstack([features, np.ones((count, 1))])
    penalty = np.hstack([noise * count**0.5 * np.eye(width), np.zeros((width, 1))])
    rows, wanted = np.vstack([columns, penalty]), np.vstack([targets, np.zeros((width, targets.shape[1]))])
    residual = wanted - rows @ np.linalg.lstsq(rows, wanted)[0]
    return float((residual**2).sum() / targets.size)
