"""The figures of what is read off activations, and what all figures share: files, formats, looks."""

import csv
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest

from drawn import FULL, SETTINGS, STEPS, drawn, drawn_twice, numbers, results_of_a_run
from phasescope.figures.all import draw
from phasescope.figures.curves import figure_1, figure_2, probes
from phasescope.figures.decoders import convergence, decoders
from phasescope.figures.distributions import figure_4, statistics
from phasescope.figures.drawing import save
from phasescope.figures.style import class_styles, tap_styles
from phasescope.params.figures import FiguresSettings

ALL_FORMATS = FiguresSettings(formats=["svg", "png", "pdf"], dpi=50)
EVERY = (
    *("figure-1", "figure-2", "probes", "decoders", "convergence", "figure-6", "figure-7", "distributions"),
    *("information-plane", "information", "complexity", "kernel"),
    "alignment",
)


def test_the_same_input_gives_the_same_bytes(tmp_path):
    expected = {*EVERY, "figure-4-digits-vgg8"}  # F0 has no predense: no Figure 4 of it

    def both():
        results = {"digits-vgg8": results_of_a_run(**FULL), "digits-f0": results_of_a_run(("softmax", "logits"))}
        return draw(results, SETTINGS)

    files = drawn_twice(both, tmp_path, ALL_FORMATS)
    places = ("{}.svg", "png/{}.png", "pdf/{}.pdf", "points/{}.json", "{}.csv")
    assert files == sorted(place.format(name) for name in expected for place in places)
    assert all((tmp_path / "first" / file).stat().st_size > 500 for file in files)
    assert b">digits-vgg8, logits</text>" in (tmp_path / "first" / "figure-1.svg").read_bytes()


def test_panels_stand_at_rounded_places(tmp_path):
    """The layout's last digits differ from process to process, and an SVG's clip paths are named by their hash."""
    drawing = figure_1({"a": results_of_a_run()}, SETTINGS)
    save(drawing, tmp_path, SETTINGS)
    points = np.stack([axes.get_position().get_points() for axes in drawing.figure.axes])
    np.testing.assert_array_equal(points, points.round(4))
    assert drawing.figure.get_constrained_layout() is False


def test_only_the_formats_asked_for_are_written(tmp_path):
    drawing = probes({"a": results_of_a_run()})
    files = save(drawing, tmp_path / "new" / "folder", FiguresSettings(formats=["svg"]))
    assert [file.name for file in files] == ["probes.svg", "probes.json", "probes.csv"]
    assert all(file.exists() for file in files)


def test_csv_holds_the_plotted_numbers_exactly(tmp_path):
    drawing = figure_1({"a": results_of_a_run()}, SETTINGS)
    *_, file = save(drawing, tmp_path, SETTINGS)
    with file.open(newline="") as stream:
        rows = [{**row, "value": float(row["value"])} for row in csv.DictReader(stream)]
    assert list(rows[0]) == ["run", "layer", "quantity", "seed", "step", "value"]
    upper, middle, lower = drawing.figure.axes
    for axes, layer, quantity in (
        (upper, "network", "normalised accuracy"),
        (upper, "logits", "normalised loss"),
        (middle, "logits", "loss"),
        (lower, "network", "accuracy"),
    ):
        mean = numbers(rows, layer=layer, quantity=quantity, seed="mean")
        assert any(np.array_equal(mean, line) for line in drawn(axes)), quantity
        std = numbers(rows, layer=layer, quantity=quantity, seed="std")
        bands = [band.get_paths()[0].vertices for band in axes.collections]
        assert any((band[:, 1].max() == (mean + std).max()) for band in bands), quantity
    assert numbers(rows, layer="mean input").tolist() == [0.7]
    assert len(rows) == 4 * 2 * len(STEPS) + 1


