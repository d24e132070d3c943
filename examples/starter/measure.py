"""Ask a starter model the prompts that were written by hand, and write its card."""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import dataclass
from pathlib import Path

from passages import SENTENCE_END
from tunesmith.evaluation.metrics import holds_fact
from tunesmith.inference.generate import Answer, answer, encode_prompt
from tunesmith.inference.sampling import Sampling
from tunesmith.models.chat import ChatModel, load_chat_model
from tunesmith.runs.compare import summary
from tunesmith.runs.run import Run
from tunesmith.runs.store import open_run

HERE = Path(__file__).parent
ROLE_LINE = re.compile(r"<\|im_|<\|endof|^(user|assistant|system):?$", re.MULTILINE)
LANGUAGES = {"en": "English", "zh": "Chinese"}


@dataclass(frozen=True)
class Figures:
    """How many of a language's prompts went well.

    Attributes:
        right: questions about a paragraph that were answered with what stands there.
        several: questions about a paragraph of several sentences, where one has to be chosen.
        chosen: how many of those are among the right ones.
        greeted: greetings that were answered with one.
        ended: answers that ended by themselves.
        in_form: answers that spell no role and no token of the chat form.
    """

    paragraphs: int
    right: int
    several: int
    chosen: int
    greetings: int
    greeted: int
    ended: int
    in_form: int
    wrong: list[str]


def main() -> None:
    """Measure and write the card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--runs", nargs=2, default=("starter-pretrain", "starter-sft"))
    options = parser.parse_args()
    model = load_chat_model(options.model, precision="fp32")
    figures = {language: measure(model, language) for language in LANGUAGES}
    for language, found in figures.items():
        print(language, found)
    card = write_card(figures, [open_run(name) for name in options.runs])
    (options.model / "README.md").write_text(card, "utf-8")


def measure(model: ChatModel, language: str) -> Figures:
    """Ask every prompt of a language, greedily."""
    lines = (HERE / f"prompts_{language}.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    prompts = [encode_prompt(model, [{"role": "user", "content": r["prompt"]}]) for r in rows]
    answers = answer(model, prompts, Sampling(max_tokens=48))
    good = [holds_fact(a.text, r["accept"]) for a, r in zip(answers, rows, strict=True)]
    kinds = [row["kind"] for row in rows]
    paragraphs = [ok for ok, kind in zip(good, kinds, strict=True) if kind == "paragraph"]
    several = [
        ok
        for ok, row in zip(good, rows, strict=True)
        if row["kind"] == "paragraph" and count_sentences(row["prompt"]) > 1
    ]
    greetings = [ok for ok, kind in zip(good, kinds, strict=True) if kind == "greeting"]
    return Figures(
        paragraphs=len(paragraphs),
        right=sum(paragraphs),
        several=len(several),
        chosen=sum(several),
        greetings=len(greetings),
        greeted=sum(greetings),
        ended=sum(a.finish == "stop" for a in answers),
        in_form=sum(keeps_form(model, given) for given in answers),
        wrong=[
            f"{row['prompt']} -> {given.text}"
            for row, given, ok in zip(rows, answers, good, strict=True)
            if not ok
        ],
    )


def count_sentences(prompt: str) -> int:
    """Count the sentences of the paragraph that a prompt begins with."""
    paragraph = prompt.partition("\n\n")[0]
    return sum(bool(part.strip()) for part in SENTENCE_END.split(paragraph))


def keeps_form(model: ChatModel, given: Answer) -> bool:
    """Whether an answer holds no role, and no token of the chat form, which its text leaves out."""
    added = model.tokenizer.added_tokens_decoder
    special = any(token in added and added[token].special for token in given.tokens)
    return not special and ROLE_LINE.search(given.text) is None


def write_card(figures: dict[str, Figures], runs: list[Run]) -> str:
    """Write the model card: what it is, what it was made of, what it reaches."""
    rows = "\n".join(
        f"| {LANGUAGES[name]} | {f.right} of {f.paragraphs} | {f.chosen} of {f.several} | "
        f"{f.greeted} of {f.greetings} | "
        f"{f.ended} of {f.paragraphs + f.greetings} | {f.in_form} of {f.paragraphs + f.greetings} |"
        for name, f in figures.items()
    )
    trained = "\n".join(_describe(run) for run in runs)
    text = (HERE / "card.md").read_text("utf-8")
    return text.replace("{figures}", rows).replace("{runs}", trained)


def _describe(run: Run) -> str:
    found = summary(run)
    machine = run.environment()["machine"]
    data = json.loads(run.data_file.read_text("utf-8"))
    seconds = sum_seconds(run)
    cells = (
        run.recipe().method.name,
        f"{data['num_train']:,} rows, {data['num_tokens']:,} tokens",
        f"{found['steps']:,.0f}",
        f"{seconds / 3600:.1f}",
        f"{found['last loss']:.3f}",
        f"{found['last held-out loss']:.3f}",
        f"{machine['cores']} cores, {machine['system']}, {run.environment()['precision']}",
    )
    return f"| {' | '.join(cells)} |"


def sum_seconds(run: Run) -> float:
    """Add up the time of training, over all the times the run was resumed."""
    total = last = 0.0
    for record in run.metrics():
        if "seconds" in record:
            if record["seconds"] < last:
                total += last
            last = float(record["seconds"])
    return total + last


if __name__ == "__main__":
    main()
