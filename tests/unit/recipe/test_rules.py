"""An option that would have no effect is an error."""

from __future__ import annotations

import pytest
import yaml

from tunesmith.errors import RecipeError
from tunesmith.recipe.load import build_recipe, dump_recipe
from tunesmith.recipe.rules import check_rules

LEAST = {"model": {"name": "m"}, "data": {"train": ["rows.jsonl"]}}


def build(*overrides: str):  # type: ignore[no-untyped-def]
    raw = yaml.safe_load(yaml.safe_dump(LEAST))
    return build_recipe(raw, overrides)


@pytest.mark.parametrize(
    ("overrides", "where"),
    [
        (["run.epochs=1", "run.steps=1"], "run.steps"),
        (["data.validation=a", "data.validation_share=0.1"], "data.validation_share"),
        (["data.validation=a", "data.validation_rows=5"], "data.validation_rows"),
        (["data.validation_share=0.1", "data.validation_rows=5"], "data.validation_rows"),
        (["optimizer.early_stopping=2"], "optimizer.early_stopping"),
        (["evaluate.every_steps=5"], "evaluate.every_steps"),
        (["evaluate.batch_size=3"], "evaluate.batch_size"),
        (["evaluate.sample_rows=0", "evaluate.sample_tokens=9"], "evaluate.sample_tokens"),
        (["model.from_scratch=true"], "tuning.kind"),
        (["model.quantize.kind=nf4", "tuning.kind=full"], "model.quantize"),
        (["model.quantize.kind=int8", "tuning.kind=freeze"], "model.quantize"),
        (
            ["model.quantize.kind=nf4", "model.from_scratch=true", "tuning.kind=full"],
            "model.quantize",
        ),
        (["model.quantize.kind=fp4", "compute.precision=pure_bf16"], "compute.precision"),
        (
            [
                "compute.precision=fp16",
                "tuning.kind=full",
                "optimizer={name: galore, layerwise: true, max_grad_norm: 0}",
            ],
            "compute.precision",
        ),
        (["method.name=pretrain", "data.system=hi"], "data.system"),
        (["method.name=pretrain", "model.template=chatml"], "model.template"),
        (["method.name=pretrain", "data.on_long_row=skip"], "data.on_long_row"),
        (["data.train=[{path: a, weight: 2}]"], "data.train.weight"),
        (["data.validation=[{path: a, weight: 2}]"], "data.validation.weight"),
        (["data.mix_until=first"], "data.mix_until"),
        (["data.mix_until=last", "data.train=[{path: a, weight: 1}, b]"], "data.mix_until"),
        (["data.validation=[{path: a, name: b}, {path: c, name: b}]"], "data.validation.name"),
        (["data.validation={rewards: a}"], "data.validation.name"),
        (["data.validation={faq: a}", "evaluate.best_on=fag"], "evaluate.best_on"),
        (["tuning={kind: freeze, names: [a], layers: 1}"], "tuning.layers"),
        (["method={name: sft, loss: dft, label_smoothing: 0.1}"], "method.label_smoothing"),
        (["method={name: sft, entropy_power: 2}"], "method.entropy_power"),
        (["method={name: sft, loss: eaft, entropy_power: 0}"], "method.entropy_power"),
        (["method={name: sft, loss: dft, anchor_weight: 1}"], "method.anchor_weight"),
        (["method.loss=asft", "model.from_scratch=true", "tuning.kind=full"], "method.loss"),
        (["method.loss=asft", "tuning.init=pissa"], "tuning.init"),
        (["method.loss=asft", "tuning.from_adapter=a"], "tuning.from_adapter"),
        (["method.loss=asft", "tuning.tokens=[a]"], "tuning.tokens"),
        (["method={name: dpo, loss: hinge, label_smoothing: 0.1}"], "method.label_smoothing"),
        (["method={name: dpo, loss: ipo, length_normalize: true}"], "method.length_normalize"),
        (["method={name: dpo, loss: robust}"], "method.loss"),
        (["method.name=reward", "evaluate.sample_rows=2"], "evaluate.sample_rows"),
        (["method.name=reward", "evaluate.sample_tokens=2"], "evaluate.sample_tokens"),
        (
            ["method={name: kto, desirable_weight: 0, undesirable_weight: 0}"],
            "method.desirable_weight",
        ),
        (["method={name: kto}", "tuning.dropout=0.1"], "tuning.dropout"),
        (["method={name: dpo}", "tuning.dropout=0.1"], "tuning.dropout"),
        (["method={name: orpo}", "model.from_scratch=true", "tuning.kind=full"], "method.name"),
        (["tuning={kind: freeze, layers: 0}"], "tuning.layers"),
        (["tuning.targets=[a]", "tuning.target_pattern=b"], "tuning.targets"),
        (["tuning.freeze_a=true", "tuning.lora_plus_ratio=16"], "tuning.lora_plus_ratio"),
        (["tuning.init=orthogonal", "tuning.rank=5"], "tuning.rank"),
        (["tuning.init=orthogonal", "tuning.rank_pattern={a: 5}"], "tuning.rank_pattern"),
        (["tuning.init=pissa", "tuning.from_adapter=a"], "tuning.init"),
        (["tuning.init=eva", "tuning.from_adapter=a"], "tuning.init"),
        (["tuning.eva_rows=5"], "tuning.eva_rows"),
        (["tuning.init=loftq"], "tuning.init"),
        (["tuning.init=loftq", "model.quantize.kind=int8"], "tuning.init"),
        (["tuning.loftq_rounds=2"], "tuning.loftq_rounds"),
        (
            ["tuning.init=loftq", "tuning.dora=true", "model.quantize.kind=nf4"],
            "tuning.dora",
        ),
        (["tuning.init=loftq", "model.quantize.kind=nf4", "method.name=dpo"], "tuning.init"),
        (["tuning.init=pissa", "tuning.eva_rho=3"], "tuning.eva_rho"),
        (["tuning.init=eva", "tuning.rank_pattern={q_proj: 3}"], "tuning.rank_pattern"),
        (["tuning={kind: hra, rank: 3}"], "tuning.rank"),
        (["tuning={kind: ia3}", "compute.precision=pure_bf16"], "compute.precision"),
        (["method={name: ppo, rewards: json}", "tuning.tokens=[7]"], "tuning.tokens"),
        (["tuning={kind: vera}", "optimizer.layer_decay=0.9"], "optimizer.layer_decay"),
        (["tuning={kind: adalora, first_rank: 8}"], "tuning.first_rank"),
        (
            ["tuning={kind: adalora}", "optimizer={name: sgd, layerwise: true, max_grad_norm: 0}"],
            "optimizer.layerwise",
        ),
        (["tuning={kind: adalora}", "optimizer={name: schedule_free}"], "optimizer.name"),
        (["tuning={kind: hra}", "model.quantize.kind=nf4"], "model.quantize"),
        (["tuning={kind: llama_pro}", "model.quantize.kind=nf4"], "model.quantize"),
        (["model.adapters=[a]", "model.quantize.kind=nf4"], "model.adapters"),
        (["model.adapters=[a]", "model.from_scratch=true", "tuning.kind=full"], "model.adapters"),
        (
            ["model.rope_scaling.kind=yarn", "model.from_scratch=true", "tuning.kind=full"],
            "model.rope_scaling",
        ),
        (
            ["model.rope_scaling={kind: llama3, low_frequency_factor: 4}"],
            "model.rope_scaling.low_frequency_factor",
        ),
        (["method.name=classify", "model.adapters=[a]"], "model.adapters"),
        (["method.name=classify", "model.rope_scaling.kind=yarn"], "model.rope_scaling"),
        (["method.name=classify", "model.shifted_attention=64"], "model.shifted_attention"),
        (["model.shifted_attention=7"], "model.shifted_attention"),
        (["model.shifted_attention=4096", "data.max_tokens=2048"], "model.shifted_attention"),
        (["model.shifted_attention=64", "method={name: dpo}"], "model.shifted_attention"),
        (["tuning={kind: freeze, parts: [tower], names: [a]}"], "tuning.parts"),
        (["tuning={kind: freeze, parts: [tower], layers: 1}"], "tuning.layers"),
        (["tuning={kind: freeze, spread: true, names: [a]}"], "tuning.spread"),
        (["tuning={kind: freeze, spread: true, layers: -1}"], "tuning.spread"),
        (["tuning.init=pissa", "tuning.dora=true"], "tuning.dora"),
        (["tuning.init=olora", "model.quantize.kind=nf4"], "tuning.init"),
        (["tuning.init=orthogonal", "model.quantize.kind=nf4"], "tuning.init"),
        (["tuning.dora=true", "model.quantize.kind=int8"], "tuning.dora"),
        (["tuning.init=pissa", "method.name=dpo"], "tuning.init"),
        (["tuning.init=olora", "method.name=kto"], "tuning.init"),
        (
            [
                "compute.processes=2",
                "optimizer.name=sgd",
                "optimizer.layerwise=true",
                "optimizer.max_grad_norm=0",
            ],
            "compute.processes",
        ),
    ],
)
def test_options_that_contradict_each_other_are_refused(overrides: list[str], where: str) -> None:
    with pytest.raises(RecipeError) as caught:
        check_rules(build(*overrides))
    assert caught.value.where == where
    assert caught.value.hint


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["data.validation_share=0.1", "optimizer.early_stopping=2", "evaluate.every_steps=5"],
        ["model.from_scratch=true", "tuning.kind=full"],
        ["method.name=pretrain"],
        ["tuning={kind: freeze, names: [a]}"],
        ["tuning={kind: freeze, layers: 0, embeddings: true}"],
        ["data.train=[{path: a, weight: 2}, {path: b, weight: 1}]"],
        ["evaluate.sample_rows=0"],
        ["method={name: dpo, loss: robust, label_smoothing: 0.1, length_normalize: true}"],
        ["method={name: dpo, reference: none}", "tuning.dropout=0.1"],
        ["method={name: dpo, reference: none}", "tuning.init=pissa"],
        ["method={name: dpo, reference: other}", "tuning.init=pissa"],
        ["tuning.rslora=true", "tuning.tokens=[a]", "model.quantize.kind=nf4"],
        ["method.name=simpo", "tuning.dropout=0.1"],
        ["method.name=reward", "evaluate.sample_rows=0", "tuning.dropout=0.1"],
        ["method={name: kto, desirable_weight: 0}"],
        ["model.quantize={kind: nf4, double: false}"],
    ],
)
def test_a_sound_recipe_passes_and_so_does_what_its_run_writes_out(overrides: list[str]) -> None:
    recipe = build(*overrides)
    check_rules(recipe)
    check_rules(build_recipe(yaml.safe_load(dump_recipe(recipe))))


@pytest.mark.parametrize(
    ("overrides", "rate"),
    [
        ([], 2e-4),
        (["tuning.kind=full"], 2e-4),
        (["method.name=dpo"], 5e-5),
        (["method.name=kto", "tuning.kind=full"], 5e-6),
        (["method.name=simpo", "optimizer.name=lion"], 5e-5),
        (["method.name=reward"], 1e-4),
        (["method.name=dpo", "optimizer.learning_rate=2e-4"], 2e-4),
    ],
)
def test_preferences_are_learned_in_small_steps_unless_told_otherwise(
    overrides: list[str], rate: float
) -> None:
    recipe = build(*overrides)
    assert recipe.optimizer.learning_rate == rate
    assert build_recipe(yaml.safe_load(dump_recipe(recipe))) == recipe
