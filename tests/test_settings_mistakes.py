"""Mistakes in params.yaml: each is told in one line, where it was made, with what is allowed."""

import pytest

from conftest import BARE, changed
from phasescope.errors import UserError
from phasescope.params.settings import read
from phasescope.resolve import resolve

TRAIN_KEYS = (
    "batch_size, betas, checkpoints, evaluate_every, iterations, learning_rate, loss, momentum, optimiser, sampling, "
    "seeds, target, warmup, weight_decay"
)
TOP_KEYS = (
    "activations, complexity, datasets, decode, distributions, figures, information, kernel, measures, phases, probe, "
    "runs, theory, train, transfer"
)
RUN_KEYS = "activations, complexity, dataset, decode, distributions, information, kernel, model, probe, train"
MODEL_KEYS = "arguments, bias, depth, dtype, initialisation, initialisation_scale, name, nonlinearity, units, width"
NETWORKS = "f0, mlp, vgg8, vgg11, vgg13, vgg16, resnet10, embedding-mlp, transformer-1, transformer-2"
SOURCES = (
    "digits, mnist, fashion-mnist, cifar10, cifar100, image-folder, feature-strength, binary-operation, "
    "linear-regression"
)


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("train: {", "trian: {", f"trian: unknown key 'trian'; did you mean 'train'? known: {TOP_KEYS}"),
        ("{seeds", "{seeeds", f"train.seeeds: unknown key 'seeeds'; did you mean 'seeds'? known: {TRAIN_KEYS}"),
        ("{name: f0}", "{name: f0}\n    zzz: 1", f"runs.flat.zzz: unknown key 'zzz'; known: {RUN_KEYS}"),
        (
            "{name: f0}",
            "{name: f0}\n    train: {learning-rate: 1}",
            "runs.flat.train.learning-rate: unknown key 'learning-rate'; did you mean 'learning_rate'? "
            f"known: {TRAIN_KEYS}",
        ),
        (
            "width: 0.05",
            "widht: 1",
            f"runs.small.model.widht: unknown key 'widht'; did you mean 'width'? known: {MODEL_KEYS}",
        ),
        (
            "dataset: digits\n    model: {name: f0}",
            "dataset: digit\n    model: {name: f0}",
            "runs.flat.dataset: unknown dataset 'digit'; did you mean 'digits'? known: digits",
        ),
        ("name: f0", "name: vg8", f"runs.flat.model.name: unknown value 'vg8'; did you mean 'vgg8'? known: {NETWORKS}"),
        ("name: f0", "name: 8", f"runs.flat.model.name: unknown value '8'; known: {NETWORKS}"),
        (
            "source: digits",
            "source: minst",
            f"datasets.digits.source: unknown value 'minst'; did you mean 'mnist'? known: {SOURCES}",
        ),
        (
            "source: digits, resolution: 8",
            "source: image-folder",
            "datasets.digits: `folder` is needed for the source image-folder, and for no other; "
            "got {'source': 'image-folder'}",
        ),
        (
            "model: {name: f0}",
            "model: [f0]",
            f"runs.flat.model: expected a group of settings ({MODEL_KEYS}), got ['f0']",
        ),
        ("    model: {name: f0}\n", "", "runs.flat.model: is missing"),
        (
            "name: f0",
            "name: f0, width: 0.5",
            "runs.flat.model.width: f0 has no hidden layer whose width could change: leave it at 1; got 0.5",
        ),
        ("width: 0.05", "width: 0", "runs.small.model.width: expected a number above 0, got 0"),
        ("batch_size: 32", "batch_size: 0", "train.batch_size: expected a number of at least 1, got 0"),
        ("iterations: 16", "iterations: 0", "train.iterations: expected a number of at least 1, got 0"),
        ("iterations: 16", "iterations: 1.5", "train.iterations: expected a whole number, got 1.5"),
        ("iterations: 16", "iterations: 1e3", "train.iterations: expected a whole number, got 1000.0; write 1000"),
        (
            "iterations: 16",
            f"iterations: {10**12}",
            "train.iterations: expected a number of at most 10000000, got 1000000000000",
        ),
        ("seeds: [0, 1]", "seeds: []", "train.seeds: expected 1 or more entries, got []"),
        ("seeds: [0, 1]", "seeds: [0, 0]", "train.seeds: 0 is listed twice; got [0, 0]"),
        ("seeds: [0, 1]", "seeds: [0, -1]", "train.seeds[1]: expected a number of at least 0, got -1"),
        ("seeds: [0, 1]", 'seeds: "0"', "train.seeds: expected a list, got the text '0'; write [0]"),
        ("seeds: [0, 1]", 'seeds: ["0"]', "train.seeds[0]: expected a whole number, got the text '0'"),
        (
            "taps: [logits, predense]",
            "taps: logits",
            "activations.taps: expected a list, got the text 'logits'; write [logits]",
        ),
        (
            "taps: [logits, predense]",
            "taps: [logits, logits]",
            "activations.taps: a tap is listed twice; got ['logits', 'logits']",
        ),
        (
            "taps: [logits, predense]",
            "taps: [{name: logits, pool: 0}]",
            "activations.taps[0].pool: expected a number of at least 1, got 0",
        ),
        ("dpi: 40", "dpi: high", "figures.dpi: expected a whole number, got the text 'high'"),
        (
            "formats: [png]",
            "formats: [pgn]",
            "figures.formats[0]: unknown value 'pgn'; did you mean 'png'? known: svg, png, pdf",
        ),
        (
            "figures: {formats: [png], dpi: 40}",
            "figures: 3",
            "figures: expected a group of settings (columns, dpi, features, formats, headline, sets), got 3",
        ),
        ("resamples: 20", "confidence: 95", "phases.confidence: expected a number below 1, got 95"),
    ],
)
def test_a_mistake_is_told_by_path_value_and_what_is_allowed(mistakes, old, new, line):
    assert mistakes(changed(old, new)) == [line]


