"""Experiments are checked before anything runs; every one that ships is right."""

import pytest
import yaml

from kdutils.__main__ import main
from kdutils.errors import StudyError, StudyErrors
from kdutils.experiments.grid import FOLDER, make_jobs
from kdutils.experiments.inputs import files_of
from kdutils.experiments.loading import experiment_names, load_experiment
from kdutils.experiments.planned import MOST_LISTED, job_lines, name_meanings
from kdutils.experiments.schema import ExperimentFile
from kdutils.experiments.steps import NOTEBOOKS, SETTINGS

STUDENT = "kdutils/mini/student"
MINI = yaml.safe_load((FOLDER / "mini.yaml").read_text())


def changed(path, value):
    """Return the text of mini.yaml with the key at `path` (dotted) set to `value`, or removed where it is None."""
    settings = yaml.safe_load((FOLDER / "mini.yaml").read_text())
    *above, last = path.split("/")
    inner = settings
    for key in above:
        inner = inner[key]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return yaml.safe_dump(settings)


def without_people(text):
    """Return the text of an experiment without its study with people, which needs more questions and fewer methods."""
    return text[:text.index("human_study:")] + text[text.index("\nmethods:") + 1:]


BAD = {
    "unknown key": (changed("colour", 1), "key 'colour': unknown"),
    "missing key": (changed("seeds", None), "key 'seeds': missing or empty"),
    "empty grid": (changed("methods", {}), "key 'methods': missing or empty"),
    "wrong type": (changed("seeds", 3), "key 'seeds': 3 is not of type list"),
    "wrong seed": (changed("seeds", [0, "one"]), "key 'seeds'"),
    "seed twice": (changed("seeds", [1, 1]), "key 'seeds': 1 is listed twice"),
    "no seed at a time": (changed("seeds_per_job", 0), "key 'seeds_per_job': 0 is less than 1"),
    "unknown method": (changed("methods/magic", {}), "key 'methods.magic': unknown; known are label_only, "),
    "unknown prompting": (changed("promptings/guess", {}), "key 'promptings.guess': unknown"),
    "unknown parameter": (changed("training/epoch", 3), "has no such parameter; it has"),
    "unknown parameter of a study": (changed("human_study/n_rater", 3), "n_raters, promptings, rater, raters_per"),
    "parameter of one method": (changed("methods/standard/alpha", 0.5), "key 'methods.standard.alpha': 11_train"),
    "wrongly typed parameter": (changed("training/epochs", "ten"), "key 'training.epochs': 'ten' is not of type float"),
    "bool for a number": (changed("training/epochs", True), "key 'training.epochs': True is not of type float"),
    "number for a bool": (changed("students/mini-t5/random_weights", 1), "1 is not of type bool"),
    "parameter of the study": (changed("training/output", "x"), "key 'training.output': the study sets this"),
    "unknown reader": (changed("datasets/typo", {}), "key 'datasets.typo': no reader 'typo'"),
    "unknown split": (changed("datasets/mini/limits", {"tran": 5}), "key 'datasets.mini.limits': unknown split 'tran'"),
    "limit that is none": (changed("datasets/mini/limits", {"train": "all"}), "'all' is not a whole number of"),
    "unknown backend": (changed("teachers/mini-llama/backend", "magic"),
                        "unknown 'magic'; known are hf, openai, published"),
    "transfer to nowhere": (changed("transfer", ["moon"]), "key 'transfer': 'moon' is not among"),
    "promptings that are no list": (changed("teachers/mini-llama/promptings", "few_shot"), "is not of type list"),
    "prompting of another experiment": (changed("methods/standard/promptings", ["contrastive"]),
                                        "key 'methods.standard.promptings': 'contrastive' is not among"),
    "unknown parameter of a teacher's training": (changed("teachers/mini-t5-tuned/finetune/alpha", 0.5),
                                                  "key 'teachers.mini-t5-tuned.finetune.alpha': 10_train_label_only"),
    "parameter of another prompting": (changed("promptings/few_shot/rounds", 2), "02_explain_few_shot has no such"),
    "unknown quantization": (changed("teachers/mini-llama/quantization", "nf5"), "unknown 'nf5'"),
    "share above one": (changed("methods/multitask/alpha", 7.0), "key 'methods.multitask.alpha': 7.0 is more than 1"),
    "path that is not there": (changed("students/mini-t5/model", "./nowhere"),
                               "key 'students.mini-t5.model': ./nowhere: no such file or folder"),
    "file that is not there": (changed("datasets/mini/files", {"train": "nowhere.parquet"}),
                               "key 'datasets.mini.files.train'"),
    "name that leaves the folder": (changed("students/..", {}), "key 'students...': a name may contain only letters"),
    "parameters that are none": (changed("methods/standard", "fast"),
                                 "key 'methods.standard': 'fast' is not of type dict"),
    "rationales of nowhere": (changed("methods/multitask", {"as": "shuffled", "rationales_of": "moon"}),
                              "key 'methods.multitask.rationales_of': 'moon' is not among this experiment's data sets"),
    "rationales of no name": (changed("methods/multitask", {"as": "shuffled", "rationales_of": 3}),
                              "key 'methods.multitask.rationales_of': 3 is not of type str"),
    "rationales of the only data set": (changed("methods/multitask", {"as": "shuffled", "rationales_of": "mini"}),
                                        "'mini' is the only data set; there is no other one"),
    "rationales for a method": (changed("methods/multitask/rationales_of", "mini"),
                                "key 'methods.multitask.rationales_of': the control 'shuffled' alone takes"),
    "a path of the study": (changed("methods/multitask", {"as": "shuffled", "other_explanations": "x"}),
                            "key 'methods.multitask.other_explanations': the study sets this"),
    "reader without a model": (changed("evaluation", {"simulator": {"epochs": 2.0}}),
                               "key 'evaluation.simulator.model': empty; give a folder or Hub id"),
    "reader of no kind": (changed("evaluation", {"simulator": {"model": STUDENT, "depth": 2}}),
                          "key 'evaluation.simulator.depth': unknown; known are model, token"),
    "reader of a wrong type": (changed("evaluation", {"simulator": {"model": STUDENT, "epochs": "two"}}),
                               "key 'evaluation.simulator.epochs': 'two' is not of type float"),
    "reader that is not there": (changed("evaluation", {"simulator": {"model": "./nowhere"}}),
                                 "key 'evaluation.simulator.model': ./nowhere: no such file or folder"),
    "method of another experiment": (changed("students/mini-t5/methods", ["magic"]),
                                     "key 'students.mini-t5.methods': 'magic' is not among this experiment's methods"),
    "method without a student": (changed("students/mini-t5/methods", ["label_only"]),
                                 "key 'methods.combined': no student learns by it"),
    "methods that are none": (changed("students/mini-t5/methods", []), "key 'students.mini-t5.methods': empty; leave"),
    "methods that are no names": (changed("students/mini-t5/methods", [["a"]]), "['a']' is not among"),
    "a classifier that is to write": (changed("students/mini-t5/kind", "classifier"), "a classifier cannot write"),
    "no word to look for": (changed("evaluation/attributed_words", 0), "0 is less than 1"),
    "reader that is not trained": (changed("evaluation", {"simulator": {"model": STUDENT, "epochs": -1.0}}),
                                   "key 'evaluation.simulator.epochs': -1.0 must be above 0"),
    "reader of an unknown kind": (changed("evaluation", {"simulator": {"model": STUDENT, "kind": "foo"}}),
                                  "key 'evaluation.simulator.kind': unknown 'foo'"),
    "seed that NumPy does not take": (changed("seeds", [2**32]), "key 'seeds': 4294967296 is more than 2,147,483,647"),
    "weight above one": (changed("methods/combined/beta", 1.5), "key 'methods.combined.beta': 1.5 is more than 1"),
    "weight below zero": (changed("methods/combined/gamma", -1), "key 'methods.combined.gamma': -1 is less than 0"),
    "weight that is no number": (changed("methods/untagged/beta", float("nan")), "nan is not a finite number"),
    "unknown style": (changed("methods/combined/counterfactual_style", "zzz"),
                      "unknown 'zzz'; known are encoder, deco"),
    "unknown wrong answers": (changed("methods/combined/wrong_answers", "zzz"), "unknown 'zzz'; known are all, first"),
    "encoder that is not there": (changed("evaluation/encoder", "./nowhere"),
                                  "key 'evaluation.encoder': ./nowhere: no s"),
    "encoder that is no model": (changed("evaluation/encoder", "kdutils/mini"),
                                 "no config.json; this is not a model fo"),
    "encoder of no name": (changed("evaluation/encoder", "a b"), "a b: neither a folder nor a Hub id"),
    "model that is a file": (changed("students/mini-t5/model", "kdutils/hub.py"), "a file, but a folder is wanted"),
    "no tokenizer there": (changed("students/mini-t5/tokenizer", "kdutils/mini"), "no tokenizer in this folder"),
    "home of nobody": (changed("students/mini-t5/model", "~nosuchuser/x"), "~nosuchuser/x: no such file or folder"),
    "path that is too long": (changed("students/mini-t5/model", "./" + "x" * 300), "too long for a path"),
    "ratings that are not there": (changed("human_ratings", {"ratings": ["back/r.csv"]}),
                                   "key 'human_ratings.ratings': back/r.csv: no such file or folder"),
    "unknown answered": (changed("human_study/answered", "zzz"), "unknown 'zzz'; known are all_right, any_right"),
    "study outside": (changed("human_study/study", "../../x"), "key 'human_study.study': '../../x' is not a name"),
    "study without a name": (changed("human_study/study", ""), "'' is not a name"),
    "study of a long name": (changed("human_study/study", "x" * 65), "is not a name"),
    "control characters": (changed("human_study/consent", "a\x1b[2Jb"), "'a\\u001b[2Jb' holds control characters"),
    "unknown question to people": (changed("human_study/ask", ["iq"]),
                                   "key 'human_study.ask': unknown 'iq'; known are"),
    "nobody": (changed("human_study/n_raters", 0), "key 'human_study.n_raters': 0 is less than 1"),
    "people that make no plan": (changed("human_study/raters_per_text", 3),
                                "key 'human_study': 8 raters × 8 items are not 3"),
    "more questions than there are": (changed("human_study/n_raters", 1000),
                                     "2000 questions are needed and 200 are available"),
    "method that writes nothing": (changed("human_study", {"methods": ["label_only"]}),
                                   "'label_only' writes no explanations"),
    "nothing to show": (changed("human_study/methods", ["token_rationale"]), "there is nothing to show"),
    "rater that is no mapping": (changed("human_study/rater", "a/model"), "'human_study.rater': 'a/model' is not of"),
    "unknown parameter of a rater": (changed("human_study/rater", {"top_k": 1}), "'human_study.rater.top_k': 25_ask"),
    "rater's texts": (changed("human_study/rater", {"texts": "x"}), "'human_study.rater.texts': the study sets"),
    "rater that is not there": (changed("human_study/rater/model", "./no"), "'human_study.rater.model': ./no: no su"),
    "rater with an address alone": (changed("human_study/rater/base_url", "http://localhost:9/v1"),
                                    "key 'human_study.rater.base_url': only a server has a base_url"),
    "rater of a simulation": (changed("human_study/task", "simulation"), "'human_study.rater': a model can rate"),
    "shares that are none": (changed("human_study/expected", [0.5, 0.6]), "shares that add up to 1"),
    "effect of no method": (changed("human_ratings", {"simulated_effects": {"zzz": 1.0}}), "'zzz' is not shown to peo"),
    "no level": (changed("human_ratings", {"level": 0.0}),
                 "key 'human_ratings.level': 0.0 must be above 0"),
    "splits that are none": (changed("promptings/counterfactual/splits", ["zzz"]),
                             "unknown 'zzz'; known are train, dev"),
    "no split": (changed("promptings/counterfactual/splits", []),
                 "key 'promptings.counterfactual.splits': [] is empty"),
    "nothing to train on": (changed("promptings/few_shot/splits", ["test"]),
                            "without the split train in `splits` the m"),
    "a limit of true": (changed("datasets/mini/limits/test", True), "True is not a whole number of questions"),
    "a limit of zero": (changed("datasets/mini/limits/test", 0), "key 'datasets.mini.limits.test': 0 is less than 1"),
    "limit of all splits": (changed("datasets/mini/limits", {"all": 5}), "unknown split 'all'"),
    "one question to shuffle": (changed("datasets/mini/limits/dev", 1), "rationale of another question; set 2 or more"),
    "no epoch": (changed("training/epochs", 0), "key 'training.epochs': 0 must be above 0"),
    "epochs without an end": (changed("training/epochs", float("inf")), "inf is not a finite number"),
    "no question in a step": (changed("training/questions_per_step", 0), "0 is less than 1"),
    "no learning": (changed("training/learning_rate", 0.0), "key 'training.learning_rate': 0.0 must be above 0"),
    "warmup before the start": (changed("training/warmup_steps", -1), "-1 is less than 0"),
    "no tokens at a time": (changed("training/token_budget", 0), "0 is less than 1"),
    "texts too short": (changed("training/max_target_tokens", 7), "7 is less than 8"),
    "no evaluation": (changed("teachers/mini-t5-tuned/finetune/dev_evaluations", 0), "0 is less than 1"),
    "unknown measure": (changed("comparison", {"measure": "lass"}),
                        "key 'comparison.measure': 'lass' is not a measure"),
    "unknown tested measure": (changed("comparison", {"tested": ["las", "lass"]}), "'lass' is not a measure"),
    "no words": (changed("promptings/tokens/k", 0), "key 'promptings.tokens.k': 0 is less than 1"),
    "compared with a number": (changed("promptings/tokens/compare", [3]),
                               "key 'promptings.tokens.compare': unknown 3; known are saliency, inp"),
    "compared twice": (changed("promptings/tokens/compare", ["random", "random"]), "'random' is listed twice"),
    "below zero degrees": (changed("teachers/mini-llama/temperature", -0.1), "-0.1 is less than 0"),
    "no share to draw": (changed("teachers/mini-llama/top_p", 1.5),
                         "key 'teachers.mini-llama.top_p': 1.5 is more than 1"),
    "no real level": (changed("human_ratings", {"level": 1.0}), "key 'human_ratings.level': 1.0 must be below 1"),
    "too fast": (changed("training/learning_rate", 2), "key 'training.learning_rate': 2 is more than 1"),
    "adapters below zero": (changed("students/mini-t5/lora", {"dropout": -0.5}), "lora.dropout': -0.5 is less than 0"),
    "nothing to draw from": (changed("teachers/mini-llama/top_p", 0.0),
                             "key 'teachers.mini-llama.top_p': 0.0 must be above 0"),
    "no round": (changed("promptings/critique_revision/rounds", 0),
                 "key 'promptings.critique_revision.rounds': 0 is les"),
    "an empty stop": (changed("teachers/mini-llama/stop", [""]), "key 'teachers.mini-llama.stop': '' is empty"),
    "adapters of no kind": (changed("students/mini-t5/lora", {"depth": 2}),
                            "unknown key 'depth'; known are rank, alpha"),
    "adapters of no size": (changed("students/mini-t5/lora", {"rank": 0}),
                            "key 'students.mini-t5.lora.rank': 0 is less"),
    "adapters that drop all": (changed("students/mini-t5/lora", {"dropout": 1.0}),
                               "key 'students.mini-t5.lora.dropout': 1.0 must be below 1"),
    "shape below zero": (changed("students/mini-t5/config", {"num_layers": -2}),
                         "config.num_layers': -2 is not a whole"),
    "shape of words": (changed("students/mini-t5/config", {"feed_forward_proj": 3}), "3 is not of type str"),
    "student without a model": (changed("students/mini-t5/model", ""),
                                "key 'students.mini-t5.model': empty; give a fo"),
    "reader without an epoch": (changed("evaluation", {"simulator": {"model": STUDENT, "epochs": 0.0}}),
                                "key 'evaluation.simulator.epochs': 0.0 must be above 0"),
    "reader with odd adapters": (changed("evaluation", {"simulator": {"model": STUDENT, "lora": {"x": 1}}}),
                                 "key 'evaluation.simulator.lora': unknown key 'x'"),
    "quantised server": (changed("teachers/mini-llama", {
        "backend": "openai", "model": "x", "quantization": "nf4", "promptings": ["few_shot", "counterfactual",
                                                                                  "critique_revision"]}),
        "a server decides on quantization"),
    "server of a local model": (changed("teachers/mini-llama/base_url", "http://localhost:1/v1"),
                                "set backend: openai"),
    "revision of a folder": (changed("teachers/mini-llama/revision", "main"), "revisions are for Hub ids"),
    "published by nobody": (changed("teachers/mini-llama/backend", "published"), "dataset 'mini' is unknown"),
    "no prompts": (changed("datasets", {"own": {"reader": "table", "folder": "notebooks", "files": {
        "train": "Snakefile"}}}),
                   "no prompt of this name for 'own'"),
    "table without files": (changed("datasets", {"own": {"reader": "table"}}), "key 'datasets.own.files': missing"),
    "transfer twice": (changed("transfer", ["mini", "mini"]), "key 'transfer': 'mini' is listed twice"),
    "transfer to a list": (changed("transfer", [["mini"]]), "key 'transfer': '['mini']' is not among"),
    "method twice": (changed("students/mini-t5/methods", ["standard", "standard"]), "'standard' is listed twice"),
    "names alike": (changed("students/Mini-T5", {}), "differs from 'Mini-T5' in capital letters alone"),
    "name of a folder that no disk has": (changed("students/" + "x" * 65, {}), "at most 64 characters"),
    "name with a dot at its end": (changed("students/a.", {}), "ends with no '.'"),
    "seeds of a long name": (changed("seeds", list(range(1000, 1120))).replace("seeds_per_job: 3",
                                                                              "seeds_per_job: 120"),
                             "key 'seeds_per_job': the seeds of one job name its folder"),
    "too many runs": (changed("seeds", list(range(9000))).replace("seeds_per_job: 3", "seeds_per_job: 1"),
                      "at most 50,000"),
    "yes for true": ("random_weights: yes\n", "key 'random_weights': unknown"),
    "no mapping": ("- 1\n- 2\n", "an experiment is a mapping"),
    "no YAML": ("a: [1, 2\n", "not readable YAML"),
    "key twice": ("about: a\nabout: b\n", "line 2: duplicate key 'about'"),
    "code": ("about: !!python/object/apply:os.system ['true']\n", "not readable YAML"),
    "not text": (b"\xff\xfe\x00", "not readable YAML"),
    "UTF-16": ("about: x".encode("utf-16"), "line 1: it is not UTF-8; save the file as UTF-8"),
    "contains itself": ("a: &a [*a]\n", "line 1: *a names nothing that ends before it"),
    "deep": ("a: " + "[" * 3000, "line 1: more than 20 mappings or lists inside each other"),
    "deep and whole": ("a: " + "[" * 3000 + "]" * 3000, "line 1: more than 20 mappings or lists inside each other"),
    "many laughs": ("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 10)}]\n" for i in range(9)), "more than 20,000 values"),
    "large": ("about: x\n" * 200_000, "it has more than 200,000 bytes"),
    "bytes": ("about: !!binary aGk=\n", "line 1: the tag tag:yaml.org,2002:binary is not allowed"),
    "key that is a list": ("? [a]\n: 1\n", "line 1: a key must be a plain text"),
    "template": ("about: {{ x }}\n", "line 1: a key must be a plain text; quote a text that begins with {"),
    "tab": ("about:\n\tx: 1\n", "line 2: found character '\\t' that cannot start any token"),
    "NUL": ("about: a\x00b\n", "character 9 is the control character #x0000"),
    "no character": ('about: "\\U00ffffff"\n', "an escape in it is no character"),
    "half a character": ('about: "\\ud83d"\n', "line 1: \\ud83d holds half a character"),
    "two documents": ("about: a\n---\nabout: b\n", "line 2: a second document begins"),
    "number of 5,000 digits": (f"seeds: [{'9' * 5000}]\n", "has more than 40 characters"),
    "key of control characters": ('"a\\0\\e[2J": 1\n', "key 'a\\u0000\\u001b[2J': unknown"),
    "key of 100,000 characters": (f"{'x' * 900}: &a 1\n? {'y' * 100_000}\n: 1\n", "…': unknown; known are about"),
    "empty file": ("", "an experiment is a mapping"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_experiment_is_a_line_per_fault_exit_code_2_and_nothing_written(name, tmp_path, own_outputs, capsys):
    text, says = BAD[name]
    path = tmp_path / "bad.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(StudyError):  # else the next lines would run it
        load_experiment(path)
    assert main(["run", str(path)]) == 2
    lines = capsys.readouterr().err.strip().split("\n")
    assert any(says in line for line in lines)
    for line in lines if len(lines) <= 20 else lines[:20]:
        assert line.startswith(f"error: {path}: ") and len(line.replace(str(path), "")) < 700 and line.isprintable()
    assert len(lines) <= 21 and not own_outputs.exists()


@pytest.mark.parametrize(("changes", "says"), [
    ({"methods": {"label_only": {}, "one": {"as": "multitsk", "alfa": 0.2, "alpha": 1.8, "epochs": 2},
                  "two": {"as": "multitask", "alpha": 1.8}, "magic": {}}, "training": {"epoch": 3}},
     ["methods.one.as': unknown 'multitsk'; known", "methods.magic': unknown; known", "training.epoch': 10_train",
      "methods.one.alfa': none of label_only, ", "methods.one.alpha': 1.8 is more than 1",
      "methods.two.alpha': 1.8 is more than 1"]),
    ({"promptings": {"few": {"as": ["few_shot"], "splits": ["all"]}, "guess": {"k": 0}, "tokens": {"k": 0}},
      "teachers": {"t": {"promptings": ["guess", "tokens"], "modell": "x"}}},
     ["promptings.few.as': ['few_shot'] is not of type str", "promptings.guess': unknown; known",
      "promptings.few.splits': unknown 'all'", "promptings.guess.k': 0 is less than 1",
      "promptings.tokens.k': 0 is less than 1", "teachers.t.modell': 05_explain_tokens has no"]),
    ({"colour": 1, "seeds": "0", "methods": {"standard": "fast", "multitask": {"alpha": 7}},
      "datasets": {"typo": {}, "mini": {"limits": {"tran": 5}, "files": {"train": "nowhere.csv"}}, "s": {
          "prompts": 3}}},
     ["colour': unknown", "seeds': '0' is not of type list", "methods.standard': 'fast' is not",
      "methods.multitask.alpha': 7 is more than 1", "datasets.typo': no reader 'typo'",
      "datasets.mini.limits': unknown split 'tran'", "datasets.mini.files.train': ", "datasets.s.prompts': 3 is not",
      "datasets.s': no reader"]),
    ({"methods": 3, "datasets": [], "transfer": ["mini"], "students": {
        "s": {"methods": ["standard"], "model": "./no", "alpha": 7, "colour": 1}},
      "evaluation": {"attributed_words": 0}, "teachers": {"t": {"finetune": 5, "temperature": -1, "top_p": None}}},
     ["methods': 3 is not of type dict", "students.s.alpha': 7 is more than 1", "students.s.colour': none of label_",
       "datasets': [] is not of type dict", "teachers.t.finetune': 5 is not",
      "evaluation.attributed_words': 0 is less", "teachers.t.temperature': -1 is less than 0",
      "teachers.t.top_p': it is empty"])])
def test_all_faults_that_need_no_grid_are_told_together_and_no_consequences(changes, says, tmp_path):
    path = tmp_path / "bad.yaml"
    small = {key: value for key, value in MINI.items() if key != "human_study"}
    path.write_text(yaml.safe_dump({**small, "teachers": {"t": {"model": STUDENT}}, "promptings": {"few_shot": {}},
                                    "methods": {"standard": {}}, **changes}))
    with pytest.raises(StudyErrors) as refused:
        load_experiment(path)
    assert len(refused.value.lines) == len(says), refused.value.lines
    for one in says:
        assert sum(f"key '{one}" in line for line in refused.value.lines) == 1, (one, refused.value.lines)


@pytest.mark.parametrize("change", [{"epochs": 2.0}, {"questions_per_step": 16}, {"max_steps": 20}])
def test_methods_of_a_student_that_train_on_different_amounts_are_refused_before_anything_runs(tmp_path, change):
    (key, value), = change.items()
    path = tmp_path / "uneven.yaml"
    path.write_text(changed(f"methods/multitask/{key}", value))
    with pytest.raises(StudyErrors, match=f"methods.multitask.{key}': {value:g}, and .* train on as much"):
        load_experiment(path)
    whole = yaml.safe_load(changed(f"students/mini-t5/{key}", value))
    path.write_text(yaml.safe_dump(whole))
    load_experiment(path)
    whole["methods"]["published"] = {"as": "multitask", "protocol": "published", "max_steps": 10}  # others may
    path.write_text(yaml.safe_dump(whole))
    load_experiment(path)


def test_people_see_the_texts_of_students_on_their_own_data_set_alone(tmp_path):
    settings = yaml.safe_load((FOLDER / "mini.yaml").read_text())
    settings["datasets"]["second"] = {**settings["datasets"]["mini"], "reader": "mini", "seed": 5}
    told = "outputs/moved/explanations/mini/mini-llama/few_shot/explanations.parquet"
    settings |= {"transfer": ["mini", "second"], "human_study": {**settings["human_study"], "explanations": told}}
    path = tmp_path / "moved.yaml"
    path.write_text(yaml.safe_dump(settings))
    job = next(job for job in load_experiment(path).jobs if job.folder == "human_study")
    shown = [folder.removeprefix("outputs/moved/") for folder in job.parameters["evaluations"]]
    assert {folder.split("/")[0] for folder in shown} == {"evaluations"} and set(shown) < set(job.needs)
    assert {folder.split("/")[1] for folder in shown} == {"mini", "second"}
    assert "explanations/mini/mini-llama/few_shot" in job.needs, "a study waits for the texts that it shows"
    settings["human_study"]["explanations"] = str(tmp_path / "none.parquet")
    path.write_text(yaml.safe_dump(settings))
    with pytest.raises(StudyErrors, match="human_study.explanations': .*none.parquet: no such file"):
        load_experiment(path)


def test_a_rater_rates_the_texts_of_the_experiment_and_is_compared_with_what_people_sent_back(tmp_path):
    path, chat = tmp_path / "rated.yaml", tmp_path / "chat.jinja"
    (tmp_path / "back").mkdir()
    chat.write_text("x")
    served = {"backend": "openai", "model": "a/b:c", "base_url": "http://x.org/v1", "chat": True, "thinking": "on",
              "request": {"top_k": 1}, "chat_template": str(chat)}
    path.write_text(changed("human_study/rater", served))
    given = load_experiment(path, ratings=[str(tmp_path / "back")]).jobs
    job, = [job for job in given if job.notebook == "25_ask_a_model_to_rate"]
    key = "outputs/rated/human_study/key"
    assert (job.folder, job.needs) == ("model_ratings", ("human_study",)) and job.parameters == {
        **served, "texts": f"{key}/texts.parquet", "plan": f"{key}/plan.parquet", "ratings": [str(tmp_path / "back")],
        "output": "outputs/rated/model_ratings"}
    assert chat in files_of(job)
    settings = yaml.safe_load(path.read_text())
    analysis = {"failed_checks_allowed": 2, "keep_unfinished": True, "level": 0.1}
    path.write_text(yaml.safe_dump({**settings, "human_ratings": analysis}))
    jobs = {one.folder: one.parameters for one in load_experiment(path).jobs}
    for name in ("failed_checks_allowed", "keep_unfinished"):
        assert jobs["model_ratings"][name] == jobs["human_ratings"][name] == analysis[name], "of the same people"
    assert "level" not in jobs["model_ratings"]
    path.write_text(yaml.safe_dump(settings))
    small, = [job for job in load_experiment(path, tiny=True).jobs if job.folder == "model_ratings"]
    assert (small.parameters["backend"], small.parameters["chat"]) == ("hf", True) and not {
        "base_url", "request", "chat_template"} & set(small.parameters) and "max_new_tokens" not in small.parameters
    path.write_text(changed("human_study/rater", None))
    assert not [job for job in load_experiment(path).jobs if job.folder == "model_ratings"]


@pytest.mark.parametrize("name", ["/models/Llama-3.1-8B-Instruct", "accounts/x/models/y", "./model", "~x/y", "a/b:c@d"])
def test_the_name_of_a_served_model_is_not_taken_for_a_path(name, tmp_path):
    path = tmp_path / "served.yaml"
    served = {"backend": "openai", "model": name, "promptings": ["few_shot", "critique_revision", "counterfactual"]}
    path.write_text(changed("teachers/mini-llama", served))
    asked = [job.parameters["model"] for job in load_experiment(path).jobs
             if job.kind == "explanations" and job.labels["teacher"] == "mini-llama"]
    assert asked == [name] * 3
    path.write_text(changed("teachers/mini-llama", {**served, "backend": "hf", "model": "./nowhere/at/all"}))
    with pytest.raises(StudyError, match="no such file or folder"):
        load_experiment(path)


@pytest.mark.parametrize(("written", "means"), [
    ("5e-5", 5e-5), ("1E-3", 1e-3), (".5e-1", 0.05), ("1e-03", 0.001), ("0.00005", 0.00005), ("1.", 1.0), ("1", 1)])
def test_a_number_is_read_as_the_number_that_it_is(written, means, tmp_path):
    path = tmp_path / "rate.yaml"
    path.write_text(changed("training/learning_rate", "RATE").replace("RATE", written))
    assert load_experiment(path).settings["training"]["learning_rate"] == means
    path.write_text(changed("training/learning_rate", "RATE").replace("RATE", f"'{written}'"))
    with pytest.raises(StudyError, match=f"key 'training.learning_rate': '{written}' is not of type float"):
        load_experiment(path)


def test_names_stay_as_they_are_written(tmp_path):
    names = ["no", "on", "2.5e-4", "1_0", "1e3", "true", "null", "007", "2026-11-25", "1.0"]
    path = tmp_path / "names.yaml"
    path.write_text(without_people(changed("students", "STUDENTS").replace("STUDENTS", "\n" + "".join(
        f"  {name}: {{model: kdutils/mini/student}}\n" for name in names))))
    found = [job.labels["student"] for job in load_experiment(path).jobs if job.kind == "students"]
    assert list(dict.fromkeys(found)) == names


def test_lists_of_names_are_names_and_other_lists_hold_numbers(tmp_path):
    text = without_people(changed("methods", {"label_only": {}})).replace(
        "  label_only: {}", "  label_only: {}\n  2.5e-4: {as: standard}")
    path = tmp_path / "lists.yaml"
    students = "students:\n  mini-t5:\n    model: kdutils/mini/student\n"
    path.write_text(text.replace(students, f"{students}    methods: [2.5e-4, label_only]\n"))
    experiment = load_experiment(path)
    assert experiment.settings["students"]["mini-t5"]["methods"] == ["2.5e-4", "label_only"]
    assert experiment.settings["seeds"] == [0, 1, 2]


def test_entries_that_are_shared_by_an_alias_or_merged_are_read(tmp_path):
    path = tmp_path / "shared.yaml"
    path.write_bytes(("\ufeff" + changed("students", "STUDENTS").replace("STUDENTS", (
        "\n  mini-t5: &usual {model: kdutils/mini/student, epochs: 2}\n  other:\n    <<: *usual\n    epochs: 3"))
        ).replace("\n", "\r\n").encode())
    students = load_experiment(path).settings["students"]
    assert students["other"] == {"model": "kdutils/mini/student", "epochs": 3} and students["mini-t5"]["epochs"] == 2


def test_the_choices_are_those_of_the_code_that_reads_the_values():
    from kdutils.comparison.runs_table import read_measures
    from kdutils.comparison.settings import CompareMethods
    from kdutils.student.models import ADAPTERS
    from kdutils.student.settings import Adapters, TrainLabelOnly
    from kdutils.student.training import STUDENT_SETTINGS, TRAINING_SETTINGS

    assert Adapters().model_dump() == ADAPTERS
    assert set(STUDENT_SETTINGS + TRAINING_SETTINGS) == set(TrainLabelOnly.own()), "what a training is given"
    found = set(read_measures(["kdutils/mini/example/evaluations"])["measure"])
    found -= {"groups", "left out", "simulated"}  # counts beside them
    assert len(found) > 10 and all(CompareMethods.faults({"measure": name}) == [] for name in found)


def test_listing_goes_on_past_broken_experiments(tmp_path, monkeypatch, capsys):
    for name, text in {"a-deep": "a: " + "[" * 3000, "b-latin": b"about: \xe9", "c-alias": "a: &a [*a]", "d-empty": "",
                       "e\x1b[2J": "x", "f-lines": (FOLDER / "mini.yaml").read_text().replace(
                           "needs: nothing", "needs: |\n  nothing\n  at all\n#")}.items():
        (tmp_path / f"{name}.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    (tmp_path / "g-folder.yaml").mkdir()
    (tmp_path / "h-nowhere.yaml").symlink_to(tmp_path / "nowhere")
    (tmp_path / "mini.yaml").write_text((FOLDER / "mini.yaml").read_text())
    monkeypatch.setattr("kdutils.experiments.loading.FOLDER", tmp_path)
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.strip().split("\n")
    assert [line.partition(":")[0] for line in lines] == [
        "a-deep", "b-latin", "c-alias", "d-empty", "e\\u001b[2J", "f-lines", "    needs", "g-folder",
        "h-nowhere", "mini",
        "    needs"]
    assert all(line.isprintable() and len(line.replace(str(tmp_path), "")) < 700 for line in lines)


@pytest.mark.parametrize("name", ["x" * 300, "x" * 5000 + ".yaml", "a\x00b",
                                  "a/" + "b" * 300 + ".yaml", "~nosuchuser/x.yaml"])
def test_an_experiment_of_an_impossible_name_is_one_line(name, capsys):
    assert main(["run", name]) == 2
    error = capsys.readouterr().err.strip()
    assert "no such experiment" in error and error.isprintable() and len(error) < 700


def test_an_unknown_experiment_is_named_with_those_there(capsys):
    assert main(["run", "nothing"]) == 2
    assert "no such experiment; there are: mini" in capsys.readouterr().err


@pytest.mark.parametrize("name", experiment_names())
def test_every_experiment_is_right_and_its_graph_holds(name, capsys, monkeypatch, own_outputs):
    monkeypatch.delenv("KDUTILS_DATA", raising=False)
    experiment = load_experiment(name)
    if "creak" in experiment.settings["datasets"]:  # it is on no hub: its files have to be there
        assert main(["run", name, "--dry-run"]) == 2
        assert "creak/train.json: no such file" in (told := capsys.readouterr().err) and "KDUTILS_DATA" in told
        monkeypatch.setattr("kdutils.experiments.inputs.check_data", lambda experiment: [])
    assert main(["run", name, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert f"{len(experiment.jobs)} jobs" in out and ("comparison" in out or "to do  reports: " in out)


def test_many_jobs_are_counted_per_kind_and_few_are_listed():
    jobs = load_experiment("published-cqa").jobs
    todo = [job for job in jobs if job.kind not in ("data", "explanations")]
    lines = job_lines(jobs, todo)
    assert len(todo) > MOST_LISTED and [line[:7] for line in lines].count("done   ") == len(jobs) - len(todo)
    students = sum(job.kind == "students" for job in jobs)
    assert lines[len(jobs) - len(todo):] == [
        f"to do  trainings of students: {students}", f"to do  evaluations of students: {students}", "to do  reports: 3"]
    assert lines[0] == f"done   01_look_at_the_data          {jobs[0].folder}"
    few = jobs[:MOST_LISTED]
    assert job_lines(few, few) == [f"to do  {job.notebook:<28} {job.folder}" for job in few]
    assert job_lines(jobs[:MOST_LISTED + 1], []) != job_lines(jobs[:MOST_LISTED + 1], few), "counted, listed"


def test_what_follows_two_dashes_goes_to_snakemake(capsys):
    assert main(["run", "mini", "--dry-run", "--", "--until", "execute"]) == 0
    assert main(["run", "mini", "--dry-run", "--", "--no-such-option"]) == 1
    assert "no-such-option" in capsys.readouterr().err


def test_without_limits_all_questions_are_read():
    every = {**MINI, "datasets": {"mini": {}, "few": {"reader": "mini", "limits": {"test": 5}}}}
    found = [job.parameters["limits"] for job in make_jobs("mini", every) if job.kind == "data"]
    assert found == [{}, {"test": 5}]


@pytest.mark.parametrize("key", [key for key, field in ExperimentFile.model_fields.items() if not field.is_required()])
def test_a_key_that_is_left_out_has_its_default(key):
    settings = {name: value for name, value in MINI.items() if name != key}
    default = ExperimentFile.model_fields[key].default
    given = settings if default == {} else {**settings, key: default}
    assert list(make_jobs("mini", given)) == list(make_jobs("mini", settings))
    if key == "seeds_per_job":
        assert all(job.parameters["seeds"] == MINI["seeds"] for job in make_jobs("mini", settings)
                   if job.kind == "students")


def test_the_grid_is_complete_and_in_order():
    settings = {**MINI, "seeds": [0, 1, 2, 3, 4], "seeds_per_job": 2}
    jobs = list(make_jobs("mini", settings))
    seen = set()
    for job in jobs:
        assert set(job.needs) <= seen
        assert set(job.parameters) <= set(SETTINGS[job.notebook].types())
        seen.add(job.folder)
    trained = [(job.labels["method"], job.labels["prompting"], seed) for job in jobs if job.kind == "students"
               for seed in job.parameters["seeds"]]
    cells = {(method, prompting) for method in MINI["methods"]
             for prompting in MINI["methods"][method].get("promptings", ["-"])}
    assert sorted(trained) == sorted((*cell, seed) for cell in cells for seed in range(5))
    assert jobs[-1].notebook == "31_compare_methods" and len(jobs[-1].parameters["evaluations"]) == 3 * len(cells)
    explained = [job.folder for job in jobs if job.kind == "explanations"]
    report = next(job for job in jobs if job.kind == "report")
    assert [path.removeprefix("outputs/mini/") for path in report.parameters["explained"]] == explained
    assert len(explained) == len(MINI["promptings"]), "each by the teachers that are asked for it, and by no other"


def test_a_teacher_that_the_study_fine_tunes_is_trained_first_and_then_attributed():
    jobs = {job.folder: job for job in load_experiment("mini").jobs}
    tokens = jobs["explanations/mini/mini-t5-tuned/tokens"]
    assert "teachers/mini/mini-t5-tuned" in tokens.needs
    assert tokens.parameters["model"] == "outputs/mini/teachers/mini/mini-t5-tuned/seed-0"
    assert jobs["teachers/mini/mini-t5-tuned"].notebook == "10_train_label_only"


@pytest.mark.parametrize(("promptings", "method", "says"), [
    ({"counterfactual": {}}, "multitask", "'methods.multitask': no teacher has explanations for it"),
    ({"few_shot": {}}, "combined", "'methods.combined': it needs explanations of wrong answers"),
    ({"few_shot": {}, "soft-1": {"as": "soft_labels"}, "soft-4": {"as": "soft_labels", "choice_temperature": 4}},
     "soft_multitask", r"it needs soft labels, and 'mini-llama' gives several \(soft-1, soft-4\)"),
])
def test_a_method_without_what_it_learns_from_is_refused(promptings, method, says, tmp_path):
    path = tmp_path / "wrong.yaml"
    small = {key: value for key, value in MINI.items() if key != "human_study"}
    path.write_text(yaml.safe_dump({**small, "teachers": {"mini-llama": {}}, "promptings": promptings,
                                    "methods": {method: {}}}))
    with pytest.raises(StudyError, match=says):
        load_experiment(path)


def test_methods_get_the_explanations_that_they_read():
    jobs = {job.folder: job for job in load_experiment("mini").jobs}
    plain = jobs["students/mini/label_only/mini-t5/seeds-0-1-2"]
    assert "explanations" not in plain.parameters and plain.labels["prompting"] == "-"
    wrong = "outputs/mini/explanations/mini/mini-llama/counterfactual/explanations.parquet"
    for folder, job in jobs.items():
        if job.kind == "students" and job.labels["method"] in ("counterfactual", "combined", "untagged"):
            assert job.parameters["counterfactuals"] == wrong and job.parameters["explanations"] != wrong, folder
            assert job.parameters["explanations"].endswith(f"{job.labels['prompting']}/explanations.parquet")
        elif job.kind == "students":
            assert "counterfactuals" not in job.parameters, folder


def test_a_control_gets_the_rationales_of_another_data_set_and_has_no_cell_there():
    jobs = {job.folder: job for job in load_experiment("published-all").jobs}
    below, root = "few_shot/shuffled-esnli/t5-v1.1-base/seeds-0", "outputs/published-all"
    train = jobs[f"students/cqa/llama-2-13b/{below}"]
    assert train.notebook == "16_train_shuffled" and "rationales_of" not in train.parameters
    assert train.parameters["explanations"] == f"{root}/explanations/cqa/llama-2-13b/few_shot/explanations.parquet"
    other = "explanations/esnli/llama-2-13b/few_shot"
    assert train.parameters["other_explanations"] == f"{root}/{other}/explanations.parquet"
    assert train.parameters["other_questions"] == f"{root}/data/esnli/questions.parquet"
    assert {other, "data/esnli"} <= set(train.needs)
    assert f"evaluations/strategyqa/llama-2-13b/{below}" in jobs
    assert f"students/esnli/llama-2-13b/{below}" not in jobs, "there the plain control is the one"
    plain = jobs["students/esnli/llama-2-13b/few_shot/shuffled/t5-v1.1-base/seeds-0"]
    assert "other_explanations" not in plain.parameters and "data/cqa" not in plain.needs
    seen = set()
    for folder, job in jobs.items():
        assert set(job.needs) <= seen and set(job.parameters) <= set(SETTINGS[job.notebook].types()), folder
        seen.add(folder)


def test_a_student_learns_by_the_methods_that_it_names_alone():
    students = {**MINI["students"], "chooser": {"model": "kdutils/mini/student", "methods": ["label_only"]}}
    trained = [job for job in make_jobs("mini", {**MINI, "students": students}) if job.kind == "students"]
    assert [job.labels["method"] for job in trained if job.labels["student"] == "chooser"] == ["label_only"]
    assert {job.labels["method"] for job in trained if job.labels["student"] == "mini-t5"} == set(MINI["methods"])
    assert not any("methods" in job.parameters for job in trained)


def test_a_changed_limit_is_in_the_planned_cost_before_the_data_are_made_again(tmp_path, monkeypatch):
    from kdutils.data.readers import limit_questions, read_questions
    from kdutils.data.tables import write_table
    from kdutils.experiments.cost import planned_cost
    from kdutils.experiments.steps import DATA, SETTINGS
    from kdutils.runs import write_json

    monkeypatch.setenv("KDUTILS_STORE", str(tmp_path / "store.sqlite"))
    path = tmp_path / "small.yaml"
    path.write_text(without_people(changed("datasets/mini/limits", {"train": 3, "dev": 2, "test": 1})))
    experiment = load_experiment(path)
    data, job = (next(job for job in experiment.jobs if job.kind == kind) for kind in ("data", "explanations"))
    folder = tmp_path / "data"
    folder.mkdir()
    job.parameters["questions"] = str(folder / "questions.parquet")
    table = limit_questions(read_questions("mini"), {"train": 1, "dev": 1, "test": 1}, 0)
    write_table(table, folder / "questions.parquet", "questions")
    given = {**SETTINGS[DATA].defaults(), **data.parameters}
    for limits, asked in (({"train": 1, "dev": 1, "test": 1}, 6), (data.parameters["limits"], 3)):
        write_json(folder / "run.json", {"parameters": {**given, "limits": limits}})
        assert planned_cost(experiment, job).to_ask == asked, limits


def test_one_prompting_in_several_forms_has_a_name_for_each(tmp_path):
    jobs = {job.folder: job for job in load_experiment("tokens-ablation").jobs}
    three = jobs["explanations/cqa/flan-t5-xl/saliency-3"]
    assert three.notebook == "05_explain_tokens" and three.parameters["k"] == 3 and "as" not in three.parameters
    assert jobs["explanations/cqa/flan-t5-xl/random-5"].parameters["attribution"] == "random"


def test_tiny_keeps_the_grid_and_changes_models_and_sizes(monkeypatch):
    monkeypatch.delenv("KDUTILS_DATA", raising=False)
    for name in experiment_names():
        whole, small = load_experiment(name), load_experiment(name, tiny=True)
        assert small.name == f"{name}-tiny" and small.folder != whole.folder
        cells = [{(job.kind, job.notebook, *sorted((key, value) for key, value in job.labels.items() if key != "seeds"))
                  for job in one.jobs} for one in (whole, small)]
        assert cells[0] == cells[1], name
        for job in small.jobs:
            model = job.parameters.get("model", "")
            assert not model or "tiny-models" in model or model.startswith(("kdutils/mini", "outputs/")), model


def test_tiny_takes_students_and_teachers_that_name_no_model(tmp_path):
    path = tmp_path / "plain.yaml"
    path.write_text(changed("students", {"mini-t5": {}}))
    student = load_experiment(path, tiny=True).settings["students"]["mini-t5"]
    assert student["model"] == "kdutils/mini/student" and student["random_weights"]
    path.write_text(changed("teachers/mini-t5-tuned/finetune", {"epochs": 1}))
    assert load_experiment(path, tiny=True).settings["teachers"]["mini-t5-tuned"]["finetune"]["random_weights"]


def test_teachers_are_measured_by_the_models_of_the_evaluation_unless_the_report_names_others():
    own = {**MINI, "evaluation": {"encoder": "an/encoder", "nli": "a/judge"}, "report": {"nli": "another/judge"}}
    report = next(job for job in make_jobs("mine", own) if job.kind == "report")
    assert (report.parameters["encoder"], report.parameters["nli"]) == ("an/encoder", "another/judge")


def test_a_tiny_judge_has_the_labels_of_inference():
    from kdutils.evaluation.truth_proxies import load_nli
    from kdutils.experiments.tiny import make_tiny

    small = make_tiny({**MINI, "evaluation": {"nli": "a/judge"}, "report": {"encoder": "an/encoder"}})
    assert load_nli(small["evaluation"]["nli"])[2] == [0, 2] and "tiny-models" in small["report"]["encoder"]


def test_tiny_makes_the_reader_of_explanations_tiny_too():
    from kdutils.experiments.tiny import make_tiny
    from kdutils.student.lm_reader import check_reader

    own = {"simulator": {"model": "google/t5-v1_1-base", "epochs": 9.0}}
    small = make_tiny({**MINI, "evaluation": own})["evaluation"]
    check_reader(small["simulator"])
    assert small["simulator"]["model"] == "kdutils/mini/student" and small["simulator"]["epochs"] == 1.0
    assert small["simulator"]["random_weights"] and make_tiny(MINI)["evaluation"].get("simulator", {}) == {}
    chooser = {"model": "sentence-transformers/all-MiniLM-L6-v2", "kind": "classifier"}
    check_reader(make_tiny({**MINI, "evaluation": {"simulator": chooser}})["evaluation"]["simulator"])


def test_published_cqa_names_the_published_students_cells_and_five_seeds():
    settings = load_experiment("published-cqa").settings
    assert {student["model"] for student in settings["students"].values()} == \
        {"google/t5-v1_1-base", "google/t5-v1_1-large"}
    assert len(settings["seeds"]) == 5
    cells = {(job.labels["method"], job.labels["prompting"]) for job in load_experiment("published-cqa").jobs
             if job.kind == "students"}
    assert {(method, prompting) for method in ("multitask", "counterfactual", "combined")
            for prompting in ("few_shot", "critique_revision")} <= cells


def test_notebooks_have_parameters_that_papermill_can_read():
    for path in NOTEBOOKS.glob("*.ipynb"):
        found = SETTINGS[path.stem].types()
        assert "output" in found and set(found.values()) <= {"str", "int", "float", "bool", "list", "dict"}, path


def test_a_path_of_the_environment_is_checked(tmp_path, monkeypatch):
    monkeypatch.setenv("KDUTILS_DATA", str(tmp_path / "none"))
    with pytest.raises(StudyError, match="KDUTILS_DATA names .*none, which is no folder"):
        load_experiment("published-cqa-small")


def test_a_new_method_is_one_entry_and_one_notebook(tmp_path, monkeypatch, capsys):
    """A method that is added on the fly goes through the checks, the grid and the dry run."""
    from dataclasses import replace

    from kdutils.experiments import inputs, steps
    from kdutils.student import methods
    from kdutils.student.settings import TrainMultitask

    class TrainEcho(TrainMultitask):
        notebook = "19_train_echo"

    folder = tmp_path / "notebooks"
    folder.mkdir()
    for path in NOTEBOOKS.glob("*.ipynb"):
        (folder / path.name).write_text(path.read_text())
    copied = (NOTEBOOKS / "12_train_multitask.ipynb").read_text()
    monkeypatch.setattr(inputs, "NOTEBOOKS", folder)
    monkeypatch.setitem(methods.METHODS, "echo", replace(methods.METHODS["multitask"], notebook="19_train_echo",
                                                         control_of="standard"))
    path = tmp_path / "echo.yaml"
    path.write_text(changed("methods/echo", {"promptings": ["few_shot"], "alpha": 0.25}))

    def lacks():
        with pytest.raises(StudyError) as caught:
            load_experiment(path)
        return str(caught.value).removeprefix(f"{path}: key 'methods.echo': ")

    assert lacks() == ("its notebook 19_train_echo has no settings model; write one and list it in "
                       "kdutils/experiments/steps.py")
    monkeypatch.setitem(steps.SETTINGS, "19_train_echo", TrainEcho)
    assert lacks() == "notebooks/19_train_echo.ipynb: no such notebook; copy the nearest one and change it"
    for text, missing in ((copied, "TrainEcho.start("), (copied.replace("TrainMultitask", "TrainEcho"), '"echo"')):
        (folder / "19_train_echo.ipynb").write_text(text)
        assert lacks() == (f"notebooks/19_train_echo.ipynb: its code does not say {missing}; is it still that of "
                           "another notebook?")
    (folder / "19_train_echo.ipynb").write_text(text.replace(r'\"multitask\"', r'\"echo\"'))
    jobs = [job for job in load_experiment(path).jobs if job.labels.get("method") == "echo"]
    assert [(job.kind, job.notebook) for job in jobs] == [("students", "19_train_echo"),
                                                          ("evaluations", "21_evaluate_student")]
    assert jobs[0].parameters["alpha"] == 0.25
    assert set(inputs.depends_on(jobs[0])) == {"parameters", "notebook", "code", "files"}
    path.write_text(changed("methods/echo", {"promptings": ["few_shot"], "alpha": 2, "beta": 1}))
    assert main(["run", str(path), "--dry-run"]) == 2
    assert capsys.readouterr().err == (
        f"error: {path}: key 'methods.echo.beta': 19_train_echo has no such parameter; it has "
        f"{', '.join(sorted(TrainEcho.own() | {'as', 'promptings', 'protocol', 'rationales_of'}))}\n"
        f"error: {path}: key 'methods.echo.alpha': 2 is more than 1\n")


def test_a_backend_that_a_prompting_cannot_use_is_refused(tmp_path, monkeypatch):
    from dataclasses import replace

    from kdutils.teacher import choices

    monkeypatch.setitem(choices.PROMPTINGS, "few_shot", replace(choices.PROMPTINGS["few_shot"], backends=("openai",)))
    path = tmp_path / "x.yaml"
    path.write_text(changed("about", "a prompting that needs a server"))
    with pytest.raises(StudyError, match="prompting 'few_shot': the backend hf cannot do it; known are openai"):
        load_experiment(path)


@pytest.mark.parametrize(("primary", "fault"), [
    (["explaining", "standard (few_shot) minus label_only"], ""),
    (["helping"], "'helping' is neither one of explaining, content, revision, counterfactual nor"),
    (["standard minus label_only"], "two of these cells: .*label_only, .*standard \\(few_shot\\)"),
    (["explaining", "explaining"], "twice")])
def test_primary_contrasts_are_checked_before_anything_runs(tmp_path, primary, fault):
    settings = yaml.safe_load((NOTEBOOKS / "experiments" / "mini.yaml").read_text())
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({**settings, "comparison": {"primary": primary}}))
    if fault:
        with pytest.raises(StudyError, match=fault):
            load_experiment(str(path))
    else:
        assert load_experiment(str(path)).settings["comparison"]["primary"] == primary


def test_every_name_of_an_experiment_has_a_meaning_and_a_variant_that_of_its_kind():
    settings = {"methods": {"multitask": {}, "heavy": {"as": "multitask", "alpha": 0.9}},
                "promptings": {"few_shot": {}}}
    assert name_meanings(settings) == [
        ("multitask", "Answer and explanation as two tasks."),
        ("heavy", "multitask with alpha: 0.9. Answer and explanation as two tasks."),
        ("few_shot", "Explanations by few-shot prompting.")]
