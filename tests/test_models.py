"""The networks, their taps, and their state as a flat vector."""

import copy
import json
import math
import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn

from phasescope.errors import UserError
from phasescope.models import batchnorm, state, taps, zoo
from phasescope.params.activations import Tap
from phasescope.params.models import TAPS, ModelSettings

# Learning-phases paper, released code: parameters for (grey, RGB) images, 10 classes, resolution 32.
PARAMETERS = {
    "f0": (10_240, 30_720),
    "vgg8": (1_574_122, 1_574_698),
    "vgg11": (4_672_490, 4_673_066),
    "vgg13": (7_042_090, 7_042_666),
    "vgg16": (7_817_130, 7_817_706),
}
NAMES = [*PARAMETERS, "resnet10"]


def network(name="vgg8", width=0.125, channels=3, resolution=32, classes=10):
    torch.manual_seed(0)
    return zoo.build(ModelSettings(name=name, width=width), channels, resolution, classes)


def images(samples=8, channels=3, resolution=32, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(samples, channels, resolution, resolution, generator=generator)


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def trained(model, steps=3):
    """The model after a few updates, so that its BatchNorm statistics are not the initial ones."""
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05)
    for seed in range(steps):
        optimiser.zero_grad()
        model(images(seed=seed)).square().mean().backward()
        optimiser.step()
    return model


def one_line(caught):
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- networks


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts_are_the_papers(name):
    counts = tuple(parameters(network(name, width=1.0, channels=channels)) for channels in (1, 3))
    assert counts == PARAMETERS[name]


@pytest.mark.parametrize("channels", [1, 3])
def test_parameter_count_of_resnet10(channels):
    stem = channels * 64 * 9 + 2 * 64
    first = 2 * (64 * 64 * 9 + 2 * 64)
    # Each later block: two 3×3 convolutions, a 1×1 projection, three BatchNorms.
    later = [9 * n * 2 * n + 9 * (2 * n) ** 2 + n * 2 * n + 3 * 2 * 2 * n for n in (64, 128, 256)]
    expected = stem + first + sum(later) + 512 * 10 + 10
    assert parameters(network("resnet10", width=1.0, channels=channels)) == expected
    assert expected == {1: 4_902_090, 3: 4_903_242}[channels]


def spatial(model):
    taps_of_blocks = [Tap(name=f"blocks.{i}") for i in range(len(model.blocks))]
    return [shape[-1] for shape in taps.shapes(model, taps_of_blocks, 3, 32).values()]


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("vgg8", [16, 8, 4, 2, 1]),
        ("vgg11", [16, 8, 8, 4, 4, 2, 2, 1]),
        ("vgg13", [16, 16, 8, 8, 4, 4, 2, 2, 2, 1]),
        ("vgg16", [32, 16, 16, 8, 8, 8, 4, 4, 4, 2, 2, 2, 1]),
        ("resnet10", [32, 16, 8, 4]),
    ],
)
def test_maps_shrink_as_in_the_paper(name, sizes):
    assert spatial(network(name)) == sizes


def test_weight_layers_of_resnet10():
    model = network("resnet10")
    main = [
        path
        for path, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and "shortcut" not in path
    ]
    assert len(main) == 10


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("resolution", [4, 9, 32, 48])
def test_head_fits_at_any_resolution(name, resolution):
    model = network(name, width=0.0625, channels=1, resolution=resolution, classes=7)
    assert model(images(2, 1, resolution)).shape == (2, 7)


def test_width_multiplies_channels_and_leaves_one_at_least():
    channels = [
        [module.out_channels for module in network("vgg8", width).modules() if isinstance(module, nn.Conv2d)]
        for width in (0.25, 1.5, 0.001)
    ]
    assert channels == [[8, 16, 32, 64, 128], [48, 96, 192, 384, 768], [1] * 5]


def test_order_is_convolution_batchnorm_relu_and_no_bias_but_the_heads():
    model = network("vgg8")
    assert [type(module) for module in model.blocks[0]] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
    assert model.blocks[0][0].bias is None
    assert model.head.bias is not None
    assert network("f0").head.bias is None


def test_residual_block_adds_its_input():
    block = zoo.BasicBlock(3, 3, stride=1).eval()
    nn.init.zeros_(block.bn2.weight)  # the inner branch then gives zero
    maps = images()
    torch.testing.assert_close(block(maps), maps.relu())


# --- taps


