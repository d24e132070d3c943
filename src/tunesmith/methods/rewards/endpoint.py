"""Rewards that a server on this machine returns."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Sequence
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

from tunesmith.errors import RecipeError, TrainingError
from tunesmith.methods.rewards.sample import Sample
from tunesmith.recipe.rewards import Endpoint


def check_address(options: Endpoint) -> None:
    """Refuse an address that is not of this machine: what is learned from does not leave it.

    Raises:
        RecipeError: if it is none, or of another machine.
    """
    try:
        address = urlsplit(options.url)
        host, _ = address.hostname, address.port
    except ValueError:
        address, host = urlsplit(""), None
    if address.scheme not in ("http", "https") or not host:
        raise RecipeError(
            f"{options.url!r} is no address",
            hint="write url: http://127.0.0.1:8000/score",
            where="method.rewards",
        )
    if not _is_here(host):
        raise RecipeError(
            f"{host} is not this machine, and answers would be sent there",
            hint="run the reward server here, and write url: http://127.0.0.1:8000/score",
            where="method.rewards",
        )
    if "@" in address.netloc:
        raise RecipeError(
            "a reward server is asked without a name and a password",
            hint="write url: http://127.0.0.1:8000/score",
            where="method.rewards",
        )


def _is_here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return "%" not in host and ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _StayHere(HTTPRedirectHandler):
    """Follow no redirection: it may lead to another machine."""

    def redirect_request(self, *_: Any) -> None:
        return None


def ask_scores(options: Endpoint, samples: Sequence[Sample]) -> Any:
    """Send each conversation as the model read and wrote it, and return the scores.

    The protocol is that of LLaMA-Factory's reward servers.

    Raises:
        TrainingError: if there is no answer, or another one than was agreed on.
    """
    texts = [sample.prompt + sample.written for sample in samples]
    body = json.dumps({"model": "model", "messages": texts}).encode()
    kind = {"Content-Type": "application/json"}
    request = Request(options.url, body, kind)  # noqa: S310
    opener = build_opener(ProxyHandler({}), _StayHere())
    try:
        with opener.open(request, timeout=options.timeout) as reply:
            content = json.loads(reply.read())
        return content["scores"]
    except HTTPError as problem:
        what = f"the reward server answered {problem.code} {problem.reason}"
    except TimeoutError:
        what = f"the reward server did not answer within {options.timeout:g} s"
    except (URLError, OSError, HTTPException) as problem:
        what = f"the reward server cannot be reached: {problem}"
    except (ValueError, KeyError, TypeError):
        what = 'the reward server did not answer {"scores": [...]}'
    raise TrainingError(
        what,
        hint="see whether it runs and what it says, then resume the run; "
        "a longer wait is `timeout` beside the url",
        where=options.url,
    )
