"""Texts of other scripts: words, sentences, mentions and answers; and that nothing changes for English ones."""

import random
import re
import unicodedata

import numpy as np
import pandas as pd
import pytest
from test_byte_vocabulary import real_t5

from kdutils.data import texts
from kdutils.data.answers import (
    is_right,
    mask_answers,
    match_choice,
    normalise_answer,
    parse_answer,
    parse_number,
    same_answer,
)
from kdutils.data.texts import (
    argues_for,
    count_words,
    first_words,
    lower_words,
    names_answer,
    space_characters,
    split_characters,
    word_triples,
)
from kdutils.evaluation.error_analysis import accuracy_by_question_group, rationale_flags
from kdutils.evaluation.simulatability import choice_features
from kdutils.evaluation.text_metrics import (
    bleu,
    distinct_share,
    explanation_scores,
    own_scores,
    rouge_l,
    score_notes,
)
from kdutils.evaluation.truth_proxies import sentence_vectors
from kdutils.student.collating import gap_lines, vocabulary_gaps
from kdutils.student.methods import Explained, apply_control
from kdutils.student.models import load_tokenizer
from kdutils.student.training import Recipe, vocabulary_lines
from kdutils.teacher import cleaning
from kdutils.teacher.cleaning import clean
from kdutils.teacher.completion import Completion
from kdutils.teacher.explaining import split_answer
from kdutils.teacher.quality import raw_table, text_table
from kdutils.teacher.word_scores import words_of

NFD = "cafe\u0301"

# English: what was there before is the reference

PIECES = ["cow", "Cow's", "the", "a", "not", "milk", "answer is", "The answer is", "no", "yes", "8.0", "$1,200", "-3",
          "x_y", "(b)", "b)", "u.s.", "U.S.", "e.g.", "St.", "1.", "Question:", "Briefly explain", "\n", "\n\n", ".",
          ". ", "! ",
          "?", ",", ";", '"', "'", "(", ")", "]", "*", "+", "___", "don't", "half-way", "5 %", "So the answer is", "\t"]


def ascii_texts(count, seed=0):
    draw = random.Random(seed)
    for _ in range(count):
        yield "".join(draw.choice(PIECES) + draw.choice(["", " ", " "]) for _ in range(draw.randint(1, 14)))


def before_names(text, answer):
    return bool(answer) and re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", text, re.IGNORECASE) is not None


def before_normalise(text):
    marks, articles = re.compile(r"[^\w\s]|_"), re.compile(r"\b(a|an|the)\b")
    words = articles.sub(" ", marks.sub(" ", text.casefold()))
    return " ".join(words.split()) or " ".join(marks.sub(" ", text.casefold()).split())


def before_follows(text, answer, choices):
    contrast = re.compile(r"n't\b|\b(?:not?|never|cannot|neither|nor|wrong|incorrect|unlike|while|although|but|instead)"
                          r"\b", re.IGNORECASE)

    def choice_in(part):
        found = [(match.start(), -len(choice), choice) for choice in choices
                 if (match := re.search(rf"(?<!\w){re.escape(choice)}(?!\w)", part, re.IGNORECASE))]
        return min(found)[2] if found else None

    stated = [name for name in re.findall(r"\banswer is:? [\"'“‘]?([^.,;\n\"”’]+)", text, re.IGNORECASE)
              if choice_in(name)]
    if stated:
        return choice_in(stated[-1]) == answer
    if {choice.casefold() for choice in choices} == {"yes", "no"}:
        first = re.match(r"\W*(yes|no)\b", text, re.IGNORECASE)
        return first[1].casefold() == answer.casefold() if first else None
    first = re.split(r"(?<=[.!?])\s", text, maxsplit=1)[0]
    for part in ([] if contrast.search(first) else [first]) + [text]:
        named = [choice for choice in choices if before_names(part, choice)]
        if len(named) == 1:
            return named[0] == answer
    return None


