"""The published protocols: literal texts, losses with padding, steps, checkpoint, exact strings, what a file may set.

The strings and numbers are those of the papers and their code, written out here once more.
"""

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from kdutils.comparison import tables
from kdutils.comparison.hypotheses import planned_comparisons
from kdutils.comparison.runs_table import CELL, read_settings
from kdutils.errors import StudyError, StudyErrors
from kdutils.evaluation.accuracy import count_exact, same_answers
from kdutils.experiments.grid import make_jobs
from kdutils.experiments.loading import load_experiment
from kdutils.experiments.protocol_lines import protocol_lines
from kdutils.experiments.schema import check_settings
from kdutils.experiments.steps import COMPARISON, EVALUATION, SETTINGS
from kdutils.experiments.tiny import make_tiny
from kdutils.runs import read_json, write_json
from kdutils.student import collating, predicting
from kdutils.student.collating import EpochRows, RowFormat, tokenize_rows
from kdutils.student.loss import dev_losses
from kdutils.student.methods import Explained, asked_as, rows_of, task_weights, taught_method
from kdutils.student.protocols import PROTOCOLS, protocol_parameters
from kdutils.student.settings import Train, TrainCounterfactual
from kdutils.student.trainer import training_arguments
from kdutils.student.training import Recipe, train_student

ITEM = {"id": "1", "split": "train", "question": "What cuts {grass}?", "choices": ["a mower", "a car", "rain"],
        "answer": "a car", "human_explanations": []}
FREE = {**ITEM, "choices": [], "answer": "8"}
TOLD = Explained("It has {blades}.", {"a mower": "It mows.", "rain": "It is wet."})
PUBLISHED = ["[predict] Question: What cuts {grass}?\nChoices: (a) a mower (b) a car (c) rain ",
             "[answer] The answer is a car"]
T5 = {"model": "kdutils/mini/student", "random_weights": True, "config": {"d_model": 32, "d_kv": 8, "d_ff": 48}}
TRAINING = {"epochs": 1, "questions_per_step": 6, "learning_rate": 3e-3, "warmup_steps": 0, "dev_evaluations": 2,
            "max_source_tokens": 128, "max_target_tokens": 128, "token_budget": 4000}


def texts(method, layout, item=ITEM, told=TOLD):
    parameters = {"wrong_answers": "first"}
    return {row.task: [row.source, row.target] for row in rows_of(method, parameters, item, told, layout)}


# Literal texts

def test_the_texts_of_arxiv_2504_16056():
    question = "What cuts {grass}?\nChoices: (a) a mower (b) a car (c) rain"
    multitask = {"predict": PUBLISHED, "explain": [f"[explain] Question: {question} ", "It has {blades}."]}
    counterfactual = {
        "factual": [f"[factual] Question: {question} ",
                    "[factual] Answer: It has {blades}. So the answer is a car."],
        "counterfactual": [f"[counterfactual] Question: {question}\\Rationale: It mows. ",
                           "[counterfactual] So the answer is a mower."]}
    assert texts("multitask", "published") == multitask
    assert texts("counterfactual", "published") == counterfactual
    assert texts("combined", "published") == multitask | counterfactual
    assert texts("label_only", "published") == {"predict": PUBLISHED}
    assert texts("standard", "published") == {"predict": [
        "[question] What cuts {grass}?\n[choices] (a) a mower (b) a car (c) rain",
        "[answer] The answer is a car. It has {blades}."]}
    assert [row.target_prefix for row in rows_of("combined", {}, ITEM, TOLD, "published")] == [""] * 5


def test_the_texts_of_distilling_step_by_step():
    question = "What cuts {grass}?\nAnswer Choices:\n(a) a mower\n(b) a car\n(c) rain"
    assert texts("multitask", "step_by_step") == {
        "predict": [f"predict: {question}", "a car"], "explain": [f"explain: {question}", "It has {blades}."]}
    assert texts("label_only", "step_by_step") == {"predict": [question, "a car"]}


