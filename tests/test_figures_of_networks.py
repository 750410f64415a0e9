"""The figures of information, of complexity, of the tangent kernel and of the alignment of layers."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from drawn import FULL, SETTINGS, STEPS, drawn, named_in_legend, numbers, results_of_a_run
from phasescope.figures.all import draw
from phasescope.figures.complexity import complexity
from phasescope.figures.drawing import save
from phasescope.figures.information import information, plane
from phasescope.figures.kernel import SHOWN, alignment, kernel


def test_complexity_of_layers_of_nonlinearities_and_of_all_of_them():
    result = results_of_a_run(**FULL)
    drawing = complexity({"a": result.complexity})
    linear, shares, total = drawing.figure.axes
    assert [len(drawn(axes)) for axes in drawing.figure.axes] == [2, 3, 3]
    for layer in ("stem.2", "conv-2"):
        values = result.complexity.linear_mapping_number.sel(layer=layer)
        noted = numbers(drawing.rows, layer=layer, quantity="linear mapping number", seed="mean")
        np.testing.assert_allclose(noted, values.mean("seed"))
        assert any(np.array_equal(noted, line) for line in drawn(linear))
    wanted = {"quantity": "local complexity per neuron", "seed": "mean", "part": "train"}
    values = result.complexity.local_complexity.sel(nonlinearity="blocks.0.relu1", part="train") / 50
    np.testing.assert_allclose(numbers(drawing.rows, layer="blocks.0.relu1", **wanted), values.mean("seed"))
    np.testing.assert_allclose(drawn(shares)[1], values.mean("seed"))
    values = result.complexity.local_complexity.sel(part="random").sum("nonlinearity")
    wanted = {"layer": "all", "quantity": "local complexity", "part": "random"}
    np.testing.assert_allclose(numbers(drawing.rows, seed="mean", **wanted), values.mean("seed"))
    np.testing.assert_allclose(numbers(drawing.rows, seed="std", **wanted), values.std("seed", ddof=1))
    np.testing.assert_allclose(drawn(total)[2], values.mean("seed"))


@pytest.mark.parametrize(("absent", "labels"), [("layer", 2), ("nonlinearity", 1)])
def test_of_complexity_only_what_was_measured_is_drawn(absent, labels, tmp_path):
    found = results_of_a_run(**FULL).complexity
    drawing = complexity({"a": found.drop_dims([absent, "part"] if absent == "nonlinearity" else absent)})
    assert len(drawing.figure.axes) == labels
    save(drawing, tmp_path, SETTINGS)


def test_no_complexity_of_a_linear_network():
    linear = replace(results_of_a_run(), complexity=xr.Dataset(coords={"seed": [0], "step": STEPS}))
    assert "complexity" not in [drawing.name for drawing in draw({"a": linear}, SETTINGS)]
    both = {"a": linear, "b": results_of_a_run(**FULL)}
    (drawing,) = (drawing for drawing in draw(both, SETTINGS) if drawing.name == "complexity")
    assert {row["run"] for row in drawing.rows} == {"b"}


def test_of_a_kernel_lines_are_means_and_bands_reach_from_seed_to_seed():
    found = results_of_a_run(**FULL).kernel
    drawing = kernel({"a": found})
    assert [len(drawn(axes)) for axes in drawing.figure.axes] == [1] * 4
    for axes, (variable, (name, _, _)) in zip(drawing.figure.axes, SHOWN.items(), strict=True):
        values = found[variable]
        np.testing.assert_allclose(drawn(axes)[0], values.mean("seed"))
        for seed, edge in (("mean", values.mean("seed")), ("min", values.min("seed")), ("max", values.max("seed"))):
            np.testing.assert_allclose(numbers(drawing.rows, quantity=name, seed=seed), edge)
    assert numbers(drawing.rows, quantity="largest possible rank").tolist() == [5]


def test_layers_are_drawn_beside_what_random_ones_would_be():
    found = results_of_a_run(**FULL).kernel
    drawing = alignment({"a": found})
    upper, lower = drawing.figure.axes
    assert [len(drawn(axes)) for axes in (upper, lower)] == [2, 2]
    for place, (pair, width) in enumerate(zip(FULL["pairs"], (4, 16), strict=True)):
        of_pair = found.sel(pair=pair)
        np.testing.assert_allclose(drawn(upper)[place], of_pair.alignment.mean("seed"))
        np.testing.assert_allclose(drawn(lower)[place][0], 1)
        wanted = {"layer": pair, "quantity": "alignment of random layers"}
        assert numbers(drawing.rows, **wanted).tolist() == [width**-0.5]
        product = numbers(drawing.rows, layer=pair, quantity="norm product", seed="mean")
        np.testing.assert_allclose(product, of_pair.norm_product.mean("seed"))
    # Pairs are named where there are few of them, and the same ones in all panels.
    assert FULL["pairs"][0] in named_in_legend(drawing)
    other = found.assign_coords(pair=["a to b", "b to c"])
    assert "first pair of layers" in named_in_legend(alignment({"a": found, "b": other}))


def test_of_a_network_with_one_layer_the_kernel_alone_is_drawn():
    single = results_of_a_run(**FULL)
    single = replace(single, kernel=single.kernel.drop_dims("pair"))
    names = [drawing.name for drawing in draw({"a": single}, SETTINGS)]
    assert "kernel" in names
    assert "alignment" not in names


def test_the_information_plane_has_a_path_for_every_tap():
    result = results_of_a_run(**FULL)
    drawing = plane({"a": result, "b": results_of_a_run(**FULL)})
    first = result.information.isel(estimator=0)
    axes = drawing.figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("I(T;X) (nat)", "I(T;Y) (nat)")
    for layer, points in zip(first.layer.values, axes.collections, strict=True):
        x, y = (first[name].sel(layer=layer).mean("seed") for name in ("i_x", "i_y"))
        np.testing.assert_allclose(points.get_offsets(), np.stack([x, y], axis=1))
        assert len({tuple(colour) for colour in points.get_facecolors()}) == len(STEPS)
        for name, quantity in (("i_x", "I(T;X)"), ("i_y", "I(T;Y)")):
            noted = numbers(drawing.rows, run="a", layer=layer, quantity=quantity, seed=1)
            np.testing.assert_array_equal(noted, first[name].sel(layer=layer, seed=1))
    assert numbers(drawing.rows, run="a", quantity="ln n").tolist() == [np.log(500)]
    assert numbers(drawing.rows, run="a", quantity="H(Y)").tolist() == [np.log(4)]


def test_information_is_never_shown_without_its_bounds_and_ceilings():
    result = results_of_a_run(**FULL)
    drawing = information({"a": result})
    first = result.information.sel(estimator="gaussian")
    for axes, layer in zip(drawing.figure.axes, first.layer.values, strict=True):
        assert axes.texts[0].get_text() == f"{layer}, gaussian"
        for band, name in zip(axes.collections, ("i_x", "i_y"), strict=True):
            edges = band.get_paths()[0].vertices[:, 1]
            of_layer = first.sel(layer=layer).mean("seed")
            assert edges.min() == pytest.approx(of_layer[f"{name}_lower"].min().item())
            assert edges.max() == pytest.approx(of_layer[f"{name}_upper"].max().item())
        ceilings = [line.get_ydata()[0] for line in axes.lines if len(line.get_xdata()) == 2]
        assert ceilings == [np.log(500), np.log(4)]
        for bound in ("lower", "upper"):
            noted = numbers(drawing.rows, layer=layer, quantity=f"I(T;Y) {bound} bound", seed="mean")
            np.testing.assert_allclose(noted, first[f"i_y_{bound}"].sel(layer=layer).mean("seed"))
    shown = [text.get_text() for text in drawing.figure.legends[0].get_texts()]
    assert shown == ["I(T;X)", "I(T;Y)", "between the bounds", "ln n, H(Y)"]


def test_bins_have_no_bounds(tmp_path):
    result = results_of_a_run(estimators=("binned-pca", "gaussian"))
    drawing = information({"a": result})
    assert not any(axes.collections for axes in drawing.figure.axes)
    assert {row["quantity"] for row in drawing.rows} == {"I(T;X)", "I(T;Y)", "ln n", "H(Y)"}
    assert "between the bounds" not in [text.get_text() for text in drawing.figure.legends[0].get_texts()]
    save(drawing, tmp_path, SETTINGS)
