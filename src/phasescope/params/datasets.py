"""Settings of a dataset (section `datasets` of params.yaml)."""

from typing import Annotated, Literal, TypeGuard, get_args

from pydantic import Field, ValidationInfo, field_validator, model_validator

from phasescope.params.base import Section

VisionSource = Literal["mnist", "fashion-mnist", "cifar10", "cifar100"]
Source = Literal["digits", VisionSource, "image-folder", "feature-strength"]

#: Sources without raw files: they come with a package, or are computed.
EMBEDDED: tuple[Source, ...] = ("digits", "feature-strength")
#: Settings that belong to one source.
_OWN: dict[Source, tuple[str, ...]] = {
    "image-folder": ("test_fraction", "grey", "statistics"),
    "feature-strength": ("outputs", "strength", "inputs"),
}


def is_vision(source: Source) -> TypeGuard[VisionSource]:
    """Whether a source is read by torchvision."""
    return source in get_args(VisionSource)


class DatasetSettings(Section):
    """Where the images come from, and how they are cut into training and test images."""

    source: Source
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
    #: Only for `feature-strength`: l, the number of classes.
    outputs: Annotated[int, Field(ge=2, le=1000)] | None = None
    #: Only for `feature-strength`: k, what the attributes of a strong sample are; those of a weak one are 1.
    strength: Annotated[float, Field(gt=1, le=10**6)] | None = None
    #: Only for `feature-strength`: d, the number of attributes, a multiple of `outputs`.
    inputs: Annotated[int, Field(ge=2, le=10**5)] | None = None

    @field_validator("inputs")
    @classmethod
    def _as_many_for_each_class(cls, inputs: int | None, known: ValidationInfo) -> int | None:
        outputs = known.data.get("outputs")
        if inputs is not None and outputs is not None and inputs % outputs:
            raise ValueError(f"expected a multiple of `outputs`, which is {outputs}, for classes have as many each")
        return inputs

    @property
    def image(self) -> tuple[int, int]:
        """Channels and resolution of a sample: attributes, which have no places, are channels of a single pixel."""
        if self.inputs is not None:
            return self.inputs, 1
        return 1 if self.grey or self.source in ("digits", "mnist", "fashion-mnist") else 3, self.resolution

    @model_validator(mode="after")
    def _as_its_source_needs(self) -> "DatasetSettings":
        fields = type(self).model_fields
        for source, names in _OWN.items():
            for name in names:
                if self.source != source and getattr(self, name) != fields[name].default:
                    raise ValueError(f"`{name}` is for the source {source} alone; leave it out")
        if self.statistics is not None and self.grey != self.statistics.endswith("mnist"):
            raise ValueError(f"`statistics` of {self.statistics} do not fit: those of mnist are of grey images")
        if (self.source == "image-folder") != (self.folder is not None):
            raise ValueError("`folder` is needed for the source image-folder, and for no other")
        if self.source == "feature-strength":
            self._require_a_model()
        return self

    def _require_a_model(self) -> None:
        for name in _OWN["feature-strength"]:
            if getattr(self, name) is None:
                raise ValueError(f"`{name}` is needed for the source feature-strength")
        if self.resolution != type(self).model_fields["resolution"].default:
            raise ValueError("`resolution` is of images, which the source feature-strength has none of; leave it out")