def test_questions_without_choices_and_without_explanations():
    assert texts("multitask", "published", FREE) == {
        "predict": ["[predict] Question: What cuts {grass}? ", "[answer] The answer is 8"],
        "explain": ["[explain] Question: What cuts {grass}? ", "It has {blades}."]}
    assert texts("multitask", "step_by_step", FREE)["predict"] == ["predict: What cuts {grass}?", "8"]
    assert texts("multitask", "published", told=Explained()) == {"predict": PUBLISHED}
    told = Explained(None, {"rain": "Wet."})
    found = texts("counterfactual", "published", FREE, told)
    assert found["factual"][1] == "[factual] Answer: So the answer is 8."
    assert found["counterfactual"][0] == "[counterfactual] Question: What cuts {grass}?\\Rationale: Wet. "


@pytest.mark.parametrize(("method", "layout"), [
    ("untagged", "published"), ("token_rationale", "published"), ("standard", "step_by_step"),
    ("counterfactual", "step_by_step"), ("combined", "step_by_step")])
def test_a_task_that_the_paper_does_not_have_is_refused(method, layout):
    with pytest.raises(StudyError, match=f"layout: {layout} has no text for the task"):
        rows_of(method, {}, ITEM, TOLD, layout)


@pytest.mark.parametrize(("method", "layout", "text", "answer", "explanation"), [
    ("multitask", "published", "[answer] The answer is a car", "a car", ""),
    ("multitask", "published", "[answer] The answer is A car.", "a car", ""),
    ("multitask", "published", "nothing", "", ""),
    ("standard", "published", "[answer] The answer is a car. It has wheels. So.", "a car", "It has wheels. So."),
    ("standard", "published", "[answer] The answer is the car. It goes.", "a car", "It goes."),
    ("counterfactual", "published", "[factual] Answer: It goes. So the answer is a car.", "a car", "It goes."),
    ("counterfactual", "published", "[factual] Answer: It goes on and", "", "It goes on and"),
    ("multitask", "step_by_step", "a car", "a car", ""), ("multitask", "step_by_step", "Rain.", "rain", ""),
    ("multitask", "step_by_step", "an axe", "an axe", "")])
def test_answers_are_read_back(method, layout, text, answer, explanation):
    assert taught_method(method, layout).read(text, ITEM["choices"]) == (answer, explanation)


@pytest.mark.parametrize(("method", "layout", "text", "exact"), [
    ("multitask", "published", "[answer] The answer is a car", True),
    ("multitask", "published", "[answer] The answer is a car.", False),
    ("multitask", "published", "The answer is a car", False),
    ("multitask", "published", "[answer] The answer is the car", False),
    ("counterfactual", "published", "[factual] Answer: It goes. So the answer is a car.", True),
    ("counterfactual", "published", "[factual] Answer: It goes. So the answer is a car", False),
    ("multitask", "step_by_step", "a car", True), ("multitask", "step_by_step", "car", False)])
def test_only_the_exact_text_counts(method, layout, text, exact, tiny, monkeypatch):
    monkeypatch.setattr(predicting, "generate_each", lambda *args, **more: [[text, "It goes."][: len(args[2][0])]])
    records = predicting.predict_questions(*tiny, taught_method(method, layout), [ITEM], 8)
    table = pd.DataFrame(records)
    assert table["exact"].tolist() == [exact] and table["correct"].tolist() == [True], "the answer itself is right"
    assert count_exact(table, "exact")["correct"].tolist() == [exact]
    assert count_exact(table, "answer")["correct"].tolist() == [True]
    assert same_answers(count_exact(table, "exact"), pd.DataFrame([ITEM])).tolist() == [True]


@pytest.mark.parametrize(("method", "layout"), [("multitask", "published"), ("counterfactual", "published"),
                                                ("standard", "published"), ("multitask", "step_by_step")])
