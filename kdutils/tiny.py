"""An experiment in small: the same grid and the same code with tiny models and a few hundred questions.

``--tiny`` changes names and sizes and nothing else, so that an experiment for a large machine is tried to its end on a
small one before it is paid for. What comes out is no result: the students have random weights.
"""

from kdutils.data.sources import locate_model
from kdutils.errors import StudyError
from kdutils.runs import PROJECT, is_whole, mark_whole

LIMITS = {"train": 160, "dev": 24, "test": 32}
FOLDER = PROJECT / "outputs" / "tiny-models"
SHAPE = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_heads": 4, "num_layers": 2, "num_decoder_layers": 2}
ENCODER = {"model_type": "bert", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
           "num_attention_heads": 4}
TRAINING = {"epochs": 1.0, "questions_per_step": 16, "warmup_steps": 2, "dev_evaluations": 1, "token_budget": 4000,
            "learning_rate": 0.001}


def tiny(settings):
    """Return `settings` of an experiment with tiny models, few questions, one epoch and the first two seeds."""
    small = {**settings, "seeds": settings["seeds"][:2], "seeds_per_job": 2,
             "about": f"{settings['about']} (tiny, no result)"}
    small["datasets"] = {name: {**entry, "limits": LIMITS} for name, entry in settings["datasets"].items()}
    small["teachers"] = {name: _teacher(entry) for name, entry in settings["teachers"].items()}
    small["promptings"] = {name: _prompting(entry) for name, entry in settings["promptings"].items()}
    small["students"] = {name: _student(entry) for name, entry in settings["students"].items()}
    small["training"] = {**settings.get("training", {}), **TRAINING}
    small["evaluation"] = {**settings.get("evaluation", {}), "max_explanation_tokens": 16, "encoder": ""}
    if small["evaluation"].get("reader"):
        small["evaluation"]["reader"] = {**_student(small["evaluation"]["reader"]), **TRAINING}
    return small


def _teacher(entry):
    """Return a teacher's entry: published ones stay, the mini teacher takes the place of all others."""
    small = dict(entry)
    if "finetune" in entry:
        small["finetune"] = {**_student(entry["finetune"]), **TRAINING}
    elif entry.get("backend", "hf") != "published":
        small |= {"backend": "hf", "model": str(causal_model()), "quantization": "none", "max_new_tokens": 12}
        small.pop("base_url", None)
    return small


def _prompting(entry):
    return entry | {name: 12 for name in ("max_new_tokens", "max_critique_tokens", "max_revision_tokens")
                    if name in entry}


def _student(entry):
    """Return a student's entry with a tiny shape of its own family, the real vocabulary where that is at hand."""
    small = {key: value for key, value in entry.items() if key != "learning_rate"} | {"random_weights": True}
    if _is_causal(entry.get("model", "")):
        return small | {"model": str(causal_model()), "tokenizer": "", "config": {}}
    if entry.get("kind") == "classifier":
        return small | {"model": "", "tokenizer": _vocabulary(entry) or "kdutils/mini/student", "config": ENCODER}
    return small | {"model": "kdutils/mini/student", "tokenizer": _vocabulary(entry), "config": SHAPE}


def _is_causal(model):
    return any(family in model.casefold() for family in ("qwen", "llama", "smollm", "gpt", "mistral", "gemma"))


def _vocabulary(entry):
    """Return the tokenizer of a student where it is found without a network, else "" for the mini vocabulary."""
    name = entry.get("tokenizer") or entry.get("model", "")
    try:
        where = locate_model(name, needs_weights=False)
    except StudyError:
        return ""
    return name if where != name else ""


def causal_model():
    """Return the folder of the mini teacher with room for long prompts, where what it writes is words and no sense.

    Random weights would not do: they may write one full stop after the other, which leaves no usable text.
    """
    folder = FOLDER / "mini-teacher"
    if not is_whole(folder):
        from transformers import AutoModelForCausalLM, AutoTokenizer

        teacher = PROJECT / "kdutils" / "mini" / "teacher"
        model = AutoModelForCausalLM.from_pretrained(teacher, max_position_embeddings=8192, trust_remote_code=False)
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(teacher, trust_remote_code=False).save_pretrained(folder)
        mark_whole(folder)
    return folder
