"""What all sections of the settings share."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

NAME_PATTERN = r"^[a-z][a-z0-9]*([-_][a-z0-9]+)*$"

#: A run or dataset name: lower-case words joined by dashes; never a bare number, which DVC drops without a word.
Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=64)]


def _each_once(values: list[Any]) -> list[Any]:
    for place, value in enumerate(values):
        if value in values[:place]:
            raise ValueError(f"{value} is listed twice")
    return values


#: For a list whose order counts, but in which nothing may stand twice.
EACH_ONCE = AfterValidator(_each_once)


class Section(BaseModel):
    """A group of settings: unknown keys, wrong types and infinities are rejected, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
