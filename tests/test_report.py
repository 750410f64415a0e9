"""The report: what is on the page, and how it does in a browser that asks it to be usable without a mouse."""

import base64
import gzip
import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

from drawn import FULL, SETTINGS, STEPS, results_of_a_run
from phasescope import mechanisms, phases
from phasescope.figures import curves, distributions, kernel
from phasescope.figures.drawing import save
from phasescope.figures.points import UNIT, points
from phasescope.params.activations import ActivationsSettings
from phasescope.params.models import ModelSettings
from phasescope.params.train import TrainJob
from phasescope.report import contents
from phasescope.report.page import page

#: Names that a stranger may have given: nothing of them may become a part of the page.
HOSTILE = "<img src=x onerror=alert(1)>\"'&</script><script>alert(2)</script>"
JOB = TrainJob(dataset="digits", model=ModelSettings(name="vgg8", width=0.25), iterations=32)


def pictures(drawings, folder):
    for drawing in drawings:
        save(drawing, folder, SETTINGS)
        name = drawing.name
        known = json.loads((folder / "points" / f"{name}.json").read_text())
        files = [f"figures/{name}.svg", f"figures/{name}.csv"]
        caption = contents.CAPTIONS[contents.kind_of(name)]
        data = (folder / f"{name}.svg").read_bytes()
        yield contents.Picture(name, caption, "image/svg+xml", data, known, files)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """What the page of two runs is made of; one of them has more classes than lines tell apart."""
    few, many = results_of_a_run(**FULL), results_of_a_run(classes=20, bins=12)
    told = ActivationsSettings(taps=["softmax", "logits", "predense"])
    kept = {"weights": 10**6, "activations": None}
    runs = {name: contents.about(JOB, told, kept) for name in ("few", HOSTILE)}
    learned = {"few": mechanisms.of_run(few.kernel, phases.PhasesSettings())}
    found = {"few": few.phases, HOSTILE: {HOSTILE: many.phases["logits"]}}
    tables = [
        contents.Shown.of("phases", "Phases", phases.table(found), b"run,layer\nfew,logits\n"),
        contents.Shown.of("mechanisms", "Mechanisms", mechanisms.table(learned), b"run\nfew\n"),
    ]
    many = replace(many, distributions=many.distributions.assign_coords({"class": [HOSTILE, *range(1, 20)]}))
    grids = {"few": contents.grid(few.distributions), HOSTILE: contents.grid(many.distributions)}
    drawings = [curves.probes({"few": few}), kernel.kernel({"few": few.kernel}), kernel.alignment({"few": few.kernel})]
    drawings.append(distributions.figure_4("many", results_of_a_run(classes=20).distributions, SETTINGS))
    return {
        "runs": runs,
        "tables": tables,
        "courses": contents.courses(found, dict.fromkeys(found, 32)),
        "pictures": contents.arranged(list(pictures(drawings, tmp_path_factory.mktemp("figures"))), {}),
        "grids": grids,
        "made": list(contents.makers({"few train": {"python": "3", "libraries": {"numpy": "2", HOSTILE: "1"}}})),
        "code": {"few train": "ab" * 32},
    }


@pytest.fixture(scope="module")
def text(parts):
    return page(**parts)


# --- what is on it


def test_the_same_contents_give_the_same_page_and_names_are_never_markup(parts, text):
    assert page(**parts) == text
    assert "<img src=x" not in text
    assert text.count("<script>") == 1  # the page's own
    assert (
        text.count("&lt;img src=x onerror=alert(1)&gt;") == 5
    )  # run, layer, library; again in the choice of runs and in the phases


def test_the_page_holds_all_it_needs(parts, text):
    assert not re.findall(r'(?:src|href)="(?!#|data:|figures/|metrics/)', text)
    (policy,) = re.findall(r'Content-Security-Policy" content="(.*?)"', text)
    assert "unsafe" not in policy
    assert "http" not in policy
    csv = base64.b64encode(parts["tables"][0].csv).decode()
    assert f'<a download="phases.csv" href="data:text/csv;charset=utf-8;base64,{csv}">' in text
    assert 'href="metrics/phases.csv"' in text
    packed = re.findall(r'<script type="application/gzip" data-type="image/svg\+xml">(.*?)</script>', text)
    inside = [gzip.decompress(base64.b64decode(one)) for one in packed]
    assert inside == [picture.data for shown in parts["pictures"].values() for picture in shown]


