"""All settings: params.yaml read with one reader and one model, and cut into each stage's share."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from pydantic import Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from phasescope import checkpoints, own
from phasescope.errors import UserError, unknown, word
from phasescope.params.activations import ActivationsSettings
from phasescope.params.base import KNOWN, OWN, Name, Section
from phasescope.params.complexity import ComplexitySettings
from phasescope.params.datasets import DatasetSettings
from phasescope.params.decode import DecodeSettings
from phasescope.params.distributions import DistributionsSettings
from phasescope.params.figures import FiguresJob, FiguresSettings, ScaledRun, SolvedRun
from phasescope.params.information import InformationSettings
from phasescope.params.kernel import KernelSettings
from phasescope.params.measures import MeasureJob, MeasureSettings
from phasescope.params.models import OF_TOKENS, ModelSettings
from phasescope.params.phases import PhasesJob, PhasesSettings
from phasescope.params.probe import ProbeSettings
from phasescope.params.theory import TheorySettings
from phasescope.params.train import TrainJob, TrainSettings
from phasescope.params.transfer import TransferSettings

#: DVC 3 leaves these names out of what it hashes, and would serve stale results (treeverse/dvc#10296).
FORBIDDEN = ("size", "nfiles")

#: Sections that a run may override for itself, under the same name.
PER_RUN: dict[str, type[Section]] = {
    "train": TrainSettings,
    "activations": ActivationsSettings,
    "decode": DecodeSettings,
    "probe": ProbeSettings,
    "distributions": DistributionsSettings,
    "information": InformationSettings,
    "complexity": ComplexitySettings,
    "kernel": KernelSettings,
}


class RunSettings(Section):
    """One run: what is trained on what, and where it departs from the sections of all runs."""

    dataset: Name
    model: ModelSettings
    train: TrainSettings
    activations: ActivationsSettings
    decode: DecodeSettings
    probe: ProbeSettings
    distributions: DistributionsSettings
    information: InformationSettings
    complexity: ComplexitySettings
    kernel: KernelSettings


class Settings(Section):
    """The whole of params.yaml, every run with its overrides filled in."""

    datasets: dict[Name, DatasetSettings] = Field(min_length=1)
    runs: dict[Name, RunSettings] = Field(min_length=1)
    train: TrainSettings = TrainSettings()
    activations: ActivationsSettings = ActivationsSettings()
    decode: DecodeSettings = DecodeSettings()
    probe: ProbeSettings = ProbeSettings()
    distributions: DistributionsSettings = DistributionsSettings()
    information: InformationSettings = InformationSettings()
    complexity: ComplexitySettings = ComplexitySettings()
    kernel: KernelSettings = KernelSettings()
    transfer: dict[Name, TransferSettings] = {}
    measures: dict[Name, MeasureSettings] = {}
    phases: PhasesSettings = PhasesSettings()
    theory: TheorySettings = TheorySettings()
    figures: FiguresSettings = FiguresSettings()


def read(path: Path) -> Settings:
    """Read and check params.yaml.

    Raises:
        UserError: one line per mistake: the key path, the value, what is allowed, the nearest name for a typo.
    """
    content = _parsed(path)
    mistakes: dict[str, str] = {}
    try:
        settings = Settings.model_validate(_merged(content))
    except ValidationError as error:
        mistakes = _explained(error, content)
    mistakes |= dict(_inconsistent(content)) | dict(_misnamed(content))
    if mistakes:
        raise UserError("\n".join(f"{path}: {where}: {mistake}" for where, mistake in mistakes.items()))
    return settings


def jobs(settings: Settings, recorded: Mapping[str, TrainJob] | None = None) -> dict[str, TrainJob]:
    """All that `train` needs to know of every run.

    Of checkpoints that others saved and that are not here, it is what was `recorded` of them.

    Raises:
        UserError: there are none, and nothing is recorded of them.
    """
    found = {}
    for name, run in settings.runs.items():
        code = own.digests(run.model.name) | own.digests(run.train.loss)
        job = TrainJob(dataset=run.dataset, model=run.model, code=code, **run.train.model_dump())
        found[name] = job if job.checkpoints is None else _imported(name, job, (recorded or {}).get(name))
    return found


def shares(settings: Settings, recorded: Mapping[str, TrainJob] | None = None) -> dict[str, dict[str, Any]]:
    """Each stage's share of the settings, by the name of the file under `configs/` that it is written to.

    Raises:
        UserError: as `jobs`, which `recorded` is for.
    """
    files: dict[str, dict[str, Any]] = {}
    for name, dataset in settings.datasets.items():
        files[f"datasets/{name}.json"] = {**dataset.model_dump(), "code": own.digests(dataset.source)}
    for name, job in jobs(settings, recorded).items():
        files[f"runs/{name}/train.json"] = job.model_dump()
    for name, run in settings.runs.items():
        for section in PER_RUN.keys() - {"train"}:
            files[f"runs/{name}/{section}.json"] = getattr(run, section).model_dump()
    for name, transfer in settings.transfer.items():
        files[f"transfer/{name}.json"] = transfer.model_dump()
    for name, measure in settings.measures.items():
        code = own.digests(measure.function)
        files[f"measures/{name}.json"] = MeasureJob(code=code, **measure.model_dump()).model_dump()
    runs = list(settings.runs)
    files["theory.json"] = settings.theory.model_dump()
    files["phases.json"] = PhasesJob(runs=runs, **settings.phases.model_dump()).model_dump()
    transfers = {run: [t.dataset for t in settings.transfer.values() if t.run == run] for run in runs}
    measured = {run: [name for name, m in settings.measures.items() if m.run == run] for run in runs}
    datasets = {name: run.dataset for name, run in settings.runs.items()}
    solved = {name: found for name, run in settings.runs.items() if (found := _solved(run, settings)) is not None}
    figures = FiguresJob(
        runs=runs,
        datasets=datasets,
        transfers=transfers,
        measured=measured,
        solved=solved,
        scaled=_scaled(settings),
        **settings.figures.model_dump(),
    )
    files["figures.json"] = figures.model_dump()
    return files


def _imported(run: str, job: TrainJob, recorded: TrainJob | None) -> TrainJob:
    """The same with the files of its checkpoints, their seeds and their last step."""
    where = f"runs.{run}.train.checkpoints"
    try:
        files = checkpoints.find(str(job.checkpoints))
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    if not files and recorded is not None and recorded.checkpoints == job.checkpoints:
        files = recorded.files
    if not files:
        raise UserError(f"{where}: no file in {checkpoints.FOLDER}/ is like {job.checkpoints!r}")
    seeds = [int(seed) for seed in files]
    job = job.model_copy(update={"files": files, "seeds": seeds})
    return job.model_copy(update={"iterations": max(1, job.steps[-1])})


def _solved(run: RunSettings, settings: Settings) -> SolvedRun | None:
    """The parameters of a run that does what the theory says: full-batch gradient descent of F0, and least squares."""
    data, train = settings.datasets[run.dataset], run.train
    if data.outputs is None or data.strength is None or data.inputs is None or run.model.name != "f0":
        return None
    plain = train.optimiser == "sgd" and not train.momentum and not train.weight_decay and not train.warmup
    plain = plain and train.loss == "cross-entropy" and train.sampling == "epochs"
    whole = min(train.batch_size, run.activations.train_samples) >= 2 * data.outputs
    exact = run.decode.decoders[0] == "linear" and run.decode.selection == "none"
    if not (plain and whole and exact) or "softmax" not in [tap.name for tap in run.activations.taps]:
        return None
    given = data.model_dump(include={"outputs", "strength", "inputs"})
    return SolvedRun(**given, learning_rate=train.learning_rate)


def _scaled(settings: Settings) -> dict[str, ScaledRun]:
    """The runs that others differ from in nothing but the scale of the initial weights, and the learning rate.

    This has to be the smaller, the larger the weights are.
    """
    families: dict[str, list[str]] = {}
    for name, run in settings.runs.items():
        model = run.model.model_dump_json(exclude={"initialisation_scale"})
        train = run.train.model_dump_json(exclude={"learning_rate"})
        families.setdefault(f"{run.dataset} {model} {train}", []).append(name)
    scaled: dict[str, ScaledRun] = {}
    taken: set[str] = set()
    for runs in families.values():
        scales = {name: settings.runs[name].model.initialisation_scale for name in runs}
        if len(set(scales.values())) > 1:
            first = settings.runs[runs[0]]
            words = f"{first.dataset}: {_network(first.model)}"
            words = f"{words} ({runs[0]}, …)" if words in taken else words
            taken.add(words)
            scaled |= {name: ScaledRun(family=words, scale=scale) for name, scale in scales.items()}
    return scaled


def _network(model: ModelSettings) -> str:
    """A network in words."""
    if model.name == "mlp":
        return f"{model.depth} layers, {model.units} {model.nonlinearity}"
    return model.name


def _parsed(path: Path) -> dict[str, Any]:
    """The file as nested mappings and lists, all keys as text."""
    try:
        # YAML 1.2, as DVC reads it: 1e-3 is a number and `no` a word.
        content = _with_text_keys(YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UserError(f"{path} is not there: run this in the project's folder") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}: line {line}: not readable as UTF-8; save the file in UTF-8") from None
    except RecursionError:
        raise UserError(f"{path}: nested too deeply, or an alias holds itself") from None
    except DuplicateKeyError as error:
        line, key = error.problem_mark.line + 1, error.problem.split('"')[1]
        raise UserError(f"{path}: line {line}: {key!r} is there twice; leave one of the two") from None
    except MarkedYAMLError as error:
        line, problem = error.problem_mark.line + 1, error.problem.removeprefix("but ")
        hint = "indent with spaces, not tabs" if "'\\t'" in problem else "check this line and those above it"
        raise UserError(f"{path}: line {line}: not readable as YAML: {problem}; {hint}") from None
    except YAMLError as error:
        raise UserError(f"{path}: not readable as YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected sections such as `datasets:` and `runs:`, got {_shown(content)}")
    return content


def _with_text_keys(content: Any) -> Any:
    """The same with every key as text: a bare number as a name is then judged like any other name."""
    if isinstance(content, dict):
        return {str(key): _with_text_keys(value) for key, value in content.items()}
    return [_with_text_keys(value) for value in content] if isinstance(content, list) else content


def _merged(content: dict[str, Any]) -> dict[str, Any]:
    """Fill every run's sections up with those of all runs; what is no mapping is left for the model to refuse."""

    def filled_up(run: Any) -> Any:
        if not isinstance(run, dict):
            return run
        sections = {}
        for section in PER_RUN:
            shared, mine = content.get(section), run.get(section, {})
            sections[section] = {**shared, **mine} if isinstance(shared, dict) and isinstance(mine, dict) else mine
        return {**run, **sections}

    if not isinstance(content.get("runs"), dict):
        return content
    return {**content, "runs": {name: filled_up(run) for name, run in content["runs"].items()}}


