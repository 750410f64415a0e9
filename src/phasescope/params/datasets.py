"""Settings of a dataset (section `datasets` of params.yaml)."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from phasescope.params.base import Section

VisionSource = Literal["mnist", "fashion-mnist", "cifar10", "cifar100"]
Source = Literal["digits", VisionSource, "image-folder"]


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

    @property
    def channels(self) -> int:
        """Of the images: 1 for grey ones, 3 for those in colour."""
        return 1 if self.grey or self.source in ("digits", "mnist", "fashion-mnist") else 3

    @model_validator(mode="after")
    def _only_for_image_folder(self) -> "DatasetSettings":
        fields = type(self).model_fields
        for name in ("test_fraction", "grey", "statistics"):
            if self.source != "image-folder" and getattr(self, name) != fields[name].default:
                raise ValueError(f"`{name}` is for the source image-folder alone; leave it out")
        if self.statistics is not None and self.grey != self.statistics.endswith("mnist"):
            raise ValueError(f"`statistics` of {self.statistics} do not fit: those of mnist are of grey images")
        if (self.source == "image-folder") != (self.folder is not None):
            raise ValueError("`folder` is needed for the source image-folder, and for no other")
        return self