def test_histograms_are_those_that_were_measured():
    measured = results_of_a_run(bins=12).distributions
    found = contents.grid(measured)
    assert (found["seed"], found["steps"]) == (0, STEPS.tolist())
    logits = found["layers"][1]
    assert logits["name"] == "logits"
    assert [(feature["index"], feature["fixed"]) for feature in logits["features"]] == [(0, True), (17, False)]
    of_second = measured.isel(seed=0, layer=1, row=1)
    for name in ("density", "zero"):
        np.testing.assert_allclose(logits["features"][1][name], of_second[name].values, rtol=5e-3)
    np.testing.assert_allclose(logits["features"][1]["edges"], of_second.edge.values, rtol=1e-5)


def test_many_bins_are_averaged_and_a_class_without_samples_has_no_numbers():
    measured = results_of_a_run(classes=3, bins=150).distributions.copy(deep=True)
    measured.density[..., 1, :] = np.nan
    feature = contents.grid(measured)["layers"][0]["features"][0]
    density = np.array(feature["density"], dtype=float)
    assert density.shape == (len(STEPS), 3, 50)
    assert len(feature["edges"]) == 51
    assert np.isnan(density[:, 1]).all()
    first = measured.density.isel(seed=0, layer=0, row=0).values
    np.testing.assert_allclose(density[:, 2, 4], first[:, 2, 12:15].mean(axis=-1), rtol=5e-3)


def test_phases_stand_one_after_the_other_on_the_axis_of_steps():
    numbers = {"phases": "constant, fall, rise", "constant_until": 3, "minimum_at": 15}
    none, late = {"phases": "none"}, {**numbers, "constant_until": 31}
    found = {"long": {"a": numbers, "b": none, "c": late}, "short": {"d": numbers}}
    a, b, c, d = contents.courses(found, {"long": 255, "short": 63})
    assert a.phases == {"constant": (0, 25), "fall": (25, 25), "rise": (50, 50)}
    assert a.words == "constant until 3, fall until 15, rise until 255"
    assert (b.phases, b.words) == ({}, "no phases")
    assert c.phases["fall"][1] == 0  # constant still at the minimum
    assert d.phases["rise"] == (50, 25)


def test_figures_stand_with_their_runs_and_have_words():
    empty = {"width": 1.0, "height": 1.0, "panels": []}
    names = ["theory-curve", "probes-one", "figure-1-two-one", "figure-4-x", "linear-network-phases", "figure-1-one"]
    found = contents.arranged(
        [contents.Picture(name, "", None, b"", empty, []) for name in names], {"one": ["x"], "two-one": ["x"]}
    )
    assert {heading: [picture.name for picture in shown] for heading, shown in found.items()} == {
        "one": ["figure-1-one", "probes-one"],
        "two-one": ["figure-1-two-one"],
        "Distributions of features": ["figure-4-x"],
        "Theory": ["theory-curve", "linear-network-phases"],
    }
    assert contents.kind_of("information-plane-digits") == "information-plane"


def test_settings_at_a_glance():
    told = contents.about(JOB, ActivationsSettings(taps=["logits"]), {"weights": 16_300_000, "activations": None})
    assert told == {
        "dataset": "digits",
        "network": "vgg8, width 0.25",
        "training": "sgd, learning rate 0.002, batches of 128, cross-entropy, 32 iterations",
        "seeds": "0, 1, 2",
        "steps": "7 checkpoints: 0, 1, 2, …, 32",
        "taps": "logits",
        "kept": "weights 16.3 MB, activations not here",
    }


def test_what_was_made_alike_is_told_once():
    one = {"python": "3.11", "libraries": {"numpy": "2"}, "processor": "P", "code": "a"}
    found = list(contents.makers({"train": one, "probe": {**one, "code": "b"}, "decode": {**one, "python": "3.12"}}))
    assert [what for what, _ in found] == [["train", "probe"], ["decode"]]
    assert found[0][1]["libraries"] == "numpy 2"