def test_words_mentions_and_answers_of_ascii_texts_are_what_they_were():
    found = {"named": 0, "argued": 0, "plain": 0, "same": 0}
    for text, other in zip(ascii_texts(2500), ascii_texts(2500, seed=1), strict=True):
        answer, choices = other.strip()[:5].strip() or "a", ["cow", "milk", "Cow's"]
        assert lower_words(text) == re.findall(r"\w+", text.casefold())
        assert count_words(text) == len(text.split()) and space_characters(text) == text
        assert first_words(text, 4) == " ".join(text.split()[:4])
        assert split_characters(text, 3) == [(text, 3, 3 + len(text))]
        found["named"] += (named := names_answer(text, answer))
        assert named == before_names(text, answer)
        named_as_word = rf"(?<!\w){re.escape(answer)}(?!\w)"
        assert mask_answers(text, [answer], "___") == re.sub(named_as_word, "___", text, flags=re.IGNORECASE)
        found["argued"] += (argued := argues_for(text, "cow", choices)) is not None
        # What is denied or ruled out counted as named, and initials ended a sentence.
        if not re.search(r"\b(?:not?|or|never|cannot|neither|nor|wrong|incorrect|unlike|while|although|but|instead)\b"
                         r"|n't|\b\w\.\w\.", text, re.IGNORECASE):
            found["plain"] += argued is not None
            assert argued is before_follows(text, "cow", choices)
            assert argues_for(text, "Yes", ["yes", "no"]) is before_follows(text, "Yes", ["yes", "no"])
        assert normalise_answer(text) == before_normalise(text)
        alike = before_normalise(answer) == before_normalise(text[:7])
        found["same"] += alike and text[:7] != answer
        signs = re.search(r"[-+<>=^#]", answer + text[:7])  # they were dropped: -3 °C was 3 °C
        assert same_answer(answer, text[:7]) == alike or parse_number(answer) is not None or signs
    assert min(found.values()) > 20, found


def test_cleaning_of_ascii_texts_is_what_it_was(monkeypatch):
    given = list(ascii_texts(2500, seed=2))
    now = [clean(text, "cow") for text in given]
    before = {
        "_MARKER": re.compile(r"""(?:^|\n[^\S\n]*|[.!?…]["'”’)\]]*\s+)
            (?:(?:Question|Premise|Q|Critique|Revision|(?:Critique|Revision)[ ]?Request)(?:[ ]\d+)?:
              |Choices:|Assistant(?:[ ]\([^)\n]*\))?:|Briefly[ ]explain\b)""", re.VERBOSE),
        "_ANSWER_LEAD": re.compile(r"""(?:So )?the (?:correct )?answer is ["'“‘]?""", re.IGNORECASE),
        "_ANSWER_END": re.compile(r"""["'”’]?\.["'”’]?(?:\s+|$)"""),
        "_STOP": re.compile(r"""[.!?…]+["'”’)\]]*"""), "PAIRS": (("(", ")"), ("[", "]"), ("“", "”")), "WIDE_ENDS": ""}
    for name, value in before.items():
        monkeypatch.setattr(cleaning, name, value)
    monkeypatch.setattr(cleaning, "_is_sentence_end", lambda text, stop: not (
        not text[stop.end():][:1].isspace() or text[stop.end():].lstrip()[:1].islower()
        or text[:stop.end()].endswith(" No.") and text[stop.end():].lstrip()[:1].isdigit()
        or cleaning._is_inside_word(text, stop) or cleaning._INITIAL.search(text[:stop.end()][-4:])
        or cleaning._is_open(text[:stop.end()])))
    assert now == [clean(text, "cow") for text in given]
    assert len({change for one in now for change in one.changes}) >= 5


# Words

@pytest.mark.parametrize(("text", "words"), [
    ("水是蓝色的。", ["水", "是", "蓝", "色", "的"]), ("ガスは青い", ["ガ", "ス", "は", "青", "い"]),
    ("DNA检测", ["dna", "检", "测"]), ("น้ำ เย็น", ["น้", "ำ", "เ", "ย็", "น"]), ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
    ("물은 젖다", ["물은", "젖다"]),
    (f"{NFD} CAFÉ", ["café", "café"]), ("ＤＮＡ ３．５", ["dna", "3", "5"]), ("İZMİR", ["izmir"]), ("كِتَاب", ["كتاب"]),
    ("می\u200cخواهم", ["میخواهم"]), ("don’t", ["don", "t"]), ("ﾃﾞﾝｷ", ["デ", "ン", "キ"]), ("😀 ☀\ufe0f a", ["a"])])