@pytest.mark.parametrize("name", NAMES)
def test_every_named_tap_is_there_and_no_other(name):
    model = network(name)
    shapes = taps.shapes(model, [Tap(name=tap) for tap in TAPS[name]], 3, 32)
    assert set(shapes) == set(TAPS[name])
    if name == "f0":
        with pytest.raises(UserError, match="'conv-2': f0 has no such tap"):
            taps.shapes(model, [Tap(name="conv-2")], 3, 32)


def test_shapes_of_named_taps_at_full_width():
    names = [Tap(name=name) for name in TAPS["vgg8"]]
    assert taps.shapes(network("vgg8", 1.0), names, 3, 32) == {
        "softmax": (10,),
        "logits": (10,),
        "predense": (512,),
        "conv-2": (256, 2, 2),
    }
    assert taps.shapes(network("resnet10", 1.0), names, 3, 32)["conv-2"] == (256, 8, 8)
    assert taps.shapes(network("vgg16", 1.0), names, 3, 32)["conv-2"] == (512, 2, 2)
    assert taps.shapes(network("f0", 1.0), names[:3], 3, 32)["predense"] == (3072,)


@pytest.mark.parametrize("name", ["vgg8", "resnet10"])
def test_taps_read_what_the_network_computes(name):
    model, x = network(name).eval(), images()
    with taps.Capture(model, [Tap(name=tap) for tap in (*TAPS[name], "blocks.0")]) as capture:
        logits = model(x)
        read = capture.read()
    torch.testing.assert_close(read["logits"], logits, rtol=0, atol=0)
    torch.testing.assert_close(read["softmax"], logits.softmax(1), rtol=0, atol=0)
    torch.testing.assert_close(model.head(read["predense"]), logits, rtol=0, atol=0)
    rest = nn.Sequential(model.blocks[-1], *model[list(model._modules).index("blocks") + 1 :])
    side = 2 if name == "vgg8" else 8
    torch.testing.assert_close(rest(read["conv-2"].reshape(8, -1, side, side)), logits, rtol=0, atol=0)
    first = model.blocks[0](model.stem(x) if name == "resnet10" else x)
    torch.testing.assert_close(read["blocks.0"], first.flatten(1), rtol=0, atol=0)
    assert not any(activations.requires_grad for activations in read.values())


def test_predense_of_f0_is_the_image():
    model, x = network("f0"), images()
    with taps.Capture(model, [Tap(name="predense")]) as capture:
        model(x)
        torch.testing.assert_close(capture.read()["predense"], x.flatten(1), rtol=0, atol=0)


def test_no_later_module_overwrites_a_tap():
    model, x = network("vgg8").eval(), images()
    with taps.Capture(model, [Tap(name="blocks.0.1")]) as capture:
        model(x)
        read = capture.read()["blocks.0.1"]
    torch.testing.assert_close(read, model.blocks[0][1](model.blocks[0][0](x)).flatten(1), rtol=0, atol=0)
    assert read.min() < 0


def test_pooling_averages_maps():
    model, x = network("vgg8").eval(), images()
    pooled, whole = Tap(name="blocks.0", pool=4), Tap(name="blocks.0")
    with taps.Capture(model, [pooled]) as capture:
        model(x)
        read = capture.read()["blocks.0"]
    expected = model.blocks[0](x).reshape(8, 4, 4, 4, 4, 4).mean((3, 5))
    torch.testing.assert_close(read, expected.flatten(1))
    assert taps.shapes(model, [pooled], 3, 32) == {"blocks.0": (4, 4, 4)}
    assert taps.shapes(model, [whole], 3, 32) == {"blocks.0": (4, 16, 16)}


@pytest.mark.parametrize(
    ("tap", "message"),
    [
        (
            Tap(name="blokcs.1"),
            "vgg8 has no such tap .nearest: 'blocks.1'.*softmax, logits, predense, conv-2",
        ),
        (Tap(name="predense", pool=2), "no maps to pool"),
        (Tap(name="conv-2", pool=3), "pool is 3, but the maps are 2×2"),
    ],
)
def test_a_tap_that_cannot_be_is_told_in_one_line(tap, message):
    with pytest.raises(UserError, match=message) as caught:
        taps.shapes(network("vgg8"), [tap], 3, 32)
    assert repr(tap.name) in one_line(caught)