def test_figure_1_normalises_the_mean_and_scales_the_deviation():
    result = results_of_a_run()
    rows = figure_1({"a": result}, SETTINGS).rows
    loss = result.decode.test_mse.sel(layer="logits", decoder="linear")
    mean, std = loss.mean("seed").values, loss.std("seed", ddof=1).values
    low, high = mean.min(), mean.max()
    np.testing.assert_allclose(
        numbers(rows, quantity="normalised loss", seed="mean"), (mean - low) / (high - low), atol=1e-12
    )
    np.testing.assert_allclose(numbers(rows, quantity="normalised loss", seed="std"), std / (high - low), rtol=1e-9)


def test_figure_1_marks_the_phases():
    axes = figure_1({"a": results_of_a_run()}, SETTINGS).figure.axes[0]
    assert sorted(line.get_xdata()[0] for line in axes.lines if len(line.get_xdata()) == 2) == [2, 8]
    assert axes.texts[0].get_text() == "constant until 2, minimum at 8"
    assert axes.get_title("left") == "a, logits"


@pytest.mark.parametrize(
    ("headline", "layer"), [(["predense", "logits"], "predense"), (["blocks.0", "logits"], "logits"), ([], "softmax")]
)
def test_headline_is_the_first_tap_the_run_has(headline, layer):
    drawing = figure_1({"a": results_of_a_run()}, FiguresSettings(headline=headline))
    assert numbers(drawing.rows, layer=layer, quantity="loss", seed="mean").size == len(STEPS)


def test_figure_2_has_one_range_for_all_taps_of_a_run():
    result = results_of_a_run()
    result.decode.test_mse.loc[{"layer": "predense"}] /= 4
    rows = figure_2({"a": result}).rows
    joint = np.stack(
        [
            numbers(rows, layer=layer, quantity="jointly normalised loss", seed="mean")
            for layer in ("softmax", "logits", "predense")
        ]
    )
    assert joint.min() == 0
    assert joint.max() == 1
    assert joint[2].max() < joint[:2].min()
    for layer in ("softmax", "logits", "predense"):
        alone = numbers(rows, layer=layer, quantity="normalised loss", seed="mean")
        assert (alone.min(), alone.max()) == (0, 1)
    loss = numbers(rows, layer="logits", quantity="loss", seed="mean")
    np.testing.assert_allclose(loss, result.decode.test_mse.sel(layer="logits", decoder="linear").mean("seed"))


def test_headline_is_a_tap_that_the_first_decoder_was_asked_for():
    result = results_of_a_run(decoders=("linear-adam", "linear"))  # the first is not asked for at predense
    drawing = figure_1({"a": result}, FiguresSettings(headline=["predense", "logits"]))
    loss = numbers(drawing.rows, layer="logits", quantity="loss", seed="mean")
    np.testing.assert_allclose(loss, result.decode.test_mse.sel(layer="logits", decoder="linear-adam").mean("seed"))


def test_a_run_trained_with_hinge_loss_is_drawn_like_any_other():
    """Its training loss has another unit, and is above 1 where the cross-entropy is below; no figure shows it."""
    results = {"digits-f0": results_of_a_run(), "digits-f0-hinge": results_of_a_run()}
    results["digits-f0-hinge"].probe.network_loss[:] *= 30
    settings = FiguresSettings(sets={"hinge": ["digits-f0-hinge"]})
    for drawing in (*draw(results, SETTINGS), *draw(results, settings)):
        if not drawing.name.startswith("figure-4"):
            shown = [{**row, "run": ""} for row in drawing.rows if row["run"] == "digits-f0-hinge"]
            assert shown
            for other in ("digits-f0", "digits-f0-hinge"):
                same = [{**row, "run": ""} for row in drawing.rows if row["run"] == other]
                assert same in (shown, [])