def test_choices_are_scored_in_the_texts_that_the_student_learnt(method, layout, tiny):
    """Σ log p of a choice and of what follows it, from the library's own logits for the whole target."""
    model, tokenizer = tiny
    told = "It goes." if method == "counterfactual" else ""
    scores, counts = predicting.score_choices(model, tokenizer, [ITEM], taught_method(method, layout), [told])
    for choice, score, count in zip(ITEM["choices"], scores[0], counts[0], strict=True):
        item = {**ITEM, "answer": choice}
        row = next(row for row in rows_of(method, {}, item, Explained(told or None), layout))
        target = tokenizer(text_target=row.target, add_special_tokens=False)["input_ids"]
        target += [] if method == "standard" else [tokenizer.eos_token_id]
        logits = model(input_ids=torch.tensor([tokenizer(row.source)["input_ids"]]),
                       labels=torch.tensor([target])).logits[0].log_softmax(-1)
        expected = logits[range(len(target)), target][-count:].sum().item()
        assert score == pytest.approx(expected, abs=1e-8) and 0 < count <= len(target)


# Losses

def rows_with(tiny, padding, method="multitask"):
    long = {"choices": ["a car", "rain and a car and rain"], "answer": "rain and a car and rain"}
    items = [{**ITEM, "id": "1"}, {**ITEM, "id": "2", **long}, {**ITEM, "id": "3", **long, "answer": "a car"}]
    told = {"1": TOLD, "2": Explained("Rain. " * 6, {"a car": "Cars go on and on and on."}),
            "3": Explained("Go.", {"rain and a car and rain": "Wet."})}
    entries, _ = tokenize_rows(tiny[1], method, {"wrong_answers": "first"}, items, told,
                               RowFormat(99, 99, "seq2seq", None, "published", padding))
    return [row for i in range(len(items)) for row in EpochRows(entries, [item["id"] for item in items], 0)[i]]


def library_loss(model, tokenizer, rows, ignored):
    """The library's mean loss of a padded batch; `ignored`: the label of padding, 0 as in the published code, or -100.
    """
    width = max(len(row.source) for row in rows)
    sources = torch.tensor([row.source + [tokenizer.pad_token_id] * (width - len(row.source)) for row in rows])
    ids = [[token for token in row.target if token != tokenizer.pad_token_id] for row in rows]
    longest = max(map(len, ids))
    labels = torch.tensor([one + [ignored] * (longest - len(one)) for one in ids])
    return model(input_ids=sources, attention_mask=(sources != 0).long(), labels=labels).loss.item()


@pytest.mark.parametrize(("padding", "ignored"), [(True, 0), (False, -100)])
@pytest.mark.parametrize("method", ["multitask", "counterfactual", "combined"])
def test_padding_counts_in_the_published_loss_and_in_no_other(method, padding, ignored, tiny):
    model, tokenizer = tiny
    assert tokenizer.pad_token_id == 0
    rows = rows_with(tiny, padding, method)
    tasks = list(task_weights(method, {}))
    losses = dev_losses(model, rows, len(tasks), 10**6, 0, model.config.decoder_start_token_id, "cpu")
    for number, loss in enumerate(losses):
        own = [row for row in rows if row.task == number]
        assert (len({len(row.target) for row in own}) == 1) == padding, "without padding they differ in length"
        assert loss == pytest.approx(library_loss(model, tokenizer, own, ignored), rel=1e-9)


def test_the_sums_of_the_papers():
    """MT: α predict + (1 - α) explain. CF: factual + counterfactual. MT+CF: γ MT + (1 - γ)(β factual + …), all 0.5."""
    def weights(protocol, method):
        return task_weights(method, protocol_parameters(protocol, "training", method))

    assert weights("published", "multitask") == {"predict": 0.5, "explain": 0.5}
    assert weights("published", "counterfactual") == {"factual": 1, "counterfactual": 1}
    known = SETTINGS["14_train_combined"].own()
    assert task_weights("combined", protocol_parameters("published", "training", "combined", known)) == dict.fromkeys(
        ("predict", "explain", "factual", "counterfactual"), 0.25)
    assert weights("step_by_step", "multitask") == {"predict": 0.5, "explain": 0.5}
    assert weights("fair", "counterfactual") == {"factual": 0.5, "counterfactual": 0.5}


