"""Write a recipe for somebody who has never written one."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from tunesmith.errors import RecipeError
from tunesmith.recipe.load import build_recipe
from tunesmith.recipe.rules import check_rules
from tunesmith.recipe.rules.defaults import usual_rate
from tunesmith.recipe.schema import list_options
from tunesmith.recipe.yaml_file import parse_value


@dataclass(frozen=True)
class Question:
    """One thing only the person can know."""

    name: str
    text: str
    default: str | None


QUESTIONS = (
    Question("model", "Model to start from (a folder, Org/Name, or starter)", "starter"),
    Question("data", "File or folder to learn from", None),
    Question(
        "method",
        "Rows are questions and answers (sft, distill), plain texts (pretrain), preference pairs "
        "(dpo, orpo, simpo, cpo, reward), judged answers (kto), questions (grpo, ppo), or labelled "
        "texts or images (classify)",
        "sft",
    ),
    Question(
        "tuning",
        "Train small added matrices (lora, or adalora, vera, oft, ia3, hra, loha, lokr), all "
        "weights (full), some layers (freeze), new layers (llama_pro)",
        "lora",
    ),
    Question("name", "What to call the run", "first"),
)
REWARDS = Question(
    "rewards",
    "What an answer is worth (exact_match, number, json, a function such as rewards.py:polite)",
    "exact_match",
)
TEACHER = Question("teacher", "The larger model to learn from (a folder or a run)", None)
NEEDED = {"grpo": REWARDS, "ppo": REWARDS, "distill": TEACHER}
"""What some methods cannot be without, by their names."""
UNSURE = {"classify": ("data.max_tokens",)}
"""What is written as a comment, since a model that reads images has none."""
SHOWN = (
    "data.validation_share",
    "data.max_tokens",
    "tuning.rank",
    "tuning.layers",
    "optimizer.learning_rate",
    "optimizer.batch_size",
    "optimizer.accumulation",
    "compute.precision",
    "run.epochs",
    "run.seed",
)
"""Options that people change first; the others keep their defaults."""


def write_new(path: Path, answers: Mapping[str, str]) -> None:
    """Write a commented recipe.

    Args:
        answers: by the names of QUESTIONS, and of what the method needs.

    Raises:
        RecipeError: if the file exists, or an answer means nothing.
    """
    needed = NEEDED.get(answers["method"])
    for question in (REWARDS, TEACHER):
        if question.name in answers and question != needed:
            raise RecipeError(
                f"--{question.name} has no effect with the method {answers['method']}",
                hint="leave it away",
                where=str(path),
            )
    text = compose(answers)
    check_rules(build_recipe(parse_value(text, where=str(path)), where=str(path)))
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise RecipeError(
            "the file is there already", hint="name another one", where=str(path)
        ) from None
    except OSError as problem:
        raise RecipeError(
            f"the recipe cannot be written: {problem.strerror}",
            hint="choose a folder that exists and can be written",
            where=str(path),
        ) from None


def compose(answers: Mapping[str, str]) -> str:
    """Spell a recipe as YAML, a comment on every option."""
    chosen = {
        "model.name": answers["model"],
        "data.train": [answers["data"]],
        "method.name": answers["method"],
        "tuning.kind": answers["tuning"],
        "data.validation_share": 0.1,
        "optimizer.learning_rate": usual_rate(answers["method"], answers["tuning"]),
        "run.name": answers["name"],
        "run.epochs": 3.0,
    }
    if "rewards" in answers:
        chosen["method.rewards"] = [_as_reward(answers["rewards"])]
    if "teacher" in answers:
        chosen["method.teacher"] = answers["teacher"]
    unsure = UNSURE.get(answers["method"], ())
    lines = ["# Written by `tunesmith recipe new`; `tunesmith recipe explain` lists all options."]
    section = ""
    for option in list_options():
        if option.dotted not in chosen and option.dotted not in SHOWN:
            continue
        if option.choice and not {answers["method"], answers["tuning"]} & {*option.choice}:
            continue
        if option.section != section:
            section = option.section
            lines += ["", f"{section}:"]
        lines += [f"  # {line}" for line in textwrap.wrap(option.help, 94)]
        value = _spell(chosen[option.dotted]) if option.dotted in chosen else option.default
        mark = "# " if option.dotted in unsure else ""
        lines.append(f"  {mark}{option.name}: {value}")
    return "\n".join(lines) + "\n"


def _as_reward(answer: str) -> object:
    """Read a reward as a person names it."""
    if ".py:" in answer:
        return {"function": answer}
    return {"url": answer} if answer.startswith("http") else answer


def _spell(value: object) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6)
    return text.removesuffix("...\n").rstrip("\n")
