"""Settings of a dataset (section `datasets` of params.yaml)."""

import math
from typing import Annotated, Literal, TypeGuard, get_args

from pydantic import Field, JsonValue, ValidationInfo, field_validator, model_validator

from phasescope.params.base import EITHER, KNOWN, OWN, OwnName, Section, is_own

VisionSource = Literal["mnist", "fashion-mnist", "cifar10", "cifar100"]
Source = Literal["digits", VisionSource, "image-folder", "feature-strength", "binary-operation", "linear-regression"]
Operation = Literal["addition", "division", "power", "composition"]

#: Sources whose samples are no images, but have attributes, which are channels of a single pixel.
OF_ATTRIBUTES: tuple[Source, ...] = ("feature-strength", "binary-operation", "linear-regression")
#: Sources without raw files: they come with a package, or are computed.
EMBEDDED: tuple[Source, ...] = ("digits", *OF_ATTRIBUTES)
#: Sources of images.
_OF_IMAGES: tuple[Source, ...] = ("digits", *get_args(VisionSource), "image-folder")
#: Settings that are not for all sources, and those that they are for.
_FOR: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("test_fraction", "grey", "statistics"), ("image-folder",)),
    **dict.fromkeys(("outputs", "strength"), ("feature-strength",)),
    "inputs": ("feature-strength", "linear-regression"),
    **dict.fromkeys(("operation", "modulus", "train_fraction"), ("binary-operation",)),
    **dict.fromkeys(("slope", "noise"), ("linear-regression",)),
    **dict.fromkeys(("mean", "std"), _OF_IMAGES),
    **dict.fromkeys(("train_samples", "draw_seed"), (*_OF_IMAGES, "linear-regression")),
}
#: Those of them that cannot be left out.
_NEEDED: dict[str, tuple[str, ...]] = {
    "feature-strength": ("outputs", "strength", "inputs"),
    "binary-operation": ("operation",),
    "linear-regression": ("inputs", "train_samples"),
}
#: As few and as many training samples as can be drawn of the sources that are always the same: one of each class at
#: least is drawn, and one is left.
_DRAWN: dict[str, tuple[int, int]] = {
    "digits": (10, 1787),
    **dict.fromkeys(("mnist", "fashion-mnist"), (10, 59_990)),
    "cifar10": (10, 49_990),
    "cifar100": (100, 49_900),
}
#: Permutations of five things, which `composition` is of.
_PERMUTATIONS = math.factorial(5)


def is_embedded(source: str) -> bool:
    """Whether a source has no raw files that are watched: it comes with a package, is computed, or is one's own."""
    return source in EMBEDDED or is_own(source)


def is_vision(source: str) -> TypeGuard[VisionSource]:
    """Whether a source is read by torchvision."""
    return source in get_args(VisionSource)