def test_targets_are_padded_to_the_longest_of_a_block(tiny, monkeypatch):
    monkeypatch.setattr(collating, "PADDED", 2)
    plain, padded = rows_with(tiny, False), rows_with(tiny, True)
    lengths = [[len(row.target) for row in rows if row.task == 1] for rows in (plain, padded)]
    short, long, alone = lengths[0]
    assert short < long and alone < long and lengths[1] == [long, long, alone]
    assert padded[1].target[short:] == [0] * (long - short) and padded[1].counted == long
    with pytest.raises(StudyError, match="padding_loss: a causal student pads no targets"):
        tokenize_rows(tiny[1], "multitask", {}, [ITEM], {"1": TOLD}, RowFormat(99, 99, "causal", None, "before", True))


# Steps and checkpoint

def test_a_fixed_number_of_steps(tmp_path):
    arguments = training_arguments(tmp_path, 0, 3.0, 6, 1e-3, 0, 4, 20, "float32", 5000, "last")
    assert arguments.max_steps == 5000 and arguments.eval_steps == 250
    assert not arguments.load_best_model_at_end and arguments.metric_for_best_model is None
    assert training_arguments(tmp_path, 0, 3.0, 6, 1e-3, 0, 4, 2).load_best_model_at_end
    with pytest.raises(StudyError, match="max_steps: 7 is no multiple of the 2 evaluations"):
        training_arguments(tmp_path, 0, 3.0, 6, 1e-3, 0, 4, 2, "", 7)
    with pytest.raises(StudyError, match="checkpoint: unknown 'first'"):
        training_arguments(tmp_path, 0, 3.0, 6, 1e-3, 0, 4, 2, checkpoint="first")


def test_the_last_weights_are_kept_and_the_student_is_asked_as_it_learnt(questions, tmp_path, monkeypatch):
    """With one evaluation, at the end, the only checkpoint is the last one: the weights must be the same."""
    table = questions[0]
    falling = iter([0.9, 0.5, 0.4, 0.5, 0.9, 0.5, 0.4])  # the first of three evaluations would be the best
    monkeypatch.setattr(predicting, "dev_accuracy", lambda *args: lambda model: next(falling))

    def trained(name, **changed):
        recipe = Recipe("multitask", T5, {**TRAINING, "max_steps": 6, "layout": "published", "padding_loss": True,
                                          **changed}, {})
        record = train_student(tmp_path / name, table[table["split"] != "test"], questions[1], recipe)
        return record, load_file(tmp_path / name / "model.safetensors")

    record, last = trained("last", checkpoint="last", dev_evaluations=3)
    _, end = trained("end", checkpoint="last", dev_evaluations=1)
    best_record, best = trained("best", checkpoint="best", dev_evaluations=3)
    assert record["steps"] == 6 and record["best_step"] is None and best_record["best_step"] == 2
    assert all(torch.equal(last[name], end[name]) for name in last)
    assert not all(torch.equal(last[name], best[name]) for name in last)
    assert read_json(tmp_path / "last" / "student.json")["tag"] == "published"
    asks, item = asked_as(tmp_path / "last"), table.iloc[0].to_dict()
    assert asks.source(item, asks.answer).startswith("[predict] Question: ") and asks.source(item, "predict")[-1] == " "
    predictions = predicting.predict_with(tmp_path / "last", table.head(2), 8, 0)
    assert predictions["scores"].map(len).tolist() == [len(one) for one in table.head(2)["choices"]]


# The experiment file

def experiment(**changed):
    settings = {"about": "a", "needs": "b", "datasets": {"mini": {"limits": {"train": 8, "dev": 4, "test": 4}}},
                "teachers": {"t": {"model": "kdutils/mini/teacher"}},
                "promptings": {"few_shot": {}, "counterfactual": {}},
                "methods": {"label_only": {}, "multitask": {}, "counterfactual": {}},
                "students": {"s": {"model": "kdutils/mini/student"}}, "seeds": [0], **changed}
    check_settings(settings, "x.yaml")
    return settings


