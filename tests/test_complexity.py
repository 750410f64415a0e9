"""Linear mapping number and local complexity, against maps and geometry whose numbers are known."""

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import small
from phasescope import model_cells
from phasescope.errors import UserError
from phasescope.measures.complexity import complexity, with_layers
from phasescope.measures.linear_mapping import linear_mapping_number, linearity
from phasescope.measures.local import frame, local_complexity, random_points, spread
from phasescope.measures.samples import Samples
from phasescope.models import parts, zoo
from phasescope.models.taps import Capture
from phasescope.params.activations import ActivationsSettings, Tap
from phasescope.params.complexity import ComplexitySettings
from phasescope.params.models import TAPS, ModelSettings
from phasescope.run import Run
from phasescope.store.adopt import adopt
from phasescope.store.cache import CellCache
from phasescope.store.datasets import write_dataset

SETTINGS = ComplexitySettings(line_samples=5, points=4, directions=6)
NAMES = ["f0", "vgg8", "resnet10"]


def random(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def network(name="vgg8", channels=1, resolution=16):
    """A network in eval mode, whose BatchNorm statistics are not the initial ones."""
    torch.manual_seed(0)
    built = zoo.build(ModelSettings(name=name, width=0.1 if name != "f0" else 1.0), channels, resolution, classes=5)
    with torch.no_grad():
        for seed in range(3):
            built(random(8, channels, resolution, resolution, seed=seed))
    return built.eval()


def images(count=6, resolution=16, seed=1):
    return random(count, 1, resolution, resolution, seed=seed)


# --- linear mapping number


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_affine_map_is_one_piece(dtype):
    weight, bias = random(7, 3, seed=1, dtype=dtype), random(3, seed=2, dtype=dtype)
    found = linear_mapping_number(lambda rows: rows @ weight + bias, random(12, 7, dtype=dtype))
    assert found == pytest.approx(1.0, abs=1e-5)


def test_the_absolute_value_of_two_sides_is_two_pieces():
    found = linear_mapping_number(torch.abs, torch.tensor([[-1.0], [1.0], [-1.0], [1.0]]))
    assert found == pytest.approx(2.0, abs=1e-12)


@pytest.mark.parametrize("blocks", [1, 2, 3, 5])
def test_groups_with_a_straight_way_inside_and_none_between_are_as_many_pieces(blocks):
    """On the way from one group to another this map goes up and down the same way, which correlates with nothing."""
    corners = torch.eye(blocks, dtype=torch.float64)
    samples = corners.repeat(4, 1)

    def tent(rows):
        """Between corners i and j the sum of squares is 1 − 2λ(1 − λ); at corners, and inside groups, constant."""
        return rows.square().sum(dim=1, keepdim=True)

    assert linear_mapping_number(tent, samples) == pytest.approx(blocks, rel=1e-12)


def test_the_number_is_that_of_the_formula():
    """Equations 4 and 5 of the paper, one pair after the other, with numpy's correlation."""
    weight, head = random(6, 9, seed=1, dtype=torch.float64), random(9, 3, seed=2, dtype=torch.float64)

    def function(rows):
        return nn.functional.silu(rows @ weight) @ head

    samples = 3 * random(8, 6, dtype=torch.float64)
    steps = np.arange(0, 1.01, 0.05)
    matrix = np.eye(8)
    for i in range(8):
        for j in range(8):
            if i != j:
                line = torch.stack([samples[i] + step * (samples[j] - samples[i]) for step in steps])
                outputs = function(line).numpy()
                matrix[i, j] = np.mean([np.corrcoef(steps, outputs[:, k])[0, 1] ** 2 for k in range(3)])
    shares = np.abs(np.linalg.eigvalsh(matrix))
    shares /= shares.sum()
    expected = 2 ** -np.sum(shares * np.log2(shares))
    assert 1.2 < expected < 8
    for rows in (1, 50, 10_000):
        assert linear_mapping_number(function, samples, rows) == pytest.approx(expected, rel=1e-9)


def test_an_output_that_is_constant_up_to_rounding_is_linear():
    """Its variance is 1e-12 here, far above the 1e-20 of the paper: with that bound it would count as bent."""
    one = random(64, 64, seed=1)
    other = torch.linalg.qr(random(64, 64, seed=2)).Q
    null = torch.linalg.svd(one.double() @ other.double()[:, :40]).U[:, 40:]

    def function(rows):  # 40 directions of the input, and outputs that are blind to all of them
        return rows @ (one @ other[:, :40]).T @ null.float() + 30.0

    samples = random(6, 40)
    lines = samples[0] + torch.linspace(0, 1, 21)[:, None] * (samples[1] - samples[0])
    outputs = function(lines)[None]
    assert 1e-14 < float(outputs.double().var(dim=1).mean()) < 1e-9
    assert linearity(outputs).tolist() == [1.0]
    assert linear_mapping_number(function, samples) == pytest.approx(1.0)


def test_an_output_that_moves_a_little_around_a_large_value_still_counts():
    steps = torch.linspace(-1, 1, 21)
    bent = 100 + 0.1 * steps.square()
    assert linearity(bent.view(1, 21, 1)).item() < 1e-6


# --- local complexity


def test_a_neuron_counts_where_a_vertex_lies_beyond_its_zero():
    """At distance δ it counts if and only if r · max_p |v_p · ŵ| > δ."""
    rng = np.random.default_rng(0)
    counted = 0
    for trial in range(400):
        dimensions = int(rng.integers(1, 9))
        directions = frame(int(rng.integers(1, 12)), dimensions, seed=trial)
        point, radius = rng.standard_normal(dimensions), float(rng.uniform(0.1, 2))
        normal = rng.standard_normal(dimensions)
        normal /= np.linalg.norm(normal)
        distance = float(rng.uniform(-1.5, 1.5))
        weight, bias = torch.from_numpy(3 * normal), 3 * (distance - normal @ point)
        found = local_complexity(
            lambda rows, read, weight=weight, bias=bias: {"relu": read((rows @ weight + bias)[:, None])},
            torch.from_numpy(point)[None],
            torch.from_numpy(directions),
            radius,
        )
        expected = radius * np.abs(directions @ normal).max() > abs(distance)
        assert found["relu"].tolist() == [int(expected)], trial
        counted += expected
    assert 100 < counted < 300


def test_directions_are_orthonormal_the_same_for_a_seed_and_no_more_than_dimensions():
    for asked, dimensions, given in ((25, 100, 25), (25, 9, 9), (1, 1, 1)):
        directions = frame(asked, dimensions)
        np.testing.assert_allclose(directions @ directions.T, np.eye(given), atol=1e-12)
        np.testing.assert_array_equal(directions, frame(asked, dimensions))
    assert not np.array_equal(frame(3, 9), frame(3, 9, seed=1))


def test_a_large_radius_bends_all_neurons_and_a_small_one_none():
    layer = nn.Linear(10, 30)
    points, directions = random(5, 10), torch.from_numpy(frame(25, 10)).float()
    for radius, expected in ((1e4, 30), (1e-9, 0)):
        found = local_complexity(lambda rows, read: {"layer": read(layer(rows).detach())}, points, directions, radius)
        assert found["layer"].tolist() == [expected] * 5


def test_random_points_are_as_far_from_the_mean_as_the_others():
    points = 3 + 2 * random(500, 40)
    drawn = random_points(points, 500)
    assert drawn.shape == (500, 40)
    assert torch.equal(drawn, random_points(points, 500))
    assert spread(drawn) == pytest.approx(spread(points), rel=0.03)
    assert torch.linalg.vector_norm(drawn.mean(dim=0) - points.mean(dim=0)) < 0.2 * spread(points)
    expected = (points - points.mean(dim=0)).double().norm(dim=1).mean().item()
    assert spread(points) == pytest.approx(expected, rel=1e-6)


# --- parts of networks


@pytest.mark.parametrize("name", NAMES)
def test_from_every_tap_on_it_is_the_network(name):
    model, inputs = network(name), images()
    paths = [path for path, _ in model.named_modules() if path]
    refused = []
    with torch.no_grad():
        logits = model(inputs)
        for tap in [*TAPS[name][1:], *paths]:
            try:
                rest = parts.from_layer(model, tap, inputs)
            except UserError as error:
                refused.append(str(error).split("'")[1])
                continue
            given = parts.activations(model, tap, inputs)
            torch.testing.assert_close(rest(given), logits, rtol=1e-5, atol=1e-6)
            with Capture(model, [Tap(name=tap)]) as capture:
                model(inputs)
                assert torch.equal(given.flatten(1), capture.read()[tap])
    inside = [path for path in paths if path.startswith("blocks.") and path.count(".") > 1 and "relu2" not in path]
    assert refused == (inside if name == "resnet10" else [])  # a shortcut passes them


@pytest.mark.parametrize("name", NAMES)
def test_the_rest_of_the_chain_and_the_whole_with_what_a_module_gives_replaced_are_one(name, monkeypatch):
    model, inputs = network(name), images()
    taps = [tap for tap in ("predense", "conv-2", "stem.1", "blocks.0", "logits") if tap in TAPS[name] or "." in tap]
    taps = [tap for tap in taps if "." not in tap or tap in dict(model.named_modules())]
    chain = {tap: parts.from_layer(model, tap, inputs) for tap in taps}
    monkeypatch.setattr(parts, "_rest_of_chain", lambda *_: None)
    with torch.no_grad():
        for tap in taps:
            other = parts.activations(model, tap, images(seed=2))
            whole = parts.from_layer(model, tap, inputs)
            assert not isinstance(whole, nn.Module)
            torch.testing.assert_close(chain[tap](other), whole(other), rtol=1e-5, atol=1e-6)


def test_the_logits_are_no_function_of_softmax():
    with pytest.raises(UserError, match="layer 'softmax'"):
        parts.from_layer(network(), "softmax", images())


def test_pre_activations_are_what_nonlinearities_take():
    model, inputs = network("resnet10"), images()
    with torch.no_grad():
        found = parts.pre_activations(model, inputs)
        placed = parts.pre_activations(zoo.place(model, torch.device("cpu")), inputs)
        given = model.stem[1](model.stem[0](inputs))
    inside = [f"blocks.{block}.relu{number}" for block in range(4) for number in (1, 2)]
    assert list(found) == list(placed) == ["stem.2", *inside]
    torch.testing.assert_close(found["stem.2"], given.flatten(1))
    for path, values in found.items():  # whatever their order in memory, they are the same numbers
        torch.testing.assert_close(values.sort(dim=1).values, placed[path].sort(dim=1).values, rtol=1e-4, atol=1e-5)
    assert not any(module._forward_pre_hooks for module in model.modules())


class Embedding(zoo.Network):
    """A network as one for tokens will be: what its first layer sees are the concatenated embeddings."""

    def __init__(self):
        torch.manual_seed(0)
        embed = nn.Sequential(nn.Embedding(11, 4), nn.Flatten())
        hidden = nn.Sequential(nn.Linear(8, 20), nn.SiLU(), nn.Linear(20, 20), nn.SiLU())
        super().__init__()
        self.embed, self.hidden, self.flatten, self.head = embed, hidden, nn.Flatten(), nn.Linear(20, 11)
        self.name = "f0"


class Residual(Embedding):
    """The same, written as a class of its own, with a way around its nonlinearities."""

    def forward(self, tokens):
        vectors = self.embed(tokens)
        return self.head(self.hidden(vectors) + vectors.sum(dim=1, keepdim=True))


@pytest.mark.parametrize("kind", [Embedding, Residual])
def test_a_network_with_an_embedding_is_continuous_behind_it(kind):
    model, tokens = kind(), torch.tensor([[1, 2], [3, 4], [10, 0]])
    embedded = parts.embed(model, tokens)
    assert embedded.shape == (3, 8)
    torch.testing.assert_close(parts.behind_embedding(model)(embedded), model(tokens))
    assert {path: values.shape for path, values in parts.pre_activations(model, embedded).items()} == {
        "hidden.1": (3, 20),
        "hidden.3": (3, 20),
    }
    torch.testing.assert_close(parts.from_layer(model, "embed", embedded)(embedded), model(tokens))
    assert torch.equal(parts.activations(model, "embed", embedded), embedded)
    with pytest.raises(UserError, match="in front of what is continuous"):
        parts.from_layer(model, "embed.0", embedded)
    if kind is Residual:
        with pytest.raises(UserError, match="layer 'hidden.1': the logits of f0 depend on more than it"):
            parts.from_layer(model, "hidden.1", embedded)


def test_hidden_layers_are_those_from_which_the_network_is_not_linear():
    inputs = images()
    taps = ["softmax", "logits", "predense", "conv-2"]
    assert parts.hidden_layers(network("vgg8"), taps, inputs) == ["blocks.0.2", "conv-2"]
    assert parts.hidden_layers(network("resnet10"), [*taps, "blocks.1.relu1"], inputs) == ["stem.2", "conv-2"]
    assert parts.hidden_layers(network("f0"), taps[:3], inputs) == []
    assert "linear from there on" in parts.why_not_hidden(network("vgg8"), "predense", inputs)
    assert parts.why_not_hidden(network("vgg8"), "blocks.1", inputs) is None


def test_the_first_hidden_layer_is_the_smallest_module_that_all_passes():
    model = network("resnet10")
    model.stem[2] = nn.Identity()
    assert parts.hidden_layers(model, [], images()) == ["blocks.0"]


def test_behind_the_only_block_of_a_transformer_all_is_linear_so_what_is_embedded_counts():
    """From the block on only the last position and the head are left: the number would be 1 at every step."""
    model = zoo.build(ModelSettings(name="transformer-1"), channels=14, resolution=1, classes=7).eval()
    embedded = parts.embed(model, torch.eye(14)[:3].view(3, 14, 1, 1))
    assert parts.hidden_layers(model, ["softmax", "logits", "predense", "blocks.0"], embedded) == ["embed"]
    assert "linear from there on" in parts.why_not_hidden(model, "blocks.0", embedded)


# --- together


def samples_of(count=12, resolution=16):
    pixels = random(count, resolution**2).numpy()
    return Samples(pixels, np.zeros(count, np.int64), np.arange(count) < 8, 5, (1, resolution, resolution))


@pytest.mark.parametrize("name", NAMES)
def test_networks_have_numbers_that_are_possible(name):
    model, samples = network(name), samples_of()
    settings = with_layers(SETTINGS, model, samples, ["softmax", "logits", "predense", *TAPS[name][3:]])
    found = complexity(model, samples, settings)
    if name == "f0":
        assert not found
        return
    first = next(iter(parts.pre_activations(model, images(1))))
    assert found.layer.values.tolist() == [first, "conv-2"]
    assert ((found.linear_mapping_number >= 1) & (found.linear_mapping_number <= 5)).all()
    assert found.linear_mapping_number.attrs["samples"] == 5
    assert (found.local_complexity <= found.neurons).all()
    assert (found.local_complexity > 0).any("nonlinearity").all()
    xr.testing.assert_allclose(found.local_complexity.sum("nonlinearity"), found.total_complexity)
    assert found.part.values.tolist() == ["train", "test", "random"]
    assert all({"units", "long_name"} <= variable.attrs.keys() for variable in found.data_vars.values())
    inputs = torch.from_numpy(samples.inputs[:8])
    chosen = inputs[np.random.default_rng(0).permutation(8)[:4]]
    assert found.radius.item() == pytest.approx(0.05 * spread(chosen))
    xr.testing.assert_identical(found, complexity(model, samples, settings))


def test_how_many_pass_at_once_does_not_matter(monkeypatch):
    model, samples = network("resnet10"), samples_of()
    settings = with_layers(SETTINGS, model, samples, [])
    whole = complexity(model, samples, settings)
    monkeypatch.setattr("phasescope.measures.complexity.BLOCK", {"cpu": 1})
    one = complexity(model, samples, settings)
    xr.testing.assert_allclose(one, whole, rtol=1e-5)
    xr.testing.assert_identical(one.local_complexity, whole.local_complexity)


def test_lines_do_not_depend_on_points_nor_points_on_lines():
    model, samples = network(), samples_of()
    settings = with_layers(SETTINGS, model, samples, [])
    whole = complexity(model, samples, settings)
    fewer = complexity(model, samples, settings.model_copy(update={"points": 2}))
    xr.testing.assert_identical(fewer.linear_mapping_number, whole.linear_mapping_number)
    fewer = complexity(model, samples, settings.model_copy(update={"line_samples": 3}))
    xr.testing.assert_identical(fewer.local_complexity, whole.local_complexity)
    for name, wanted in (
        ("linear-mapping-number", {"linear_mapping_number"}),
        ("local-complexity", {"local_complexity", "total_complexity", "radius"}),
    ):
        alone = complexity(model, samples, settings.model_copy(update={"measures": [name]}))
        assert set(alone.data_vars) == wanted
        xr.testing.assert_identical(alone, whole[list(alone.variables)])


def test_inputs_in_another_unit_give_the_same_numbers():
    """As the radius is relative: ten times the inputs, with a tenth of the first weights."""
    model, samples = network("vgg8"), samples_of()
    settings = with_layers(SETTINGS, model, samples, [])
    whole = complexity(model, samples, settings)
    model.blocks[0][0].weight.data /= 8  # powers of two are exact
    scaled = complexity(model, Samples(8 * samples.inputs, samples.labels, samples.train, 5, samples.image), settings)
    np.testing.assert_allclose(scaled.radius, 8 * whole.radius)
    xr.testing.assert_identical(scaled.drop_vars("radius"), whole.drop_vars("radius"))


def test_a_linear_network_has_no_neuron_that_bends():
    model = network("vgg8")
    for block in model.blocks:
        block[2] = nn.LeakyReLU(1.0)  # which takes its input to itself
        block[1].bias.data += 30  # far from any zero
    samples = samples_of()
    found = complexity(model, samples, SETTINGS.model_copy(update={"layers": ["blocks.0"]}))
    assert found.linear_mapping_number.values == pytest.approx(1.0, abs=0.01)  # rounding beside such biases
    assert found.local_complexity.sel(nonlinearity="blocks.0.2").values.tolist() == [0, 0, 0]


# --- over the checkpoints of a run


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A project with a run of two seeds, steps 0 to 16."""
    root = tmp_path_factory.mktemp("project")
    write_dataset(root / "datasets" / "d", small.few_digits(), {})
    small.train(small.JOB, root / "datasets" / "d", root / "runs" / "r" / "train", small.ONE, "r")
    for name, mode in (("r", "recalibrated"), ("b", "batch")):
        run = root / "runs" / name
        if name == "b":
            run.mkdir()
            (run / "train").symlink_to(root / "runs" / "r" / "train")
        chosen = ActivationsSettings(taps=["conv-2"], train_samples=40, test_samples=20, batchnorm=mode)
        small.record(small.JOB, chosen, root / "datasets" / "d", run / "train", run / "activations", small.ONE, name)
    return root


def measured(root, cache, settings=SETTINGS, compute=small.ONE, name="r"):
    run = Run(name, root)
    settings = settings.model_copy(update={"layers": ["blocks.0.2", "conv-2"]})
    return model_cells.measure(run, "complexity", complexity, settings, compute, cache)


def test_every_checkpoint_has_what_its_network_gives(root, tmp_path):
    cache = CellCache(tmp_path / "cache", "code")
    run, found = Run("r", root), measured(root, cache)
    assert found.result.linear_mapping_number.dims == ("seed", "step", "layer")
    assert found.result.local_complexity.dims == ("seed", "step", "nonlinearity", "part")
    assert found.result.seed.values.tolist() == [3, 5]
    assert found.result.step.values.tolist() == [0, 1, 2, 4, 8, 16]
    settings = SETTINGS.model_copy(update={"layers": ["blocks.0.2", "conv-2"]})
    network = zoo.place(run.model(5, 8), torch.device("cpu"))
    alone = complexity(network, model_cells.samples_of(run), settings)
    xr.testing.assert_equal(found.result.sel(seed=5, step=8, drop=True), alone)
    assert found.result.local_complexity.std("step").max() > 0


def test_no_checkpoint_is_measured_twice_and_processes_do_not_matter(root, tmp_path, capsys):
    first = measured(root, CellCache(tmp_path / "cache", "code"))
    again = measured(root, CellCache(tmp_path / "cache", "code"))
    assert "complexity r: 0 of 12 cells computed" in capsys.readouterr().out
    xr.testing.assert_identical(first.result, again.result)
    more = measured(root, CellCache(tmp_path / "cache", "code"), SETTINGS.model_copy(update={"points": 3}))
    assert not more.result.local_complexity.equals(first.result.local_complexity)
    two = small.ONE.__class__("cpu", threads=1, workers=2)
    beside = measured(root, CellCache(tmp_path / "other", "code"), compute=two)
    xr.testing.assert_identical(first.result, beside.result)


def test_cells_of_a_pulled_result_are_taken_over(root, tmp_path, capsys):
    def written(cache):
        found = measured(root, cache)
        Run("r", root).write_measure("complexity", found.result, SETTINGS.model_dump(), found.cached)
        folder = root / "results" / "r" / "complexity"
        return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    before = written(CellCache(tmp_path / "cache", "code"))
    elsewhere = CellCache(tmp_path / "elsewhere", "code")
    assert adopt(root / "results" / "r" / "complexity", elsewhere) == 12
    capsys.readouterr()
    assert written(elsewhere) == before
    assert "complexity r: 0 of 12 cells computed" in capsys.readouterr().out


def test_networks_whose_samples_depend_on_each_other_are_refused(root, tmp_path):
    with pytest.raises(UserError, match=r"batchnorm `batch` .* set complexity.measures to \[\] for this run") as caught:
        measured(root, CellCache(tmp_path / "cache", "code"), name="b")
    assert "\n" not in str(caught.value)
