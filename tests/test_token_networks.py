"""Networks of tokens: what they are made of, what each part computes, and their way through training and recording."""

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from conftest import RUN_ALL, new_project
from phasescope import training
from phasescope.budget import budget
from phasescope.budget.runs import Images, Run
from phasescope.data.operations import load_binary_operation
from phasescope.errors import UserError
from phasescope.measures import cells
from phasescope.measures.decode import decode
from phasescope.models import taps, tokens, zoo
from phasescope.params.activations import ActivationsSettings, Tap
from phasescope.params.datasets import DatasetSettings
from phasescope.params.decode import DecodeSettings
from phasescope.params.models import OF_TOKENS, TAPS, ModelSettings
from phasescope.params.settings import read
from phasescope.params.train import TrainJob
from phasescope.run import Run as OpenedRun
from phasescope.store.cache import CellCache
from phasescope.store.datasets import write_dataset
from phasescope.store.run import StoredRun
from projects import PER_RUN, SMALL_THEORY
from small import ONE, cache_of, record

P = 7


def network(name, classes=P, **more):
    torch.manual_seed(0)
    return zoo.build(ModelSettings(name=name, **more), 2 * classes, 1, classes)


def pairs(classes=P, dtype=torch.float32):
    """All pairs of tokens: places (pair, 2), and one-hot (pair, channel, 1, 1) as they are stored."""
    places = torch.cartesian_prod(torch.arange(classes), torch.arange(classes))
    return places, functional.one_hot(places, classes).to(dtype).reshape(-1, 2 * classes, 1, 1)


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


# --- what they are made of


@pytest.mark.parametrize(
    ("name", "classes", "count"),
    [("embedding-mlp", 59, 44_352), ("transformer-1", 59, 57_280), ("transformer-2", 96, 422_240)],
)
def test_parameter_counts(name, classes, count):
    assert parameters(network(name, classes)) == count


def test_parameters_of_the_papers_transformer_are_those_of_its_layers():
    width, hidden, vocabulary = 128, 512, 98
    attention = 4 * (width * width + width)
    perceptron = width * hidden + hidden + hidden * width + width
    block = 2 * 2 * width + attention + perceptron
    assert 2 * block + vocabulary * width + 4 * width + 2 * width + 96 * width + 96 == 422_240
    # The code that it is after has a fifth position, for the answer, which it never reads.
    assert 422_240 + width == 422_368


@pytest.mark.parametrize("name", OF_TOKENS)
@pytest.mark.parametrize("width", [0.01, 0.3, 1.7])
def test_width_multiplies_units_and_leaves_four_heads(name, width):
    model = network(name, width=width)
    expected = max(1, round(16 * (2 if name == "transformer-2" else 1) * width)) * 4
    if name == "embedding-mlp":
        assert model.embed.table.out_features == max(1, round(64 * width))
        assert model.head.in_features == max(1, round(128 * width))
    else:
        assert model.head.in_features == expected
        assert model.blocks[0].attention.heads == 4
        assert model.blocks[0].mlp[0].out_features == 4 * expected
    assert model(pairs()[1]).shape == (P * P, P)


@pytest.mark.parametrize("name", OF_TOKENS)
def test_other_inputs_than_pairs_of_tokens_are_refused(name):
    with pytest.raises(ValueError, match="reads two one-hot tokens of 7 values each, not 21 channels"):
        zoo.build(ModelSettings(name=name), 21, 1, 7)


def test_initial_weights():
    for name, std in (("embedding-mlp", 1 / 8), ("transformer-1", 1 / 8), ("transformer-2", 1.0)):
        model = network(name, classes=400)
        # 25,600 numbers or more: the standard deviation of their standard deviation is 0.44 % at most.
        assert model.embed.table.weight.std().item() == pytest.approx(std, rel=0.02)
        normal = network(name, classes=400, initialisation="normal")
        assert normal.embed.table.weight.std().item() == pytest.approx(normal.embed.table.in_features**-0.5, rel=0.02)
        assert normal.head.weight.std().item() == pytest.approx(normal.head.in_features**-0.5, rel=0.02)
        linear = [module for module in normal.modules() if isinstance(module, nn.Linear) and module.bias is not None]
        assert linear
        assert all((module.bias == 0).all() for module in linear)
    positions = network("transformer-2").embed.positions.weight
    assert positions.shape == (4, 128)
    assert positions.std().item() == pytest.approx(1.0, rel=0.15)


