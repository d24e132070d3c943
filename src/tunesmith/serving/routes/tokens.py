"""POST /tokenize and /detokenize, as vLLM has them."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from tunesmith.serving.replies.events import Json
from tunesmith.serving.schema.messages import plain_messages
from tunesmith.serving.schema.tokens import DetokenizeRequest, TokenizeRequest
from tunesmith.serving.service import Service, check_tokens


def add_tokens(app: APIRouter, service: Service) -> None:
    """Let an application tell how texts are read."""

    @app.post("/tokenize", response_model=None)
    async def tokenize(body: TokenizeRequest) -> Json:
        """Return the tokens that a model would read."""
        body.check()
        speaker = service.find(body.model)
        if body.messages is None:
            opens = body.add_special_tokens is not False
            tokens = await service.encode(speaker, body.prompt or "", opens=opens)
        else:
            tools = [tool.model_dump(exclude_none=True) for tool in body.tools or ()]
            tokens = await service.render(
                speaker, plain_messages(body.messages), tools, body.chat_template_kwargs
            )
        found: dict[str, Any] = {
            "count": len(tokens),
            "max_model_len": speaker.speech.longest,
            "tokens": tokens,
            "token_strs": None,
        }
        if body.return_token_strs:
            spelled = map(speaker.speech.spell, tokens)
            found["token_strs"] = [one.decode("utf-8", "replace") for one in spelled]
        return Json(found)

    @app.post("/detokenize", response_model=None)
    async def detokenize(body: DetokenizeRequest) -> Json:
        """Return the text of tokens, special ones too."""
        speech = service.find(body.model).speech
        check_tokens(speech, body.tokens, "tokens")
        text = await service.tokenize(
            lambda: speech.decode(body.tokens, keep_special=True), len(body.tokens), "tokens"
        )
        return Json({"prompt": text})