def test_words_of_other_scripts(text, words):
    assert lower_words(text) == words
    assert lower_words(unicodedata.normalize("NFD", text)) == words, "however it is composed"


def test_a_character_is_a_word_where_there_are_no_spaces():
    assert count_words("水是蓝色的。 It's so, DNA检测!") == 5 + 2 + 3 and count_words("ਪਾਣੀ ਨੀਲਾ ਹੈ।") == 3
    assert first_words("水是蓝色的。它流动。", 6) == "水是蓝色的。它" and first_words("水是", 9) == "水是"
    assert word_triples("水是蓝色") == [("水", "是", "蓝"), ("是", "蓝", "色")]
    assert distinct_share(["水水是"], 1) == 2 / 3
    scores = own_scores("蓝色的水，蓝色的水。", "蓝色", "红色", "什么是蓝色的？", ["红色", "蓝色"])
    # six sequences: 蓝色的 色的水 的水蓝 水蓝色 蓝色的 色的水; two came before, two are of the question
    assert scores == {"words": 8, "repetition": pytest.approx(1 / 3), "names_answer": 1, "names_gold": 0,
                      "distractors": 0, "copied": pytest.approx(1 / 3)}
    assert words_of("水是蓝色, DNA检测。", [(0, 5), (6, 13)]) == [
        ("水", 0, 1), ("是", 1, 2), ("蓝", 2, 3), ("色", 3, 4), ("DNA", 6, 9), ("检", 9, 10), ("测", 10, 11)]


def test_random_words_of_a_question_without_spaces_are_as_many_as_the_rationale_has():
    item = {"id": "1", "split": "train", "question": "为什么天空是蓝色的？", "choices": ["散射", "反射"],
            "answer": "散射"}
    drawn = apply_control("random_tokens", {}, [item], {"1": "因为光被"}, 0)["1"].rationale.split()
    assert len(drawn) == 4 and all(len(word) == 1 and word in "为什么天空是蓝色的散射反" for word in drawn)
    hindi = {**item, "question": "आकाश नीला क्यों है?", "choices": []}
    assert set(apply_control("random_tokens", {}, [hindi], {"1": "a b c d"}, 0)["1"].rationale.split()) == {
        "आकाश", "नीला", "क्यों", "है"}, "no word is cut at its vowel signs"


# Likeness

CHINESE = [("水是蓝色的，因为光被散射。", "天空是蓝色的，因为光被水散射。"), ("我喝水", "我喝水"),
           ("猫坐在垫子上。", "狗睡在床上。")]


@pytest.mark.parametrize(("text", "reference"), CHINESE)
def test_bleu_of_chinese_is_that_of_sacrebleu_s_own_tokenizers(text, reference):
    from sacrebleu.metrics import BLEU

    for name, both in (("zh", (text, reference)), ("char", (text.replace("，", ","), reference.replace("，", ",")))):
        theirs = BLEU(effective_order=True, tokenize=name).sentence_score(both[0], [both[1]]).score / 100
        assert bleu(text, [reference]) == pytest.approx(theirs)
    assert bleu(text, [reference]) > 0.1 or text.startswith("猫")


def test_bleu_and_rouge_of_thai_and_japanese_by_characters():
    from sacrebleu.metrics import BLEU

    assert bleu("นกสีดำบิน", ["นกสีขาวบิน"]) > 0.2, "one word by spaces has nothing in common with another"
    text, reference = "水は青い", "空は青いよ"
    theirs = BLEU(effective_order=True, tokenize="char").sentence_score(text, [reference]).score / 100
    assert bleu(text, [reference]) == pytest.approx(theirs)
    # the longest common subsequence: は 青 い; of 4 characters and of 5
    assert rouge_l("水は青い。", ["空は青いよ"]) == pytest.approx(2 * (3 / 4) * (3 / 5) / (3 / 4 + 3 / 5))
    assert rouge_l(f"un {NFD}", ["un café"]) == 1 and rouge_l("हिन्दी", ["हिन्द"]) == 0