def parameters(settings, kind, method):
    """Return the parameters of the job of a method, as its notebook gets them."""
    return next(job.parameters for job in make_jobs("x", settings)
                if job.kind == kind and job.labels.get("method", method) == method)


def test_fair_is_the_default_and_sets_nothing():
    plain = list(make_jobs("x", experiment()))
    assert plain == list(make_jobs("x", experiment(protocol="fair")))
    assert PROTOCOLS["fair"] == () and all("protocol" not in job.labels for job in plain)


def test_the_published_protocol_is_that_of_the_paper():
    settings = experiment(protocol="published")
    multitask = parameters(settings, "students", "multitask")
    expected = {"layout": "published", "padding_loss": True, "max_steps": 5000, "checkpoint": "last",
                "questions_per_step": 48, "learning_rate": 5e-5, "warmup_steps": 0, "max_source_tokens": 300,
                "max_target_tokens": 300, "precision": "float32", "alpha": 0.5, "dev_evaluations": 20}
    assert expected.items() <= multitask.items() and "wrong_answers" not in multitask
    counterfactual = parameters(settings, "students", "counterfactual")
    assert {"wrong_answers": "first", "unweighted": True, "max_target_tokens": 256,
            "counterfactual_style": "encoder"}.items() <= counterfactual.items()
    assert {"match": "exact", "max_explanation_tokens": 300}.items() <= parameters(settings, "evaluations",
                                                                                   "multitask").items()
    assert parameters(settings, "comparison", "")["outliers"] == "iqr"
    assert multitask["labels"]["protocol"] == "published"


def test_the_protocol_of_distilling_step_by_step():
    settings = experiment(protocol="step_by_step", methods={"label_only": {}, "multitask": {}})
    expected = {"layout": "step_by_step", "padding_loss": False, "max_steps": 10000, "questions_per_step": 64,
                "learning_rate": 5e-5, "max_source_tokens": 1024, "max_target_tokens": 256, "alpha": 0.5}
    assert expected.items() <= parameters(settings, "students", "multitask").items()
    assert parameters(settings, "evaluations", "multitask")["max_explanation_tokens"] == 64
    assert "outliers" not in parameters(settings, "comparison", ""), "the paper drops no run"


def test_a_method_may_have_a_protocol_of_its_own_and_the_file_takes_precedence():
    settings = experiment(methods={
        "multitask": {}, "honey": {"as": "multitask", "protocol": "published", "max_steps": 40, "padding_loss": False}},
        training={"learning_rate": 0.001, "epochs": 2.0}, evaluation={"max_explanation_tokens": 8})
    fair, honey = (parameters(settings, "students", name) for name in ("multitask", "honey"))
    assert "layout" not in fair and "protocol" not in fair["labels"]
    assert (honey["layout"], honey["max_steps"], honey["padding_loss"], honey["learning_rate"]) == (
        "published", 40, False, 0.001)
    assert parameters(settings, "evaluations", "honey")["max_explanation_tokens"] == 8
    assert "match" not in parameters(settings, "evaluations", "multitask")


