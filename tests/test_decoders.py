"""Decoders that are trained: their shapes and parameters, what they converge to, and where they do not."""

from functools import partial

import numpy as np
import pytest
import torch
import xarray as xr

from phasescope.errors import UserError
from phasescope.measures import fitting
from phasescope.measures.decode import decode, decode_trained, settings_of, with_distance
from phasescope.measures.decoders import build, deconvolution
from phasescope.measures.samples import Samples
from phasescope.params.decode import DecodeSettings
from small import ONE


def cells(*features, shape=None):
    values = np.stack(features)[None]
    coords = {"seed": [3], "step": np.arange(len(features)), "sample": np.arange(values.shape[2])}
    attrs = {"feature_shape": list(shape or values.shape[3:])}
    return xr.DataArray(values, coords, ("seed", "step", "sample", "feature"), attrs=attrs)


@pytest.fixture(scope="module")
def samples():
    """256 images of 1×8×8 pixels that vary along 6 directions, and features that hold them."""
    generator = np.random.default_rng(0)
    inputs = generator.standard_normal((256, 6)) @ generator.standard_normal((6, 64)) / 2
    inputs += 0.1 * generator.standard_normal((256, 64))
    return Samples(inputs.astype(np.float32), np.zeros(256, np.int64), np.arange(256) < 192, 1, (1, 8, 8))


@pytest.fixture(scope="module")
def features(samples):
    weights = np.random.default_rng(1).standard_normal((64, 8)) / 8
    return (samples.inputs @ weights).astype(np.float32)


@pytest.mark.parametrize(
    ("shape", "channels", "parameters"),
    [
        # The paper's decoder (its released code executed): methods of the learning-phases paper, section on decoders.
        ((10,), 3, 3_281_539),
        ((512,), 3, 7_213_507),
        ((512, 1, 1), 3, 7_213_507),
        ((256, 2, 2), 3, 2_297_539),
        ((512, 2, 2), 3, 5_115_843),
    ],
)
def test_the_parameters_of_the_deconvolution_decoder_are_those_of_the_paper(shape, channels, parameters):
    decoder = deconvolution(shape, (channels, 32, 32))
    assert sum(values.numel() for values in decoder.parameters()) == parameters
    assert decoder(torch.zeros(2, *shape)).shape == (2, channels * 32 * 32)


def test_transposed_convolutions_are_as_wide_as_the_paper_has_them():
    def widths(shape, width=1.0):
        layers = deconvolution(shape, (3, 32, 32), width)
        return [layer.out_channels for layer in layers if isinstance(layer, torch.nn.ConvTranspose2d)]

    assert widths((10,)) == [512, 256, 128, 64, 3]
    assert widths((256, 2, 2)) == [256, 128, 64, 3]
    assert widths((512, 4, 4)) == [128, 64, 3]
    assert widths((64, 8, 8), 0.25) == [16, 3]


def test_maps_that_never_become_the_image_are_refused():
    for shape, maps in [((8, 3, 3), "3×3"), ((8, 32, 32), "32×32"), ((8, 2, 4), "2×4"), ((5, 7), "7")]:
        with pytest.raises(UserError, match=f"{maps} never become 32×32") as raised:
            deconvolution(shape, (3, 32, 32))
        assert "\n" not in str(raised.value)


def test_the_linear_decoder_has_the_parameters_of_the_released_code():
    decoder = build("linear-adam", (512,), (3, 32, 32), 1.0)
    assert sum(values.numel() for values in decoder.parameters()) == 1_575_936


def test_linear_adam_comes_to_the_exact_optimum_and_says_how_far_it_is(samples, features):
    settings = DecodeSettings(decoders=["linear-adam"], epochs=2000, learning_rate=0.02, batch_size=192)
    found = decode_trained(cells(features), samples, settings, ONE)
    design = np.column_stack([features, np.ones(256)]).astype(np.float64)
    train = samples.train
    weights = np.linalg.lstsq(design[train], samples.inputs[train].astype(np.float64), rcond=None)[0]
    residuals = np.square(design @ weights - samples.inputs).mean(axis=1)
    assert found["optimum_mse"].item() == pytest.approx(residuals[train].mean(), rel=1e-6)
    assert 0 <= found["excess"].item() < 1e-3
    assert found["train_mse"].item() == pytest.approx(found["optimum_mse"].item() * (1 + found["excess"].item()))
    assert found["test_mse"].item() == pytest.approx(residuals[~train].mean(), rel=0.01)
    # One epoch is far too little, and the report says so.
    hasty = decode_trained(cells(features), samples, settings.model_copy(update={"epochs": 1}), ONE)
    assert hasty["excess"].item() > 0.5
    assert hasty["epoch_mse"].item() == pytest.approx(found["epoch_mse"][..., 0].item())