def _inconsistent(content: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What no section can see on its own, as path and mistake."""
    datasets, runs = content.get("datasets"), content.get("runs")
    if not isinstance(datasets, dict) or not isinstance(runs, dict):
        return
    for name, run in runs.items():
        match run:
            case {"dataset": str(dataset)} if dataset not in datasets:
                yield _path(["runs", name, "dataset"]), unknown(dataset, list(datasets), "dataset")
        match run:
            case {"model": {"name": "f0", "width": width}} if width != 1:
                where = _path(["runs", name, "model", "width"])
                yield where, f"f0 has no hidden layer whose width could change: leave it at 1; got {_shown(width)}"
            case {"model": {"name": "mlp", "width": width}} if width != 1:
                where = _path(["runs", name, "model", "width"])
                yield where, f"the hidden layers of mlp are as wide as `units` says: leave it at 1; got {_shown(width)}"
        match run:
            case {"model": {"name": str(model), "initialisation": "equal"}} if model != "f0":
                where = _path(["runs", name, "model", "initialisation"])
                yield where, f"with equal weights the units of a hidden layer of {model} stay alike: choose another"
        match run:
            case {"dataset": str(dataset), "model": {"name": str(model)}} if model in OF_TOKENS:
                match datasets.get(dataset):
                    case {"source": str(source)} if source != "binary-operation":
                        where = _path(["runs", name, "model", "name"])
                        told = f"the source of {dataset!r} is {source}: choose another network or dataset"
                        yield where, f"{model} reads pairs of tokens, which binary-operation has, and {told}"
    measures = content.get("measures")
    for name, measure in measures.items() if isinstance(measures, dict) else []:
        match measure:
            case {"run": str(run)} if run not in runs:
                yield _path(["measures", name, "run"]), unknown(run, list(runs), "run")
    transfers = content.get("transfer")
    first: dict[tuple[str, str], str] = {}
    for name, transfer in transfers.items() if isinstance(transfers, dict) else []:
        match transfer:
            case {"run": str(run)} if run not in runs:
                yield _path(["transfer", name, "run"]), unknown(run, list(runs), "run")
        match transfer:
            case {"dataset": str(dataset)} if dataset not in datasets:
                yield _path(["transfer", name, "dataset"]), unknown(dataset, list(datasets), "dataset")
        match transfer:
            case {"run": str(run), "dataset": str(dataset)} if first.setdefault((run, dataset), name) != name:
                other = _path(["transfer", first[run, dataset]])
                yield _path(["transfer", name]), f"{other} has the same run and dataset; list the labels of both there"


def _misnamed(content: Any, location: tuple[str | int, ...] = ()) -> Iterator[tuple[str, str]]:
    """Names that DVC would drop silently, at any depth, as path and mistake."""
    if isinstance(content, dict | list):
        for key, value in content.items() if isinstance(content, dict) else enumerate(content):
            if key in FORBIDDEN:
                names = " or ".join(FORBIDDEN)
                yield _path([*location, key]), f"DVC does not track parameters named {names}; choose another name"
            yield from _misnamed(value, (*location, key))


def _path(location: Sequence[str | int]) -> str:
    """Where in the file, such as `runs.digits-vgg8.train.seeds[0]`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{word(part)}" for part in location).removeprefix(".")


def _explained(error: ValidationError, content: dict[str, Any]) -> dict[str, str]:
    """Pydantic's errors in the user's words, by path."""
    mistakes: dict[str, str] = {}
    for detail in error.errors():
        location = [part for part in detail["loc"] if part not in ("[key]", KNOWN.tag, OWN.tag)]
        where = location
        # A mistake in the section of all runs shows up in each run as well: say it where it was made.
        if location[0] == "runs" and len(location) > 3 and location[2] in PER_RUN:
            mine = content["runs"][location[1]].get(location[2], {})
            if location[3] not in mine:
                where = location[2:]
        mistakes[_path(where)] = _explanation(detail, location)
    return mistakes


#: What pydantic's errors say was expected, in plain words.
EXPECTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "dict_type": "names, each with a group of settings",
    "greater_than": "a number above {gt:.15g}",
    "greater_than_equal": "a number of at least {ge:.15g}",
    "less_than": "a number below {lt:.15g}",
    "less_than_equal": "a number of at most {le:.15g}",
    "too_short": "{min_length} or more entries",
    "too_long": "{max_length} entries or fewer",
    "string_pattern_mismatch": "letters, digits, `.`, `_` and `-`, none of the last two first",
    "string_too_long": "{max_length} characters or fewer",
}


