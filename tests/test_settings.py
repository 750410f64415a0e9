"""The settings: how params.yaml is read, merged and cut into each stage's share."""

import json
from typing import Any, get_args

import pytest
from pydantic import BaseModel
from ruamel.yaml import YAML

from conftest import BARE, PARAMS, ROOT, changed
from phasescope.params.settings import FORBIDDEN, Settings, read, shares
from phasescope.resolve import resolve
from phasescope.store.manifest import canonical

# --- reading and merging


def test_what_is_left_out_has_its_default(params):
    settings = read(params(BARE))
    run = settings.runs["small"]
    assert run.train == settings.train
    assert (run.train.batch_size, run.train.momentum, run.model.width) == (128, 0.9, 1.0)
    assert [tap.name for tap in run.activations.taps] == ["softmax", "logits", "predense"]


def test_a_section_reaches_the_runs_that_do_not_override_it(params):
    own = "model: {name: f0}\n    train: {learning_rate: 0.5}"
    text = changed("model: {name: f0}", own).replace("train: {seeds", "train: {learning_rate: 0.25, seeds")
    runs = read(params(text)).runs
    assert (runs["small"].train.learning_rate, runs["flat"].train.learning_rate) == (0.25, 0.5)
    # What the override leaves out comes from the section, not from the default.
    assert runs["flat"].train.seeds == [0, 1]
    assert runs["flat"].train.iterations == 16
    assert runs["flat"].activations == runs["small"].activations


def test_an_override_of_a_list_replaces_it(params):
    text = changed("model: {name: f0}", "model: {name: f0}\n    activations: {taps: [softmax]}")
    runs = read(params(text)).runs
    assert [tap.name for tap in runs["flat"].activations.taps] == ["softmax"]
    assert runs["flat"].activations.train_samples == 100
    assert [tap.name for tap in runs["small"].activations.taps] == ["logits", "predense"]


@pytest.mark.parametrize("number", ["1e-3", "0.001", "1.0e-3", "1E-3", "+.001"])
def test_numbers_are_read_as_yaml_1_2_has_them(params, number):
    assert read(params(BARE + f"train: {{learning_rate: {number}}}")).train.learning_rate == 0.001


@pytest.mark.parametrize("word", ["no", "on", "yes", "off", "y"])
def test_no_is_a_word(params, word):
    assert list(read(params(BARE.replace("small", word))).runs) == [word]


def test_a_whole_number_will_do_for_a_number(params):
    assert read(params(BARE + "train: {learning_rate: 1}")).train.learning_rate == 1.0


def test_a_tap_may_be_a_name_or_a_group(params):
    taps = read(params(BARE + "activations: {taps: [logits, {name: conv-2, pool: 2}, blocks.0.1]}")).activations.taps
    assert [(tap.name, tap.pool) for tap in taps] == [("logits", None), ("conv-2", 2), ("blocks.0.1", None)]


def test_windows_line_ends_and_a_byte_order_mark_are_read(params):
    assert read(params(BARE.replace("\n", "\r\n").encode("utf-8-sig"))) == read(params(BARE))


def test_reading_changes_nothing_in_what_was_read(params):
    path = params(PARAMS)
    before = path.read_bytes()
    files = shares(resolve(path))
    assert shares(resolve(path)) == files
    assert path.read_bytes() == before
    assert json.loads(json.dumps(files)) == files


# --- each stage's share


def what_changes(params, old: str, new: str) -> set[str]:
    before, after = (shares(resolve(params(text))) for text in (PARAMS, changed(old, new)))
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


@pytest.mark.parametrize(
    ("old", "new", "concerned"),
    [
        ("{name: f0}", "{name: f0}\n    train: {learning_rate: 0.1}", {"runs/flat/train.json"}),
        ("width: 0.05", "width: 0.1", {"runs/small/train.json"}),
        ("iterations: 16", "iterations: 32", {"runs/small/train.json", "runs/flat/train.json"}),
        ("{name: f0}", "{name: f0}\n    activations: {taps: [softmax]}", {"runs/flat/activations.json"}),
        ("taps: [logits,", "taps: [softmax,", {"runs/small/activations.json", "runs/flat/activations.json"}),
        ("bins: 5", "bins: 6", {"runs/small/distributions.json", "runs/flat/distributions.json"}),
        ("points: 3", "points: 4", {"runs/small/complexity.json", "runs/flat/complexity.json"}),
        ("probes: 8", "probes: 9", {"runs/small/kernel.json", "runs/flat/kernel.json"}),
        ("{name: f0}", "{name: f0}\n    decode: {selection: loo}", {"runs/flat/decode.json"}),
        ("{name: f0}", "{name: f0}\n    probe: {shuffles: 2}", {"runs/flat/probe.json"}),
        ("{name: f0}", "{name: f0}\n    information: {noise: 0.1}", {"runs/flat/information.json"}),
        ("resamples: 20", "resamples: 30", {"phases.json"}),
        ("dpi: 40", "dpi: 50", {"figures.json"}),
        ("map_points: 8", "map_points: 9", {"theory.json"}),
        ("resolution: 8", "resolution: 16", {"datasets/digits.json"}),
        ("datasets:", "datasets:\n  mnist: {source: mnist}", {"datasets/mnist.json"}),
        ("datasets:", "# a comment\ndatasets:", set()),
    ],
)
def test_a_setting_reaches_only_the_stages_it_concerns(params, old, new, concerned):
    assert what_changes(params, old, new) == concerned


