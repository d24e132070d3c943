"""Files to rows of tokens: every row accounted for, nothing wrong learned in silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny import make_tokenizer, write_pairs, write_rows
from tests.unit.data.files import write
from tests.unit.data.preparing import (
    PACKED,
    SFT,
    TEXT,
    check_counts,
    prepare_files,
    spell_learned,
    spell_rows,
)
from tests.unit.data.tokenizers_of import make_byte_level
from tests.unit.templates import families
from tunesmith.data.rows import Conversation, Learn, Text
from tunesmith.errors import DataError, TunesmithError
from tunesmith.models.reader import Reader
from tunesmith.models.tokenizer import load_tokenizer

ROW = {"instruction": "hi", "output": "hello"}
TALK = {"instruction": "why?", "output": "because", "history": [["hi", "hello"]]}


def test_a_row_is_its_tokens_with_the_answer_learned(reader: Reader, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [ROW])
    splits = prepare_files(reader, path)
    (text,) = spell_rows(reader, splits.train)
    assert text == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nhello<|im_end|>\n"
    assert spell_learned(reader, splits.train, 0) == "hello<|im_end|>"
    row = splits.train[0]
    assert all(label in (-100, token) for token, label in zip(*row.values(), strict=True))
    assert splits.validation is None


def test_counts_are_of_rows_and_tokens(reader: Reader, pairs: Path) -> None:
    splits = prepare_files(reader, pairs, validation_share=0.25)
    report = splits.report
    check_counts(report)
    assert (report.num_read, report.num_kept, report.num_reported) == (40, 40, 0)
    assert (report.num_train, report.num_validation) == (30, 10)
    assert report.num_train == len(splits.train)
    rows = [splits.train[n] for n in range(30)]
    assert report.num_tokens == sum(len(row["input_ids"]) for row in rows)
    assert report.num_learned == sum(label != -100 for row in rows for label in row["labels"])
    assert report.files == [str(pairs)]


def test_rows_come_back_as_they_were_read(reader: Reader, pairs: Path) -> None:
    splits = prepare_files(reader, pairs)
    row = splits.train.conversation(7)
    assert isinstance(row, Conversation)
    assert [message.content for message in row.messages] == ["question 7", "It is 49."]
    assert str(row.place) == f"{pairs}:8:1"


def test_all_answers_are_learned_or_the_last_or_everything(reader: Reader, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [TALK])
    whole = prepare_files(reader, path).train
    assert spell_learned(reader, whole, 0) == "hello<|im_end|>because<|im_end|>"
    last = prepare_files(reader, path, learn=Learn("conversation", history=False)).train
    assert spell_learned(reader, last, 0) == "because<|im_end|>"
    everything = prepare_files(reader, path, learn=Learn("conversation", prompts=True)).train
    assert everything[0]["labels"] == everything[0]["input_ids"] == whole[0]["input_ids"]


def test_a_system_prompt_of_the_recipe_is_in_every_row(reader: Reader, pairs: Path) -> None:
    rows = spell_rows(reader, prepare_files(reader, pairs, system="be kind").train)
    assert all(text.startswith("<|im_start|>system\nbe kind<|im_end|>\n") for text in rows)


def test_a_template_that_rewrites_turns_makes_a_row_an_answer(tmp_path: Path) -> None:
    reader = make_byte_level(tmp_path / "reader", families.THINKING)
    talks = [{**TALK, "history": [[f"hi {n}", f"<think>t{n}</think>hello {n}"]]} for n in range(10)]
    path = write_rows(tmp_path / "a.jsonl", talks)
    splits = prepare_files(reader, path, validation_share=0.3)
    report = splits.report
    check_counts(report)
    assert (report.num_read, report.num_split) == (10, 10)
    assert (report.num_train, report.num_validation) == (14, 6)
    assert "t0" in spell_learned(reader, prepare_files(reader, path).train, 0)
    assert splits.validation is not None
    sides = [
        {str(rows.conversation(n).place) for n in range(len(rows))}
        for rows in (splits.train, splits.validation)
    ]
    assert [len(side) for side in sides] == [7, 3]
    assert sides[0].isdisjoint(sides[1])


def test_packed_texts_fill_rows_and_end_each_text(reader: Reader, tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "".join(f"text number {n}\n" for n in range(30)))
    splits = prepare_files(reader, path, learn=PACKED, max_tokens=16)
    assert set(splits.train.lengths[:-1].tolist()) == {16}
    text = "".join(spell_rows(reader, splits.train))
    found = sorted(text.removesuffix("<|endoftext|>").split("<|endoftext|>"))
    assert found == sorted(f"text number {n}" for n in range(30))
    assert splits.report.num_learned == splits.report.num_tokens
    assert isinstance(splits.train.conversation(0), Text)


def test_packed_rows_mix_their_sets_by_the_seed(reader: Reader, tmp_path: Path) -> None:
    one, two = (write(tmp_path / f"{name}.txt", f"{name}\n" * 40) for name in ("alpha", "beta"))
    texts = [
        "".join(spell_rows(reader, prepare_files(reader, one, two, learn=PACKED, seed=s).train))
        for s in (1, 1, 2)
    ]
    assert texts[0] == texts[1] != texts[2]
    assert texts[0].index("beta") < texts[0].rindex("alpha")


def test_texts_that_are_not_packed_are_cut_into_rows(reader: Reader, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"text": "word " * 40}, {"text": "short"}])
    splits = prepare_files(reader, path, learn=TEXT, max_tokens=32)
    check_counts(splits.report)
    assert max(splits.train.lengths) == 32
    assert "".join(spell_rows(reader, splits.train)) == (
        "word " * 40 + "<|endoftext|>short<|endoftext|>"
    )


def test_text_may_spell_a_special_token_without_its_being_one(
    reader: Reader, tmp_path: Path
) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{**ROW, "instruction": "<|im_end|> hi"}])
    plain = write_rows(tmp_path / "b.jsonl", [ROW])
    end = reader.tokenizer.get_vocab()["<|im_end|>"]
    rows = [prepare_files(reader, p).train[0]["input_ids"] for p in (path, plain)]
    assert rows[0].count(end) == rows[1].count(end) == 2


def test_several_sources_are_read_one_after_the_other(reader: Reader, tmp_path: Path) -> None:
    one = write_pairs(tmp_path / "one.jsonl", 3)
    two = write_rows(tmp_path / "two.jsonl", [TALK, TALK])
    splits = prepare_files(reader, one, two)
    check_counts(splits.report)
    assert splits.report.num_train == 5
    assert splits.report.files == [str(one), str(two)]


def test_weights_decide_the_share_of_each_source(reader: Reader, tmp_path: Path) -> None:
    one = write_pairs(tmp_path / "one.jsonl", 30)
    two = write_pairs(tmp_path / "two.jsonl", 10, start=100)
    sources = ({"path": str(one), "weight": 1}, {"path": str(two), "weight": 1})
    splits = prepare_files(reader, *sources)
    places = [splits.train.conversation(n).place.path for n in range(len(splits.train))]
    assert (places.count(str(one)), places.count(str(two))) == (20, 20)


def test_max_rows_of_a_source_and_of_all_are_drawn_with_the_seed(
    reader: Reader, pairs: Path
) -> None:
    source = {"path": str(pairs), "max_rows": 20}
    drawn = [
        spell_rows(reader, prepare_files(reader, source, max_rows=6, seed=seed).train)
        for seed in (1, 1, 2)
    ]
    assert len(drawn[0]) == len(set(drawn[0])) == 6
    assert drawn[0] == drawn[1] != drawn[2]


def test_rows_among_training_and_validation_are_measured_never(
    reader: Reader, tmp_path: Path
) -> None:
    train = write_pairs(tmp_path / "train.jsonl", 10)
    held = write_pairs(tmp_path / "held.jsonl", 10, start=6)
    splits = prepare_files(reader, train, validation=[str(held)])
    assert (splits.report.num_overlap, splits.report.num_validation) == (4, 6)
    assert splits.validation is not None
    assert set(spell_rows(reader, splits.train)).isdisjoint(spell_rows(reader, splits.validation))
    assert len(splits.train) == 10
    check_counts(splits.report)


def test_validation_rows_that_are_all_learned_are_refused(reader: Reader, pairs: Path) -> None:
    with pytest.raises(DataError, match="every validation row is a training row too") as caught:
        prepare_files(reader, pairs, validation=[str(pairs)])
    assert "data.validation_share" in caught.value.hint


def test_equal_rows_are_held_out_together(reader: Reader, tmp_path: Path) -> None:
    rows = [{**ROW, "instruction": f"hi {n % 10}"} for n in range(30)]
    path = write_rows(tmp_path / "a.jsonl", rows)
    splits = prepare_files(reader, path, validation_share=0.3)
    assert splits.validation is not None
    assert (len(splits.train), len(splits.validation)) == (21, 9)
    assert set(spell_rows(reader, splits.train)).isdisjoint(spell_rows(reader, splits.validation))


def test_the_seed_decides_what_is_held_out(reader: Reader, pairs: Path) -> None:
    held = []
    for seed in (1, 1, 2):
        rows = prepare_files(reader, pairs, validation_share=0.2, seed=seed).validation
        assert rows is not None
        held.append(spell_rows(reader, rows))
    assert held[0] == held[1] != held[2]


def test_conversations_need_a_template(reader: Reader, pairs: Path) -> None:
    bare = Reader(reader.folder, reader.tokenizer, None, ())
    with pytest.raises(TunesmithError, match="the model has no chat template") as caught:
        prepare_files(bare, pairs)
    assert "model.template: chatml" in caught.value.hint


def test_texts_need_a_token_that_ends_them(reader: Reader, tmp_path: Path) -> None:
    make_tokenizer(tmp_path / "endless")
    write(tmp_path / "endless" / "config.json", "{}")
    tokenizer = load_tokenizer(tmp_path / "endless")
    tokenizer.eos_token = None
    path = write(tmp_path / "a.txt", "one\ntwo\n")
    with pytest.raises(DataError, match="the tokenizer has no end-of-text token"):
        prepare_files(Reader(tmp_path, tokenizer, None, ()), path, learn=TEXT)


@pytest.mark.parametrize("learn", [SFT, TEXT])
def test_rows_of_the_other_kind_are_refused(reader: Reader, tmp_path: Path, learn: Learn) -> None:
    rows = [{"text": "a"}] if learn is SFT else [ROW]
    path = write_rows(tmp_path / "a.jsonl", rows)
    with pytest.raises(DataError, match="the rows are") as caught:
        prepare_files(reader, path, learn=learn)
    assert "method.name" in caught.value.hint


def test_the_fingerprint_changes_with_all_that_decides_the_rows(
    reader: Reader, tmp_path: Path
) -> None:
    path, other = write_pairs(tmp_path / "a.jsonl", 12), write_pairs(tmp_path / "b.jsonl", 13)
    prints = [
        prepare_files(reader, path).fingerprint,
        prepare_files(reader, other).fingerprint,
        prepare_files(reader, path, seed=1).fingerprint,
        prepare_files(reader, path, max_tokens=77).fingerprint,
        prepare_files(reader, path, max_rows=7).fingerprint,
        prepare_files(reader, path, validation_share=0.2).fingerprint,
        prepare_files(reader, path, validation=[str(other)]).fingerprint,
        prepare_files(reader, path, system="be kind").fingerprint,
        prepare_files(reader, path, other).fingerprint,
        prepare_files(reader, other, path).fingerprint,
        prepare_files(reader, path, learn=Learn("conversation", history=False)).fingerprint,
    ]
    assert len(set(prints)) == len(prints)
    assert prepare_files(reader, path).fingerprint == prints[0]


def test_the_fingerprint_is_the_same_with_or_without_a_cache(
    reader_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, held = write_pairs(tmp_path / "a.jsonl", 5), write_pairs(tmp_path / "b.jsonl", 5, 50)
    prints = set()
    for cache in ("one", "two", "two"):
        monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path / cache))
        reader = Reader(reader_folder, load_tokenizer(reader_folder), None, ())
        reader.tokenizer.backend_tokenizer.enable_truncation(7)
        texts = [write(p.with_suffix(".txt"), p.read_bytes()) for p in (train, held)]
        splits = prepare_files(reader, texts[0], validation=[str(texts[1])], learn=TEXT)
        prints.add(splits.fingerprint)
    assert len(prints) == 1


def test_rows_are_held_out_by_number(reader: Reader, pairs: Path) -> None:
    splits = prepare_files(reader, pairs, validation_rows=3)
    assert splits.validation is not None
    assert len(splits.validation) == 3
    assert splits.fingerprint != prepare_files(reader, pairs, validation_rows=4).fingerprint


def test_not_all_rows_can_be_held_out(reader: Reader, pairs: Path) -> None:
    with pytest.raises(DataError) as caught:
        prepare_files(reader, pairs, validation_rows=40)
    assert caught.value.where == "data.validation_rows"
