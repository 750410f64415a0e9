"""A folder of checkpoints that others saved becomes a run of the project: checked, brought here, noted in params.yaml.

All of it happens or nothing: params.yaml changes last, when every file was read and fits the network.
"""

import io
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError
from torch import nn

from phasescope.budget import images_of
from phasescope.checkpoints import FOLDER, paths
from phasescope.errors import UserError
from phasescope.models.foreign import fitted, named, read_weights
from phasescope.models.zoo import outline
from phasescope.params.base import NAME_PATTERN
from phasescope.params.settings import RunSettings, Settings, read
from phasescope.resolve import resolve
from phasescope.store.commit import write_file

SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt")
#: What stands before the number of updates, or of the seed, in names that say so.
STEP = re.compile(r"(step|iter|iteration|update)s?[-_=]?$", re.IGNORECASE)
SEED = re.compile(r"seed[-_=/]?$", re.IGNORECASE)


@dataclass(frozen=True)
class Taken:
    """What was made a run."""

    pattern: str  #: in `checkpoints/`
    seeds: list[int]
    steps: list[int]
    left_out: int  #: files of weights in the folder that the pattern does not fit


def take(
    name: str, source: str, run: dict[str, Any], pattern: str | None = None, params: Path = Path("params.yaml")
) -> Taken:
    """Make a run of the project in the present folder from a folder of checkpoints.

    Args:
        name: of the run.
        source: a folder, or a path with `{step}` in it, and `{seed}` and `*` if need be.
        run: its settings as they are to stand in params.yaml, but for `train.checkpoints`.
        pattern: of the paths in that folder; none: it is told from the names, if there is only one way.
        params: the project's settings.

    Raises:
        UserError: there are no checkpoints, they are not of this network, or the settings do not fit; nothing changes.
    """
    if not re.fullmatch(NAME_PATTERN, name):
        raise UserError(f"{name!r} is no name; names are lower-case letters, digits and dashes, a letter first")
    folder, pattern = _split(source, pattern)
    pattern = pattern or guessed(folder)
    found = paths(folder, pattern)
    if not found:
        raise UserError(f"{folder}: no file is like {pattern!r}")
    files = {(seed, step): folder / path for seed, steps in found.items() for step, path in steps.items()}
    if len({file.suffix for file in files.values()}) > 1:
        raise UserError(f"{folder}: {pattern!r} are files of several kinds; name one, such as 'step_{{step}}.pt'")
    here = folder.resolve().is_relative_to(FOLDER.resolve())
    if here:
        inside = folder.resolve().relative_to(FOLDER.resolve())
        target, kept = None, (inside / pattern).as_posix()
    else:
        target, kept = FOLDER / name, f"{name}/seed_{{seed}}/step_{{step}}{next(iter(files.values())).suffix}"
    first = {key: run[key] for key in ("dataset", "model")}
    entry = {**first, "train": {"checkpoints": kept, **run.get("train", {})}}
    entry |= {key: value for key, value in run.items() if key not in entry}
    text = with_run(params, name, entry)
    if target is not None and target.exists():
        raise UserError(f"{target} is there already: remove it, or choose another name")
    settings = _checked(text, params)
    _check(files, settings, settings.runs[name])
    try:
        if target is not None:
            _bring(files, kept, target)
        write_file(params, text.encode())
    except BaseException:
        if target is not None:
            shutil.rmtree(target, ignore_errors=True)
        raise
    left_out = len(set(_weights_in(folder)) - {path for steps in found.values() for path in steps.values()})
    return Taken(kept, list(found), list(next(iter(found.values()))), left_out)


def guessed(folder: Path) -> str:
    """The pattern of the names in a folder, if there is only one way to understand them.

    Names that differ in their numbers alone are of one pattern. The number of updates is the one after `step`, `iter`
    or `update`, or else the only one that differs; the one after `seed` is the seed, and all others do not matter.

    Raises:
        UserError: there are no files of weights, or no number that must be the step.
    """
    files = _weights_in(folder)
    if not files:
        raise UserError(f"{folder}: no {', '.join(SUFFIXES)} in this folder")
    kinds: dict[str, list[list[str]]] = {}
    for path in files:
        parts = re.split(r"(\d+)", path)
        if len(parts) > 1:
            kinds.setdefault("\0".join(parts[::2]), []).append(parts)
    example = next(iter(kinds.values()))[0] if kinds else [files[0]]
    hint = "say which number is the step with --pattern, such as --pattern 'step_{step}.pt'"
    if not kinds:
        raise UserError(f"{folder}: there is no number in {files[0]!r} that could be the step; {hint}")
    if len(kinds) > 1:
        others = ["".join(kind[0]) for kind in list(kinds.values())[:2]]
        raise UserError(f"{folder}: {others[0]!r} and {others[1]!r} are named differently; {hint}")
    (alike,) = kinds.values()
    numbers = range(1, len(example), 2)
    varying = [at for at in numbers if len({parts[at] for parts in alike}) > 1]
    seeds = [at for at in varying if SEED.search(example[at - 1])]
    called = [at for at in numbers if STEP.search(example[at - 1])]
    steps = called or [at for at in varying if at not in seeds]
    if len(steps) != 1 or len(seeds) > 1:
        raise UserError(f"{folder}: it is not clear which number in {''.join(example)!r} is the step; {hint}")
    wild = {**dict.fromkeys(varying, "*"), **dict.fromkeys(seeds, "{seed}"), steps[0]: "{step}"}
    return "".join(wild.get(at, part) for at, part in enumerate(example))