@pytest.mark.parametrize(("changed", "key", "what"), [
    ({"protocol": "honey"}, "protocol", "unknown 'honey'; known are fair, published, step_by_step"),
    ({"protocol": ["published"]}, "protocol", "unknown"),
    ({"methods": {"multitask": {"protocol": 7}}}, "methods.multitask.protocol", "unknown 7; known are fair"),
    ({"protocol": "published", "training": {"epochs": 3.0}}, "methods.label_only.epochs",
     "the protocol published trains 5000 steps, so epochs has no effect; leave it out, or set max_steps, too"),
    ({"protocol": "published", "training": {"tag": "after"}}, "methods.label_only.tag", "have their tags at a fixed"),
    ({"protocol": "published", "training": {"max_steps": 30}}, "methods.label_only.max_steps",
     r"30 is no multiple of dev_evaluations \(20\)"),
    ({"protocol": "published", "methods": {"counterfactual": {"beta": 0.7}}}, "methods.counterfactual.beta",
     "0.7 has no effect while unweighted is true"),
    ({"protocol": "published", "methods": {"counterfactual": {"counterfactual_style": "decoder"}}},
     "methods.counterfactual.counterfactual_style", "have the rationale in the source"),
    ({"protocol": "published", "students": {"s": {"model": "kdutils/mini/teacher", "kind": "causal"}}},
     "methods.label_only.padding_loss", "a causal student pads no targets"),
    ({"protocol": "step_by_step"}, "methods.counterfactual.layout", "step_by_step has no text for the task 'factual'"),
    ({"protocol": "published", "methods": {"untagged": {}}}, "methods.untagged.layout", "for the task 'untagged'"),
])
def test_what_a_protocol_cannot_go_with_is_refused_before_anything_runs(changed, key, what):
    with pytest.raises(StudyErrors, match=f"x.yaml: key '{key}': .*{what}"):
        experiment(**changed)


def test_epochs_may_replace_the_steps_of_a_protocol():
    settings = experiment(protocol="published", training={"epochs": 3.0, "max_steps": 0})
    assert parameters(settings, "students", "multitask")["max_steps"] == 0


def test_every_line_sets_a_known_parameter_to_a_right_value_and_says_its_source():
    for lines in PROTOCOLS.values():
        for line in lines:
            models = {"evaluation": [SETTINGS[EVALUATION]], "comparison": [SETTINGS[COMPARISON]]}.get(
                line.step, [model for model in SETTINGS.values() if issubclass(model, Train)])
            having = [model for model in models if line.parameter in model.own()]
            assert having and line.source
            assert all(model.faults({line.parameter: line.value}) == [] for model in having)
    assert list(TrainCounterfactual(unweighted=True, beta=0.5).conflicts()) == []


def test_a_dry_run_says_every_line_and_what_the_file_sets_in_its_place():
    assert protocol_lines(experiment()) == []
    lines = protocol_lines(experiment(protocol="published", methods={"multitask": {"max_steps": 40}},
                                      evaluation={"match": "answer"}))
    assert lines[0] == "protocol published of multitask:"
    assert "    training: max_steps = 5000 (runs 1 to 5; memory did not change the number of steps); the file sets 40" \
        in lines
    assert any(line.startswith("    evaluation: match = exact (") and line.endswith("; the file sets answer")
               for line in lines)
    assert not any("wrong_answers" in line for line in lines), "no method here has it"


def test_tiny_keeps_the_protocol_and_takes_few_steps():
    small = make_tiny(experiment(protocol="published", methods={
        "multitask": {"max_steps": 40}, "counterfactual": {"max_steps": 40}}))
    for method in ("multitask", "counterfactual"):
        given = parameters(small, "students", method)
        assert (given["layout"], given["max_steps"], given["epochs"]) == ("published", 0, 1.0)
        assert given["padding_loss"]


def test_the_experiment_that_shows_the_protocols_side_by_side_is_right():
    settings = load_experiment("protocol-mini").settings
    protocols = {entry.get("protocol", "fair") for entry in settings["methods"].values()}
    assert protocols == set(PROTOCOLS) and len(settings["students"]) == 1


# The comparison

def cells():
    rows = [(kind, protocol) for protocol in ("fair", "published") for kind in ("label_only", "multitask", "shuffled")]
    return pd.DataFrame([{**dict.fromkeys(CELL, "d"), "method": f"{kind}-{protocol}", "kind": kind,
                          "prompting": "few_shot", "control_of": "multitask" if kind == "shuffled" else "",
                          "protocol": protocol}
                         for kind, protocol in rows])