def test_a_module_that_gives_no_tensor_is_told_in_one_line():
    class Pair(nn.Module):
        def forward(self, x):
            return x, x

    class First(nn.Module):
        def forward(self, pair):
            return pair[0]

    model = network("vgg8")
    model.blocks.append(nn.Sequential(Pair(), First()))
    with pytest.raises(UserError, match="gives a tuple") as caught:
        taps.shapes(model, [Tap(name="blocks.5.0")], 3, 32)
    one_line(caught)


@pytest.mark.parametrize("name", NAMES)
def test_finding_shapes_disturbs_nothing(name):
    model = trained(network(name))
    model.head.eval()
    before, modes = copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]
    random = torch.get_rng_state()
    taps.shapes(model, [Tap(name="softmax"), Tap(name="predense")], 3, 32)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert modes == [module.training for module in model.modules()]
    assert torch.equal(random, torch.get_rng_state())
    assert not any(module._forward_hooks for module in model.modules())


def test_capturing_does_not_disturb_training():
    plain, watched = trained(network("vgg8")), network("vgg8")
    with taps.Capture(watched, [Tap(name="softmax"), Tap(name="blocks.0.1")]) as capture:
        trained(watched)
        capture.read()
    assert torch.equal(state.flatten(plain), state.flatten(watched))
    assert not any(module._forward_hooks for module in watched.modules())
    with pytest.raises(RuntimeError), taps.Capture(watched, [Tap(name="logits")]):
        watched(torch.zeros(1, 1))
    assert not any(module._forward_hooks for module in watched.modules())


# --- state


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_state_survives_the_round_trip_exactly(name, dtype):
    model = trained(network(name)).to(dtype)
    for key, buffer in model.named_buffers():
        if key.endswith("num_batches_tracked"):
            buffer.fill_(2**24)
    vector, entries = state.flatten(model), json.loads(json.dumps(state.table(model)))
    assert vector.dtype == dtype
    assert not vector.requires_grad
    twin = network(name, width=0.125).to(dtype)
    weights = [parameter.data_ptr() for parameter in twin.parameters()]
    state.unflatten(twin, vector, entries)
    assert weights == [parameter.data_ptr() for parameter in twin.parameters()]
    for key, value in model.state_dict().items():
        assert torch.equal(value, twin.state_dict()[key])
        assert value.dtype == twin.state_dict()[key].dtype
    vector.zero_()
    assert state.flatten(twin).any()  # no memory is shared with the vector


def test_table_says_where_each_tensor_lies():
    model = trained(network("resnet10"))
    vector, entries = state.flatten(model), state.table(model)
    assert [entry["name"] for entry in entries] == list(model.state_dict())
    assert entries[-1]["offset"] + entries[-1]["length"] == len(vector)
    for entry in entries:
        value = model.state_dict()[entry["name"]]
        part = vector[entry["offset"] : entry["offset"] + entry["length"]].reshape(entry["shape"])
        assert torch.equal(part, value.to(vector.dtype))
        assert entry["dtype"] == ("int64" if entry["name"].endswith("tracked") else "float32")


def test_weights_of_another_network_are_refused():
    model, other = network("vgg8"), network("vgg11")
    untouched = state.flatten(model)
    with pytest.raises(UserError, match=r"it has blocks.3.0.weight \(32, 16, 3, 3\) .*\(16, 16, 3, 3\)") as caught:
        state.unflatten(model, state.flatten(other), state.table(other))
    one_line(caught)
    with pytest.raises(UserError, match=r"it has head\.bias .* where they have nothing"):
        state.unflatten(model, untouched, state.table(model)[:-1])
    with pytest.raises(UserError, match="numbers"):
        state.unflatten(model, untouched[:-1], state.table(model))
    assert torch.equal(untouched, state.flatten(model))


@pytest.mark.parametrize(("name", "length"), [("f0", 0), ("vgg8", 2 * (4 + 8 + 16 + 32 + 64))])
def test_batchnorm_statistics_are_kept_apart(name, length):
    model, twin = trained(network(name)), trained(network(name))
    vector = state.flatten_batchnorm(model)
    assert vector.shape == (length,)
    assert sum(entry["length"] for entry in state.batchnorm_table(model)) == length
    batchnorm.recalibrate(twin, images(seed=9))
    weights = [parameter.clone() for parameter in twin.parameters()]
    state.unflatten_batchnorm(twin, vector)
    assert torch.equal(state.flatten_batchnorm(twin), vector)
    assert all(torch.equal(a, b) for a, b in zip(weights, twin.parameters(), strict=True))
    with pytest.raises(UserError, match="numbers"):
        state.unflatten_batchnorm(twin, torch.zeros(length + 1))


