"""Our classifier's loss and its gradients equal transformers' own on padded batches."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from tunesmith.data.tokens import encode_labelled
from tunesmith.methods import build_method
from tunesmith.methods.method import Joining
from tunesmith.models.classifier import load_classifier_model
from tunesmith.models.layout import find_layout
from tunesmith.models.reader import find_reader
from tunesmith.models.roles import know_padding
from tunesmith.models.tuning import add_lora
from tunesmith.recipe.method import Classify
from tunesmith.recipe.tuning import LoRA

LABELS = ("food", "hours", "other")
TEXTS = [
    ("a burger, please", 0),
    ("open?", 1),
    ("早上 九点 到 晚上 十点 是 什么 时间", 1),
    ("the quick brown fox jumps over the lazy dog", 2),
    ("<|im_end|>", 2),
]
CPU = torch.device("cpu")


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("shape", ["qwen3", "llama", "gpt2"])
@pytest.mark.parametrize("tuning", ["lora", "full"])
@pytest.mark.parametrize("flat", [True, False])
def test_classify_equals_transformers_in_loss_and_in_every_gradient(
    tmp_path: Path, shape: str, tuning: str, flat: bool
) -> None:
    folder = tiny.make_model(tmp_path / "model", shape)
    tokenizer = find_reader(folder).tokenizer
    torch.manual_seed(1)
    mine: Any = load_classifier_model(folder, LABELS, dtype=torch.float32, device=CPU)
    know_padding(mine, find_reader(folder))
    torch.nn.init.normal_(mine.score.weight)
    theirs: Any = copy.deepcopy(mine)
    if tuning == "lora":
        targets = ("c_attn",) if shape == "gpt2" else ("q_proj", "down_proj")
        options = LoRA(rank=2, targets=targets)
        mine, theirs = add_lora(mine, options), add_lora(theirs, options)
        for name, weight in mine.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.05)
        theirs.load_state_dict(mine.state_dict())
    mine.eval()
    theirs.eval()
    encoded = encode_labelled(tokenizer, [text for text, _ in TEXTS], 64)
    rows = [
        {"input_ids": row.ids, "labels": [-100] * len(row.ids), "label": float(number)}
        for row, (_, number) in zip(encoded, TEXTS, strict=True)
    ]
    assert not flat or find_layout(mine).is_flat
    method = build_method(Classify())
    summed = method.loss(mine, method.collate(rows, Joining(flat=flat, coarse=flat)))
    loss = summed.total / summed.count
    loss.backward()

    given = tokenizer.pad({"input_ids": [row.ids for row in encoded]}, return_tensors="pt")
    labels = torch.tensor([number for _, number in TEXTS])
    expected = theirs(
        input_ids=given["input_ids"], attention_mask=given["attention_mask"], labels=labels
    )
    expected.loss.backward()

    assert loss.item() == pytest.approx(expected.loss.item(), abs=1e-5)
    right = (expected.logits.argmax(1) == labels).float().mean().item()
    assert float(summed.measures["accuracy"]) / summed.count == pytest.approx(right)
    found, wanted = gradients(mine), gradients(theirs)
    assert found.keys() == wanted.keys()
    assert any("score" in name for name in found)
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-4, atol=1e-5, msg=name)


def test_texts_are_read_as_the_tokenizer_reads_them(tmp_path: Path) -> None:
    tokenizer = find_reader(tiny.make_model(tmp_path / "model")).tokenizer
    texts = [text for text, _ in TEXTS[:4]]
    assert [row.ids for row in encode_labelled(tokenizer, texts, 64)] == [
        tokenizer(text)["input_ids"] for text in texts
    ]
    (spelled,) = encode_labelled(tokenizer, ["<|im_end|>"], 64)
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") not in spelled.ids
    (cut,) = encode_labelled(tokenizer, [texts[3]], 3)
    assert (cut.ids, cut.was_cut) == (tokenizer(texts[3])["input_ids"][:3], True)
    from tokenizers.processors import TemplateProcessing

    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A <|im_end|>",
        special_tokens=[("<|im_start|>", 1), ("<|im_end|>", 2)],
    )
    (whole,) = encode_labelled(tokenizer, [texts[3]], 5)
    assert whole.ids == tokenizer(texts[3], truncation=True, max_length=5)["input_ids"]
    assert (whole.ids[0], whole.ids[-1], whole.learned) == (1, 2, [(4, 5)])