def test_methods_are_compared_within_a_protocol_and_with_themselves_in_another_one():
    planned = planned_comparisons(cells(), ["explaining", "content"])
    method, found = CELL.index("method"), {}
    for comparison, first, second, _ in planned:
        found.setdefault(comparison, []).append((first[method], second and second[method]))
    assert found["primary"] == [("multitask-fair", "label_only-fair"), ("multitask-published", "label_only-published"),
                                ("multitask-fair", "shuffled-fair"), ("multitask-published", "shuffled-published")]
    assert found["protocol"] == [(f"{kind}-published", f"{kind}-fair")
                                 for kind in ("label_only", "multitask", "shuffled")]
    others = [pair for name in ("label_only", "control", "methods") for pair in found.get(name, [])]
    assert all(first.rpartition("-")[2] == second.rpartition("-")[2] for first, second in others)


def runs_and_predictions():
    accuracies = {"fair": [0.5, 0.52, 0.51, 0.53, 0.5], "published": [0.5, 0.51, 0.52, 0.53, 0.9]}
    runs = pd.DataFrame([{**dict.fromkeys(CELL, "d"), "method": protocol, "kind": "multitask", "name": protocol,
                          "prompting": "-", "teacher": "-", "seed": seed, "state": "done", "accuracy": accuracy}
                         for protocol, of_seeds in accuracies.items() for seed, accuracy in enumerate(of_seeds)])
    runs[["likelihood", "per_token", "exact", "unread", "no_choice", "calibration_error"]] = 0.0
    runs[["exact_match", "f1"]] = float("nan")
    predictions = runs[[*CELL, "kind", "name", "seed"]].assign(
        protocol=runs["method"], id="1", answer="a car", predicted="the car", exact=False, chance=0.3,
        control_of="", correct=runs["method"] == "fair")
    return runs, predictions


def test_the_outlier_rule_stands_beside_the_mean_of_all_runs():
    """Quartiles of 0.5, 0.51, 0.52, 0.53, 0.9 are 0.51 and 0.53: runs above 0.53 + 1.5 * 0.02 = 0.56 are outliers."""
    runs, predictions = runs_and_predictions()
    table = tables.accuracy_table(runs, predictions, "iqr").set_index("method")
    assert table["without_outliers"].to_dict() == pytest.approx({"published": 0.515, "fair": 0.512})
    assert table["n_outliers"].to_dict() == {"published": 1, "fair": 0}
    plain = tables.accuracy_table(runs, predictions).set_index("method")
    assert plain.equals(table[plain.columns]), "no other number changes"


def test_the_table_of_both_protocols_counts_the_same_predictions_in_both_ways():
    runs, predictions = runs_and_predictions()
    inputs = {tuple(cell): (pd.DataFrame([ITEM]), None) for cell in predictions[CELL].drop_duplicates().to_numpy()}
    costs = runs[CELL].drop_duplicates().assign(steps=[30, 5000], epochs=[2.0, 9.0], effective_batch=[8, 48])
    table = tables.protocol_table(tables.accuracy_table(runs, predictions, "iqr"), predictions, inputs, costs)
    columns = ["protocol", "mean", "same_answer", "exact_text", "steps", "batch"]
    assert table[columns].to_numpy().tolist() == [
        ["fair", 1.0, 1.0, 0.0, 30.0, 8.0], ["published", 0.0, 1.0, 0.0, 5000.0, 48.0]]
    assert table["without_outliers"].notna().all()
    fair = predictions.assign(protocol="fair")
    assert tables.protocol_table(tables.accuracy_table(runs, fair), fair, inputs, costs).empty


def test_the_settings_that_differ_are_listed(tmp_path):
    published = {"protocol": "published"}
    for name, labels, steps in (("a", {}, 0), ("b", published, 5000), ("c", published, 40)):
        (tmp_path / name).mkdir()
        write_json(tmp_path / name / "run.json", {"parameters": {"labels": labels, "max_steps": steps, "alpha": 0.5}})
    table = read_settings([str(tmp_path / name) for name in "abc"], ["max_steps", "alpha", "match"])
    assert read_settings([str(tmp_path / "a")], ["max_steps"]).empty
    assert table.to_dict("records") == [{"parameter": "max_steps", "fair": "0", "published": "5000, 40"}]
