"""An experiment in small: the same grid and the same code with tiny models and a few questions.

``--tiny`` changes models and sizes only, so that an experiment for a large machine can be tried to its end on a small
one. Learning rates, weights of tasks, styles, protocols and so on stay as in the experiment. The output is not a
result: the students have random weights.
"""

from pathlib import Path

from kdutils.errors import StudyError
from kdutils.hub import find_model, load_weights, locate_model, read_config, read_tokenizer
from kdutils.runs import PROJECT, is_complete, mark_complete

LIMITS = {"train": 64, "dev": 16, "test": 16}
FOLDER = PROJECT / "outputs" / "tiny-models"
SHAPE = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_heads": 4, "num_layers": 2, "num_decoder_layers": 2}
ENCODER = {"model_type": "bert", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
           "num_attention_heads": 4}
TRAINING = {"epochs": 1.0, "max_steps": 0, "questions_per_step": 16, "warmup_steps": 2, "dev_evaluations": 1,
            "token_budget": 4000}
# The settings of dropout that the tiny model of each kind has.
DROPOUT = {"seq2seq": {"dropout_rate"}, "causal": {"attention_dropout"},
           "classifier": {"hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"}}
# The chat template of the mini teacher, which has none: it goes on behind a prompt as it does without a chat.
CHAT = r"{% for message in messages %}{{ message.content ~ ('' if loop.last else '\n\n') }}{% endfor %}"


def make_tiny(settings: dict) -> dict:
    """Return `settings` of an experiment with tiny models, few questions, one epoch and the first two seeds."""
    small = {**settings, "seeds": settings["seeds"][:2], "seeds_per_job": 2,
             "about": f"{settings['about']} (tiny, no result)"}
    small["datasets"] = {name: {**entry, "limits": LIMITS} for name, entry in settings["datasets"].items()}
    small["teachers"] = {name: _teacher(entry) for name, entry in settings["teachers"].items()}
    small["promptings"] = {name: _prompting(entry) for name, entry in settings["promptings"].items()}
    small["methods"] = {name: _method(entry, settings["students"]) for name, entry in settings["methods"].items()}
    small["students"] = {name: _student(entry) for name, entry in settings["students"].items()}
    small["training"] = {**settings.get("training", {}), **TRAINING}
    small["evaluation"] = {**settings.get("evaluation", {}), "max_explanation_tokens": 16, "timed_questions": 4}
    if small["evaluation"].get("simulator"):
        small["evaluation"]["simulator"] = {**_student(small["evaluation"]["simulator"]), **TRAINING}
    if "rater" in settings.get("human_study", {}):
        small["human_study"] = {**settings["human_study"], "rater": _asked(settings["human_study"]["rater"])}
    for key in ("evaluation", "report", "human_ratings"):
        models = {"encoder": encoder_model, "nli": nli_model}
        tiny = {name: str(make()) for name, make in models.items() if small.get(key, {}).get(name)}
        small |= {key: {**small[key], **tiny}} if tiny else {}
    return small


def _teacher(entry):
    """Return a teacher's entry: published ones stay, the mini teacher takes the place of all others."""
    small = dict(entry)
    if "finetune" in entry:
        small["finetune"] = {**_student(entry["finetune"]), **TRAINING}
    elif entry.get("backend", "hf") != "published":
        small = _asked(small) | {"max_new_tokens": 12}
    return small


def _asked(entry):
    """Return an entry that says how a model is asked, of the mini teacher."""
    # Only a server takes an address and fields of a request, a folder has no revision, and a chat template is written
    # for the tokens of the model that is replaced. `chat`, `thinking` and `system` hold for any model.
    small = {key: value for key, value in entry.items() if key not in ("base_url", "request", "revision",
                                                                       "chat_template")}
    return small | {"backend": "hf", "model": str(causal_model()), "quantization": "none"}


def _method(entry, students):
    own = entry.get("distilled_from", "") in students
    distilled = {"distilled_from": str(causal_model())} if "distilled_from" in entry and not own else {}
    return entry | {key: TRAINING[key] for key in TRAINING if key in entry} | distilled


def _prompting(entry):
    return entry | {name: 12 for name in ("max_new_tokens", "max_critique_tokens", "max_revision_tokens")
                    if name in entry}


def _student(entry):
    """Return a student's entry with a tiny shape of its family (key `kind`) and, if it is here, the real vocabulary.

    Of `config`, which changes the shape of the real model, the dropout stays, where the tiny model has it.
    """
    small = entry | {"random_weights": True} | {key: TRAINING[key] for key in TRAINING if key in entry}
    kind = entry.get("kind") or "seq2seq"
    dropout = {key: value for key, value in entry.get("config", {}).items() if key in DROPOUT.get(kind, ())}
    if kind == "causal":
        return small | {"model": str(causal_model()), "tokenizer": "", "config": dropout}
    if kind == "classifier":
        return small | {"model": "", "tokenizer": _vocabulary(entry) or "kdutils/mini/student",
                        "config": ENCODER | dropout}
    return small | {"model": "kdutils/mini/student", "tokenizer": _vocabulary(entry), "config": SHAPE | dropout}


def _vocabulary(entry):
    """Return the tokenizer of a student where it is found without a network, else "" for the mini vocabulary."""
    name = entry.get("tokenizer") or entry.get("model", "")
    try:
        where = locate_model(name, needs_weights=False)
    except StudyError:
        return ""
    return name if where != name else ""


def causal_model() -> Path:
    """Return the folder of the mini teacher with room for long prompts, where what it writes is words and no sense.

    It has a chat template, for teachers with `chat`. Random weights would not do: they may write one full stop after
    the other, which leaves no usable text.
    """
    found = find_model(str(PROJECT / "kdutils" / "mini" / "teacher"))

    def load():
        from transformers import AutoModelForCausalLM

        return load_weights(AutoModelForCausalLM, found, config=read_config(found, max_position_embeddings=8192))

    return _made("teacher", found.name, load, CHAT)


def encoder_model() -> Path:
    """Return the folder of a tiny encoder with random weights, in the place of one that compares texts."""
    vocabulary = str(PROJECT / "kdutils" / "mini" / "student")

    def draw():
        from transformers import AutoConfig, AutoModel, set_seed

        set_seed(0)
        return AutoModel.from_config(AutoConfig.for_model(**ENCODER, vocab_size=len(read_tokenizer(vocabulary))))

    return _made("encoder", vocabulary, draw)


def nli_model() -> Path:
    """Return the folder of a tiny model with random weights, in the place of one for natural language inference."""
    vocabulary = str(PROJECT / "kdutils" / "mini" / "student")
    labels = dict(enumerate(("entailment", "neutral", "contradiction")))

    def draw():
        from transformers import AutoConfig, AutoModelForSequenceClassification, set_seed

        set_seed(0)
        return AutoModelForSequenceClassification.from_config(AutoConfig.for_model(
            **ENCODER, vocab_size=len(read_tokenizer(vocabulary)), id2label=labels,
            label2id={label: place for place, label in labels.items()}))

    return _made("nli", vocabulary, draw)


def _made(name, vocabulary, make, chat_template=None):
    """Return the folder of a model that `make` makes once, with the tokenizer of the folder `vocabulary`."""
    folder = FOLDER / name
    if not is_complete(folder):
        make().save_pretrained(folder)
        tokenizer = read_tokenizer(vocabulary)
        tokenizer.chat_template = chat_template
        tokenizer.save_pretrained(folder)
        mark_complete(folder)
    return folder
