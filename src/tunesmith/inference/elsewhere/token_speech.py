"""How a model is spoken with whose weights another process holds, and whose tokenizer is here."""

from __future__ import annotations

from tunesmith.inference.engine import Form, Speech
from tunesmith.inference.speech import ModelSpeech
from tunesmith.models.chat import ChatModel, Subject
from tunesmith.models.reader import find_reader


class TokenSpeech(ModelSpeech):
    """Speech of a model without weights here."""

    def form(self, grammar: str) -> Form:
        """Refuse: masks over tokens cannot be sent to another process.

        Raises:
            RequestError: always.
        """
        return Speech.form(self, grammar)


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
