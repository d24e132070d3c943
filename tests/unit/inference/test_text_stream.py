"""Pieces of text are whole characters, and nothing of a stop text comes out."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tests import tiny
from tunesmith.inference.text_stream import UNFINISHED, TextStream
from tunesmith.models.tokenizer import load_tokenizer

TEXTS = [
    "It is 42.",
    "营业时间是早上九点到晚上十点。",
    "emoji 👩‍👩‍👧‍👦 and 🇨🇳, ç é ü",
    "  leading and trailing  ",
    "line\n\nbreaks\tand tabs\r\n",
    "𝒜𝓃 astral text 𠮷野家",
    "",
]
STOPS = [
    ("早上", "never"),
    ("九点", "never", "到"),
    ("\n\n",),
    ("。",),
    (" trail",),
    ("🇨🇳",),
    ("4",),
]


@pytest.fixture(scope="module")
def bytewise(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer that knows few words, so that characters are spread over tokens."""
    folder = tmp_path_factory.mktemp("models") / "model"
    tiny.make_tokenizer(folder)
    (folder / "config.json").write_text('{"model_type": "qwen3"}', "utf-8")
    return load_tokenizer(folder)


@pytest.fixture(scope="module")
def spaced() -> PreTrainedTokenizerFast:
    """A tokenizer that writes spaces as signs, drops the first one and falls back to bytes."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=["<unk>", *byte_tokens], show_progress=False
    )
    tokenizer.train_from_iterator(tiny.TEXTS * 3, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


@pytest.fixture(params=["bytewise", "spaced"])
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    found: PreTrainedTokenizerFast = request.getfixturevalue(request.param)
    return found


def push_all(stream: TextStream, ids: list[int]) -> list[str]:
    return [*map(stream.push, ids), stream.end()]


def encode(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return ids


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_joined_are_the_text_of_all_tokens(
    tokenizer: PreTrainedTokenizerFast, text: str
) -> None:
    ids = encode(tokenizer, text)
    pieces = push_all(TextStream(tokenizer), ids)
    expected = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert "".join(pieces) == expected
    if tokenizer.decode(ids) == text:
        assert not any(UNFINISHED in piece for piece in pieces)


def test_a_character_over_several_tokens_comes_with_the_last_of_them(
    bytewise: PreTrainedTokenizerFast,
) -> None:
    ids = encode(bytewise, "a👍b")
    assert len(ids) == 6
    assert push_all(TextStream(bytewise), ids) == ["a", "", "", "", "👍", "b", ""]


def test_a_character_that_is_never_finished_is_marked_at_the_end(
    bytewise: PreTrainedTokenizerFast,
) -> None:
    ids = encode(bytewise, "a👍")[:-1]
    pieces = push_all(TextStream(bytewise), ids)
    assert pieces[0] == "a"
    assert set("".join(pieces[1:])) == {UNFINISHED}
    assert "".join(pieces) == bytewise.decode(ids)


def test_text_after_an_unfinished_character_is_not_lost(bytewise: PreTrainedTokenizerFast) -> None:
    ids = [*encode(bytewise, "a👍")[:-1], *encode(bytewise, "then")]
    assert "".join(push_all(TextStream(bytewise), ids)) == bytewise.decode(ids)
    assert bytewise.decode(ids).endswith("then")


def test_pieces_come_early(bytewise: PreTrainedTokenizerFast) -> None:
    ids = encode(bytewise, "the quick brown fox")
    stream = TextStream(bytewise)
    assert all(stream.push(token) for token in ids)
    assert stream.end() == ""


def test_special_tokens_are_no_text(bytewise: PreTrainedTokenizerFast) -> None:
    ids = [*encode(bytewise, "one"), 1, 2, *encode(bytewise, "two")]
    assert "".join(push_all(TextStream(bytewise), ids)) == "onetwo"


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("text", TEXTS)
def test_an_answer_ends_before_the_first_stop_text(
    tokenizer: PreTrainedTokenizerFast, text: str, stop: tuple[str, ...]
) -> None:
    ids = encode(tokenizer, text)
    whole = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    places = [whole.find(part) for part in stop if part in whole]
    stream = TextStream(tokenizer, stop)
    pieces = push_all(stream, ids)
    assert "".join(pieces) == (whole[: min(places)] if places else whole)
    assert stream.stopped == bool(places)


def test_a_stop_text_over_several_tokens_never_shows(bytewise: PreTrainedTokenizerFast) -> None:
    ids = encode(bytewise, "abcXYZdef")
    stream = TextStream(bytewise, ("XYZ",))
    assert [stream.push(token) for token in ids] == ["a", "b", "c", "", "", "", "", "", ""]
    assert stream.stopped
    assert stream.end() == ""


def test_what_only_begins_like_a_stop_text_comes_out_after_all(
    bytewise: PreTrainedTokenizerFast,
) -> None:
    stream = TextStream(bytewise, ("XYZ",))
    assert [stream.push(token) for token in encode(bytewise, "aXYbXXYX")] == [
        *("a", "", "", "XYb"),
        *("", "X", "", "XYX"[:2]),
    ]
    assert stream.end() == "X"
    assert not stream.stopped


def test_a_stop_text_inside_one_token_is_found(bytewise: PreTrainedTokenizerFast) -> None:
    (token,) = encode(bytewise, "question")
    stream = TextStream(bytewise, ("est",))
    assert stream.push(token) == "qu"
    assert stream.stopped


def test_the_earliest_of_several_stop_texts_counts(bytewise: PreTrainedTokenizerFast) -> None:
    stream = TextStream(bytewise, ("on", "est", "s"))
    assert stream.push(*encode(bytewise, "question")) == "qu"


def test_a_stop_text_may_end_with_the_answer(bytewise: PreTrainedTokenizerFast) -> None:
    stream = TextStream(bytewise, (UNFINISHED,))
    ids = encode(bytewise, "a👍")[:-1]
    assert "".join(push_all(stream, ids)) == "a"
    assert stream.stopped


def test_a_shorter_stop_text_is_not_overlooked_for_a_longer_one(
    bytewise: PreTrainedTokenizerFast,
) -> None:
    stream = TextStream(bytewise, ("XYZ", "Y"))
    assert "".join(stream.push(token) for token in encode(bytewise, "aXYb")) == "aX"
    assert stream.stopped


def test_long_answers_take_time_in_step_with_their_length(
    bytewise: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    decoded: list[int] = []

    class Counting:
        @property
        def backend_tokenizer(self) -> Counting:
            return self

        def decode(self, ids: list[int], **options: object) -> str:
            decoded.append(len(ids))
            return str(bytewise.decode(ids, **options))

    stream = TextStream(Counting())  # type: ignore[arg-type]
    for token in encode(bytewise, "the quick brown fox " * 50):
        stream.push(token)
    assert max(decoded) <= 4


@pytest.mark.parametrize("written", ["special", "bytes"])
def test_long_runs_without_text_take_time_in_step_with_their_length(
    bytewise: PreTrainedTokenizerFast, written: str
) -> None:
    bad, special = bytewise.convert_tokens_to_ids(["Ĥ", "<|im_start|>"])  # a byte in the middle
    token = special if written == "special" else bad
    ids = [*encode(bytewise, "a"), *[token] * 200, *encode(bytewise, "早 b")]
    stream = TextStream(bytewise)
    pieces = []
    for each in ids:
        pieces.append(stream.push(each))
        assert len(stream._ids) - stream._prefix < 40
    pieces.append(stream.end())
    assert "".join(pieces) == bytewise.decode(ids, skip_special_tokens=True)


def test_special_tokens_are_spelled_where_they_are_kept(
    bytewise: PreTrainedTokenizerFast,
) -> None:
    kept, dropped = bytewise.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    ids = bytewise.encode("早上", add_special_tokens=False)
    written = [ids[0], dropped, *ids[1:], kept, *ids]
    for keep, wanted in (([], "早上早上"), ([kept], "早上<|im_start|>早上")):
        text = TextStream(bytewise, (), keep)
        assert "".join([*map(text.push, written), text.end()]) == wanted
    text = TextStream(bytewise, ("<|im_start|>",), [kept])
    assert "".join([*map(text.push, written), text.end()]) == "早上"
    assert text.stopped
