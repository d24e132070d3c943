"""The server of many tutorials: `async def` around `model.generate`, one answer at a time.

python benchmarks/run_naive_server.py MODEL_FOLDER PORT
"""

from __future__ import annotations

import sys
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI
from transformers import AutoModelForCausalLM, AutoTokenizer

torch.set_num_threads(1)
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
app = FastAPI()


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/v1/completions")
async def complete(body: dict[str, Any]) -> dict[str, Any]:
    ids = torch.tensor([body["prompt"]])
    written = model.generate(ids, max_new_tokens=body["max_tokens"], do_sample=False)
    tokens = written[0, ids.shape[1] :].tolist()
    text = tokenizer.decode(tokens, skip_special_tokens=True)
    return {
        "choices": [{"index": 0, "text": text, "finish_reason": "length"}],
        "usage": {"completion_tokens": len(tokens)},
    }


uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
