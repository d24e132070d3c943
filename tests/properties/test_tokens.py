"""Whatever people write, its tokens spell it back, and none of them is a special token."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.data.tokenizers_of import make_byte_level, make_spaced
from tests.unit.templates import families
from tunesmith.data.tokens import encode_rows, encode_texts
from tunesmith.models.reader import Reader
from tunesmith.templates import named_template

FRAGMENTS = [*families.SPECIALS, "<unk>", "<|im_", "end|>", "</", "s>", "\n", " ", "hi", "好", "😀"]
CONTENTS = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=5), min_size=1, max_size=8).map(
    lambda parts: "".join(parts).replace("\x00", "")
)
TEXTS = CONTENTS.filter(lambda text: not set(text) & set("\ufdd0\ufdd1\ufdd2"))
KINDS = {
    "byte level": lambda folder: make_byte_level(folder, named_template("chatml")),
    "spaced": lambda folder: make_spaced(folder, named_template("alpaca")),
}


@pytest.fixture(scope="module", params=KINDS)
def kind_reader(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """A tokenizer of each family."""
    return KINDS[request.param](tmp_path_factory.mktemp("reader"))


def spell(reader: Reader, ids: list[int]) -> str:
    return str(reader.tokenizer.backend_tokenizer.decode(ids, skip_special_tokens=False))


def as_read(reader: Reader, text: str) -> str:
    """What a tokenizer tells apart: one that writes spaces as a mark takes the mark for a space."""
    marks = "\u2581" in reader.tokenizer.get_vocab()
    return text.replace("\u2581", " ") if marks else text


def specials(reader: Reader) -> set[int]:
    """Blank ones mean the same however they are read."""
    added = reader.tokenizer.added_tokens_decoder
    return {number for number, token in added.items() if str(token).strip()}


def check_text(reader: Reader, text: str) -> None:
    (row,) = encode_texts(reader.tokenizer, [text])
    end = len(row.ids) - 1
    start = int(row.ids[0] == reader.tokenizer.bos_token_id)
    assert set(row.ids[start:end]).isdisjoint(specials(reader))
    assert spell(reader, row.ids[start:end]).removeprefix(" " * start) == as_read(reader, text)


def check_talk(reader: Reader, question: str, answer: str) -> None:
    assert reader.template is not None
    talk = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    (pieces,) = reader.template.render_rows(talk)
    (row,) = encode_rows(reader.tokenizer, [pieces])
    (start, end), *others = row.learned
    assert others == []
    learned = spell(reader, row.ids[start:end])
    assert learned == as_read(reader, answer) + reader.template.turn_end
    assert as_read(reader, question) in spell(reader, row.ids[:start])
    number = reader.tokenizer.get_vocab()[reader.template.turn_end]
    assert row.ids[start:end].count(number) == 1


@settings(deadline=None, derandomize=True)
@given(text=TEXTS)
def test_a_text_is_spelled_back_by_its_tokens(kind_reader: Reader, text: str) -> None:
    check_text(kind_reader, text)


@settings(deadline=None, derandomize=True)
@given(question=TEXTS, answer=TEXTS)
def test_an_answer_is_learned_to_the_letter(
    kind_reader: Reader, question: str, answer: str
) -> None:
    check_talk(kind_reader, question, answer)


@pytest.mark.proof
@settings(deadline=None, max_examples=5000)
@given(question=TEXTS, answer=TEXTS)
def test_thousands_of_answers_are_learned_to_the_letter(
    kind_reader: Reader, question: str, answer: str
) -> None:
    check_text(kind_reader, question)
    check_talk(kind_reader, question, answer)
