"""Backends reach a teacher: texts in, texts out, with finish reason and token counts.

``hf``: any causal or sequence-to-sequence model of transformers, from a folder or the Hub (hf.py).
``openai``: any server that speaks the OpenAI API (served.py).
``published``: what the authors of earlier studies published (published.py); it needs no prompts.

A teacher is an object with

- ``identity``: a dict of all that could change what it writes (model, revision, weights, quantisation, chat
  template), the part of the store's key that is the teacher's own (store.py);
- ``complete(prompts, decoding, progress=None, keep=None)``: one Completion per prompt, in their order.
  ``progress`` is called with (done, all); ``keep`` with a list of (prompt, Completion) as soon as these are there,
  so that nothing is lost when the next one fails;
- ``count_tokens(prompts)``: the tokens of each prompt, for an estimate of the cost.
"""

from kdutils.errors import StudyError
from kdutils.teacher.choices import BACKENDS


def load_teacher(settings):
    """Return the teacher of `settings`, the teacher's parameters of a notebook; StudyError for an unknown backend."""
    backend = settings["backend"]
    if backend == "hf":
        from kdutils.teacher.hf import HfTeacher

        return HfTeacher(settings["model"], settings["quantization"], settings["token_budget"], settings["chat"],
                         settings["revision"])
    if backend == "openai":
        from kdutils.teacher.served import ServedTeacher

        return ServedTeacher(settings["model"], settings["base_url"], settings["chat"], settings["requests"],
                             settings["timeout"])
    raise StudyError(f"backend: unknown '{backend}'; known: {', '.join(BACKENDS)}")