def with_run(params: Path, name: str, run: Mapping[str, Any]) -> str:
    """The text of params.yaml with one more run after the last one; not a letter of the rest is another.

    Raises:
        UserError: it cannot be read, has a run of that name, or a form that nothing can be added to.
    """
    try:
        text = params.read_bytes().decode()
        content = YAML().load(text)
        runs = content["runs"]
        if not isinstance(runs, CommentedMap | None):
            raise TypeError
    except (OSError, UnicodeDecodeError, YAMLError, KeyError, TypeError):
        read(params)  # says what is wrong
        raise
    if name in (runs or {}):
        raise UserError(f"{params}: there is a run {name!r} already; choose another name")
    lines, end = text.split("\n"), "\r" if "\r\n" in text else ""
    start = content.lc.key("runs")[0]
    at = min((content.lc.key(key)[0] for key in content if content.lc.key(key)[0] > start), default=len(lines))
    while not lines[at - 1].strip() or lines[at - 1].lstrip().startswith("#"):
        at -= 1
    indent = " " * (runs.lc.key(next(iter(runs)))[1] if runs else 2)
    added = [f"{indent}{name}:{end}", *(f"{indent}  {key}: {_flow(value)}{end}" for key, value in run.items())]
    written = "\n".join([*lines[:at], *added, *(lines[at:] or [""])])
    try:
        safe = YAML(typ="safe", pure=True)
        before, after = safe.load(text), safe.load(written)
        wanted = {**before, "runs": {**(before["runs"] or {}), name: {**run}}}
    except YAMLError:
        after, wanted = None, {}
    if after != wanted:
        raise UserError(
            f"{params}: write `runs` with a line for each run, or add this one yourself: {_flow({name: run})}"
        )
    return written


def _split(source: str, pattern: str | None) -> tuple[Path, str | None]:
    """The folder, and the pattern in it."""
    parts = Path(source).expanduser().parts
    plain = next((at for at, part in enumerate(parts) if re.search(r"[{*]", part)), len(parts))
    folder = Path(*parts[:plain])
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the one that the checkpoints are in")
    if plain < len(parts) and pattern is not None:
        raise UserError(f"{source}: has a pattern in it; leave out --pattern, or give the folder alone")
    return folder, "/".join(parts[plain:]) or pattern


def _weights_in(folder: Path) -> list[str]:
    found = (path for path in sorted(folder.rglob("*")) if path.suffix in SUFFIXES and path.is_file())
    return [path.relative_to(folder).as_posix() for path in found if not path.name.startswith(".")]


def _flow(value: object) -> str:
    """A value as YAML on one line."""
    yaml, text = YAML(), io.StringIO()
    yaml.default_flow_style, yaml.width = True, 10**6
    yaml.dump(value, text)
    return text.getvalue().removesuffix("...\n").strip()


def _checked(text: str, params: Path) -> Settings:
    """The settings in a text that is to be params.yaml, as `resolve` checks them."""
    draft = params.with_name(f".{params.name}.part")
    try:
        write_file(draft, text.encode())
        return resolve(draft)
    except UserError as error:
        raise UserError(str(error).replace(str(draft), str(params))) from None
    finally:
        draft.unlink(missing_ok=True)


def _check(files: Mapping[tuple[int, int], Path], settings: Settings, run: RunSettings) -> None:
    """See that every file holds finite weights of the run's network."""
    dataset = settings.datasets[run.dataset]
    images = images_of(dataset, Path("datasets") / run.dataset)
    network: nn.Module | None = None
    for file in files.values():
        weights = read_weights(file)
        if network is None:
            classes = images.classes if images else _classes(weights, run, *dataset.image)
            network = outline(run.model, *dataset.image, run.train.outputs(classes))
        for name, value in fitted(weights, network, file).items():
            if not torch.isfinite(value).all():
                raise UserError(f"{file}: {name} is not finite; leave this checkpoint out")


def _classes(weights: Mapping[str, torch.Tensor], run: RunSettings, channels: int, resolution: int) -> int:
    """As many classes as the network in a file has, where images that are not prepared do not say it.

    Two outlines tell which length it is: they differ in nothing else.
    """
    two, three = (outline(run.model, channels, resolution, count) for count in (2, 3))
    given = named(weights, two)
    for (name, less), more in zip(two.state_dict().items(), three.state_dict().values(), strict=True):
        for axis, (fewer, larger) in enumerate(zip(less.shape, more.shape, strict=True)):
            if fewer != larger and name in given and given[name].ndim > axis:
                return int(given[name].shape[axis])
    return 2


def _bring(files: Mapping[tuple[int, int], Path], pattern: str, target: Path) -> None:
    """Put the files into `checkpoints/` under new names, all or none: the same ones where a file system can."""
    draft = target.with_name(f".{target.name}.part")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        for (seed, step), file in files.items():
            inside = Path(pattern.format(seed=seed, step=step)).relative_to(target.name)
            (draft / inside).parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(file.resolve(), draft / inside)
            except OSError:
                write_file(draft / inside, file.read_bytes())
        draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
