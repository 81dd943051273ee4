"""Settings of notebooks 02 to 09: how explanations are made and judged, and how questions are answered and scored."""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from kdutils.data.texts import LAYOUT
from kdutils.errors import short
from kdutils.runs import project_path
from kdutils.settings import (
    Count,
    Folder,
    Folders,
    Inside,
    ModelName,
    PathOf,
    Seed,
    Settings,
    Splits,
    Text,
    Texts,
    at_least,
    of_grid,
    unique,
)
from kdutils.teacher.choices import (
    ATTRIBUTION_TARGETS,
    ATTRIBUTIONS,
    BACKENDS,
    CONTRASTS,
    PUBLISHED_TEACHERS,
    QUANTIZATIONS,
)

Attribution = Literal[*ATTRIBUTIONS]
Words = Annotated[int, Field(ge=1, le=1000)]
QUESTIONS = "kdutils/mini/example/questions/questions.parquet"


# Fields that `request` cannot set.
OF_THE_STUDY = ("model", "messages", "prompt", "stream", "n", "stop", "chat_template")


def _fields(value: dict) -> dict:
    """Refuse fields of a request that the study sets itself."""
    for key in value:
        if key in OF_THE_STUDY:
            instead = {"model": "; use `model`", "messages": "; use `system`", "stop": "; use `stop`",
                       "chat_template": "; use `chat_template`"}
            raise Inside(key, f"the study sets this field itself{instead.get(key, '')}")
    return value


class Ask(Settings):
    """How a language model is reached and asked."""

    backend: Literal["hf", "openai"] = Field("hf", description="hf: a model of transformers, openai: a server")
    model: ModelName = Field(
        "kdutils/mini/teacher", description="folder or Hub id, or the name of the model on a server")
    revision: str = Field("", description="branch, tag or commit of a Hub id")
    quantization: Literal[*QUANTIZATIONS] = Field("none", description="none, int8 or nf4; backend hf only")
    token_budget: Count = Field(8192, description="tokens of a batch with padding and new tokens; backend hf only")
    chat: bool = Field(False, description="wrap each prompt in the chat template of the model")
    thinking: Literal["auto", "on", "off"] = Field(
        "auto", description="whether the model thinks first, auto leaves it to the model; with chat only")
    system: str = Field("", description="message before each prompt that says how to answer; with chat only")
    chat_template: Annotated[str, PathOf("any")] = Field(
        "", description="Jinja file in place of the chat template of the model; with chat only")
    base_url: str = Field("", description="address of the server, empty means OPENAI_BASE_URL; backend openai only")
    requests: Annotated[int, Field(ge=1, le=1000)] = Field(8, description="requests in flight; backend openai only")
    timeout: Count = Field(600, description="seconds to wait for a reply; backend openai only")
    request: Annotated[dict, AfterValidator(_fields)] = Field(
        {}, description="further fields of each request, null leaves a field out; backend openai only")

    def conflicts(self) -> Iterator[tuple[str, str]]:
        if self.backend == "openai" and (self.quantization != "none" or self.revision):
            yield "backend", "a server decides on quantization and revision itself; leave both out"
        for name in ("system", "chat_template", "thinking"):
            if not self.chat and getattr(self, name) not in ("auto", type(self).model_fields[name].default):
                yield name, "needs a chat; set chat: true"
        if self.request and self.backend != "openai":
            yield "request", "only a server gets requests; set backend: openai"
        if self.backend == "hf" and self.base_url:
            yield "base_url", "only a server has a base_url; set backend: openai"
        if self.backend == "hf" and self.revision and project_path(self.model).is_dir():
            yield "revision", f"{short(self.model)} is a folder; revisions are for Hub ids"
        if self.backend != "published" and not self.model:
            yield "model", "empty; give a folder, a Hub id or the name of the model on the server"


class Explain(Ask):
    """What all promptings share whose texts a language model writes."""

    questions: Text = of_grid(QUESTIONS, "table of questions")
    dataset: str = of_grid("mini", "data set whose prompts and published files are used")
    prompts: str = of_grid("", "folder of the prompt files, empty means that of the data set in the package")
    backend: Literal[*BACKENDS] = Field(
        "hf", description="hf: a model of transformers, openai: a server, published: published files")
    leave_out_too_long: bool = Field(False, description="leave out prompts that do not fit into the context")
    max_new_tokens: Count = Field(64, description="maximum number of tokens of an explanation")
    temperature: Annotated[float, Field(ge=0, le=10)] = Field(
        0.0, description="0 is greedy, above 0 samples with the seed")
    top_p: Annotated[float, Field(gt=0, le=1)] = Field(1.0, description="share of probability that sampling draws from")
    stop: Texts = Field(["\n\n", "Question:"], description="texts that end a completion")
    published_teacher: Literal[*PUBLISHED_TEACHERS] = Field(
        "llama", description="llama, qwen, palm or people; backend published only")
    published_folder: Folder = Field(
        "", description="folder of published files, empty means KDUTILS_DATA or a download")
    splits: Splits = Field(["train", "dev", "test"], description="splits whose questions are explained")
    seed: Seed = Field(0, description="seed of everything that is drawn for a question")


