"""Ask llama.cpp what it would say: `python listen.py ORDER ANSWERS`.

It runs in a process of its own: a file that llama.cpp cannot read may end the whole process.
"""

from __future__ import annotations

import http.client
import os
import sys
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson

from tunesmith.errors import require


def main(order_file: str, answers_file: str) -> None:
    """Load a model, answer all questions of an order, write the answers."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    order = orjson.loads(Path(order_file).read_bytes())
    server = start_server(order)
    answers = {
        "tokens": [tokenize(server, text) for text in order["texts"]],
        "prompts": [render(server, body) for body in order["conversations"]],
        "likeliest": [
            [likeliest(server, prompt + answer[:at], order) for at in range(len(answer))]
            for prompt, answer in order["pairs"]
        ],
        "stops": [stops(server, prompt) for prompt in order["ends"]],
    }
    Path(answers_file).write_bytes(orjson.dumps(answers))
    os._exit(0)  # its threads need no farewell


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


def start_server(order: dict[str, Any]) -> Any:
    """Load a model on the CPU, with all in fp32 that is not in its file."""
    llama = require("xllamacpp", extra="gguf")
    params = llama.CommonParams()
    params.model.path = order["model"]
    params.n_ctx = order["context"]
    params.n_batch = params.n_ubatch = min(order["context"], 512)
    params.n_parallel, params.n_gpu_layers, params.warmup = 1, 0, False
    params.cache_type_k = params.cache_type_v = llama.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = llama.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.swa_full = params.check_tensors = params.use_jinja = True
    params.no_extra_bufts = True  # weights are read where they lie, and not copied in another order
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = order["threads"]
    params.verbosity, params.hostnames, params.port = 2, ["127.0.0.1"], 0
    if order["adapter"]:
        params.lora_adapters = [llama.CommonAdapterLoraInfo(order["adapter"], 1.0)]
    return llama.Server(params)


def likeliest(server: Any, prompt: list[int], order: dict[str, Any]) -> dict[str, Any]:
    """Return the likeliest next tokens with their log-probabilities.

    The token that is written is another: one that is half a character would not be reported.
    """
    bias = [[order["plain_token"], 1e9]]
    said = _complete(server, prompt, n_probs=order["num_likeliest"], logit_bias=bias)
    (place,) = said["logprobs"]["content"]
    top = place["top_logprobs"]
    return {"ids": [each["id"] for each in top], "logprobs": [each["logprob"] for each in top]}


def stops(server: Any, prompt: list[int]) -> bool:
    """Whether an answer ends after a prompt."""
    return bool(_complete(server, prompt)["finish_reason"] == "stop")


def _complete(server: Any, prompt: list[int], **options: Any) -> Any:
    body = {"prompt": prompt, "n_predict": 1, "temperature": 0, "cache_prompt": True, **options}
    said = server.handle_completions(body)
    if "choices" not in said:
        raise SystemExit(f"llama.cpp: {said}")
    return said["choices"][0]


def tokenize(server: Any, text: str) -> list[int]:
    """Turn a text into tokens; special ones may be spelled in it."""
    body = {"content": text, "add_special": False, "parse_special": True}
    found: list[int] = _post(server, "/tokenize", body)["tokens"]
    return found


def render(server: Any, body: dict[str, Any]) -> str:
    """Write a conversation as the model's template does."""
    said = _post(server, "/apply-template", body)
    return str(said.get("prompt", said))


def _post(server: Any, path: str, body: dict[str, Any]) -> Any:
    connection = http.client.HTTPConnection(urlsplit(server.listening_address).netloc)
    connection.request("POST", path, orjson.dumps(body), {"Content-Type": "application/json"})
    said = connection.getresponse().read()
    connection.close()
    return orjson.loads(said)


if __name__ == "__main__":
    main(*sys.argv[1:])