def test_what_counts_by_characters_is_said():
    questions = pd.DataFrame({"id": ["1", "2"], "question": "什么？", "choices": [["水", "沙"]] * 2, "answer": "水"})
    said = pd.DataFrame({"id": ["1", "2"], "seed": 0, "answer": "水", "predicted": "水",
                         "explanation": ["水流动。", "It."]})
    scores = explanation_scores(said, questions, {})
    assert score_notes(scores) == ["1 of 2 explanations are, or quote, a script without spaces between words: each of "
                                   "its characters counts as one word."]
    assert score_notes(explanation_scores(said.tail(1), questions, {})) == score_notes(pd.DataFrame()) == []
    asked = questions.assign(question=["天空为什么是蓝色的", "水"])
    written = pd.DataFrame([{"id": "1", "stage": "rationale", "raw": "", "answer": "水", "text": "水流动。",
                             "changes": []}])
    kinds = accuracy_by_question_group(said.assign(correct=[1, 0]), said.assign(correct=[0, 0]), asked,
                                       rationale_flags(written, asked)).set_index("questions with")
    assert kinds.at["question of more than 5 words", "difference"] == 1
    assert kinds.at["rationale names the answer", "questions"] == 1


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """An encoder with random weights that reads 16 tokens."""
    from transformers import RobertaConfig, RobertaModel

    folder, tokenizer = tmp_path_factory.mktemp("encoder"), load_tokenizer("kdutils/mini/student")
    RobertaModel(RobertaConfig(vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                               num_attention_heads=2, max_position_embeddings=18, pad_token_id=1),
                 add_pooling_layer=False).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_texts_longer_than_the_encoder_reads_are_cut_there_counted_and_said(encoder):
    long, short = " ".join(["a cow gives milk and"] * 9), "a cow gives milk"
    questions = pd.DataFrame({"id": ["1", "2"], "question": "?", "choices": [["cow", "cat"]] * 2, "answer": "cow"})
    said = questions.assign(seed=0, predicted="cow", explanation=[long, short])
    known = {"teacher": {"1": [short], "2": [f"{long} too"]}, "human": {"1": [short, long], "2": [""]}}
    scores = explanation_scores(said, questions, known, encoder)
    assert scores.attrs["notes"] == {"texts": 2, "unspaced": 0, "read": 3, "limit": 16, "cut": 2}
    assert score_notes(scores) == [
        "2 of 3 different texts are longer than the 16 tokens that the encoder reads: BERTScore, and the logit's "
        "cosines, know only their beginning."]
    assert scores["bertscore_human"][0] == pytest.approx(1, abs=1e-5), "the whole text or its beginning"
    changed = said.assign(explanation=[f"{long} or not", short])
    again = explanation_scores(changed, questions, known, encoder)
    assert np.allclose(again["bertscore_teacher"], scores["bertscore_teacher"]), "what is behind the cut is not read"
    few = explanation_scores(said.tail(1), questions, {"teacher": {"2": [short]}}, encoder)
    assert few.attrs["notes"]["cut"] == 0 and score_notes(few) == []
    features = choice_features("Which?", ["cow", "cat"], long, lambda text: sentence_vectors([text], encoder)[text])
    assert np.isfinite(features).all()


# Mentions

@pytest.mark.parametrize(("text", "answer", "named"), [
    ("天空是蓝色的。", "蓝色", True), ("天 空 是 蓝 色 的", "蓝色", True), ("天空是红的。", "蓝色", False),
    ("答案是water。", "water", True), ("青い空", "青い", True), ("น้ำเย็น", "น้ำ", True), ("น้ำเย็น", "น", True),
    ("काला", "काल", False), ("काल है", "काल", True), ("물은 젖다", "물", True), ("물고기다", "물", False),
    (NFD, "café", True), ("café", NFD, True), ("cafés", NFD, False),
    ("ＤＮＡだ", "dna", True), ("e\u0301te\u0301s", "e", False), ("مَاء", "مَا", False), ("das Maß ist", "maß", True)])
def test_an_answer_is_found_in_other_scripts(text, answer, named):
    assert names_answer(text, answer) is named
    assert (mask_answers(text, [answer], "___") != unicodedata.normalize("NFC", text)) is named