def test_the_loss_of_an_epoch_is_that_of_the_batches_before_their_updates(samples, features):
    """Against a bare loop."""
    settings = DecodeSettings(decoders=["linear-adam"], epochs=2, batch_size=50, weight_decay=0.01)
    found = decode_trained(cells(features), samples, settings, ONE)
    torch.manual_seed(0)
    layer = torch.nn.Linear(8, 64)
    optimiser = torch.optim.Adam(layer.parameters(), lr=0.0003, weight_decay=0.01)
    inputs, targets = (torch.from_numpy(values[samples.train]) for values in (features, samples.inputs))
    losses = []
    for epoch in range(2):
        order = np.random.default_rng([0, epoch]).permutation(192)
        total = 0.0
        for rows in np.split(order, [50, 100, 150]):
            loss = torch.nn.functional.mse_loss(layer(inputs[rows]), targets[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.item() * len(rows)
        losses.append(total / 192)
    np.testing.assert_allclose(found["epoch_mse"][0, 0], losses, rtol=1e-6)
    np.testing.assert_array_equal(found["epoch"], [1, 2])


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (
            partial(fitting.adam, weight_decay=0.01),
            partial(torch.optim.Adam, lr=0.1, weight_decay=0.01, fused=True),
        ),
        (partial(fitting.sgd, momentum=0.9), partial(torch.optim.SGD, lr=0.1, momentum=0.9)),
        (partial(fitting.sgd, momentum=0.0), partial(torch.optim.SGD, lr=0.1)),
    ],
)
def test_optimisers_are_those_of_torch_to_the_bit(ours, theirs):
    torch.manual_seed(0)
    module, same = torch.nn.Linear(7, 5), torch.nn.Linear(7, 5)
    same.load_state_dict(module.state_dict())
    update, optimiser = ours(module), theirs(same.parameters())
    for rate in (0.1, 0.1, 0.03, 0.03):
        inputs = torch.randn(11, 7)
        for each in (module, same):
            each.zero_grad()
            each(inputs).square().sum().backward()
        update(rate)
        optimiser.param_groups[0]["lr"] = rate
        optimiser.step()
    for mine, theirs in zip(module.parameters(), same.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_deconvolution_decoder_learns(samples, features):
    settings = DecodeSettings(decoders=["deconvolution"], epochs=60, learning_rate=0.003, batch_size=32, width=0.125)
    found = decode_trained(cells(features, features[:, ::-1]), samples, settings, ONE)
    assert found["epoch_mse"].dims == ("seed", "step", "epoch")
    assert (found["epoch_mse"][..., -1] < 0.6 * found["epoch_mse"][..., 0]).all()
    assert (found["fvu"] < 0.6).all()
    assert "excess" not in found
    maps = np.repeat(features, 4, axis=1)
    of_maps = decode_trained(cells(maps, shape=(8, 2, 2)), samples, settings, ONE)
    assert of_maps["fvu"].item() < 0.6


def test_the_same_bits_again_whatever_was_before(samples, features):
    settings = DecodeSettings(decoders=["deconvolution"], epochs=2, width=0.125)
    torch.manual_seed(11)
    state = torch.get_rng_state()
    both = decode_trained(cells(features, features * 2), samples, settings, ONE)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(12)
    alone = decode_trained(cells(features * 2), samples, settings, ONE)
    xr.testing.assert_identical(both.isel(step=1, drop=True), alone.isel(step=0, drop=True))


def test_the_distance_of_test_errors_is_told_where_the_exact_decoder_is_there_too(samples, features):
    exact = decode(cells(features), samples, DecodeSettings())
    trained = decode_trained(cells(features), samples, DecodeSettings(decoders=["linear-adam"], epochs=3), ONE)
    both = xr.concat([exact, trained], xr.DataArray(["linear", "linear-adam"], dims="decoder"), data_vars="all")
    excess = with_distance(both)["test_excess"]
    assert np.isnan(excess.sel(decoder="linear")).all()
    ratio = trained["test_mse"].item() / exact["test_mse"].item()
    assert excess.sel(decoder="linear-adam").item() == pytest.approx(ratio - 1)


def test_what_other_decoders_are_set_to_does_not_tell_cells_apart():
    one = DecodeSettings(decoders=["linear", "deconvolution"], epochs=3, selection="loo", trained_taps=["logits"])
    other = DecodeSettings(decoders=["linear"], epochs=5, width=0.5, selection="loo")
    assert settings_of("linear", one) == settings_of("linear", other)
    of = partial(settings_of, "deconvolution")
    assert of(one) == of(one.model_copy(update={"selection": "gcv", "trained_taps": None, "exact_limit": 7}))
    assert of(one) != of(other)
    assert settings_of("linear-adam", one) == settings_of("linear-adam", one.model_copy(update={"width": 0.5}))
