"""What each parameter of a notebook may be, beyond its type: one table for every place where an experiment sets it.

A name means the same wherever it stands: `epochs` of the students, of a teacher that is fine-tuned and of a model
that reads explanations have one entry. A parameter for which any value of its type is fine has the entry ANY.
"""

import json
import math
import re
from dataclasses import dataclass

from kdutils.data.questions import SPLITS
from kdutils.hub import ADAPTER, TOKENIZER_FILES, has_tokenizer, is_path
from kdutils.runs import project_path
from kdutils.settings_file import shown

NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9_-])?")  # of 64 characters at most, no dot at its end
NAMED = "may contain only letters, digits, '.', '_' and '-', begins with a letter or digit, ends with no '.' and has " \
        "at most 64 characters"
SEEDS = 2**31  # NumPy takes less than 2**32, and processes and folds add their number to it
TEXT = 20_000  # characters of a text
# All but tab and line end, what turns the direction of a text, halves of characters.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
_HUB_ID = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*)(?:/[A-Za-z0-9_][A-Za-z0-9._-]*)?")
_MEASURE = re.compile(r"(bleu|rouge_l|bertscore)_(teacher|human)|words|repetition|names_answer|names_gold|distractors"
                      r"|copied|distinct_[12]|las(_leaking|_other)?|leaking|qbe|overlap(_random|_gain|_gain_other)?"
                      r"|reader of (question|explanation|both|masked)|behind .+: (right|as asserted)")


@dataclass(frozen=True)
class Rule:
    """Bounds of a number or of a list's length, choices or pattern of a text, kind of a path, rules of what is inside.

    `least` and `most` may be reached, `above` and `below` may not; `also` are values that are fine besides. Of a list
    or dict `each` holds for every value, `keys` (names, or a dict of their rules) for what a dict may hold; `alike`
    says that a list may hold a value twice.
    """

    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf
    below: float = math.inf
    also: tuple = ()
    choices: tuple = ()
    pattern: re.Pattern | None = None
    says: str = ""  # what fits the pattern, in words
    path: str = ""  # model, vocabulary (either may be a Hub id), folder, or any
    types: tuple = ()  # of values inside a list or dict, which no notebook names
    each: "Rule | None" = None
    keys: tuple | dict | None = None
    alike: bool = False
    filled: bool = False  # may not be empty


def between(least, most, *also):
    return Rule(least=least, most=most, also=also)


def one_of(*choices):
    return Rule(choices=choices)


def several(*choices, filled=True):
    return Rule(each=Rule(types=(str,), choices=choices), filled=filled)


ANY = Rule()
SHARE = between(0, 1)
MODEL, VOCABULARY, FOLDER = Rule(path="model"), Rule(path="vocabulary"), Rule(path="folder")
NUMBER = Rule(types=(int, float))
ATTRIBUTION = ("saliency", "input_x_gradient", "integrated_gradients", "attention_rollout", "random")
MEASURE = Rule(types=(str,), pattern=_MEASURE,
               says="a measure such as words, names_answer, rouge_l_teacher, las, qbe or overlap_gain")
TEXTS = Rule(each=Rule(types=(str,), filled=True), alike=True)
TOKENS = between(1, 1_000_000)  # written, or in a batch
READ = between(8, 1_000_000)  # tokens of a text: fewer are too short for any