def test_a_mask_leaves_no_answer_and_takes_nothing_else():
    assert mask_answers("天空是蓝色的，蓝色。", ["蓝色"], "___") == "天空是___的，___。"
    assert "caf" not in mask_answers(f"Ａ {NFD} ＣＡＦÉ", ["café"], "[…]").casefold()
    table = choice_features("什么颜色？蓝色", ["红色", "蓝色"], "是蓝色，蓝色的。")
    assert table[1, 4:].tolist() == [1, 1, 1, 0.4, 1, 1] and table[0, 6:].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(("text", "answer", "choices", "verdict"), [
    ("水是湿的。沙是干的。", "水", ["水", "沙"], True), ("水是湿的。沙是干的。", "沙", ["水", "沙"], False),
    ("不是沙，而是水。", "沙", ["水", "沙"], None), ("不是沙，所以答案是水。", "水", ["水", "沙"], True),
    ("それは砂ではない。答えは水です。", "水", ["水", "砂"], True), ("它会流动。", "水", ["水", "沙"], None),
    ("是的，它会。", "是", ["是", "否"], True), ("这是对的。", "是", ["是", "否"], None),
    ("不是。", "是", ["是", "不是"], False), ("पानी गीला है। रेत सूखी है।", "पानी", ["पानी", "रेत"], True),
    ("الماء رطب؟ الرمل جاف", "الماء", ["الماء", "الرمل"], True)])
def test_what_a_text_of_another_script_argues_for(text, answer, choices, verdict):
    assert argues_for(text, answer, choices) is verdict


# Sentences

@pytest.mark.parametrize(("raw", "text", "changes"), [
    ("水是湿的。它流动。", "水是湿的。它流动。", []), ("水是湿的。它流动并且", "水是湿的。", ["unfinished_removed"]),
    ("真的吗？是的！因为", "真的吗？是的！", ["unfinished_removed"]), ("它流动并且", "它流动并且", ["unfinished_kept"]),
    ("彼は「行く。」と言った。そして", "彼は「行く。」と言った。", ["unfinished_removed"]),
    ("彼は「行く。そして", "彼は「行く。そして", ["unfinished_kept"]), ("他说：“走吧。”", "他说：“走吧。”", []),
    ("重３．５克。它", "重３．５克。", ["unfinished_removed"]), ("重３．５克", "重３．５克", ["unfinished_kept"]),
    ("水是湿的．它", "水是湿的．", ["unfinished_removed"]), ("水（湿的。沙", "水（湿的。沙", ["unfinished_kept"]),
    ("水是湿的。Question: 沙？", "水是湿的。", ["cut_at_marker"]),
    ("水是湿的。\nQuestion：沙？", "水是湿的。", ["cut_at_marker"]),
    ("पानी गीला है। और", "पानी गीला है।", ["unfinished_removed"]),
    ("هل الماء رطب؟ ثم", "هل الماء رطب؟", ["unfinished_removed"]),
    ("پانی گیلا ہے۔ اور", "پانی گیلا ہے۔", ["unfinished_removed"])])
def test_sentences_of_other_scripts_end_where_they_end(raw, text, changes):
    assert clean(raw) == cleaning.Cleaned(text, changes, "")
    assert clean(text).text == text


def test_an_answer_that_is_only_repeated_goes_in_chinese_too():
    assert clean("答案是水。它流动。", "水").text == "它流动。"
    assert clean("The answer is 水。它流动。", "水").text == "它流动。"
    assert clean("所以答案是「水」。", "水").problem == "only the answer"
    assert clean("答案是水果。它甜。", "水").text == "答案是水果。它甜。"


def test_a_teacher_s_answer_in_chinese_is_split_from_its_explanation():
    done = [Completion("水。它流动。", "stop", 1, 1), Completion(" 水果很甜。", "stop", 1, 1)]
    answers, rest = split_answer(done, [["水", "沙"], ["沙", "土"]])
    assert answers == ["水", "水果很甜"] and [one.text for one in rest] == ["它流动。", ""]


def test_the_teacher_report_of_chinese_texts_counts_what_a_hand_counts():
    raws = ["水是湿的。", "沙是干的并且", "水（湿）"]
    rows = []
    for key, raw in zip("012", raws, strict=True):
        cleaned = clean(raw, "水")
        rows.append({"id": key, "stage": "rationale", "round": 0, "answer": "水", "text": cleaned.text, "raw": raw,
                     "changes": list(cleaned.changes), "problem": cleaned.problem, "finish_reason": "stop",
                     "prompt_tokens": 5, "completion_tokens": 9})
    raw = raw_table(pd.DataFrame(rows)).iloc[0]
    assert (raw["truncated"], raw["words"], raw["answer named"]) == (1 / 3, (4 + 6 + 2) / 3, 2 / 3)
    asked = pd.DataFrame({"id": ["0", "1", "2"], "question": "什么？", "choices": [["水", "沙"]] * 3, "answer": "水"})
    row = text_table(pd.DataFrame(rows), asked).iloc[0]
    assert (row["unfinished"], row["answer followed"], row["contradicted"]) == (2 / 3, 2 / 3, 1 / 3)