class ExplainAgain(Explain):
    """Explanations of which a teacher can write several."""

    given_answer: bool = Field(True, description="tell the teacher the right answer; false lets it find one")
    samples: Annotated[int, Field(ge=1, le=1000)] = Field(
        1, description="texts per question; more than 1 needs a temperature above 0")

    keep: Literal["right", "all"] = Field(
        "right", description="right: students learn texts for right answers only, all: also for wrong ones")

    def conflicts(self) -> Iterator[tuple[str, str]]:
        yield from super().conflicts()
        published = self.backend == "published"
        if self.keep == "all" and self.given_answer and not published:
            yield "keep", "a teacher that is told the right answer explains no other; set given_answer: false"
        if self.samples > 1 and published and self.published_teacher != "people":
            yield "samples", "there is one published text per question; set samples: 1"
        elif self.samples > 1 and not published and not self.temperature:
            yield "samples", "greedy decoding writes the same text each time; set a temperature above 0"


class ExplainFewShot(ExplainAgain):
    """Explanations by few-shot prompting."""

    notebook: ClassVar[str] = "02_explain_few_shot"
    labels: dict = of_grid({"dataset": "mini", "teacher": "mini-llama", "prompting": "few_shot"}, "cell of the grid")
    output: str = of_grid("outputs/explore/02_explain_few_shot", "folder of this run")


class LabelQuestions(Explain):
    """A teacher's answers to questions that have none."""

    notebook: ClassVar[str] = "08_label_questions"
    splits: Splits = of_grid(["dev", "test"], "splits whose answered questions are asked too, for the agreement")
    labels: dict = of_grid({"dataset": "mini", "teacher": "mini-llama"}, "cell of the grid")
    output: str = of_grid("outputs/explore/08_label_questions", "folder of this run")


class ExplainCritiqueRevision(ExplainAgain):
    """Explanations that the teacher criticises and revises."""

    notebook: ClassVar[str] = "03_explain_critique_revision"
    rounds: Annotated[int, Field(ge=1, le=20)] = Field(1, description="critiques, each followed by its revision")
    max_critique_tokens: Count = Field(32, description="maximum number of tokens of a critique")
    max_revision_tokens: Count = Field(96, description="maximum number of tokens of a revision")
    labels: dict = of_grid({"dataset": "mini", "teacher": "mini-llama", "prompting": "critique_revision"},
                           "cell of the grid")
    output: str = of_grid("outputs/explore/03_explain_critique_revision", "folder of this run")


class ExplainCounterfactual(Explain):
    """Explanations of wrong answers."""

    notebook: ClassVar[str] = "04_explain_counterfactual"
    wrong: Annotated[int, Field(le=1000), at_least(1, -1)] = Field(
        -1, description="wrong answers explained per question, drawn with the seed, -1 for all")
    labels: dict = of_grid({"dataset": "mini", "teacher": "mini-llama", "prompting": "counterfactual"},
                           "cell of the grid")
    output: str = of_grid("outputs/explore/04_explain_counterfactual", "folder of this run")


class ExplainContrastive(Explain):
    """Explanations by contrastive decoding (Wang et al. 2023, SCOTT)."""

    notebook: ClassVar[str] = "06_explain_contrastive"
    against: Literal[*CONTRASTS] = Field("wrong", description="wrong: one drawn wrong answer, empty: no answer")
    strength: Annotated[float, Field(ge=0, le=100)] = Field(0.5, description="weight of the other context, 0 is greedy")
    labels: dict = of_grid({"dataset": "mini", "teacher": "mini-llama", "prompting": "contrastive"}, "cell of the grid")
    output: str = of_grid("outputs/explore/06_explain_contrastive", "folder of this run")

    def conflicts(self) -> Iterator[tuple[str, str]]:
        yield from super().conflicts()
        if self.backend == "openai":
            yield "backend", "contrastive prompting needs the model itself; set backend: hf"
        if self.temperature:
            yield "temperature", "contrastive decoding is greedy; set temperature: 0"