def _explanation(detail: Any, location: list[Any]) -> str:
    value, context = detail["input"], detail.get("ctx", {})
    match detail["type"]:
        case "extra_forbidden":
            return unknown(str(location[-1]), _known_keys(location[:-1]), "key")
        case "missing":
            return "is missing"
        case "literal_error":
            return unknown(str(value), context["expected"].replace("'", "").replace(" or ", ", ").split(", "), "value")
        case "string_pattern_mismatch" if "[key]" in detail["loc"]:
            allowed = "lower-case letters, digits and dashes, a letter first, such as `digits-vgg8`"
            return f"{value!r} is no name; names are {allowed}"
        case "string_pattern_mismatch" if OWN.tag in detail["loc"]:
            return f"expected a known name, or `module:function` for one of your own; got {_shown(value)}"
        case "string_pattern_mismatch" if location[-1] == "function":
            return f"expected `module:function`, one of your own in own/ or installed; got {_shown(value)}"
        case "value_error":
            return f"{context['error']}; got {_shown(value)}"
        case "model_type":
            expected = f"a group of settings ({', '.join(_known_keys(location))})"
        case known if known in EXPECTED:
            expected = EXPECTED[known].format(**context)
        case _:
            return f"{detail['msg'][0].lower()}{detail['msg'][1:]}, got {_shown(value)}"
    remedy = ""
    if detail["type"] == "int_type" and isinstance(value, float) and value.is_integer():
        remedy = f"; write {int(value)}"
    elif detail["type"] == "list_type" and isinstance(value, str | int):
        remedy = f"; write [{value}]"
    return f"expected {expected}, got {_shown(value)}{remedy}"


def _shown(value: Any) -> str:
    """A value as the user may recognise it, in 60 characters at most."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case str():
            return f"the text {value!r:.60}"
    return f"{value!r:.60}"


def _known_keys(location: list[Any]) -> list[str]:
    """The keys allowed at a place of the settings, found by walking down the model."""
    model: Any = Settings
    for part in location:
        if isinstance(part, int) or get_origin(model) is dict:
            model = get_args(model)[-1]
        else:
            model = model.model_fields[part].annotation
        model = _without_none(model)
    return sorted(model.model_fields)


def _without_none(annotation: Any) -> Any:
    """The type inside `X | None` and `Annotated[X, …]`."""
    while hasattr(annotation, "__metadata__"):
        annotation = get_args(annotation)[0]
    if get_origin(annotation) is Union or type(annotation).__name__ == "UnionType":
        return next(a for a in get_args(annotation) if a is not type(None))
    return annotation