def test_decoders_stand_side_by_side():
    result = results_of_a_run(**FULL)
    drawing = decoders({"a": result})
    assert [text.get_text() for axes in drawing.figure.axes for text in axes.texts] == ["softmax", "logits", "predense"]
    for decoder in FULL["decoders"]:
        expected = result.decode.test_mse.sel(decoder=decoder, layer="logits").mean("seed")
        wanted = {"decoder": decoder, "quantity": "loss", "seed": "mean"}
        np.testing.assert_allclose(numbers(drawing.rows, layer="logits", **wanted), expected)
        assert numbers(drawing.rows, layer="predense", **wanted).size == (len(STEPS) if decoder == "linear" else 0)
    assert [len(drawn(axes)) for axes in drawing.figure.axes] == [3, 3, 1]
    assert numbers(drawing.rows, layer="mean input").tolist() == [0.7] * 3


def test_convergence_shows_training_and_the_distance_to_the_optimum():
    result = results_of_a_run(**FULL)
    drawing = convergence({"a": result})
    epochs, above, more_epochs, fall = drawing.figure.axes
    assert [len(drawn(axes)) for axes in drawing.figure.axes] == [len(STEPS), 2, len(STEPS), 2]
    trained = result.decode.epoch_mse.isel(seed=0).sel(layer="softmax")
    np.testing.assert_array_equal(drawn(epochs), trained.sel(decoder="linear-adam"))
    np.testing.assert_array_equal(drawn(more_epochs), trained.sel(decoder="deconvolution"))
    np.testing.assert_allclose(drawn(above), np.tile(np.geomspace(0.3, 0.003, len(STEPS)), (2, 1)))
    np.testing.assert_allclose(drawn(fall), 1 - (1 + 1 / 32) / (1 + 1 / 16))  # of its six epochs
    assert above.get_ylabel() == "above the optimum (%)"
    assert [above.yaxis.get_major_formatter()(tick) for tick in (0, 0.001, 0.1)] == ["0", "0.1", "10"]
    # And the rows hold all seeds and taps.
    wanted = {"layer": "logits", "seed": 2, "step": 4}
    cell = result.decode.sel(wanted)
    for decoder in ("linear-adam", "deconvolution"):
        noted = numbers(drawing.rows, quantity="epoch loss", decoder=decoder, **wanted)
        np.testing.assert_array_equal(noted, cell.epoch_mse.sel(decoder=decoder))
    noted = numbers(drawing.rows, quantity="above the optimum", decoder="linear-adam", **wanted)
    np.testing.assert_array_equal(noted, [cell.excess.sel(decoder="linear-adam")])


def test_after_a_single_epoch_nothing_tells_how_far_the_end_is(tmp_path):
    result = results_of_a_run(decoders=("linear", "deconvolution"))
    once = replace(result, decode=result.decode.isel(epoch=[0]))
    drawing = convergence({"a": once})
    assert {row["quantity"] for row in drawing.rows} == {"epoch loss"}
    save(drawing, tmp_path, SETTINGS)


@pytest.mark.parametrize(("properties", "name"), [(False, "figure-6"), (True, "figure-7")])
def test_transfer_stands_beside_the_loss_and_the_accuracy_of_the_source(properties, name):
    result = results_of_a_run(**FULL)
    (drawing,) = (drawing for drawing in draw({"a": result}, SETTINGS) if drawing.name == name)
    target, of = ("digits", "ink") if properties else ("fashion", "class")
    upper, lower = drawing.figure.axes
    assert upper.get_title("left") == ("a: ink, logits" if properties else "a → fashion, logits")
    assert upper.texts[0].get_text() == "Rec lowest 8, target best 16"
    assert sorted(line.get_xdata()[0] for line in upper.lines if len(line.get_xdata()) == 2) == [8, 16]
    assert {(row["target"], row["label"]) for row in drawing.rows} == {(target, of)}
    accuracy = result.transfers[target].accuracy.sel(label=of, classifier="ridge")
    for layer in ("softmax", "logits", "predense"):
        noted = numbers(drawing.rows, layer=layer, quantity="target accuracy", seed="mean")
        np.testing.assert_allclose(noted, accuracy.sel(layer=layer).mean("seed"))
        noted = numbers(drawing.rows, layer=layer, quantity="target accuracy", seed="std")
        np.testing.assert_allclose(noted, accuracy.sel(layer=layer).std("seed", ddof=1))
    for line, layer in (("accuracy", "network"), ("loss", "logits"), ("target accuracy", "logits")):
        noted = numbers(drawing.rows, layer=layer, quantity=f"normalised {line}", seed="mean")
        assert (noted.min(), noted.max()) == (0, 1)
    assert numbers(drawing.rows, layer="majority").tolist() == [0.25]
    assert numbers(drawing.rows, layer="inputs").tolist() == [0.55]
    assert len(drawn(upper)) == len(drawn(lower)) == 3


