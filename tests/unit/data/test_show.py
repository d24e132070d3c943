"""A row is shown as the exact tokens that are learned from."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from tests.tiny import write_pairs, write_rows
from tests.unit.data.files import write
from tests.unit.data.preparing import PACKED, SFT, TEXT, prepare_files
from tests.unit.data.tokenizers_of import make_byte_level, make_spaced
from tests.unit.templates import families
from tunesmith.data.show import ShownRow, render, show, spell_tokens
from tunesmith.errors import DataError
from tunesmith.models.reader import Reader
from tunesmith.recipe.data import Data


def show_row(reader: Reader, path: Path | Data, row: int = 1) -> ShownRow:
    return show(path, row, reader.tokenizer, reader.template, SFT)


def test_the_tokens_shown_are_the_tokens_learned_from(reader: Reader, pairs: Path) -> None:
    rows = prepare_files(reader, pairs).train
    for number in (1, 7, 40):
        shown = show_row(reader, pairs, number)
        row = rows[number - 1]
        assert [token.id for token in shown.tokens] == row["input_ids"]
        assert [token.learned for token in shown.tokens] == [n != -100 for n in row["labels"]]
        assert shown.num_learned == sum(token.learned for token in shown.tokens)
        assert str(shown.place) == f"{pairs}:{number}:1"


def test_what_is_cut_is_counted(reader: Reader, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"instruction": "hi", "output": "word " * 60}])
    whole = show_row(reader, path)
    cut = show_row(reader, Data(train=(str(path),), max_tokens=30))
    assert cut.tokens == whole.tokens[:30]
    assert cut.num_cut == len(whole.tokens) - 30
    assert "30 tokens" in render(cut).plain
    assert f"{cut.num_cut:,} more cut off" in render(cut).plain


def test_rows_are_counted_over_all_sources_bad_ones_too(reader: Reader, tmp_path: Path) -> None:
    one = write(tmp_path / "one.jsonl", '{"instruction": "a", "output": "b"}\noops\n')
    two = write_pairs(tmp_path / "two.jsonl", 3)
    data = Data(train=(str(one), str(two)))
    assert str(show_row(reader, data, 3).place) == f"{two}:1:1"
    with pytest.raises(DataError, match="row 2 is bad: not valid JSON: expecting value") as caught:
        show_row(reader, data, 2)
    assert caught.value.where == f"{one}:2:1"


@pytest.mark.parametrize(
    ("row", "hint"), [(0, "rows are counted from 1"), (-1, "counted"), (4, "from 1 to 3")]
)
def test_a_number_of_no_row_is_refused(reader: Reader, tmp_path: Path, row: int, hint: str) -> None:
    path = write_pairs(tmp_path / "a.jsonl", 3)
    with pytest.raises(DataError, match=f"there is no row {row}") as caught:
        show_row(reader, path, row)
    assert hint in caught.value.hint


def test_a_row_that_the_template_refuses_is_bad(tmp_path: Path) -> None:
    reader = make_byte_level(tmp_path / "reader", families.NO_SYSTEM)
    rows = [{"instruction": "a", "output": "b", "system": "kind"}]
    with pytest.raises(DataError, match="the row is bad: the chat template refuses"):
        show_row(reader, write_rows(tmp_path / "a.jsonl", rows))


def test_a_conversation_that_becomes_several_rows_shows_all(tmp_path: Path) -> None:
    reader = make_byte_level(tmp_path / "reader", families.THINKING)
    talk = {"instruction": "why?", "output": "so", "history": [["hi", "<think>x</think>ho"]]}
    shown = show_row(reader, write_rows(tmp_path / "a.jsonl", [talk]))
    assert len(shown.more) == 1
    rows = prepare_files(reader, tmp_path / "a.jsonl").train
    found = [[token.id for token in row.tokens] for row in (shown, *shown.more)]
    assert found == [rows[0]["input_ids"], rows[1]["input_ids"]]
    assert "row 1 of 2" in render(shown).plain
    assert "row 2 of 2" in render(shown).plain


@pytest.mark.parametrize("learn", [TEXT, PACKED])
def test_a_text_is_shown_with_its_end_all_learned(
    reader: Reader, tmp_path: Path, learn: object
) -> None:
    path = write(tmp_path / "a.txt", "one\ntwo\n")
    shown = show(path, 2, reader.tokenizer, None, learn)
    assert "".join(token.text for token in shown.tokens) == "two<|endoftext|>"
    assert all(token.learned for token in shown.tokens)


def test_a_text_is_no_conversation(reader: Reader, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the rows are plain text"):
        show_row(reader, write(tmp_path / "a.txt", "one\n"))


def spelled(reader: Reader, text: str) -> list[str]:
    ids = reader.tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
    return list(spell_tokens(ids, reader.tokenizer))


def test_the_spellings_of_tokens_make_up_the_text(reader: Reader) -> None:
    text = "hello world 123 <|im_end|> ~!\n\ttab"
    assert "".join(spelled(reader, text)) == text


def test_bytes_of_a_character_in_several_tokens_are_spelled_out(reader: Reader) -> None:
    parts = spelled(reader, "😀")
    assert "".join(parts) == "<F0><9F><98><80>"
    assert "".join(spelled(reader, "你好")) == "你好"


def test_a_vocabulary_with_spaces_in_its_words_is_spelled_plainly(tmp_path: Path) -> None:
    reader = make_spaced(tmp_path)
    assert "".join(spelled(reader, "hi hello ü")) == " hi hello <0xC3><0xBC>"


def test_letters_with_accents_are_not_mistaken_for_bytes(tmp_path: Path) -> None:
    assert "".join(spelled(make_spaced(tmp_path), "café")) == " café"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("\x1b[31m", "<U+001B>[31m"), ("\r", "<U+000D>"), ("\x7f", "<U+007F>"), ("\x00", "<U+0000>")],
)
def test_characters_that_steer_a_terminal_are_spelled_out(
    reader: Reader, text: str, expected: str
) -> None:
    assert "".join(spelled(reader, text)) == expected


def test_learned_tokens_stand_between_marks_where_there_are_no_colours(
    reader: Reader, tmp_path: Path
) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"instruction": "hi", "output": "hello"}])
    shown = show_row(reader, path)
    title, _, body = render(shown, marks=True).plain.partition("\n")
    assert title == (f"{path}:1:1: {len(shown.tokens)} tokens, {shown.num_learned} learned")
    assert body == (
        "<|im_start|>user⏎\nhi<|im_end|>⏎\n<|im_start|>assistant⏎\n⟦hello<|im_end|>⟧⏎\n\n"
    )


def test_a_mark_that_is_open_at_the_end_is_closed(reader: Reader, tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "one\n")
    shown = show(path, 1, reader.tokenizer, None, TEXT)
    assert render(shown, marks=True).plain.endswith("⟦one<|endoftext|>⟧\n")


def test_learned_tokens_are_green_and_neighbours_differ(reader: Reader, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"instruction": "hi", "output": "hello there"}])
    shown = show_row(reader, path)
    text = render(shown)
    styles = [str(span.style) for span in text.spans[1 : len(shown.tokens) + 1]]
    learned = [style for style in styles if "green" in style or "cyan" in style]
    assert len(learned) == shown.num_learned
    assert all(one != next_one for one, next_one in pairwise(learned))
