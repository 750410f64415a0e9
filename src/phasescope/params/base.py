"""What all sections of the settings share."""

from collections.abc import Set
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag

NAME_PATTERN = r"^[a-z][a-z0-9]*([-_][a-z0-9]+)*$"

#: A run or dataset name: lower-case words joined by dashes; never a bare number, which DVC drops without a word.
Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=64)]

#: A function of the user's own, `module:function`: in the project's folder own/, or in an installed package.
OwnName = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$", max_length=200)]
#: Tags of a choice between names that are known and a name of one's own.
KNOWN, OWN = Tag("[known]"), Tag("[own]")
#: Which of the two a value is.
EITHER = Discriminator(lambda value: OWN.tag if is_own(value) else KNOWN.tag)


def is_own(value: object) -> bool:
    """Whether a value names a function of the user's own."""
    return isinstance(value, str) and ":" in value


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

    def __hash__(self) -> int:
        return hash(self.model_dump_json())  # some hold mappings, such as of arguments

    def only(self, wanted: Set[str], **changes: Any) -> Self:
        """The same with all settings at their defaults but for those that are wanted, or are changed."""
        fields = type(self).model_fields
        defaults = {name: field.get_default(call_default_factory=True) for name, field in fields.items()}
        unwanted = {name: defaults[name] for name in fields.keys() - wanted}
        return self.model_copy(update={**unwanted, **changes})