def test_other_classifiers_are_thin_lines_that_the_legend_names():
    result = results_of_a_run(classifiers=("logistic", "ridge"))
    drawing = probes({"a": result, "b": results_of_a_run()})
    axes = drawing.figure.axes[0]
    assert [axes.texts[0].get_text() for axes in drawing.figure.axes] == ["probe: logistic", "probe: ridge"]
    shown = [text.get_text() for text in drawing.figure.legends[0].get_texts()]
    assert shown == ["network", "softmax", "logits", "predense", "ridge (thin)", "inputs", "shuffled labels"]
    for classifier, width, dashed in (("logistic", 1.2, False), ("ridge", 0.8, True)):
        mean = result.probe.accuracy.sel(classifier=classifier, layer="logits").mean("seed")
        wanted = {"run": "a", "layer": "logits", "quantity": "probe accuracy", "seed": "mean"}
        np.testing.assert_allclose(numbers(drawing.rows, classifier=classifier, **wanted), mean)
        (line,) = (line for line in axes.lines if len(line.get_ydata()) > 2 and np.allclose(line.get_ydata(), mean))
        assert (line.get_linewidth(), line.is_dashed()) == (width, dashed)
        assert line.get_color() == tap_styles(["logits"])["logits"]["color"]
    shuffled = [row["classifier"] for row in drawing.rows if row["quantity"] == "shuffled accuracy"]
    assert set(shuffled) == {"ridge"}


@pytest.mark.parametrize("classifiers", [["logistic"], ["sgd", "logistic"]])
def test_without_ridge_there_are_no_shuffled_labels(classifiers):
    result = results_of_a_run(classifiers=classifiers)
    drawing = probes({"a": replace(result, probe=result.probe.drop_vars("shuffled_accuracy"))})
    assert {row["quantity"] for row in drawing.rows} == {"probe accuracy", "accuracy"}
    assert "shuffled labels" not in [text.get_text() for text in drawing.figure.legends[0].get_texts()]


def test_probes_show_the_baselines():
    drawing = probes({"a": results_of_a_run()})
    assert numbers(drawing.rows, layer="inputs").tolist() == [0.8]
    assert numbers(drawing.rows, quantity="shuffled accuracy", seed="mean").size == 3 * len(STEPS)
    (legend,) = drawing.figure.legends
    shown = [text.get_text() for text in legend.get_texts()]
    assert shown == ["network", "softmax", "logits", "predense", "inputs", "shuffled labels"]


def test_figure_4_shows_densities_and_the_share_of_zeros():
    result = results_of_a_run()
    drawing = figure_4("a", result.distributions, SETTINGS)
    panels = np.array(drawing.figure.axes).reshape(2, 5)  # the third row is padding
    assert panels[0, 0].get_ylabel() == "feature 0\nfixed"
    assert panels[1, 0].get_ylabel() == "feature 17\nselective"
    assert panels[0, 4].get_title().startswith("iteration 32\n")
    cell = result.distributions.isel(seed=0, row=1).sel(layer="predense", step=32)
    wanted = {"feature": 17, "step": 32, "class": "3", "seed": 0}
    by_three = cell.density.sel({"class": 3}).values.reshape(20, 3).mean(axis=1)
    np.testing.assert_allclose(numbers(drawing.rows, quantity="density", **wanted), by_three)
    np.testing.assert_array_equal(
        panels[1, 4].lines[3].get_ydata(), numbers(drawing.rows, quantity="density", **wanted)
    )
    assert numbers(drawing.rows, quantity="share of zeros", **wanted) == [float(cell.zero.sel({"class": 3}))]
    assert panels[1, 4].get_title() == f"P(0) {float(cell.zero.min()):.2f}–{float(cell.zero.max()):.2f}"