@pytest.mark.parametrize(
    ("value", "explanation"),
    [
        ("-1", "expected a number above 0, got -1"),
        ("0", "expected a number above 0, got 0"),
        (".inf", "expected a finite number, got inf"),
        (".nan", "expected a finite number, got nan"),
        ("1e9", "expected a number of at most 1000, got 1000000000.0"),
        ("fast", "expected a number, got the text 'fast'"),
        ("'0.1'", "expected a number, got the text '0.1'"),
        ("[0.1]", "expected a number, got [0.1]"),
        ("{a: 1}", "expected a number, got {'a': 1}"),
        ("", "expected a number, got nothing"),
        ("true", "expected a number, got true"),
    ],
)
def test_a_number_that_is_none(mistakes, value, explanation):
    assert mistakes(BARE + f"train:\n  learning_rate: {value}\n") == [f"train.learning_rate: {explanation}"]


def test_a_mistake_is_told_where_it_was_made(mistakes):
    text = changed("{name: f0}", "{name: f0}\n    train: {learning_rate: -2}")
    assert mistakes(text) == ["runs.flat.train.learning_rate: expected a number above 0, got -2"]
    assert mistakes(text.replace("iterations: 16", "iterations: 0")) == [
        "train.iterations: expected a number of at least 1, got 0",
        "runs.flat.train.learning_rate: expected a number above 0, got -2",
    ]


def test_all_mistakes_are_told_at_once(mistakes):
    text = (
        changed("{name: f0}", "{name: f1, size: 2}")
        .replace("dataset: digits", "dataset: digit", 1)
        .replace("iterations: 16", "iterations: many, momentum: 1")
        .replace("flat:", "Flat:")
        .replace("phases: {resamples: 20}", "phases: [20]\ntranfer: {}")
    )
    assert {line.split(": ")[0] for line in mistakes(text)} == {
        "runs.Flat",
        "runs.Flat.model.name",
        "runs.Flat.model.size",
        "runs.small.dataset",
        "train.iterations",
        "train.momentum",
        "phases",
        "tranfer",
    }


@pytest.mark.parametrize(
    "name",
    [
        *["7", "007", "1.5", "2020-01-01", "'7'", "7b", "null", "true", "Flat", "my flat", "ünï", '"a\\nb"'],
        *["a/b", "a.b", "../x", "'..'", "''", "-a", "a-", "a--b"],
    ],
)
def test_names_are_words_with_dashes(mistakes, name):
    (told,) = mistakes(changed("flat:", f"{name}:"))
    assert told.startswith("runs.")
    assert "is no name; names are lower-case letters, digits and dashes, a letter first, such as `digits-vgg8`" in told
    assert mistakes(changed("  digits:", f"  {name}:"))[0].startswith("datasets.")