def test_the_points_of_a_figure_are_where_they_are_drawn(tmp_path):
    drawing = curves.probes({"a": results_of_a_run()})
    save(drawing, tmp_path, SETTINGS)
    (axes,) = drawing.figure.axes
    (panel,) = points(drawing.figure)["panels"]
    assert (panel["title"], panel["x"], panel["y"]) == ("a", "iteration", "accuracy")
    (network,) = [line for line in panel["lines"] if line["name"] == "network"]
    drawn = next(line for line in axes.lines if line.get_color() == "#000000" and len(line.get_xdata()) > 2)
    np.testing.assert_array_equal(network["x"], STEPS)
    np.testing.assert_allclose(network["y"], drawn.get_ydata(), rtol=5e-4)
    pixels = axes.transData.transform(np.column_stack(drawn.get_data()))
    parts = pixels / drawing.figure.bbox.size
    np.testing.assert_allclose(
        np.reshape(network["at"], (-1, 2)) / UNIT, np.c_[parts[:, 0], 1 - parts[:, 1]], atol=2e-4
    )


# --- the stage


def test_the_stage_writes_one_page_with_every_figure(complete):
    text = (complete / "report.html").read_text()
    names = sorted(path.stem for path in (complete / "figures").glob("*.csv"))
    assert sorted(re.findall(r'data-picture="([a-z0-9-]+)"', text)) == names
    assert all(f'href="figures/{name}.csv"' in text for name in names)
    assert text.count('data-type="image/png"') == len(names)
    assert all(contents.kind_of(name) for name in names)
    for file in ("phases", "timescales", "mechanisms"):
        assert f'href="metrics/{file}.csv"' in text
    assert re.search(r"<dt>libraries</dt><dd>[^<]*, numpy [0-9.]+, phasescope [0-9.]+", text)


def test_the_stage_gives_the_same_bytes_again_and_says_what_is_missing(project):
    before = (project.path / "report.html").read_bytes()
    assert project.run_stage("report").returncode == 0
    assert (project.path / "report.html").read_bytes() == before
    shutil.rmtree(project.path / "runs")  # nothing but their bytes is told of stores
    assert project.run_stage("report").returncode == 0
    assert b"weights not here" in (project.path / "report.html").read_bytes()
    shutil.rmtree(project.path / "figures")
    refused = project.run_stage("report")
    assert refused.returncode == 1
    assert refused.stderr == "figures is not there: make it with `dvc repro`, or fetch it with `dvc pull`\n"


# --- in a browser

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser here: none of {', '.join(BROWSERS)}")
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=found)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def address(text, tmp_path_factory):
    path = tmp_path_factory.mktemp("moved alone") / "report.html"
    path.write_text(text)
    return path.as_uri()


@pytest.fixture
def opened(browser, address):
    """Opens the page; whatever it complains of, or asks for besides itself, fails the test."""
    complaints, contexts = [], []

    def open_page(**options):
        contexts.append(browser.new_context(**{"viewport": {"width": 1200, "height": 800}, **options}))
        shown = contexts[-1].new_page()
        shown.set_default_timeout(20_000)
        shown.on("console", lambda message: complaints.append(message.text))
        shown.on("pageerror", lambda error: complaints.append(str(error)))
        shown.on("dialog", lambda dialog: complaints.append(dialog.message))
        shown.on("request", lambda asked: asked.url.startswith(("blob:", "data:")) or requests.append(asked.url))
        requests.clear()
        shown.goto(address)
        shown.wait_for_selector("html[data-ready]", state="attached")
        return shown

    requests: list[str] = []
    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []
    assert requests == [address]


def ink(canvas):
    """What is drawn on a canvas."""
    return canvas.evaluate("canvas => canvas.toDataURL()")


