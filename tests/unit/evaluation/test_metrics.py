"""Scores equal those of the reference packages, in English and in Chinese."""

from __future__ import annotations

import json

import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer

from tunesmith import starter
from tunesmith.evaluation.metrics import bleu, chrf, exact_match, holds_fact, rouge_l, words

ENGLISH = [
    ("the cat sat on the mat", "the cat lay on the mat"),
    ("The Quick brown fox", "a quick BROWN dog and a fox"),
    ("one two three", "three two one"),
    ("completely different", "nothing shared here"),
    ("same words same order", "same words same order"),
    ("a a a b", "a b b b"),
    ("short", "a much longer expected answer that goes on"),
]
CHINESE = [
    ("早上九点到晚上十点营业", "营业时间是早上九点到晚上十点"),
    ("我们周一休息", "我们每周一都休息"),
    ("不知道", "蟹黄堡十八元一个"),
    ("海底路八号", "海底路八号"),
]


class ByWord:
    def tokenize(self, text: str) -> list[str]:
        return text.lower().split()


class ByCharacter:
    def tokenize(self, text: str) -> list[str]:
        return list(text)


def theirs(answer: str, expected: str, tokenizer: object) -> float:
    scorer = RougeScorer(["rougeL"], tokenizer=tokenizer)
    return float(scorer.score(expected, answer)["rougeL"].fmeasure)


def starter_pairs(language: str) -> list[tuple[str, str]]:
    """Expected answers of the starter, each beside the one of the next row."""
    rows = json.loads(starter.heldout(language).read_text("utf-8"))
    answers = [row["output"] for row in rows]
    return list(zip(answers[1:] + answers[:1], answers, strict=True))


@pytest.mark.parametrize(("answer", "expected"), ENGLISH)
def test_rouge_l_of_english_is_that_of_rouge_score(answer: str, expected: str) -> None:
    assert rouge_l(answer, expected) == pytest.approx(theirs(answer, expected, ByWord()))


@pytest.mark.parametrize(("answer", "expected"), CHINESE)
def test_rouge_l_of_chinese_is_that_of_rouge_score_over_characters(
    answer: str, expected: str
) -> None:
    assert rouge_l(answer, expected) == pytest.approx(theirs(answer, expected, ByCharacter()))


def test_rouge_l_is_between_none_and_all() -> None:
    assert rouge_l("nothing", "shared here") == 0.0
    assert rouge_l("All of it.", "all of it.") == 1.0
    assert rouge_l("", "words") == rouge_l("words", "") == 0.0
    assert rouge_l("", " ") == 1.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It's 9 a.m.", ["it", "'", "s", "9", "a", ".", "m", "."]),
        ("营业时间9点到10点", ["营", "业", "时", "间", "9", "点", "到", "10", "点"]),
        ("iPhone手机的Wi-Fi密码", ["iphone", "手", "机", "的", "wi", "-", "fi", "密", "码"]),
        ("カレーは５００円", ["カ", "レ", "ー", "は", "500", "円"]),
        ("你好，　世界！", ["你", "好", ",", "世", "界", "!"]),
        ("𠮷野家 ①", ["𠮷", "野", "家", "①"]),
        ("", []),
    ],
)
def test_texts_are_split_into_words_and_chinese_into_characters(
    text: str, expected: list[str]
) -> None:
    assert words(text) == expected


def test_digits_and_letters_stand_alone_whichever_side_chinese_is_on() -> None:
    assert words("9点ABC") == ["9", "点", "abc"]
    assert words("ABC点9") == ["abc", "点", "9"]


def test_bleu_is_that_of_sacrebleu() -> None:
    for pairs, tokenize in ((ENGLISH, "13a"), (CHINESE, "zh")):
        said, expected = zip(*pairs, strict=True)
        reference = sacrebleu.corpus_bleu(
            list(said), [list(expected)], tokenize=tokenize, use_effective_order=True
        )
        assert bleu(said, expected) == pytest.approx(reference.score)
        assert 0 < reference.score < 100


def test_bleu_of_mixed_languages_splits_chinese() -> None:
    said, expected = ["早上九点营业", "open daily"], ["早上九点开门营业", "open daily"]
    reference = sacrebleu.corpus_bleu(
        said, [expected], tokenize="zh", use_effective_order=True
    ).score
    assert bleu(said, expected) == pytest.approx(reference)
    assert bleu(said, expected) != bleu(said[1:], expected[1:])