def test_figure_4_shows_the_nearest_kept_steps():
    settings = FiguresSettings(columns=[0, 7, 9, 65536])
    rows = figure_4("a", results_of_a_run().distributions, settings).rows
    assert sorted({row["step"] for row in rows}) == [0, 8, 32]


def test_figure_4_leaves_out_a_class_without_samples(tmp_path):
    values = results_of_a_run().distributions
    values.density.loc[{"class": 2}] = np.nan
    values.zero.loc[{"class": 2}] = np.nan
    drawing = figure_4("a", values, SETTINGS)
    assert "2" not in {row["class"] for row in drawing.rows}
    save(drawing, tmp_path, SETTINGS)


@pytest.mark.parametrize("classes", [2, 13, 100])
def test_figure_4_with_other_numbers_of_classes(tmp_path, classes):
    drawing = figure_4("a", results_of_a_run(classes=classes, bins=7).distributions, SETTINGS)
    save(drawing, tmp_path, SETTINGS)
    assert len({row["class"] for row in drawing.rows}) == classes


def test_figure_4_of_many_classes_is_a_map():
    values = results_of_a_run(classes=13, bins=7).distributions
    drawing = figure_4("a", values, SETTINGS)
    panels = drawing.figure.axes[:10]  # the bars of the scales come after them
    cell = values.isel(seed=0, row=1).sel(layer="predense", step=32)
    (drawn,) = panels[9].collections
    density = cell.density.transpose("class", "bin").values
    np.testing.assert_array_equal(drawn.get_array().filled(0), density)
    assert (drawn.get_array().mask == (density == 0)).all()
    corners = drawn.get_coordinates()
    np.testing.assert_array_equal(corners[0, :, 0], cell.edge)
    np.testing.assert_array_equal(corners[:, 0, 1], np.arange(14) - 0.5)


@pytest.mark.parametrize("classes", [2, 13])
def test_figure_4_of_a_feature_that_is_always_zero(tmp_path, classes):
    values = results_of_a_run(classes=classes).distributions
    values.density.loc[{"row": 0}] = 0.0
    drawing = figure_4("a", values, SETTINGS)
    save(drawing, tmp_path, SETTINGS)
    row = drawing.rows[0]["feature"]
    densities = [one["value"] for one in drawing.rows if one["feature"] == row and one["quantity"] == "density"]
    assert densities
    assert not any(densities)


def test_no_figure_4_without_features():
    result = results_of_a_run()
    result.distributions.feature_index[:] = np.nan
    assert [drawing.name for drawing in draw({"a": result}, SETTINGS)][-2:] == ["probes", "distributions"]


def test_figures_of_sets_of_runs_end_in_their_names():
    results = {
        "a": results_of_a_run(),
        "b": results_of_a_run(("logits",), distributions=False),
        "c": results_of_a_run(),
    }
    settings = FiguresSettings(sets={"one": ["c", "b"], "two": ["b"]})
    drawings = {drawing.name: drawing for drawing in draw(results, settings)}
    of_one = ["figure-1-one", "figure-2-one", "probes-one", "distributions-one"]
    of_two = ["figure-1-two", "figure-2-two", "probes-two"]
    assert list(drawings) == [*of_one, *of_two, "figure-4-a", "figure-4-c"]  # that of a run in no set as well
    for name in of_one[:3]:
        assert list(dict.fromkeys(row["run"] for row in drawings[name].rows)) == ["c", "b"]
    assert {row["run"] for row in drawings["figure-1-two"].rows} == {"b"}
    assert {row["run"] for row in drawings["distributions-one"].rows} == {"c"}


