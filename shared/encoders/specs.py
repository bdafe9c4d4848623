"""What an encoder says of itself: how its input is made, and what comes out. Unknown keys are refused."""

from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from shared.encoders.attributes import Attribute
from shared.encoders.texts import TEXT_FIELDS
from shared.errors import UserError

Channels = tuple[float, float, float]


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$")
    revision: str = Field(description="of the network's weights, as their source names it")
    width: int = Field(ge=1, le=65_536, description="numbers of a feature vector")
    normalise: bool = Field(True, description="whether vectors are scaled to length 1")

    @property
    def signature(self) -> str:
        """By which it is known whether an item's vector was made as this encoder would make it."""
        return f"{self.name}@{self.revision}"


class TextSpec(_Spec):
    """A sentence transformer: tokens in, a vector out."""

    kind: Literal["text"] = "text"
    max_tokens: int = Field(256, ge=2, le=8192, description="what is longer is cut")
    pooling: Literal["mean", "cls"] = Field("mean", description="how a network that answers by token is pooled")
    columns: tuple[str, ...] = Field(
        TEXT_FIELDS, min_length=1, description="of an item, that its words are joined from; in upper or lower case"
    )

    @property
    def signature(self) -> str:
        """As of any encoder, and what it reads, where that is not the usual."""
        read = "" if self.columns == TEXT_FIELDS else f"({','.join(self.columns)})"
        return super().signature + read


class ImageSpec(_Spec):
    """A network over pictures of one size."""

    kind: Literal["image"] = "image"
    height: int = Field(224, ge=8, le=2048)
    width_pixels: int = Field(224, ge=8, le=2048)
    fit: Literal["crop", "stretch", "pad"] = Field(
        "crop", description="how a picture of another shape becomes one of this size; pad is on white"
    )
    enlarge: float = Field(1.0, ge=1, le=4, description="of crop: how much larger than the crop, e.g. 256 / 224")
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    mean: Channels = Field((0.485, 0.456, 0.406), description="of the channels, taken off pixels from 0 to 1")
    std: Channels = Field((0.229, 0.224, 0.225), description="that they are then divided by")
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    colour: Literal["RGB", "BGR"] = Field("RGB", description="the order of the channels; mean and std are in it too")


class AttributesSpec(_Spec):
    """Attributes, read without a network."""

    kind: Literal["attributes"] = "attributes"
    attributes: tuple[Attribute, ...] = Field(min_length=1, description="a block of the vector each, in this order")

    @model_validator(mode="after")
    def _as_wide_as_its_blocks(self) -> "AttributesSpec":
        blocks = sum(attribute.width for attribute in self.attributes)
        if self.width != blocks:
            raise ValueError(f"width is {self.width}, and the attributes have {blocks} numbers together")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """Of an item, that its attributes are read from."""
        return tuple(dict.fromkeys(column for attribute in self.attributes for column in attribute.columns))


AnySpec = TextSpec | ImageSpec | AttributesSpec
Spec = Annotated[AnySpec, Field(discriminator="kind")]

_ANY: TypeAdapter[AnySpec] = TypeAdapter(Spec)


def parse_spec(values: Any, origin: str) -> AnySpec:
    """Check a mapping against the kind that it names.

    Raises:
        UserError: a key is unknown, missing or wrong; the message names ``origin`` and the key.
    """
    try:
        return _ANY.validate_python(values)
    except ValidationError as error:
        raise UserError(f"{origin}: {explain(error)}") from None


def read_preprocessing(text: str, origin: str) -> dict[str, Any]:
    """A user's description of a network's input, YAML or JSON.

    Raises:
        UserError: it is no mapping.
    """
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{origin}: not valid YAML or JSON: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{origin}: write keys and values, such as 'height: 224'")
    return values


def explain(error: ValidationError) -> str:
    """What is wrong with the keys of a document, in one line."""
    return "; ".join(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors())