OF_VGG8 = "name one of softmax, logits, predense, conv-2 or the path of a module such as 'blocks.0'"
OF_F0 = "name one of softmax, logits, predense or the path of a module such as 'head'"


@pytest.mark.parametrize(
    ("taps", "lines"),
    [
        (
            "[logit]",
            [
                f"runs.small.activations.taps: tap 'logit': vgg8 has no such tap (nearest: 'logits'); {OF_VGG8}",
                f"runs.flat.activations.taps: tap 'logit': f0 has no such tap (nearest: 'logits'); {OF_F0}",
            ],
        ),
        (
            "[conv-2, flatten]",
            [f"runs.flat.activations.taps: tap 'conv-2': f0 has no such tap (nearest: 'logits'); {OF_F0}"],
        ),
        (
            "[head, {name: blocks.9, pool: 1}]",
            [
                f"runs.small.activations.taps: tap 'blocks.9': vgg8 has no such tap (nearest: 'blocks.4'); {OF_VGG8}",
                f"runs.flat.activations.taps: tap 'blocks.9': f0 has no such tap (nearest: 'logits'); {OF_F0}",
            ],
        ),
        (
            "[{name: logits, pool: 1}]",
            [
                f"runs.{run}.activations.taps: tap 'logits' of {network}: "
                "pool is 1, but this output has no maps to pool; leave `pool` out"
                for run, network in (("small", "vgg8"), ("flat", "f0"))
            ],
        ),
        (
            "['a b']",
            [
                "activations.taps[0].name: "
                "expected letters, digits, `.`, `_` and `-`, none of the last two first, got the text 'a b'"
            ],
        ),
    ],
)
def test_taps_are_checked_against_each_network(mistakes, taps, lines):
    assert mistakes(changed("[logits, predense]", taps)) == lines


def test_a_set_of_figures_is_of_runs_that_there_are(mistakes, params):
    text = changed("dpi: 40", "dpi: 40, sets: {nets: [smal, flat], all: [small, flat, huge]}")
    assert mistakes(text) == [
        "figures.sets.nets: unknown run 'smal'; did you mean 'small'? known: small, flat",
        "figures.sets.all: unknown run 'huge'; known: small, flat",
    ]
    resolve(params(text.replace("smal,", "small,").replace(", huge", "")))


def test_maps_are_not_pooled_to_more_than_they_have(mistakes, params):
    text = BARE + "activations: {taps: [{name: conv-2, pool: 3}]}\n"
    assert mistakes(text) == [
        "runs.small.activations.taps: tap 'conv-2' of vgg8: pool is 3, but the maps are 2×2; ask for no more"
    ]
    resolve(params(text.replace("source: digits", "source: digits, resolution: 64")))


def test_taps_that_decoders_are_trained_at_are_kept_and_fit(mistakes, params):
    deconvolution = BARE + "decode: {decoders: [linear, deconvolution]%s}\nactivations: {taps: [logits, %s]}\n"
    assert mistakes(deconvolution % (", trained_taps: [predense, logit]", "conv-2")) == [
        "runs.small.decode.trained_taps: unknown tap 'predense'; known: logits, conv-2",
        "runs.small.decode.trained_taps: unknown tap 'logit'; did you mean 'logits'? known: logits, conv-2",
    ]
    pooled = "{name: blocks.0, pool: 3}"
    (told,) = mistakes(deconvolution % ("", pooled))
    assert told == (
        "runs.small.activations.taps: 'blocks.0': the decoder deconvolution doubles maps until they are the image, and "
        "3×3 never become 32×32: pool the tap to a power of two, or leave it out of decode.trained_taps"
    )
    resolve(params(deconvolution % (", trained_taps: [logits]", pooled)))
    assert mistakes(BARE + "decode: {decoders: [linear, linear]}") == [
        "decode.decoders: linear is listed twice; got ['linear', 'linear']"
    ]
    told = mistakes(BARE.replace("digits}", "digits, resolution: 28}") + "decode: {decoders: [deconvolution]}")
    assert all("1×1 never become 28×28: set the dataset's resolution to a power of two" in line for line in told)
    assert len(told) == 3
    for empty in ("decode: {trained_taps: []}", "figures: {columns: []}"):
        (told,) = mistakes(BARE + empty)
        assert "expected 1 or more entries" in told
    assert mistakes(BARE + "probe: {classifiers: [svm]}") == [
        "probe.classifiers[0]: unknown value 'svm'; known: ridge, logistic, sgd"
    ]