def test_one_seed_and_one_tap(tmp_path):
    for drawing in draw({"a": results_of_a_run(("predense",), seeds=1, **FULL)}, SETTINGS):
        assert not any(row.get("seed") == "std" for row in drawing.rows)
        if not drawing.name.startswith("information"):  # bounds are bands, and points of a path are a collection
            assert not any(axes.collections for axes in drawing.figure.axes)
        save(drawing, tmp_path, SETTINGS)


def test_runs_without_distributions_have_the_other_figures():
    names = [drawing.name for drawing in draw({"a": results_of_a_run(distributions=False)}, SETTINGS)]
    assert names == ["figure-1", "figure-2", "probes"]


def test_many_runs_are_wrapped(tmp_path):
    runs = {f"a-run-with-a-name-too-long-for-a-panel-{i}": results_of_a_run(distributions=False) for i in range(6)}
    five = ("softmax", "logits", "predense", "conv-2", "blocks.0")
    runs["with-all"] = results_of_a_run(five, distributions=False, **FULL)
    of_one = {"decoders": 5, "convergence": 4, "figure-6": 2, "figure-7": 2, "information-plane": 1, "information": 5}
    of_one |= {"complexity": 3, "kernel": 4, "alignment": 2}
    expected = {"figure-1": 21, "figure-2": 21, "probes": 7} | of_one
    for drawing in draw(runs, SETTINGS):
        assert drawing.figure.get_figwidth() <= 7.2
        panels = [axes.get_position().bounds for axes in drawing.figure.axes]
        assert len(set(panels)) == len(panels) == expected.pop(drawing.name)
        assert {row["run"] for row in drawing.rows} == ({"with-all"} if drawing.name in of_one else set(runs))
        save(drawing, tmp_path, FiguresSettings(formats=["png"], dpi=30))
    assert not expected


def test_missing_values_leave_gaps(tmp_path):
    result = results_of_a_run(**FULL)
    result.decode.test_mse.loc[{"layer": "logits", "seed": 0, "step": 32}] = np.nan  # one seed diverged
    result.decode.test_mse.loc[{"layer": "predense"}] = np.nan  # nothing is known
    result.decode.excess.loc[{"layer": "softmax"}] = np.inf
    result.transfers["digits"].accuracy[:] = np.nan
    result.distributions.selectivity.loc[{"layer": "logits"}] = np.nan  # undefined where values are negative
    for drawing in draw({"a": result}, SETTINGS):
        assert all(np.isfinite(row["value"]) for row in drawing.rows)
        save(drawing, tmp_path, SETTINGS)
    rows = figure_1({"a": result}, SETTINGS).rows
    others = result.decode.test_mse.sel(layer="logits", seed=[1, 2], decoder="linear").mean("seed")
    np.testing.assert_allclose(numbers(rows, quantity="loss", seed="mean"), others)
    assert not numbers(statistics({"a": result}).rows, layer="logits", quantity="selectivity").size


def test_steps_have_their_place_on_the_axis():
    axes = figure_1({"a": results_of_a_run()}, SETTINGS).figure.axes[-1]
    places = axes.transData.transform([(step, 0.5) for step in STEPS])[:, 0]
    np.testing.assert_allclose(np.diff(places), np.diff(places)[0])
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0", "2", "8", "32"]


def test_taps_and_classes_are_told_apart():
    looks = tap_styles(["conv-2", "blocks.1.0", "logits", *map(str, range(20))])
    assert len({tuple(look.values()) for look in looks.values()}) == len(looks)
    assert looks["logits"] == tap_styles(["logits"])["logits"]
    assert len({str(look) for look in class_styles(12)}) == 12


def test_settings_of_the_user_are_neither_used_nor_changed(tmp_path):
    with mpl.rc_context({"font.size": 30, "lines.linewidth": 9}):
        drawing = probes({"a": results_of_a_run()})
        save(drawing, tmp_path, SETTINGS)
        assert mpl.rcParams["font.size"] == 30
    assert {line.get_linewidth() for line in drawing.figure.axes[0].lines} == {1.0, 1.2}
