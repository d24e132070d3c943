"""Time the answers that a policy writes while it learns: by our engine, and by transformers.

    taskset -c 1 env OMP_NUM_THREADS=1 python benchmarks/rollouts.py

The starter model answers the questions of the burger chain as examples/grpo.yaml asks it to, with
an adapter, in turns with either; processor seconds are the median of the rounds.
"""

from __future__ import annotations

import json
import statistics
import sys
import time

import torch

from tunesmith import starter
from tunesmith.inference.batching.build import build_writer
from tunesmith.inference.engine import Writer
from tunesmith.inference.generate import encode_prompt
from tunesmith.inference.own_model import OwnModel
from tunesmith.inference.sampling import Sampling
from tunesmith.models.chat import as_chat_model
from tunesmith.models.reader import Reader
from tunesmith.models.roles import load_reader, load_roles
from tunesmith.recipe.load import build_recipe

ROUNDS, QUESTIONS, GROUP = 5, 16, 8
CASES = {"16 tokens, 128 rows": (16, 128), "64 tokens, 32 rows": (64, 32)}


def main() -> None:
    """Print what each takes for a rollout, case by case."""
    torch.set_num_threads(1)
    recipe = build_recipe(
        {
            "model": {"name": "starter"},
            "data": {"train": ["none"]},
            "method": {"name": "grpo", "rewards": "json"},
            "tuning": {"kind": "lora", "rank": 8},
            "compute": {"device": "cpu", "precision": "fp32"},
        }
    )
    reader = load_reader(recipe)
    assert isinstance(reader, Reader)
    policy = load_roles(recipe, reader).policy.eval()
    model = as_chat_model("policy", policy, reader)
    rows = json.loads((starter.DATA / "conch_en.json").read_text("utf-8"))
    asked = [row["instruction"] for row in rows if not row.get("history")][:QUESTIONS]
    prompts = [encode_prompt(model, [{"role": "user", "content": text}]) for text in asked]
    prompts = [prompt for prompt in prompts for _ in range(GROUP)]
    for name, (tokens, width) in CASES.items():
        writer, why = build_writer(model, torch.float32, rows=width)
        print(f"{name}: {why}")
        ways: dict[str, Writer] = {"transformers": OwnModel(model, rows=width), "ours": writer}
        taken: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        for seed in range(ROUNDS + 1):
            for way, each in ways.items():
                began = time.process_time()
                said = each.write(prompts, Sampling(tokens, temperature=1.0, seed=seed))
                seconds = time.process_time() - began
                if seed:  # the first round warms up
                    rate = sum(len(one.written) for one in said) / seconds
                    taken[way].append((seconds, rate))
        for way, measured in taken.items():
            seconds, rate = (statistics.median(part) for part in zip(*measured, strict=True))
            print(f"  {way}: {seconds:.2f} s a rollout, {rate:.0f} tokens a processor second")


if __name__ == "__main__":
    sys.exit(main())