# --- what each part computes


@pytest.mark.parametrize("name", OF_TOKENS)
def test_a_linear_layer_on_one_hot_tokens_is_a_lookup(name):
    model = network(name, dtype="float64").eval()
    places, images = pairs(dtype=torch.float64)
    table = model.embed.table.weight.T  # (token, unit)
    a, b, own = *places.T, torch.full((P * P,), P)
    sequences = {"embedding-mlp": (a, b), "transformer-1": (a, b, own), "transformer-2": (a, own, b, own + 1)}
    expected = functional.embedding(torch.stack(sequences[name], dim=1), table)
    if name == "embedding-mlp":
        expected = expected.flatten(1)
    else:
        scale = math.sqrt(128) if name == "transformer-2" else 1.0
        expected = scale * expected + model.embed.positions.weight
    torch.testing.assert_close(model.embed(images), expected, rtol=1e-14, atol=1e-14)


def test_embedding_mlp_is_a_perceptron_on_both_embeddings():
    model = network("embedding-mlp", dtype="float64")
    places, images = pairs(dtype=torch.float64)
    hidden = model.embed.table.weight.T[places].flatten(1)
    for block in model.blocks:
        hidden = (hidden @ block[0].weight.T + block[0].bias).clamp(min=0)
    torch.testing.assert_close(model(images), hidden @ model.head.weight.T, rtol=1e-12, atol=1e-12)


def attention_by_hand(attention, stream):
    """Every head and position by itself."""
    length, width = stream.shape[1:]
    unit = width // attention.heads
    query, key, value = (part(stream) for part in (attention.query, attention.key, attention.value))
    read = torch.zeros_like(stream)
    for head in range(attention.heads):
        mine = slice(head * unit, (head + 1) * unit)
        for place in range(length):
            scores = torch.stack(
                [(query[:, place, mine] * key[:, other, mine]).sum(-1) for other in range(place + 1)], dim=-1
            )
            weights = (scores / math.sqrt(unit)).exp()
            weights = weights / weights.sum(-1, keepdim=True)
            read[:, place, mine] = sum(weights[:, other, None] * value[:, other, mine] for other in range(place + 1))
    return attention.out(read)


