"""Files of benchmarks that are wrong, and options without effect, are refused with their place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import suites, tiny
from tests.command import Command
from tunesmith.errors import DataError, TunesmithError
from tunesmith.evaluation.suites.lines import read_agieval, read_gsm8k, read_own
from tunesmith.evaluation.suites.tables import read_tables

ROW: dict[str, Any] = {"question": "?", "choices": ["a", "b"], "answer": "A"}


def change_line(path: Path, number: int, old: str, new: str) -> None:
    lines = path.read_text("utf-8").splitlines(keepends=True)
    assert old in lines[number - 1]
    lines[number - 1] = lines[number - 1].replace(old, new, 1)
    path.write_text("".join(lines), "utf-8")


def refused(read: Callable[..., object], *given: object) -> TunesmithError:
    with pytest.raises(DataError) as caught:
        read(*given)
    assert caught.value.hint
    return caught.value


def test_an_answer_that_is_no_choice_is_named(tmp_path: Path) -> None:
    folder = suites.write_mmlu(tmp_path)
    path = folder / "test" / "anatomy_test.csv"
    lines = path.read_text("utf-8").splitlines()
    change_line(path, 3, lines[2][-1], "E")
    problem = refused(read_tables, "mmlu", folder, 0)
    assert problem.message == "the column `answer` is 'E'"
    assert problem.where == f"{path}:3:1"
    assert "A to D" in problem.hint


def test_a_row_of_too_few_cells_is_named(tmp_path: Path) -> None:
    folder = suites.write_mmlu(tmp_path)
    path = suites.write_table(folder / "test" / "anatomy_test.csv", [suites.quiz(1), ["?", "a"]])
    problem = refused(read_tables, "mmlu", folder, 0)
    assert problem.message == "the row has 2 cells; it must have 6"
    assert problem.where == f"{path}:2:1"


def test_a_question_over_lines_and_with_quotes_is_one(tmp_path: Path) -> None:
    folder = suites.write_mmlu(tmp_path)
    text = 'one,\n"two"; three; four; five; six; seven\nend'
    suites.write_table(folder / "test" / "anatomy_test.csv", [[text, "a", "b", "c", "d", "A"]])
    suite = read_tables("mmlu", folder, 0)
    assert suite.subjects[0].questions[0].text == text


@pytest.mark.parametrize(
    ("name", "write", "path", "column"),
    [
        ("ceval", suites.write_ceval, "val/law_val.csv", "`id`"),
        ("cmmlu", suites.write_cmmlu, "test/arts.csv", "without a name"),
    ],
)
def test_an_id_that_stands_twice_is_named(
    tmp_path: Path, name: str, write: Callable[[Path], Path], path: str, column: str
) -> None:
    folder = write(tmp_path)
    change_line(folder / path, 4, "2,", "1,")
    problem = refused(read_tables, name, folder, 0)
    assert problem.message == f"the column {column} is '1', as in line 3"
    assert problem.where == f"{folder / path}:4:1"


def test_a_column_that_is_missing_is_named(tmp_path: Path) -> None:
    folder = suites.write_ceval(tmp_path)
    path = folder / "val" / "law_val.csv"
    change_line(path, 1, ",answer", ",solution")
    problem = refused(read_tables, "ceval", folder, 0)
    assert problem.message == "the column `answer` is missing"
    change_line(path, 1, ",solution", ",answer")
    change_line(path, 2, path.read_text("utf-8").splitlines()[1].split(",")[3], "")
    assert refused(read_tables, "ceval", folder, 0).message == "the column `B` is empty"


def test_a_subject_without_examples_is_named(tmp_path: Path) -> None:
    folder = suites.write_mmlu(tmp_path)
    missing = folder / "dev" / "anatomy_dev.csv"
    missing.unlink()
    problem = refused(read_tables, "mmlu", folder, 5)
    assert problem.where == str(missing)
    assert "--shots 0" in problem.hint
    assert len(read_tables("mmlu", folder, 0).subjects) == 2


def test_a_subject_nobody_published_is_named(tmp_path: Path) -> None:
    folder = suites.write_cmmlu(tmp_path)
    (folder / "test" / "arts.csv").rename(folder / "test" / "art.csv")
    problem = refused(read_tables, "cmmlu", folder, 0)
    assert "'art'" in problem.message
    assert "arts" in problem.hint


def test_a_folder_without_the_layout_is_named(tmp_path: Path) -> None:
    for read in (read_agieval, read_gsm8k):
        assert refused(read, tmp_path, 0).where.startswith(str(tmp_path))
    problem = refused(read_tables, "ceval", tmp_path, 0)
    assert "val/SUBJECT_val.csv" in problem.hint


@pytest.mark.parametrize(
    ("rows", "message", "line"),
    [
        ([ROW, {**ROW, "answer": 2}], "the column `answer` is 2", 2),
        ([ROW, {**ROW, "answer": "c"}], "the column `answer` is 'C'", 2),
        ([ROW, {**ROW, "answer": "AB"}], "the column `answer` is 'AB'", 2),
        ([ROW, {**ROW, "answer": True}], "the column `answer` is no text", 2),
        ([{**ROW, "choices": ["a"]}], "the column `choices` has 1 choices", 1),
        ([{**ROW, "choices": ["a", 3]}], "the column `choices` is no list of texts", 1),
        ([{**ROW, "question": " "}], "the column `question` is empty", 1),
        ([{"choices": ["a", "b"], "answer": 0}], "the column `question` is missing", 1),
        ([ROW, {"question": "?", "answer": "a"}], "the column `choices` is missing, other than", 2),
        ([ROW, {**ROW, "subject": "x"}], "the column `subject` stands here, other than", 2),
        ([{**ROW, "subject": "x"}, ROW], "the column `subject` is missing, other than", 2),
        ([{**ROW, "subject": ""}], "the column `subject` is empty", 1),
        ([{**ROW, "id": 1}, {**ROW, "id": "1"}], "the column `id` is '1', as in line 1", 2),
        ([{**ROW, "split": "train"}], "the column `split` is 'train'", 1),
    ],
)
def test_rows_of_ones_own_file_that_are_wrong_are_named(
    tmp_path: Path, rows: list[dict[str, Any]], message: str, line: int
) -> None:
    path = tiny.write_rows(tmp_path / "ours.jsonl", rows)
    problem = refused(read_own, path, 0)
    assert problem.message.startswith(message)
    assert problem.where == f"{path}:{line}:1"


def test_a_line_that_is_no_json_is_named_with_its_column(tmp_path: Path) -> None:
    path = tiny.write_rows(tmp_path / "ours.jsonl", [ROW])
    path.write_text(path.read_text("utf-8") + '{"question": ?}\n', "utf-8")
    assert refused(read_own, path, 0).where == f"{path}:2:14"


def test_a_label_that_is_no_option_is_named(tmp_path: Path) -> None:
    folder = suites.write_agieval(tmp_path)
    path = folder / "logiqa-en.jsonl"
    rows = suites.read_lines(path)
    tiny.write_rows(path, [*rows[:2], {**rows[2], "label": "E"}])
    problem = refused(read_agieval, folder, 0)
    assert (problem.message, problem.where) == ("the column `label` is 'E'", f"{path}:3:1")


def test_an_answer_without_its_number_is_named(tmp_path: Path) -> None:
    folder = suites.write_gsm8k(tmp_path)
    path = folder / "test.jsonl"
    tiny.write_rows(path, [{"question": "?", "answer": "It is 3."}])
    assert refused(read_gsm8k, folder, 0).where == f"{path}:1:1"
    (folder / "train.jsonl").unlink()
    suites.write_gsm8k(tmp_path / "whole")
    (tmp_path / "whole" / "train.jsonl").unlink()
    assert "train.jsonl" in refused(read_gsm8k, tmp_path / "whole", 1).where


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--score", "text"], "--score has no effect here: it needs --suite"),
        (["--plain"], "--plain has no effect here"),
        (["--no-base"], "--no-base has no effect here"),
        (["--shots", "0"], "--shots has no effect here"),
        (["--suite", "mmlu", "--data", "MMLU", "--show", "0"], "--show has no effect here"),
        (["--suite", "mmlu", "--data", "MMLU", "--data", "MMLU"], "--data has no effect here"),
        (["--suite", "mmlu", "--data", "MMLU", "--max-tokens", "9"], "answers are chosen"),
        (["--suite", "gsm8k", "--data", "GSM8K", "--score", "text"], "answers are written"),
        (["--suite", "mmlu", "--data", "MMLU", "--shots", "9"], "has 5 examples, not 9"),
        (["--suite", "mmlu"], "where the files of mmlu lie is not said"),
        (["--suite", "mmlu", "--data", "nowhere"], "there is no such folder"),
        (["--suite", "mlmu", "--data", "MMLU"], "did you mean mmlu?"),
        (["--suite", "OWN", "--data", "MMLU"], "--data has no effect"),
        (["--suite", "OWN", "--shots", "1"], "has 0 examples, not 1"),
        (["--suite", "agieval", "--data", "AGIEVAL", "--shots", "1"], "no examples to show"),
        (["--suite", "mmlu", "--data", "MMLU", "--no-base"], "--no-base has no effect"),
    ],
)
def test_options_that_say_nothing_or_too_much_are_refused(
    command: Command, tiny_model: Path, tmp_path: Path, options: list[str], said: str
) -> None:
    folders = {
        "MMLU": suites.write_mmlu(tmp_path / "mmlu"),
        "GSM8K": suites.write_gsm8k(tmp_path / "gsm8k"),
        "AGIEVAL": suites.write_agieval(tmp_path / "agieval"),
        "OWN": suites.write_own(tmp_path / "own.jsonl"),
    }
    ended = command("evaluate", tiny_model, *(folders.get(one, one) for one in options))
    assert ended.code == 2
    assert said in ended.err
    assert "hint:" in ended.err