def test_complexity_is_of_layers_that_say_something_and_of_samples_that_pass_alone(mistakes, params):
    told = mistakes(BARE + "complexity: {layers: [blocks.9, softmax, predense, blocks.1]}")
    assert told == [
        "runs.small.complexity.layers: tap 'blocks.9': vgg8 has no such tap (nearest: 'blocks.4'); name one of "
        "softmax, logits, predense, conv-2 or the path of a module such as 'blocks.0'",
        "runs.small.complexity.layers: layer 'softmax': the logits are no function of it, for it forgets their sum; "
        "name another",
        "runs.small.complexity.layers: layer 'predense': vgg8 is linear from there on; name an earlier one",
    ]
    resnet = BARE.replace("vgg8", "resnet10")
    assert mistakes(resnet + "complexity: {layers: [blocks.0, blocks.0.relu1]}") == [
        "runs.small.complexity.layers: layer 'blocks.0.relu1': the logits of resnet10 depend on more than it; name one "
        "they pass whole"
    ]
    batch = BARE + "activations: {batchnorm: batch}\n"
    assert mistakes(batch) == [
        f"runs.small.{section}.measures: with activations.batchnorm `batch` no network is a function of one sample, "
        "which these measures are of: set them to [] for this run, or choose `recalibrated`"
        for section in ("complexity", "kernel")
    ]
    resolve(params(batch + "complexity: {measures: []}\nkernel: {measures: []}"))


# --- files that are no settings


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "expected sections such as `datasets:` and `runs:`, got nothing"),
        ("# all commented out\n", "expected sections such as `datasets:` and `runs:`, got nothing"),
        ("- digits\n", "expected sections such as `datasets:` and `runs:`, got ['digits']"),
        ("digits", "expected sections such as `datasets:` and `runs:`, got the text 'digits'"),
        (BARE.split("runs:")[0], "runs: is missing"),
        (BARE.split("runs:")[0] + "runs:\n", "runs: expected names, each with a group of settings, got nothing"),
        (BARE.split("runs:")[0] + "runs: {}\n", "runs: expected 1 or more entries, got {}"),
        (BARE.split("runs:")[0] + "runs: [a]\n", "runs: expected names, each with a group of settings, got ['a']"),
        (
            BARE.split("    dataset")[0],
            f"runs.small: expected a group of settings ({RUN_KEYS}), got nothing",
        ),
        (BARE + "train: 3\n", f"train: expected a group of settings ({TRAIN_KEYS}), got 3"),
        (BARE + "train:\n", f"train: expected a group of settings ({TRAIN_KEYS}), got nothing"),
        (BARE + "    train: [1]\n", f"runs.small.train: expected a group of settings ({TRAIN_KEYS}), got [1]"),
        (
            BARE + "phases:\n\tresamples: 3\n",
            "line 8: not readable as YAML: found character '\\t' that cannot start any token; "
            "indent with spaces, not tabs",
        ),
        (
            BARE + "train: {seeds: [0\n",
            "line 8: not readable as YAML: expected ',' or ']', but got '<stream end>'; "
            "check this line and those above it",
        ),
        (
            BARE + "a: b: c\n",
            "line 7: not readable as YAML: mapping values are not allowed here; check this line and those above it",
        ),
        (BARE + "runs: {}\n", "line 7: 'runs' is there twice; leave one of the two"),
        (BARE + "  small: {}\n", "line 7: 'small' is there twice; leave one of the two"),
        (
            BARE + "---\na: 1\n",
            "line 7: not readable as YAML: found another document; check this line and those above it",
        ),
        ((BARE + "# Größe\n").encode("latin-1"), "line 7: not readable as UTF-8; save the file in UTF-8"),
        (BARE.encode("utf-16"), "line 1: not readable as UTF-8; save the file in UTF-8"),
        (b"\x00", "not readable as YAML: unacceptable character #x0000: special characters are not allowed"),
        ("a: " + "[" * 5000, "nested too deeply, or an alias holds itself"),
        ("a: &a {b: *a}", "nested too deeply, or an alias holds itself"),
    ],
)
def test_a_file_that_holds_no_settings(mistakes, text, line):
    assert mistakes(text) == [line]


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError) as caught:
        read(tmp_path / "params.yaml")
    assert str(caught.value) == f"{tmp_path / 'params.yaml'} is not there: run this in the project's folder"
