"""How a model is spoken with whose weights another process holds, and whose tokenizer is here."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.inference.sent import Sent
from tunesmith.inference.speech import ModelSpeech
from tunesmith.inference.structured import Outline
from tunesmith.inference.structured.lark import ONE_LINE
from tunesmith.models.chat import ChatModel, Subject
from tunesmith.models.reader import find_reader


class TokenSpeech(ModelSpeech):
    """Speech of a model without weights here."""

    def forms(self, outline: Outline, count: int) -> Sequence[Sent]:
        """Make the forms of so many answers: vLLM reads the grammars that our own engine does."""
        grammar = outline.grammar(self.manner.specials, ONE_LINE)  # its blanks have no end
        asked = {"structured_outputs": {"grammar": grammar}}
        plain = outline.grammar({}, ONE_LINE)
        return [Sent(asked, plain) for _ in range(count)]


def without_weights(subject: Subject) -> ChatModel:
    """Read all of a model but its weights."""
    import torch

    reader = find_reader(subject.base, subject.template)
    return ChatModel(
        subject.name,
        torch.nn.Identity(),
        reader.tokenizer,
        reader.template,
        reader.stop_ids,
        reader.folder,
    )