@pytest.mark.parametrize(("name", "length"), [("transformer-1", 3), ("transformer-2", 4)])
def test_attention_is_that_of_the_formula(name, length):
    attention = network(name, dtype="float64").eval().blocks[0].attention
    width = attention.out.in_features
    stream = torch.randn(5, length, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(attention(stream), attention_by_hand(attention, stream), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", ["transformer-1", "transformer-2"])
def test_a_block_adds_attention_and_a_perceptron_to_the_stream(name):
    model = network(name, dtype="float64").eval()
    stream = model.embed(pairs(dtype=torch.float64)[1])
    expected = stream
    for block in model.blocks:
        if name == "transformer-2":
            first = functional.layer_norm(expected, (128,), block.norm1.weight, block.norm1.bias)
            middle = expected + attention_by_hand(block.attention, first)
            second = functional.layer_norm(middle, (128,), block.norm2.weight, block.norm2.bias)
            hidden = functional.gelu(block.mlp[0](second))
        else:
            middle = expected + attention_by_hand(block.attention, expected)
            hidden = block.mlp[0](middle).clamp(min=0)
        expected = middle + block.mlp[3](hidden)
    torch.testing.assert_close(model.blocks(stream), expected, rtol=1e-10, atol=1e-11)
    last = expected[:, -1]
    if name == "transformer-2":
        last = functional.layer_norm(last, (128,), model.norm.weight, model.norm.bias)
    torch.testing.assert_close(model(pairs(dtype=torch.float64)[1]), model.head(last), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["transformer-1", "transformer-2"])
def test_no_token_sees_a_later_one_and_the_last_sees_all(name):
    model = network(name).eval()
    stream = torch.randn(2, len(tokens.TRANSFORMERS[name].sequence), model.head.in_features)
    plain = model.blocks(stream)
    for place in range(stream.shape[1]):
        changed = stream.clone()
        changed[:, place] += torch.randn(stream.shape[-1])
        difference = (model.blocks(changed) - plain).abs().amax(dim=(0, 2))
        assert (difference[:place] == 0).all()
        assert (difference[place:] > 1e-6).all()


@pytest.mark.parametrize("name", OF_TOKENS)
def test_dropout_is_of_training_alone_and_of_the_papers_transformer(name):
    model, (_, images) = network(name), pairs()
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(images), model(images), rtol=0, atol=0)
        trained = [model.train()(images) for _ in range(2)]
    assert torch.equal(*trained) == (name != "transformer-2")
    zeros = []
    for dropout in (module for module in model.modules() if isinstance(module, nn.Dropout)):
        dropout.register_forward_hook(lambda _, given, found: zeros.append((found[given[0] != 0] == 0).float().mean()))
    model(images)
    expected = 0.1 if name == "transformer-2" else 0.0
    assert [share.item() for share in zeros] == [pytest.approx(expected, abs=0.03)] * len(zeros)
    assert len(zeros) == {"embedding-mlp": 0, "transformer-1": 4, "transformer-2": 7}[name]


def test_attention_drops_weights_in_training():
    attention = network("transformer-2").train().blocks[0].attention
    stream = torch.randn(1, 1, 128)  # a single position reads itself alone: all of a head, or nothing
    with torch.no_grad():
        own = attention.value(stream)
        found = torch.cat([_heads(attention, stream) for _ in range(500)])
    dropped = (found == 0).all(-1)
    assert dropped.float().mean().item() == pytest.approx(0.1, abs=0.02)  # of 2,000; σ = 0.7 %
    torch.testing.assert_close(found[~dropped][0], own.reshape(4, 32)[(~dropped).nonzero()[0, 1]] / 0.9)


def _heads(attention, stream):
    """What the heads (1, 4, unit) read, which goes into the last layer of the attention."""
    seen = []
    hook = attention.out.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    attention(stream)
    hook.remove()
    return seen[0].reshape(1, 4, 32)


@pytest.mark.parametrize("name", OF_TOKENS)
def test_all_derivatives_are_there_for_each_sample(name):
    model, (_, images) = network(name, dtype="float64").eval(), pairs(dtype=torch.float64)
    weights = dict(model.named_parameters())

    def loss(weights, image):
        return torch.func.functional_call(model, weights, image[None])[0].square().sum()

    each = torch.func.vmap(torch.func.grad(loss), (None, 0))(weights, images[:3])
    model(images[2:3]).square().sum().backward()
    for path, weight in weights.items():
        torch.testing.assert_close(each[path][2], weight.grad, rtol=1e-9, atol=1e-12)


# --- taps


@pytest.mark.parametrize("name", OF_TOKENS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_taps_read_what_the_network_computes(name, dtype):
    model, (_, images) = network(name, dtype=dtype).eval(), pairs(dtype=getattr(torch, dtype))
    names = [*TAPS[name], "embed", "blocks.0"]
    model = zoo.place(model, torch.device("cpu"))
    with taps.Capture(model, [Tap(name=tap) for tap in names]) as capture:
        logits = model(images.to(memory_format=torch.channels_last))
        read = capture.read()
    torch.testing.assert_close(read["logits"], logits, rtol=0, atol=0)
    torch.testing.assert_close(read["softmax"], logits.softmax(1), rtol=0, atol=0)
    torch.testing.assert_close(model.head(read["predense"]), logits, rtol=0, atol=0)
    expected = taps.shapes(model, [Tap(name=tap) for tap in names], 2 * P, 1)
    assert {tap: math.prod(shape) for tap, shape in expected.items()} == {tap: v.shape[1] for tap, v in read.items()}
    assert all(value.dtype == getattr(torch, dtype) for value in read.values())
    # From what `embed` gives on, the rest of the network can be run by itself.
    rest = model[1:](read["embed"].unflatten(1, expected["embed"]))
    torch.testing.assert_close(rest, logits, rtol=0, atol=0)


def test_shapes_of_taps():
    names = [Tap(name=name) for name in ("softmax", "predense", "embed", "blocks.0", "blocks.1")]
    assert taps.shapes(network("embedding-mlp"), names, 2 * P, 1) == {
        "softmax": (P,),
        "predense": (128,),
        "embed": (128,),
        "blocks.0": (128,),
        "blocks.1": (128,),
    }
    assert taps.shapes(network("transformer-2"), names, 2 * P, 1) == {
        "softmax": (P,),
        "predense": (128,),
        "embed": (4, 128),
        "blocks.0": (4, 128),
        "blocks.1": (4, 128),
    }
    hidden = [Tap(name="blocks.0.mlp.1", position=-1), Tap(name="embed.tokens")]
    assert taps.shapes(network("transformer-1"), hidden, 2 * P, 1) == {
        "blocks.0.mlp.1": (256,),
        "embed.tokens": (3, P + 1),
    }


@pytest.mark.parametrize("position", [0, 2, -1, -3])
def test_one_position_of_a_sequence(position):
    model, (_, images) = network("transformer-1").eval(), pairs()
    with taps.Capture(model, [Tap(name="blocks.0", position=position)]) as capture:
        model(images)
        read = capture.read()["blocks.0"]
    torch.testing.assert_close(read, model.blocks[0](model.embed(images))[:, position], rtol=0, atol=0)
    if position == -1:
        torch.testing.assert_close(read, model.flatten(model.blocks(model.embed(images))), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("tap", "message"),
    [
        (Tap(name="predense", position=0), "position is 0, but this output is no sequence; leave it out"),
        (Tap(name="embed", position=-4), "position is -4, but the sequence has 3: choose one of 0 to 2, or -1 for the"),
        (Tap(name="embed", position=3), "position is 3, but the sequence has 3"),
        (Tap(name="embed", pool=2), "no maps to pool"),
        (Tap(name="embed", pool=2, position=0), "no maps to pool"),
    ],
)
def test_a_position_that_cannot_be_is_told_in_one_line(tap, message):
    with pytest.raises(UserError, match=message) as caught:
        taps.shapes(network("transformer-1"), [tap], 2 * P, 1)
    assert "\n" not in str(caught.value)


def test_maps_are_no_sequence():
    model = zoo.build(ModelSettings(name="vgg8", width=0.1), 1, 8, 10)
    with pytest.raises(UserError, match="no sequence"):
        taps.shapes(model, [Tap(name="blocks.0", position=0)], 1, 8)


# --- their way through the house

DATA = DatasetSettings(source="binary-operation", operation="addition", modulus=P)


def job_of(name, **more) -> TrainJob:
    model = ModelSettings(name=name, width=0.25, dtype=more.pop("dtype", "float32"))
    settings = {"seeds": [0, 1], "iterations": 8, "batch_size": 16, "learning_rate": 0.1, **more}
    return TrainJob(dataset="d", model=model, **settings)


def trained(root, job, cache="cache"):
    """The weights (seed, step, parameter) of a training of addition modulo 7."""
    if not (root / "datasets" / "d").exists():
        write_dataset(root / "datasets" / "d", load_binary_operation(DATA), DATA.model_dump())
    training.train(
        job, root / "datasets" / "d", root / "runs" / "r" / "train", ONE, "r", CellCache(root / cache, "code")
    )
    return StoredRun("r", root).training["weights"].values


@pytest.mark.parametrize("name", OF_TOKENS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_run_gives_its_activations_again(tmp_path, name, dtype):
    job = job_of(name, dtype=dtype)
    trained(tmp_path, job)
    one = [Tap(name="blocks.0", position=-1)] if name != "embedding-mlp" else []
    settings = ActivationsSettings(taps=[Tap(name="logits"), Tap(name="embed"), *one], dtype="float32")
    path = tmp_path / "runs" / "r"
    record(job, settings, tmp_path / "datasets" / "d", path / "train", path / "activations", ONE, "r")
    run = OpenedRun("r", tmp_path)
    model, data = run.model(seed=1, step=8), load_binary_operation(DATA)
    stored = run.activations("logits").sel(seed=1, step=8)
    with torch.no_grad():
        again = model(torch.from_numpy(data.images[stored["index"].values].astype(dtype)))
    np.testing.assert_allclose(again.numpy(), stored.values, rtol=1e-4, atol=1e-5)
    measured = cells.measure(run, "decode", decode, DecodeSettings(), cache_of(run.path / "decode")).result
    assert np.isfinite(measured.test_mse.values).all()
    # A pair can be told from its embeddings, or nearly so: 19 of 49 pairs are seen.
    assert (measured.test_mse.sel(layer="embed") < measured.test_mse.sel(layer="logits")).all()


def test_a_training_with_dropout_goes_on_in_the_same_bits(tmp_path):
    whole = trained(tmp_path, job_of("transformer-2"), "whole")
    half = trained(tmp_path, job_of("transformer-2", iterations=4), "parts")
    longer = trained(tmp_path, job_of("transformer-2"), "parts")
    np.testing.assert_array_equal(half, whole[:, :4])
    np.testing.assert_array_equal(longer, whole)


PARAMS = (
    """\
datasets:
  sums: {source: binary-operation, operation: addition, modulus: 13}
runs:
  mlp:
    dataset: sums
    model: {name: embedding-mlp}
    activations: {taps: [predense, embed, blocks.0.0]}
  one:
    dataset: sums
    model: {name: transformer-1, width: 0.5}
    activations: {taps: [predense, {name: blocks.0, position: -1}, {name: blocks.0.mlp.1, position: -1}]}
  two:
    dataset: sums
    model: {name: transformer-2, width: 0.25}
    activations: {taps: [predense, softmax]}
train: {seeds: [0], iterations: 4, batch_size: 64}
distributions: {bins: 5, fixed: [0], selective: 1}
kernel: {probes: 4}
phases: {resamples: 20}
figures: {formats: [svg], dpi: 40}
"""
    + SMALL_THEORY
)


@pytest.mark.slow
def test_every_stage_takes_pairs_of_tokens(tmp_path):
    project = new_project(tmp_path / "project", PARAMS)
    stages = [("resolve",), ("theory",), ("prepare", "sums"), *itertools.product(PER_RUN, ("mlp", "one", "two"))]
    scripts = "\n".join(" ".join((f"stages/{name}.py", *key)) for name, *key in [*stages, ("phases",), ("figures",)])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", RUN_ALL], input=scripts, cwd=project.path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    figures = {path.stem for path in (project.path / "figures").glob("*.svg")}
    assert {"figure-1", "figure-2", "figure-4-mlp", "figure-4-one", "figure-4-two", "distributions"} <= figures
    found = budget(read(project.path / "params.yaml"), project.path / "datasets")
    prepared = [path.stat().st_size for path in (project.path / "datasets" / "sums").rglob("*") if path.is_file()]
    assert found.datasets["sums"].files == len(prepared)
    assert found.datasets["sums"].bytes == pytest.approx(sum(prepared), rel=0.15)
    for run in found.runs.values():
        for stage in run.part("train", "activations"):
            kept = [path.stat().st_size for path in (project.path / stage.output).rglob("*") if path.is_file()]
            assert stage.store.files == len(kept)
            assert stage.store.bytes == pytest.approx(sum(kept), rel=0.25), stage.output


def test_the_budget_knows_what_taps_give(params):
    text = PARAMS.replace("predense, embed, blocks.0.0", "predense, embed, embed.table, blocks.0.0, softmax")
    settings = read(params(text))
    images = Images(26, 67, 102, 13, 1, "float16", 0.1)
    contents = {
        name: {layer.name: layer.content for layer in Run(run, images).layers} for name, run in settings.runs.items()
    }
    assert contents == {
        "mlp": {
            "predense": "rectified",
            "embed": "embedded",
            "embed.table": "embedded",
            "blocks.0.0": "dense",
            "softmax": "softmax",
        },
        "one": {"predense": "dense", "blocks.0": "dense", "blocks.0.mlp.1": "rectified"},
        "two": {"predense": "dense", "softmax": "softmax"},
    }
    layer = Run(settings.runs["one"], images).layers[1]
    assert (layer.shape, layer.features) == ((32,), 32)