RULES = {
    # 01, the questions; whether the files are there the experiment sees, which knows the folder. A reader of data is
    # one of READERS, the reader of an evaluation a dict of parameters that stand here.
    "reader": ANY, "folder": FOLDER,
    "files": Rule(keys=(*SPLITS, "all"), each=Rule(types=(str,), filled=True), alike=True),
    "limits": Rule(keys=SPLITS, each=Rule(types=(int,), least=1, most=10**9, also=(-1,),
                                          says="a whole number of questions, -1 for all")),
    "seed": between(0, SEEDS - 1),
    # 02 to 06, teachers
    "backend": one_of("hf", "openai", "published"), "model": MODEL, "revision": ANY,
    "quantization": one_of("none", "int8", "nf4"), "token_budget": TOKENS, "chat": ANY,
    "timeout": between(1, 10**6), "base_url": ANY,  # the backend openai knows what an address is
    "requests": between(1, 1000), "given_answer": ANY, "max_new_tokens": TOKENS, "max_critique_tokens": TOKENS,
    "max_revision_tokens": TOKENS, "rounds": between(1, 20), "temperature": between(0, 10),
    "top_p": Rule(above=0, most=1), "stop": TEXTS, "published_folder": FOLDER,
    "published_teacher": one_of("llama", "qwen", "palm", "people"), "splits": several(*SPLITS),
    "wrong": between(1, 1000, -1), "against": one_of("wrong", "empty"), "strength": between(0, 100),
    "attribution": one_of(*ATTRIBUTION), "k": between(1, 1000), "target": one_of("gold", "own"), "frame": TEXTS,
    "steps": between(1, 100_000), "compare": several(*ATTRIBUTION, filled=False),
    "compare_questions": between(1, 1_000_000), "examples": between(0, 1000),
    # 10 to 18, students
    "tokenizer": VOCABULARY, "kind": one_of("", "seq2seq", "causal", "classifier"), "random_weights": ANY,
    "config": ANY,  # its settings are those of the model's family: see _config_fault
    "lora": Rule(keys={"rank": Rule(types=(int,), least=1, most=10_000), "alpha": Rule(types=(int, float), above=0),
                       "dropout": Rule(types=(int, float), least=0, below=1),
                       "targets": Rule(types=(str, list), each=Rule(types=(str,), filled=True), filled=True)}),
    "epochs": Rule(above=0, most=100_000), "questions_per_step": between(1, 1_000_000),
    "learning_rate": Rule(above=0, most=1), "warmup_steps": between(0, 10**9), "dev_evaluations": between(1, 100_000),
    "max_source_tokens": READ, "max_target_tokens": READ, "tensorboard": ANY,
    "alpha": SHARE, "beta": SHARE, "gamma": SHARE, "counterfactual_style": one_of("encoder", "decoder"),
    "wrong_answers": one_of("all", "first"),
    # 21, evaluations
    "split": one_of(*SPLITS), "max_explanation_tokens": TOKENS, "encoder": MODEL, "attributed_words": between(1, 1000),
    "attributed_questions": between(0, 10**9),
    # 22 and 23, people
    "study": Rule(pattern=NAME, says=f"a name, which {NAMED}"), "task": one_of("rating", "simulation"),
    "answered": one_of("all_right", "any_right", "same", "any"), "student_seeds": one_of("lowest", "drawn"),
    "strata": several("dataset", "position", "n_choices", "gold", "correct", filled=False),
    "masked": one_of("none", "answer", "choices"), "n_raters": between(1, 10_000),
    "texts_per_method": between(1, 1000), "raters_per_text": between(1, 10_000), "checks": between(0, 5),
    "consent": ANY, "return_to": ANY,
    "expected": Rule(each=Rule(types=(int, float), least=0, most=1), alike=True, filled=True),
    "ask": several("age", "gender", "education", "country", filled=False),
    "ratings": Rule(each=Rule(types=(str,), path="any", filled=True)), "failed_checks_allowed": between(0, 100),
    "keep_unfinished": ANY, "simulated_effects": Rule(each=Rule(types=(int, float), least=-100, most=100)),
    "level": Rule(above=0, below=1),
    # 31, the comparison
    "tested": Rule(each=MEASURE), "measure": Rule(pattern=_MEASURE, says=MEASURE.says, also=("",)),
}


def quoted(value):
    """Return a value as it may stand in a message, a text in quotation marks."""
    return f"'{shown(value)}'" if isinstance(value, str) else shown(value)