@pytest.mark.parametrize("language", ["en", "zh"])
def test_scores_of_the_starter_s_answers_are_those_of_sacrebleu(language: str) -> None:
    said, expected = zip(*starter_pairs(language), strict=True)
    reference = sacrebleu.corpus_chrf(list(said), [list(expected)]).score
    assert chrf(said, expected) == pytest.approx(reference)
    assert 0 < reference < 100
    assert chrf(expected, expected) == pytest.approx(100)
    assert bleu(expected, expected) == pytest.approx(100)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("It is 42.", "it is  42."),
        ("你好，欢迎光临！", "你好,欢迎光临!"),
        ("营业时间：早上9点（周一休息）。", "营业时间:早上9点(周一休息)."),
        ("ＡＢＣ１２３％", "abc123%"),
        (" trailing\n", "Trailing"),
        ("两 个 字", "两个字"),
    ],
)
def test_answers_match_but_for_case_space_and_width(answer: str, expected: str) -> None:
    assert exact_match(answer, expected)
    assert exact_match(expected, answer)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("It is 42", "It is 42."),
        ("It is 42.", "It is 43."),
        ("九点", "十点"),
        ("", "something"),
        ("note book", "notebook"),
        ("1 000", "1000"),
    ],
)
def test_answers_that_differ_otherwise_do_not_match(answer: str, expected: str) -> None:
    assert not exact_match(answer, expected)


@pytest.mark.parametrize(
    ("answer", "fact"),
    [
        ("Our hours are 9 AM to 10 PM.", "9 am to 10 pm"),
        ("open 9am to 10pm daily", "9 am to 10 pm"),
        ("蟹黄堡１８元一个。", "18元"),
        ("蟹黄堡 18 元一个。", "18元"),
        ("从早上9点到晚上10点。", "9点到晚上10点"),
        ("电话：555－0142", "555-0142"),
        ("Two crab burgers, please", "crab burgers"),
        ("no, never", "no"),
        ("我们的Wi-Fi密码", "wi-fi"),
        ("我们在海底路8。18元一个", "18元"),
        ("汤8，18元一碗", "18元"),
        ("周一十点到二十点", "十点"),
        ("共有九层", "九"),
        ("18yuan", "18"),
        ("In 1999 30 minutes were enough", "30 minutes"),
        ("since 1999.", "1999"),
        ("价格是9元，海藻堡12元", "9元"),
        ("打（九折）", "（九折）"),
    ],
)
def test_a_fact_is_found_whatever_the_writing(answer: str, fact: str) -> None:
    assert holds_fact(answer, [fact])


@pytest.mark.parametrize(
    ("answer", "fact"),
    [
        ("海带薯条19元一份", "9元"),
        ("It costs 16 dollars", "6 dollars"),
        ("It costs 3.50 dollars", "50 dollars"),
        ("year 19990", "1999"),
        ("we sold 10,000 of them", "10"),
        ("about 9.5", "9"),
        ("I do not know", "no"),
        ("It takes seventeen minutes", "seven"),
        ("un café", "caf"),
        ("Two crab burgers, please", "crab burger"),
        ("二十元", "十元"),
        ("九十九层", "九"),
        ("三万五千", "三万"),
        ("十八元", "18元"),
        ("", "18元"),
        ("anything", ""),
        ("anything", "   "),
    ],
)
def test_a_fact_is_not_found_in_what_only_looks_like_it(answer: str, fact: str) -> None:
    assert not holds_fact(answer, [fact])


def test_one_of_several_spellings_is_enough() -> None:
    facts = ["18元", "十八元", "18 yuan"]
    assert holds_fact("蟹黄堡十八元", facts)
    assert not holds_fact("蟹黄堡九元", facts)
    assert not holds_fact("蟹黄堡九元", [])


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_expected_answer_of_the_starter_holds_its_own_fact(language: str) -> None:
    rows = json.loads(starter.heldout(language).read_text("utf-8"))
    for row in rows:
        facts = row["fact"] if isinstance(row["fact"], list) else [row["fact"]]
        assert holds_fact(row["output"], facts), row
