"""Train, measure, export, serve and ask: what a newcomer sees first."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith import starter
from tunesmith.errors import TunesmithError, require
from tunesmith.recipe.load import load_recipe

if TYPE_CHECKING:
    from tunesmith.evaluation.scores import Scores
    from tunesmith.export.order import Exported
    from tunesmith.runs.run import Run

RECIPE = Path(__file__).with_name("recipe.yaml")
QUESTIONS = {"zh": "请问您是哪一位?", "en": "What number should I dial?"}
SECONDS_TO_START = 120.0
READY = "serving "


@dataclass(frozen=True)
class Told:
    """What the demo found, step by step, for whoever shows it.

    Attributes:
        step: called with a title when a step begins.
        scores: called with what an evaluation found.
        exported: called with what was exported.
        said: called with a question and its answer over HTTP.
    """

    step: Callable[[str], None]
    scores: Callable[[Scores], None]
    exported: Callable[[Exported], None]
    said: Callable[[str, str], None]


def run_demo(told: Told, overrides: Sequence[str] = ()) -> Run:
    """Walk the whole way on the starter model and the burger chain's data.

    Args:
        overrides: options that replace the demo's recipe.

    Raises:
        TunesmithError: naming the step that failed.
    """
    from tunesmith.evaluation.evaluate import evaluate
    from tunesmith.export.export import export
    from tunesmith.training.train import train

    require("openai", extra="serve")
    told.step(f"1 of 4: training, as {RECIPE} says")
    run = train(load_recipe(RECIPE, overrides))
    told.step("2 of 4: asking questions it has not seen in these words")
    held_out = [starter.heldout("zh"), starter.heldout("en")]
    told.scores(evaluate(run.path, data=held_out, max_tokens=64))
    told.step("3 of 4: exporting, with proof that the exported model answers the same")
    told.exported(export(run.path, run.exported))
    told.step("4 of 4: serving the exported model and asking it over HTTP")
    with serving(run.exported) as address:
        for question in QUESTIONS.values():
            told.said(question, ask(address, question))
    return run


@contextmanager
def serving(model: Path) -> Iterator[str]:
    """Serve a model in a process of its own, as a user would; yield its address.

    Raises:
        TunesmithError: if it does not start.
    """
    command = [sys.executable, "-m", "tunesmith", "serve", str(model), "--port", "0", "--open"]
    process = subprocess.Popen(  # noqa: S603  our own program, arguments as a list
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        yield _wait_ready(process)
    finally:
        process.terminate()
        process.wait()


def _wait_ready(process: subprocess.Popen[str]) -> str:
    """Read what the server says until it names its address."""
    timer = threading.Timer(SECONDS_TO_START, process.kill)
    timer.start()
    lines = []
    try:
        for line in process.stdout or ():
            lines.append(line)
            if line.startswith(READY):
                return line.split(" at ")[-1].strip()
    finally:
        timer.cancel()
    raise TunesmithError(
        f"the server did not start: {''.join(lines).strip() or 'it said nothing'}",
        hint="try `tunesmith serve` with the exported folder",
        where=" ".join(map(str, process.args if isinstance(process.args, list) else [])),
    )


def ask(address: str, question: str) -> str:
    """Ask a server one question through OpenAI's client, and no proxy between.

    Raises:
        TunesmithError: if it does not answer.
    """
    from openai import DefaultHttpxClient, OpenAI, OpenAIError

    direct = DefaultHttpxClient(trust_env=False)
    with OpenAI(
        base_url=f"{address}/v1", api_key="none", max_retries=0, http_client=direct
    ) as client:
        try:
            (model,) = client.models.list().data
            answer = client.chat.completions.create(
                model=model.id, messages=[{"role": "user", "content": question}], max_tokens=64
            )
        except OpenAIError as problem:
            raise TunesmithError(
                f"the server did not answer: {problem}",
                hint="try `tunesmith serve` with the exported folder",
                where=address,
            ) from problem
    return answer.choices[0].message.content or ""
