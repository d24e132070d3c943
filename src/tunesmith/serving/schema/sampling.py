"""What all requests share, and how they say an answer is to be sampled."""

from __future__ import annotations

from typing import Annotated, Any, get_args

import orjson
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    GetJsonSchemaHandler,
)

from tunesmith.errors import RequestError
from tunesmith.serving.limits import MAX_BIASES, MAX_STOPS


class Body(BaseModel):
    """What every request shares: no field is dropped, no text is taken for a number."""

    model_config = ConfigDict(extra="forbid", strict=True)


def whole_characters(text: str) -> str:
    """Refuse halves of characters, which JSON can spell and no tokenizer can read."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("the text holds half a character, a lone surrogate") from None
    return text


def speakable(value: dict[str, Any]) -> dict[str, Any]:
    """Refuse what some spell in JSON and we could not spell again."""
    try:
        orjson.dumps(value)
    except TypeError:
        raise ValueError(
            "it holds half a character, or a whole number of more than 64 bits"
        ) from None
    return value


Words = Annotated[str, AfterValidator(whole_characters)]
JsonObject = Annotated[dict[str, Any], AfterValidator(speakable)]
Nothing = Annotated[list[Any], Field(max_length=0)] | None
Ids = Annotated[list[int], Field(max_length=1 << 20)]
Biases = Annotated[dict[str, float], Field(max_length=MAX_BIASES)]
Stops = Words | Annotated[list[Words], Field(max_length=MAX_STOPS)]


def by_type(*kinds: type[Body]) -> Discriminator:
    """Choose among kinds of value, each tagged by its name, by what their field `type` may say."""
    fields = {kind.__name__: kind.model_fields["type"] for kind in kinds}
    tags = {word: name for name, field in fields.items() for word in get_args(field.annotation)}
    usual = next((field.default for field in fields.values() if not field.is_required()), "")

    def tag_of(value: Any) -> str | None:
        given = vars(value) if isinstance(value, Body) else value
        kind = given.get("type", usual) if isinstance(given, dict) else None
        return tags.get(kind) if isinstance(kind, str) else None

    return Discriminator(
        tag_of,
        custom_error_type="unknown_type",
        custom_error_message=f"its type is none of {', '.join(tags)}",
    )


class AnyOf:
    """Describes kinds of value without saying that a value is of no other, which takes long."""

    def __get_pydantic_json_schema__(
        self, core: Any, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Describe them."""
        schema = handler(core)
        return {"anyOf": schema.pop("oneOf"), **schema} if "oneOf" in schema else schema


class SamplingOptions(Body):
    """How to answer; what is not given is the model's own way."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: Biases | None = None
    seed: int | None = None
    stop: Stops | None = None

    def check(self) -> None:
        """Refuse what contradicts itself; nothing does yet."""

    def sampling(self) -> dict[str, Any]:
        """Return what was given, by the names that answers are sampled with.

        Raises:
            RequestError: if a bias is not of a token.
        """
        stop = [self.stop] if isinstance(self.stop, str) else self.stop
        return {
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "min_p": self.min_p,
            "repetition_penalty": self.repetition_penalty,
            "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty,
            "logit_bias": read_biases(self.logit_bias or {}) or None,
            "seed": self.seed,
            "stop": tuple(stop) if stop else None,
        }


class StreamOptions(Body):
    """What a stream tells besides text."""

    include_usage: bool = False
    include_obfuscation: bool = False
    continuous_usage_stats: bool = False
    """Counts with every event, as vLLM tells them."""


def read_biases(given: dict[str, float]) -> dict[int, float]:
    """Read the ids of tokens, which JSON spells as texts.

    Raises:
        RequestError: if one is none.
    """
    odd = next((key for key in given if not (key.isascii() and key.isdigit())), None)
    if odd is not None:
        raise RequestError(
            f"logit_bias: {odd[:40]!r} is no id of a token",
            hint='write {"123": -100}; /tokenize tells the ids of a text',
            where="logit_bias",
        )
    return {int(key[:20]): value for key, value in given.items()}