# Answers

@pytest.mark.parametrize(("one", "other", "equal"), [
    ("café", NFD, True), ("CAFÉ", NFD, True), ("cafe", "café", False), ("８", "8", True), ("３．５", "3.5", True),
    ("１，２００", "1200", True), ("＄５", "5", True), ("－８", "-8", True), ("٣٫٥", "3.5", True), ("१२", "12", True),
    ("10⁵", "105", False),
    ("蓝色。", "蓝色", True), ("蓝 色", "蓝色", True), ("蓝色", "红色", False), ("काल", "काला", False),
    ("कल", "काल", False),
    ("İZMİR", "izmir", True), ("IŞIK", "ışık", True), ("ISPARTA", "ısparta", True), ("kır", "kir", False),
    ("Straße", "STRASSE", True), ("مُحَمَّد", "محمد", True), ("ｶﾞｽ", "ガス", True), ("ＤＮＡ", "dna", True),
    ("可\u200b能", "可能", True),
    ("DNA 检测", "DNA检测", True), ("한국", unicodedata.normalize("NFD", "한국"), True),
    ("☀\ufe0f sun", "☀ sun", True)])
def test_answers_match_as_a_person_would_expect(one, other, equal):
    assert is_right(one, other) is is_right(other, one) is equal
    assert match_choice(one, [other, "zzz"]) == (other if equal else one)


@pytest.mark.parametrize(("text", "choices", "answer"), [
    ("The answer is 蓝色。因为光被散射。", ["蓝色", "红色"], "蓝色"),
    ("The answer is （ｂ）.", ["蓝色", "红色"], "红色"),
    ("The answer is 蓝 色.", ["蓝色", "红色"], "蓝色"), (f"The answer is {NFD}.", ["café", "thé"], "café"),
    ("The answer is 蓝.", ["蓝色", "蓝"], "蓝"), ("The answer is ８。因为", [], "８"),
    ("The answer is पानी। यह", ["पानी", "रेत"], "पानी")])
def test_answers_of_other_scripts_are_read_back(text, choices, answer):
    assert parse_answer(text, choices)[0] == answer


# What a vocabulary cannot write

def item(key, answer, *choices):
    return {"id": key, "split": "train", "question": f"Which is {key}?", "choices": list(choices), "answer": answer,
            "human_explanations": []}


ITEMS = [item("1", "蓝色", "蓝色", "red"), item("2", "x < 3", "x < 3", "x > 3"), item("3", "{1, 2}"),
         item("4", "red", "red", "红色"), item("5", "a  cow", "a  cow", "wool"), item("6", "8"), item("7", "café")]


def test_answers_that_t5_cannot_write_are_counted_before_training():
    tokenizer = load_tokenizer(real_t5())
    explained = {"1": Explained("It is blue."), "4": Explained("It is {red}.", {"红色": "It is 红色."}),
                 "6": Explained("8")}
    gaps = vocabulary_gaps(tokenizer, "multitask", ITEMS, explained)
    # the blue one leaves nothing, of two that differ in a lost sign either may be meant; braces are read as no more
    # than marks, so what is left of them is still right; spaces and é are no loss
    assert gaps == {"count": 3, "questions": 7, "wrong": 2, "choices": 1, "explanations": 2, "explained": 4,
                    "examples": ["蓝色", "x < 3", "{1, 2}"]}
    for one in ITEMS:
        back = tokenizer.decode(tokenizer(f"The answer is {one['answer']}.")["input_ids"], skip_special_tokens=True)
        right = is_right(parse_answer(back, one["choices"])[0], one["answer"], one["choices"])
        assert right == (one["id"] not in ("1", "2"))
    assert gap_lines(gaps, "test ") == [
        "3 of 7 test questions have an answer that this vocabulary cannot write, such as '蓝色', 'x < 3', '{1, 2}'; "
        "2 of them count as wrong.",
        "1 other choice cannot be written.",
        "2 of 4 explanations contain characters that this vocabulary does not know; a student cannot learn to write "
        "them."]
    assert vocabulary_gaps(tokenizer, "multitask", ITEMS[4:], explained={}) == {} and gap_lines({}) == []
    assert vocabulary_gaps(tokenizer, "label_only", ITEMS, explained)["explanations"] == 0, "it reads none"
    student = {"model": "", "tokenizer": real_t5(), "kind": "", "random_weights": True, "config": {"model_type": "t5"},
               "lora": None}
    lines = vocabulary_lines(Recipe("multitask", student, {}), pd.DataFrame(ITEMS), explained)
    assert lines[0].startswith("3 of 7 questions have an answer") and len(lines) == 3
    classifier = Recipe("label_only", {**student, "kind": "classifier"}, {})
    assert vocabulary_lines(classifier, pd.DataFrame(ITEMS), {}) == []