class ExplainSoftLabels(Explain):
    """The probability that a teacher gives to each choice (Hinton et al. 2015)."""

    notebook: ClassVar[str] = "09_score_the_choices"
    choice_temperature: Annotated[float, Field(gt=0, le=1000)] = Field(
        1.0, description="divides log p of the choices before the softmax, above 1 evens them out")
    labels: dict = of_grid({"dataset": "mini", "teacher": "mini-llama", "prompting": "soft_labels"}, "cell of the grid")
    output: str = of_grid("outputs/explore/09_score_the_choices", "folder of this run")

    def conflicts(self) -> Iterator[tuple[str, str]]:
        yield from super().conflicts()
        if self.backend == "published":
            yield "backend", "published files hold no probabilities of the choices; set backend: hf or openai"
        if self.thinking == "on":
            yield "thinking", "the choices are scored before the model could think; set thinking: off"
        if self.temperature:
            yield "temperature", "nothing is sampled; set temperature: 0, or choice_temperature for the softmax"


class ExplainTokens(Settings):
    """Attributed words of a fine-tuned teacher in the place of texts (arXiv 2409.12586)."""

    notebook: ClassVar[str] = "05_explain_tokens"
    questions: Text = of_grid(QUESTIONS, "table of questions")
    dataset: str = of_grid("mini", "name of the data set")
    model: ModelName = Field("kdutils/mini/example/students/seed-0", description="fine-tuned teacher, folder or Hub id")
    attribution: Attribution = Field(
        "saliency", description="how words are scored, one of ATTRIBUTIONS (kdutils.teacher.choices)")
    k: Words = Field(5, description="words per question")
    choose_on: Literal["", "dev"] = Field(
        "", description="dev: choose the attribution (of attribution and compare) and k (of choose_k) on the dev split")
    choose_k: Annotated[list[Words], AfterValidator(unique)] = Field(
        [1, 2, 3, 4, 5, 6, 7, 8, 9, 10], description="numbers of words that are compared on dev, empty for none")
    target: Literal[*ATTRIBUTION_TARGETS] = Field(
        "gold", description="gold: explain the right answer, own: explain the teacher's answer")
    frame: Texts = Field(list(LAYOUT), description="layout of a question, never chosen")
    steps: Annotated[int, Field(ge=1, le=100_000)] = Field(64, description="points on the path of integrated gradients")
    evaluations: Annotated[int, Field(ge=8, le=1_000_000)] = Field(
        512, description="evaluations of the teacher per question, of shapley_sampling and lime")
    random_weights: bool = Field(False, description="control: a teacher of the same shape that has learnt nothing")
    compare: Annotated[list[Attribution], AfterValidator(unique)] = Field(
        ["attention_rollout", "random"], description="further attributions to compare with the first")
    compare_questions: Count = Field(100, description="number of questions of these comparisons")
    max_source_tokens: Annotated[int, Field(ge=8, le=1_000_000)] = Field(
        512, description="a longer question is an error")
    max_new_tokens: Count = Field(64, description="maximum number of tokens of the teacher's own answer")
    token_budget: Count = Field(4096, description="tokens of a batch with padding")
    splits: Splits = Field(["train", "dev", "test"], description="splits whose questions are explained")
    seed: Seed = Field(0, description="draws random words and random weights")
    labels: dict = of_grid({"dataset": "mini", "teacher": "mini-t5-tuned", "prompting": "tokens"}, "cell of the grid")
    output: str = of_grid("outputs/explore/05_explain_tokens", "folder of this run")

    def conflicts(self) -> Iterator[tuple[str, str]]:
        if self.choose_on and not self.choose_k:
            yield "choose_k", "empty, but choose_on needs numbers of words to choose from"
        if self.choose_on and not {self.attribution, *self.compare} - {"random"}:
            yield "compare", "empty or random only; choose_on needs an attribution other than random"


class JudgeExplanations(Settings):
    """What the teachers wrote, side by side."""

    notebook: ClassVar[str] = "07_judge_explanations"
    explained: Folders = of_grid(["kdutils/mini/example/explanations"], "folders of explaining runs")
    examples: Annotated[int, Field(ge=0, le=1000)] = Field(2, description="texts shown per run, stage and verdict")
    seed: Seed = Field(0, description="draws those texts")
    encoder: ModelName = Field("", description="folder or Hub id of an encoder, for a proxy of truth, empty for none")
    nli: ModelName = Field(
        "", description="folder or Hub id of a model for natural language inference, a proxy of truth, or empty")
    output: str = of_grid("outputs/explore/07_judge_explanations", "folder of this run")
