"""The backends that reach a teacher.

``hf``: any causal or sequence-to-sequence model of transformers, from a folder or the Hub (hf.py).
``openai``: any server with the OpenAI API (served.py).
``published``: explanations that authors of earlier studies published (published/); no teacher is loaded for it.
"""

from kdutils.errors import StudyError
from kdutils.teacher.choices import BACKENDS
from kdutils.teacher.completion import Teacher


def load_teacher(settings: dict) -> Teacher:
    """Return the teacher of `settings`, the teacher's parameters of a notebook; StudyError for an unknown backend."""
    backend = settings["backend"]
    if backend == "hf":
        from kdutils.teacher.hf import HfTeacher

        return HfTeacher(settings["model"], settings["quantization"], settings["token_budget"], settings["chat"],
                         settings["revision"], *_of_chats(settings))
    if backend == "openai":
        from kdutils.teacher.served import ServedTeacher

        thinking, system, chat_template = _of_chats(settings)
        return ServedTeacher(settings["model"], settings["base_url"], settings["chat"], settings["requests"],
                             settings["timeout"], thinking=thinking, system=system, chat_template=chat_template,
                             extra=settings.get("request"))
    raise StudyError(f"backend: unknown '{backend}'; known: {', '.join(BACKENDS)}")


def _of_chats(settings):
    return settings.get("thinking", "auto"), settings.get("system", ""), settings.get("chat_template", "")
