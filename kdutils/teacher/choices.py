"""What an experiment can choose when it explains: the one list of each of these names.

Nothing heavy is imported here, so experiment files can be checked without torch. A new prompting is an entry of
PROMPTINGS, a function in explaining.py and a notebook.
"""

from dataclasses import dataclass

from kdutils.teacher import attributions

BACKENDS = ("hf", "openai", "published")  # how a teacher is reached: see backends.py
QUANTIZATIONS = ("none", "int8", "nf4")  # of a teacher of the backend hf
CONTRASTS = ("wrong", "empty")  # what contrastive decoding sets the right answer against
ATTRIBUTIONS = tuple(attributions.ATTRIBUTIONS)
ATTRIBUTION_TARGETS = ("gold", "own")  # the answer whose probability is attributed to words
PUBLISHED_TEACHERS = {"llama": "Llama-2-13B", "qwen": "Qwen3-30B-A3B-Instruct-2507", "palm": "PaLM-540B",
                      "people": "people"}


@dataclass(frozen=True)
class Prompting:
    """A way to make explanations.

    `notebook`: the notebook that makes them. `function`: the function in explaining.py that asks a teacher, "" where
    no teacher is asked. `prompt_files`: the files it needs per data set (prompts/<data set>/<file>.txt). `teaches`:
    whether every method that reads explanations can learn from its texts. `writes`: whether a teacher writes texts for
    it; otherwise it gives probabilities. `backends`: the backends that can do it. `gives`: what it gives, in words.
    """

    notebook: str
    function: str = ""
    prompt_files: tuple[str, ...] = ()
    teaches: bool = True
    writes: bool = True
    backends: tuple[str, ...] = BACKENDS
    gives: str = "explanations"


PROMPTINGS = {
    "few_shot": Prompting("02_explain_few_shot", "few_shot", ("few_shot",)),
    "critique_revision": Prompting("03_explain_critique_revision", "critique_revision",
                                   ("few_shot", "critique", "revision", "requests")),
    "counterfactual": Prompting("04_explain_counterfactual", "counterfactual", ("few_shot",), teaches=False,
                                gives="explanations of wrong answers"),
    "tokens": Prompting("05_explain_tokens", backends=("hf",), gives="attributed words"),
    "contrastive": Prompting("06_explain_contrastive", "contrastive", ("few_shot",), backends=("hf",)),
    "soft_labels": Prompting("09_score_the_choices", "soft_labels", ("few_shot",), teaches=False, writes=False,
                             backends=("hf", "openai"), gives="soft labels"),
}