def test_all_is_drawn_and_the_slider_goes_over_the_steps_by_keyboard(opened):
    shown = opened()
    images = shown.evaluate("[...document.querySelectorAll('figure img')].map(i => [i.naturalWidth, i.clientWidth])")
    assert len(images) == 4
    assert all(min(sizes) > 100 for sizes in images)
    slider, canvases = shown.get_by_role("slider", name="Iteration"), shown.locator("#grid canvas")
    assert canvases.count() == 3 * 2
    assert slider.get_attribute("aria-valuetext") == "iteration 32"
    last = ink(canvases.nth(3))
    slider.press("ArrowLeft")
    assert slider.get_attribute("aria-valuetext") == "iteration 16"
    assert shown.locator("#grid-iteration").inner_text() == "16"
    before = ink(canvases.nth(3))
    assert before != last
    slider.press("Home")
    assert slider.get_attribute("aria-valuetext") == "iteration 0"
    assert ink(canvases.nth(3)) not in (before, last)
    shown.get_by_role("combobox", name="Run").select_option(index=1)  # with more classes than lines tell apart
    shown.get_by_text("20 classes, from below to above").wait_for()
    assert ink(canvases.nth(3)) not in (before, last)


def test_values_are_told_to_the_mouse_and_to_the_keyboard(opened, parts):
    shown = opened()
    feature = parts["grids"]["few"]["layers"][0]["features"][0]
    first = [bins[0] for bins in feature["density"][-1]]
    name = f"class {int(np.argmax(first))}: {max(first):g}"
    canvas = shown.locator("#grid canvas").first
    canvas.hover(position={"x": 4, "y": 20})
    assert name in shown.locator("#tip").inner_text()
    canvas.focus()
    canvas.press("ArrowRight")
    canvas.press("ArrowLeft")
    assert name in shown.locator("#grid-readout").inner_text()
    canvas.press("ArrowDown")
    assert "feature 17" in shown.locator("#grid-readout").inner_text()
    box = shown.locator("#probes img").bounding_box()
    (probes,) = [one for shown in parts["pictures"].values() for one in shown if one.name == "probes"]
    line = next(line for line in probes.points["panels"][0]["lines"] if line["name"] == "network")
    shown.locator("#probes img").scroll_into_view_if_needed()
    box = shown.locator("#probes img").bounding_box()
    x, y = (box["x"] + box["width"] * line["at"][0] / UNIT, box["y"] + box["height"] * line["at"][1] / UNIT)
    shown.mouse.move(x, y)
    assert f"iteration 0, accuracy {line['y'][0]:g}" in shown.locator("#tip").inner_text()


def test_a_figure_is_enlarged_moved_and_closed_by_keyboard(opened):
    shown = opened()
    button = shown.get_by_role("button", name="Enlarge probes")
    button.press("Enter")
    viewer, sheet = shown.locator("dialog"), shown.locator("#viewer-picture")
    assert viewer.is_visible()
    fitted = sheet.bounding_box()
    shown.keyboard.press("+")
    larger = sheet.bounding_box()
    assert larger["width"] == pytest.approx(1.4 * fitted["width"])
    shown.keyboard.press("ArrowLeft")
    assert sheet.bounding_box()["x"] == pytest.approx(larger["x"] + 60)
    shown.keyboard.press("0")
    assert sheet.bounding_box()["width"] == pytest.approx(fitted["width"])
    shown.get_by_label("Point").press("ArrowRight")
    assert "iteration 1, accuracy" in shown.locator("#viewer-readout").inner_text()
    shown.keyboard.press("Escape")
    assert not viewer.is_visible()
    assert button.evaluate("button => button === document.activeElement")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_bars_those_who_do_not_see_or_point(opened, scheme):
    """The rules of axe-core: names of controls, alternatives, contrast, headings, landmarks, tables."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    shown = opened(color_scheme=scheme)
    found = axe.run(shown)
    assert found.violations_count == 0, found.generate_report()
    shown.get_by_role("button", name="Enlarge probes").click()
    found = axe.run(shown)
    assert found.violations_count == 0, found.generate_report()


def test_nothing_is_wider_than_a_phone(opened):
    shown = opened(viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True)
    assert shown.evaluate("document.documentElement.scrollWidth") == 360
    shown.get_by_role("button", name="Enlarge probes").tap()
    close = shown.get_by_role("button", name="Close").bounding_box()
    assert close["x"] + close["width"] <= 360
