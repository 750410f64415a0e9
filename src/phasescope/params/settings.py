"""All settings: params.yaml read with one reader and one model, and cut into each stage's share."""

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from pydantic import Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from phasescope.errors import UserError
from phasescope.params.activations import ActivationsSettings
from phasescope.params.base import Name, Section
from phasescope.params.datasets import DatasetSettings
from phasescope.params.decode import DecodeSettings
from phasescope.params.distributions import DistributionsSettings
from phasescope.params.figures import FiguresJob, FiguresSettings
from phasescope.params.models import ModelSettings
from phasescope.params.phases import PhasesJob, PhasesSettings
from phasescope.params.probe import ProbeSettings
from phasescope.params.train import TrainJob, TrainSettings

#: DVC 3 leaves these names out of what it hashes, and would serve stale results (treeverse/dvc#10296).
FORBIDDEN = ("size", "nfiles")

#: Sections that a run may override for itself, under the same name.
PER_RUN: dict[str, type[Section]] = {
    "train": TrainSettings,
    "activations": ActivationsSettings,
    "decode": DecodeSettings,
    "probe": ProbeSettings,
    "distributions": DistributionsSettings,
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


class Settings(Section):
    """The whole of params.yaml, every run with its overrides filled in."""

    datasets: dict[Name, DatasetSettings] = Field(min_length=1)
    runs: dict[Name, RunSettings] = Field(min_length=1)
    train: TrainSettings = TrainSettings()
    activations: ActivationsSettings = ActivationsSettings()
    decode: DecodeSettings = DecodeSettings()
    probe: ProbeSettings = ProbeSettings()
    distributions: DistributionsSettings = DistributionsSettings()
    phases: PhasesSettings = PhasesSettings()
    figures: FiguresSettings = FiguresSettings()


def read(path: Path) -> Settings:
    """Read and check params.yaml.

    Raises:
        UserError: one line per mistake: the key path, the value, what is allowed, the nearest name for a typo.
    """
    try:
        # YAML 1.2, as DVC reads it: 1e-3 is a number and `no` a word.
        content = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is not there: run this in the project's folder") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected sections such as `datasets:` and `runs:`")
    mistakes = list(_misnamed(content)) or list(_ill_formed(content))
    if not mistakes:
        try:
            settings = Settings.model_validate(_merged(content))
            mistakes = list(_inconsistent(settings))
            if not mistakes:
                return settings
        except ValidationError as error:
            mistakes = _explained(error, content)
    raise UserError("\n".join(f"{path}: {mistake}" for mistake in mistakes))


def shares(settings: Settings) -> dict[str, dict[str, Any]]:
    """Each stage's share of the settings, by the name of the file under `configs/` that it is written to."""
    files: dict[str, dict[str, Any]] = {}
    for name, dataset in settings.datasets.items():
        files[f"datasets/{name}.json"] = dataset.model_dump()
    for name, run in settings.runs.items():
        job = TrainJob(dataset=run.dataset, model=run.model, **run.train.model_dump())
        files[f"runs/{name}/train.json"] = job.model_dump()
        for section in PER_RUN.keys() - {"train"}:
            files[f"runs/{name}/{section}.json"] = getattr(run, section).model_dump()
    runs = list(settings.runs)
    files["phases.json"] = PhasesJob(runs=runs, **settings.phases.model_dump()).model_dump()
    files["figures.json"] = FiguresJob(runs=runs, **settings.figures.model_dump()).model_dump()
    return files


def _misnamed(content: Any, where: str = "") -> Iterator[str]:
    """Names that DVC would drop silently, at any depth."""
    if isinstance(content, dict):
        for key, value in content.items():
            path = f"{where}.{key}" if where else str(key)
            if key in FORBIDDEN:
                yield f"{path}: DVC does not track parameters named {' or '.join(FORBIDDEN)}; choose another name"
            elif not isinstance(key, str):
                yield f"{path}: names are words with dashes such as `digits-vgg8`, not bare numbers"
            yield from _misnamed(value, path)
    elif isinstance(content, list):
        for index, value in enumerate(content):
            yield from _misnamed(value, f"{where}[{index}]")


def _ill_formed(content: dict[str, Any]) -> Iterator[str]:
    """What must hold before runs can be merged with the sections of all runs."""
    for section in [*PER_RUN, "datasets", "runs"]:
        if section in content and not isinstance(content[section], dict):
            yield f"{section}: expected a group of settings, got {content[section]!r}"
            return
    for name, run in content.get("runs", {}).items():
        if not isinstance(run, dict):
            yield f"runs.{name}: expected a group of settings such as `dataset:` and `model:`, got {run!r}"
            return
        for section in PER_RUN:
            if not isinstance(run.get(section, {}), dict):
                yield f"runs.{name}.{section}: expected a group of settings, got {run[section]!r}"


def _merged(content: dict[str, Any]) -> dict[str, Any]:
    """Fill every run's sections up with those of all runs."""
    runs = {
        name: {
            **run,
            **{section: {**content.get(section, {}), **run.get(section, {})} for section in PER_RUN},
        }
        for name, run in content.get("runs", {}).items()
    }
    return {**content, "runs": runs} if "runs" in content else content


def _inconsistent(settings: Settings) -> Iterator[str]:
    """What no section can see on its own."""
    for name, run in settings.runs.items():
        if run.dataset not in settings.datasets:
            yield f"runs.{name}.dataset: {unknown(run.dataset, list(settings.datasets), 'dataset')}"
        if run.model.name == "f0" and run.model.width != 1:
            yield f"runs.{name}.model.width: f0 has no hidden layer whose width could change; leave it at 1"


def unknown(value: str, known: list[str], what: str) -> str:
    """Say that a name is not known, the nearest one that is, and which there are."""
    near = difflib.get_close_matches(value, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown {what} {value!r}; {hint}known: {', '.join(known)}"


def _explained(error: ValidationError, content: dict[str, Any]) -> list[str]:
    """Pydantic's errors in the user's words, each once."""
    lines: dict[str, None] = {}
    for detail in error.errors():
        location = [part for part in detail["loc"] if part != "[key]"]
        path = ".".join(str(part) for part in location)
        # A mistake in the section of all runs shows up in each run as well: say it where it was made.
        if location[0] == "runs" and len(location) > 3 and location[2] in PER_RUN:
            own = content["runs"][location[1]].get(location[2], {})
            if location[3] not in own:
                path = ".".join(str(part) for part in location[2:])
        lines[f"{path}: {_explanation(detail, location)}"] = None
    return list(lines)


def _explanation(detail: Any, location: list[Any]) -> str:
    value = detail["input"]
    match detail["type"]:
        case "extra_forbidden":
            return unknown(str(location[-1]), _known_keys(location[:-1]), "key")
        case "missing":
            return "is missing"
        case "literal_error":
            allowed = detail["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", ")
            return unknown(str(value), allowed, "value")
        case "string_pattern_mismatch" if "[key]" in detail["loc"] or location[-1] == "dataset":
            return f"{value!r} is no name; names are lower-case words with dashes such as `digits-vgg8`"
        case "value_error":
            return str(detail["ctx"]["error"])
    return f"{value!r} is not allowed: {detail['msg'][0].lower()}{detail['msg'][1:]}"


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