def test_a_new_run_leaves_the_others_alone(params):
    files = ("train", "activations", "decode", "probe", "distributions", "information", "complexity", "kernel")
    new = "runs:\n  third: {dataset: digits, model: {name: vgg8}}"
    assert what_changes(params, "runs:", new) == {
        "phases.json",
        "figures.json",
        *(f"runs/third/{file}.json" for file in files),
    }


def test_the_order_of_the_runs_is_kept(params):
    files = shares(read(params(PARAMS)))
    assert files["phases.json"]["runs"] == files["figures.json"]["runs"] == ["small", "flat"]


def test_figures_know_the_datasets_of_the_runs_and_where_they_are_transferred_to(params):
    text = PARAMS + "transfer: {ink: {run: flat, dataset: digits, labels: [ink]}}\n"
    share = shares(resolve(params(text)))["figures.json"]
    assert share["datasets"] == {"small": "digits", "flat": "digits"}
    assert share["transfers"] == {"small": [], "flat": ["digits"]}


def test_the_configs_in_the_repository_are_those_of_its_params():
    there = {path.relative_to(ROOT / "configs").as_posix(): path.read_text() for path in ROOT.glob("configs/**/*.json")}
    made = {name: canonical(content) for name, content in shares(resolve(ROOT / "params.yaml")).items()}
    assert there.keys() == made.keys()
    for name in made:
        assert there[name] == made[name], f"configs/{name} is out of date: run `dvc repro resolve`"


# --- names that DVC does not track


def names_in(content: Any) -> set[str]:
    if isinstance(content, dict):
        return {str(key) for key in content} | set().union(*map(names_in, content.values()))
    return set().union(*map(names_in, content)) if isinstance(content, list) else set()


def names_of(annotation: Any) -> set[str]:
    """The names of all settings that a type of the model can hold, at any depth."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = annotation.model_fields
        return set(fields).union(*(names_of(field.annotation) for field in fields.values()))
    return set().union(*(names_of(argument) for argument in get_args(annotation)))


def test_no_parameter_has_a_name_that_dvc_drops():
    content = YAML(typ="safe", pure=True).load(ROOT / "params.yaml")
    in_file, in_model = names_in(content), names_of(Settings)
    assert {"learning_rate", "taps", "source"} <= in_file & in_model  # the walk goes down
    assert {"pool", "name", "test_fraction"} <= in_model
    assert not (in_file | in_model | names_in(shares(resolve(ROOT / "params.yaml")))) & set(FORBIDDEN)


@pytest.mark.parametrize("name", FORBIDDEN)
@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("train: {", "NAME: 3\ntrain: {", "NAME"),
        ("train: {", "train: {NAME: 3, ", "train.NAME"),
        ("{name: f0}", "{name: f0}\n    NAME: 3", "runs.flat.NAME"),
        ("{name: f0}", "{name: f0}\n    train: {NAME: 3}", "runs.flat.train.NAME"),
        ("{name: f0}", "{name: f0, NAME: 3}", "runs.flat.model.NAME"),
        ("flat:", "NAME:", "runs.NAME"),
        ("{source: digits,", "{NAME: 3, source: digits,", "datasets.digits.NAME"),
        ("taps: [logits,", "taps: [{name: logits, NAME: 3},", "activations.taps[0].NAME"),
    ],
)
def test_names_that_dvc_drops_are_refused(mistakes, old, new, where, name):
    told = mistakes(changed(old, new.replace("NAME", name)))
    expected = "DVC does not track parameters named size or nfiles; choose another name"
    assert f"{where.replace('NAME', name)}: {expected}" in told