class DatasetSettings(Section):
    """Where the images come from, and how they are cut into training and test images."""

    #: Or `module:function`, which gives a dataset of one's own.
    source: Annotated[Annotated[Source, KNOWN] | Annotated[OwnName, OWN], EITHER]
    #: Only for a dataset of one's own: what its function is called with besides `channels` and `resolution`.
    arguments: dict[str, JsonValue] = {}
    #: Only for a dataset of one's own: channels of its images.
    channels: Annotated[int, Field(ge=1, le=1024)] = 3
    resolution: Annotated[int, Field(ge=4, le=1024)] = 32
    #: Only for `image-folder`: the folder, relative to the data root (PHASESCOPE_DATA) or absolute.
    folder: str | None = None
    #: Only for `image-folder`: the share of each class kept for testing where there is no train/ and test/ folder.
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    #: Only for `image-folder`: read the images as grey ones.
    grey: bool = False
    #: Only for `image-folder`: standardise by the constants that the paper's code has for this source (none: by those
    #: of the training images).
    statistics: VisionSource | None = None
    #: Of images: what is taken off pixels from 0 to 1 (none: the source's own mean of each channel) …
    mean: Annotated[float, Field(ge=-10, le=10)] | None = None
    #: … and what they are divided by then (none: the source's own standard deviation of each channel).
    std: Annotated[float, Field(gt=0, le=100)] | None = None
    #: Of images: at most so many for training, as many of each class in proportion (none: all of them). Of
    #: `linear-regression`: so many for training, and as many more for testing.
    train_samples: Annotated[int, Field(ge=2, le=10**6)] | None = None
    #: Of what is drawn: which images are for training, where not all of them are; the samples of `linear-regression`.
    draw_seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    #: Only for `feature-strength`: l, the number of classes.
    outputs: Annotated[int, Field(ge=2, le=1000)] | None = None
    #: Only for `feature-strength`: k, what the attributes of a strong sample are; those of a weak one are 1.
    strength: Annotated[float, Field(gt=1, le=10**6)] | None = None
    #: For `feature-strength`: d, the number of attributes, a multiple of `outputs`. For `linear-regression`: that of x.
    inputs: Annotated[int, Field(ge=1, le=10**5)] | None = None
    #: Only for `linear-regression`: b of y = b·a + noise, where x lies at a on a line; standard deviation of the noise.
    slope: Annotated[float, Field(ge=-1000, le=1000)] = 1.0
    noise: Annotated[float, Field(ge=0, le=1000)] = 0.0
    #: Only for `binary-operation`: addition: a + b; division: a / b, b ≠ 0; power: a·b^(modulus − 2), b ≠ 0, which is
    #: no division unless the modulus is a prime; composition: a∘b of permutations of five things.
    operation: Operation | None = None
    #: Only for `binary-operation`, but for composition: what it is modulo, the number of operands and of classes.
    modulus: Annotated[int, Field(ge=7, le=500)] | None = None
    #: Only for `binary-operation`: the share of all pairs that is for training, drawn at random once and for all.
    train_fraction: Annotated[float, Field(ge=0.05, le=0.95)] = 0.4

    @field_validator("inputs")
    @classmethod
    def _as_many_for_each_class(cls, inputs: int | None, known: ValidationInfo) -> int | None:
        outputs = known.data.get("outputs")
        if inputs is not None and outputs is not None and inputs % outputs:
            raise ValueError(f"expected a multiple of `outputs`, which is {outputs}, for classes have as many each")
        return inputs

    @field_validator("modulus")
    @classmethod
    def _prime_for_division(cls, modulus: int | None, known: ValidationInfo) -> int | None:
        if modulus is not None and known.data.get("operation") == "division" and not _is_prime(modulus):
            below = next(each for each in range(modulus, 1, -1) if _is_prime(each))
            above = next(each for each in range(modulus, 2 * modulus) if _is_prime(each))
            raise ValueError(
                "expected a prime for division, for modulo others not every number has an inverse; the next ones are "
                f"{below} and {above}"
            )
        return modulus

    @property
    def classes(self) -> int | None:
        """How many classes there are; None where the files say so."""
        if self.source == "binary-operation":
            return self.modulus or _PERMUTATIONS
        return 2 if self.source == "linear-regression" else self.outputs

    @property
    def image(self) -> tuple[int, int]:
        """Channels and resolution of a sample: attributes, which have no places, are channels of a single pixel."""
        if self.source == "binary-operation":
            return 2 * (self.modulus or _PERMUTATIONS), 1
        if self.inputs is not None:
            return self.inputs, 1
        if is_own(self.source):
            return self.channels, self.resolution
        return 1 if self.grey or self.source in ("digits", "mnist", "fashion-mnist") else 3, self.resolution

    @model_validator(mode="after")
    def _as_its_source_needs(self) -> "DatasetSettings":
        fields = type(self).model_fields
        for name in ("arguments", "channels"):
            if not is_own(self.source) and getattr(self, name) != fields[name].default:
                raise ValueError(f"`{name}` is for datasets of your own, `module:function`, alone; leave it out")
        for name, sources in _FOR.items():
            if self.source not in sources and getattr(self, name) != fields[name].default:
                which = f"source {sources[0]}" if len(sources) == 1 else f"sources {', '.join(sources)}"
                raise ValueError(f"`{name}` is for the {which} alone; leave it out")
        if self.train_samples is not None and self.source in _DRAWN:
            least, most = _DRAWN[self.source]
            if not least <= self.train_samples <= most:
                raise ValueError(f"`train_samples` of {self.source} can be {least} to {most:,}; leave it out for all")
        if self.draw_seed and self.train_samples is None and self.source != "digits":
            raise ValueError("`draw_seed` is of the draw of `train_samples`: set that too, or leave it out")
        if self.statistics is not None and self.grey != self.statistics.endswith("mnist"):
            raise ValueError(f"`statistics` of {self.statistics} do not fit: those of mnist are of grey images")
        if (self.source == "image-folder") != (self.folder is not None):
            raise ValueError("`folder` is needed for the source image-folder, and for no other")
        for name in _NEEDED.get(self.source, ()):
            if getattr(self, name) is None:
                raise ValueError(f"`{name}` is needed for the source {self.source}")
        if self.source in OF_ATTRIBUTES and self.resolution != fields["resolution"].default:
            raise ValueError(f"`resolution` is of images, which the source {self.source} has none of; leave it out")
        if self.operation is not None and (self.operation == "composition") != (self.modulus is None):
            raise ValueError("`modulus` is needed for every operation but composition, and not for that")
        return self


class DatasetJob(DatasetSettings):
    """All that `prepare` needs to know of a dataset."""

    #: Of a dataset of the user's own: digests of the files that its function is in (`own.digests`).
    code: dict[str, str] = {}


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, math.isqrt(number) + 1))