@pytest.fixture(scope="module")
def words_only(tmp_path_factory):
    """The folder of a vocabulary of the lower-case words of a few sentences; all else is unknown to it."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    known = "so the answer is . [ ] predict explain question : choices ( ) a b c what which 1 2 3 4 ? red blue it x"
    words = ["[PAD]", "[END]", "[UNK]", *dict.fromkeys(known.split())]
    words += [f"w{number}" for number in range(300)]
    made = Tokenizer(models.WordLevel(dict(zip(words, range(len(words)), strict=True)), unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece(prefix="##")
    folder = tmp_path_factory.mktemp("words")
    PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", eos_token="[END]",
                            unk_token="[UNK]").save_pretrained(folder)
    return str(folder)


def test_what_the_vocabulary_lacks_is_in_the_record_of_a_trained_student_and_of_its_test(words_only, tmp_path):
    from kdutils.student.predicting import gaps_of
    from kdutils.student.training import train_student

    items = [item(str(number), "red", "red", "blue") for number in (1, 2, 3)] + [item("4", "green", "green", "red")]
    rows = pd.DataFrame([{**one, "split": split} for one in items for split in ("train", "dev")])
    rows["id"] = rows["id"] + rows["split"]
    explained = {key: Explained("It is red." if number else "It is purple.") for number, key in enumerate(rows["id"])}
    student = {"model": "", "tokenizer": words_only, "kind": "", "random_weights": True, "lora": None,
               "config": {"model_type": "t5", "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}}
    training = {"epochs": 1.0, "questions_per_step": 4, "learning_rate": 0.01, "warmup_steps": 1, "dev_evaluations": 1,
                "max_source_tokens": 64, "max_target_tokens": 32, "token_budget": 4000}
    record = train_student(tmp_path, rows, explained, Recipe("multitask", student, training))
    assert record["unwritable_answers"] == {"count": 2, "wrong": 2, "choices": 0, "explanations": 1, "questions": 8,
                                            "explained": 8, "examples": ["green"]}
    found = gaps_of(tmp_path, rows[rows["split"] == "dev"])
    assert (found["count"], found["questions"], found["explanations"]) == (1, 4, 0)
    assert gap_lines(found, "test ") == ["1 of 4 test questions has an answer that this vocabulary cannot write, "
                                         "such as 'green'; it counts as wrong."]


def test_the_embedded_vocabulary_writes_everything_and_nothing_is_said():
    tokenizer = load_tokenizer("kdutils/mini/student")
    assert vocabulary_gaps(tokenizer, "multitask", ITEMS, {"1": Explained("蓝色 {x}")}) == {}


def test_one_place_decides_what_a_word_is():
    """No module of its own looks for whole words or counts them at white space."""
    from pathlib import Path

    root = Path(texts.__file__).parents[1]
    others = [path for part in ("evaluation", "teacher", "student") for path in sorted((root / part).glob("*.py"))]
    assert len(others) > 20
    for path in others:
        source = path.read_text(encoding="utf-8")
        assert "(?!\\w)" not in source.replace('so the answer is(?!\\w)"', ""), path.name
        assert "len(text.split())" not in source and "str.split().str.len()" not in source, path.name