def is_there(path):
    """Say whether a path exists; one that no file system can hold, or that may not be looked at, does not."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def fault_of(name, value, served=False):
    """Return (where inside the value, what is wrong with it) of a parameter, ("", "") where nothing is.

    The value has the parameter's type. `served`: a model is a name of the server's, whatever it looks like.
    """
    rule = RULES.get(name, ANY)
    if served and name == "model":
        rule = ANY
    shape, address = name == "config", name == "base_url"  # an address may hold a password: it is not shown
    found = (None if address else _plain_fault(value, "", shape)) or _fault(value, rule, "")
    return found or shape and _config_fault(value) or ("", "")


def _fault(value, rule, inside):
    """Return (where, what) of the first thing that a rule forbids, else None."""
    what = _fault_of_one(value, rule)
    if what:
        return inside, what
    if isinstance(value, dict):
        for key, one in value.items():
            if rule.keys is not None and key not in rule.keys:
                what = "split" if set(SPLITS) <= set(rule.keys) else "key"
                return inside, f"unknown {what} '{shown(key)}'; known are {', '.join(rule.keys)}"
            within = rule.keys[key] if isinstance(rule.keys, dict) else rule.each
            found = within and _fault(one, within, f"{inside}.{shown(key)}")
            if found:
                return found
    if isinstance(value, list) and rule.each:
        seen = set()
        for one in value:
            found = _fault(one, rule.each, inside)
            if found:
                return found
            if not rule.alike and one in seen:
                return inside, f"{quoted(one)} is listed twice"
            seen.add(one)
    return None


def _fault_of_one(value, rule):
    """Return what is wrong with a value itself, "" for nothing; what is inside a list or dict is not looked at."""
    if rule.types and (not isinstance(value, rule.types) or isinstance(value, bool)):
        wanted = rule.says or f"of type {' or '.join(kind.__name__ for kind in rule.types)}"
        advice = "; put it in quotes" if rule.types == (str,) and isinstance(value, (int, float)) else ""
        return f"{quoted(value)} is not {wanted}{advice}"
    if rule.filled and not value:
        return f"{value!r} is empty"
    if value in rule.also and not isinstance(value, bool):
        return ""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _bounds_fault(value, rule)
    if isinstance(value, str):
        if rule.choices and value not in rule.choices:
            return f"unknown '{shown(value)}'; known are {', '.join(choice or repr('') for choice in rule.choices)}"
        if rule.pattern and not rule.pattern.fullmatch(value):
            return f"'{shown(value)}' is not {rule.says}"
        return _path_fault(value, rule.path) if rule.path and value else ""
    return ""


def _bounds_fault(value, rule):
    if not math.isfinite(value):
        return f"{value} is not a finite number"
    besides = f" (or {', '.join(map(str, rule.also))})" if rule.also else ""
    if rule.least > -math.inf and rule.most < math.inf and not rule.least <= value <= rule.most:
        small = value < rule.least and rule.most > 1
        return f"{shown(value)} is less than {rule.least}{besides}" if small else \
            f"{shown(value)} is not between {rule.least:,} and {rule.most:,}{besides}"
    if not rule.least <= value <= rule.most or not rule.above < value < rule.below:
        edges = [f"{'at least' if rule.least > -math.inf else 'above'} {max(rule.least, rule.above):,}"
                 if max(rule.least, rule.above) > -math.inf else "",
                 f"{'at most' if rule.most < math.inf else 'below'} {min(rule.most, rule.below):,}"
                 if min(rule.most, rule.below) < math.inf else ""]
        return f"{shown(value)} must be {' and '.join(edge for edge in edges if edge)}{besides}"
    return ""


def _path_fault(value, kind):
    """Return what is wrong with a path or a Hub id, "" for nothing."""
    if len(value.encode()) > 1000 or any(len(part.encode()) > 255 for part in value.split("/")):
        return f"{shown(value)}: too long for a path"
    path = project_path(value)
    if kind == "any":
        return "" if is_there(path) else f"{shown(value, 200)}: no such file or folder"
    if kind == "folder" or is_there(path) or is_path(value):
        if not is_there(path):
            return f"{shown(value, 200)}: no such file or folder"
        if not path.is_dir():
            return f"{shown(value, 200)}: a file, but a folder is wanted"
        return "" if kind == "folder" else _model_fault(value, path, kind)
    if not _HUB_ID.fullmatch(value) or "--" in value or ".." in value or len(value) > 96:
        return f"{shown(value)}: neither a folder nor a Hub id such as google-t5/t5-small"
    return ""


def _model_fault(value, path, kind):
    if kind == "vocabulary" and not has_tokenizer(path) and not (path / ADAPTER).is_file():
        return f"{shown(value, 200)}: no tokenizer in this folder ({', '.join(TOKENIZER_FILES)})"
    if kind == "model" and not any((path / file).is_file() for file in ("config.json", ADAPTER)):
        return f"{shown(value, 200)}: no config.json; this is not a model folder"
    return ""


def _plain_fault(value, inside, nothing=False):
    """Return (where, what) of what is nowhere right: null, control characters, numbers that are none or too large.

    `nothing`: null is a value like others.
    """
    if value is None and not nothing:
        return inside, "it is empty; leave the key out, or write \"\" for an empty text"
    if isinstance(value, str) and _CONTROL.search(value):
        return inside, f"'{shown(value)}' holds control characters"
    if isinstance(value, str) and len(value) > TEXT:
        return inside, f"a text of {len(value):,} characters; at most {TEXT:,} please"
    if isinstance(value, float) and not math.isfinite(value):
        return inside, f"{value} is not a finite number"
    if isinstance(value, int) and abs(value) >= 2**63:
        return inside, f"{shown(value, 30)} is too large a number"
    if isinstance(value, dict):
        for key, one in value.items():
            if not key or len(key) > 200 or _CONTROL.search(key):
                return inside, f"'{shown(key)}' is no name of a key"
            found = _plain_fault(one, f"{inside}.{shown(key)}", nothing)
            if found:
                return found
    for one in value if isinstance(value, list) else []:
        found = _plain_fault(one, inside, nothing)
        if found:
            return found
    return None


def _config_fault(config):
    """Return (where, what) of a change to a model's shape that no family of models can take, else None."""
    for key, value in config.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if number and "dropout" in key and not 0 <= value <= 1:
            return f".{shown(key)}", f"{shown(value)} is not between 0 and 1"
        sized = key.startswith(("d_", "num_", "n_")) or key.endswith(("_size", "_dim", "_heads", "_layers", "_length"))
        whole = isinstance(value, int) and not isinstance(value, bool)
        if sized and value is not None and not (whole and 1 <= value <= 10_000_000):
            return f".{shown(key)}", f"{shown(value)} is not a whole number of at least 1"
    return None


def config_type_fault(config, folder):
    """Return (key, what) of a setting whose type is not the one that a local model's config.json has, else None."""
    try:
        own = json.loads((project_path(folder) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    for key, value in config.items() if own else []:
        usual = own.get(key) if isinstance(own, dict) else None
        kinds = type(usual) if isinstance(usual, bool) or not isinstance(usual, (int, float)) else (int, float)
        if usual is not None and (not isinstance(value, kinds) or isinstance(value, bool) != isinstance(usual, bool)):
            return key, f"{shown(value)} is not of type {type(usual).__name__}"
    return None