# --- BatchNorm


def test_recalibrated_statistics_are_those_of_the_images():
    model, x = trained(network("vgg8")).double(), images(96).double()
    weights = [parameter.clone() for parameter in model.parameters()]
    batchnorm.recalibrate(model, x)
    maps = model.blocks[0][0](x).detach()
    layer = model.blocks[0][1]
    torch.testing.assert_close(layer.running_mean, maps.mean((0, 2, 3)), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(layer.running_var, maps.var((0, 2, 3)), rtol=1e-12, atol=1e-14)
    assert not any(module.training for module in model.modules())
    assert layer.momentum == 0.1
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))


def test_recalibration_averages_nearly_equal_batches():
    model, x = network("vgg8").double(), images(97).double()  # batches of 49 and 48, not of 96 and 1
    seen = []
    hook = model.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    batchnorm.recalibrate(model, x, batch=96)
    hook.remove()
    assert seen == [49, 48]
    maps = model.blocks[0][0](x).detach()
    means = torch.stack([part.mean((0, 2, 3)) for part in maps.split(49)])
    variances = torch.stack([part.var((0, 2, 3)) for part in maps.split(49)])
    torch.testing.assert_close(model.blocks[0][1].running_mean, means.mean(0), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(model.blocks[0][1].running_var, variances.mean(0), rtol=1e-12, atol=1e-14)


def test_recalibration_does_not_depend_on_earlier_statistics():
    model, twin = trained(network("resnet10")), trained(network("resnet10"))
    for module in twin.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.fill_(3)
    for each in (model, twin):
        batchnorm.recalibrate(each, images())
    assert torch.equal(state.flatten(model), state.flatten(twin))


@pytest.mark.parametrize("name", ["vgg8", "resnet10"])
def test_batch_statistics_in_eval_mode_are_those_of_training_mode(name):
    model, x = trained(network(name)), images()
    with torch.no_grad():
        expected = copy.deepcopy(model).train()(x)
        stored = state.flatten_batchnorm(model)
        kept = stored.clone()
        assert not torch.allclose(model.eval()(x), expected)
        batchnorm.use_batch_statistics(model)
        torch.testing.assert_close(model.eval()(x), expected, rtol=0, atol=0)
    assert torch.equal(stored, kept)
    assert taps.shapes(model, [Tap(name="logits")], 3, 32) == {"logits": (10,)}


def test_a_network_without_batchnorm_stays_as_it_is():
    model = network("f0")
    before = state.flatten(model)
    batchnorm.recalibrate(model, images())
    batchnorm.use_batch_statistics(model)
    assert torch.equal(before, state.flatten(model))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("initialisation", ["default", "normal"])
def test_an_outline_has_the_shapes_of_the_network_and_draws_nothing(name, initialisation):
    settings = ModelSettings(name=name, width=0.25, initialisation=initialisation)
    named = [Tap(name=tap) for tap in TAPS[name]]
    random = torch.get_rng_state()
    outline = zoo.outline(settings, 3, 32, 10)
    assert torch.equal(random, torch.get_rng_state())
    built = zoo.build(settings, 3, 32, 10)
    assert state.table(outline) == state.table(built)
    with taps.Capture(built, named) as capture:
        built(torch.zeros(2, 3, 32, 32))
        expected = {tap: read.shape[1] for tap, read in capture.read().items()}
    assert {tap: math.prod(shape) for tap, shape in taps.shapes(outline, named, 3, 32).items()} == expected


def test_neither_shapes_nor_updates_import_the_compiler_of_torch():
    code = """
        import sys, torch
        from phasescope.models import optimisers, taps, zoo
        from phasescope.params.activations import Tap
        from phasescope.params.models import ModelSettings
        from phasescope.params.train import TrainJob
        for name in ("vgg8", "resnet10"):
            taps.shapes(zoo.outline(ModelSettings(name=name, width=0.1), 1, 16, 10), [Tap(name="softmax")], 1, 16)
        taps.shapes(zoo.outline(ModelSettings(name="transformer-2"), 22, 1, 11), [Tap(name="logits")], 22, 1)
        model = zoo.build(ModelSettings(name="f0"), 1, 4, 10)
        for optimiser in ("sgd", "adamw"):
            model(torch.zeros(2, 1, 4, 4)).sum().backward()
            optimisers.Optimiser(TrainJob(dataset="d", model={"name": "f0"}, optimiser=optimiser), model).update(0.1)
        assert "torch._dynamo" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)
