"""Settings of a step, typed once: what the parameters of a notebook and the entries of an experiment file may be.

Every notebook has one model, a subclass of Settings in the module ``settings`` of its room. A field has a type, bounds
or choices, a default and a description, and the parameters cell of the notebook equals them (tests/test_settings.py).
An experiment file is checked with the same models before anything runs (experiments/schema.py).
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from kdutils.errors import StudyErrors, quoted, short
from kdutils.runs import Run, injected_names, start_run

MAX_SEED = 2**31 - 1  # NumPy takes less than 2**32, and folds and processes add their number to a seed
MAX_TEXT = 20_000  # characters of a text
NULLABLE = {"config", "request"}  # mappings in which null means that something is left out
# Control characters other than tab and line end, marks that turn the direction of a text, halves of characters.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
_TYPES = {"string_type": "str", "int_type": "int", "int_from_float": "int", "float_type": "float", "bool_type": "bool",
          "list_type": "list", "dict_type": "dict", "model_type": "dict"}


@dataclass(frozen=True)
class PathOf:
    """What a text must name on this machine or on the Hub: a model, a vocabulary, a folder or any path."""

    what: str


class Inside(ValueError):
    """What is wrong inside a mapping: `key` is its dotted key there."""

    def __init__(self, key: str, what: str):
        super().__init__(what)
        self.key = key


class Settings(BaseModel):
    """The parameters of one notebook. All fields have defaults, so that a part of them can be checked by itself."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True, protected_namespaces=())
    notebook: ClassVar[str] = ""

    @classmethod
    def start(cls, variables: dict[str, Any]) -> Run:
        """Check the parameters among a notebook's ``globals()`` and open its run; StudyErrors for all that is wrong."""
        given = {name: variables[name] for name in cls.model_fields if name in variables}
        unknown = injected_names(variables.get("In")) - set(cls.model_fields)
        faults = [(name, f"unknown; known are {', '.join(cls.model_fields)}") for name in sorted(unknown)]
        faults += [(name, "'' is empty") for name in ("dataset", "output") if given.get(name) == ""]
        faults += cls.faults(given) or list(cls(**given).conflicts())
        if faults:
            raise StudyErrors([f"{cls.notebook}: parameter '{key}': {what}" for key, what in faults])
        seed = given["seed"] if "seed" in given else next(iter(given.get("seeds") or [0]))
        return start_run(cls.notebook, given["output"], variables, seed)

    @classmethod
    def faults(cls, values: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Return [(key, what is wrong and what would be right)] of some of the parameters, [] where all are right.

        A key inside a mapping is dotted. What cannot be together is not looked at: see conflicts().
        """
        return plain_faults(values) or faults_of(cls, values)

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """Yield (key, what is wrong) of parameters that are right by themselves and cannot be together."""
        yield from ()

    @classmethod
    @cache
    def own(cls) -> frozenset[str]:
        """Return the parameters that an experiment may set: all but those that follow from the grid."""
        return frozenset(name for name, field in cls.model_fields.items() if not is_of_grid(field))

    @classmethod
    @cache
    def defaults(cls) -> dict[str, Any]:
        """Return {parameter: default}."""
        return {name: field.get_default(call_default_factory=True) for name, field in cls.model_fields.items()}

    @classmethod
    @cache
    def types(cls) -> dict[str, str]:
        """Return {parameter: str, int, float, bool, list or dict}, the type that its notebook writes."""
        return {name: _base_type(field.annotation).__name__ for name, field in cls.model_fields.items()}

    @classmethod
    @cache
    def paths(cls) -> dict[str, str]:
        """Return {parameter: PathOf.what} of the parameters that name files, models or folders."""
        return {name: mark.what for name, field in cls.model_fields.items() for mark in field.metadata
                if isinstance(mark, PathOf)}


def of_grid(default: Any, description: str) -> Any:
    """Return the field of a parameter that the study sets from the grid; an experiment file may not set it."""
    return Field(default, description=description, json_schema_extra={"grid": True})


def is_of_grid(field: FieldInfo) -> bool:
    """Return whether the study sets this parameter from the grid."""
    return bool((field.json_schema_extra or {}).get("grid"))


def unique(values: list) -> list:
    """Return a list in which nothing stands twice; the error names what does."""
    for place, value in enumerate(values):
        if value in values[:place]:
            raise ValueError(f"{quoted(value)} is listed twice")
    return values


def matching(pattern: str, what: str) -> AfterValidator:
    """Return the check that the whole of a text fits `pattern`; `what` says in words what fits."""
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        if not compiled.fullmatch(value):
            raise ValueError(f"{quoted(value)} is not {what}")
        return value

    return AfterValidator(check)


def at_least(least: int, or_else: int) -> AfterValidator:
    """Return the check that a number is `least` or more, or the one number that means something else, such as -1."""

    def check(value: int) -> int:
        if value < least and value != or_else:
            raise ValueError(f"{short(value)} is less than {least} (or {or_else})")
        return value

    return AfterValidator(check)


# The types that several steps share
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
PRECISIONS = ("float32", "bf16")
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
Seeds = Annotated[list[Seed], Field(min_length=1), AfterValidator(unique)]
Text = Annotated[str, Field(min_length=1)]
Texts = list[Text]
Folders = Annotated[list[Text], Field(min_length=1), AfterValidator(unique)]
Split = Literal["train", "dev", "test"]
Splits = Annotated[list[Split], Field(min_length=1), AfterValidator(unique)]
ModelName = Annotated[str, PathOf("model")]
Vocabulary = Annotated[str, PathOf("vocabulary")]
Folder = Annotated[str, PathOf("folder")]


def _base_type(annotation: Any) -> type:
    """Return the plain type of an annotation: int of Annotated[int, …], str of Literal["a"], list of list[str]."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _base_type(get_args(annotation)[0])
    if origin is Literal:
        return type(get_args(annotation)[0])
    return origin or annotation


def faults_of(model: type[BaseModel], values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return [(dotted key, what is wrong)] of values that do not fit a model; entries of a list have the list's key."""
    try:
        model.model_validate(dict(values))
        return []
    except ValidationError as error:
        errors = error.errors(include_url=False)
    found = {}
    for fault in errors:
        path = [part for part in fault["loc"] if not isinstance(part, int)]
        if fault["type"] == "extra_forbidden" and len(path) == 1:
            what = f"unknown; known are {', '.join(model.model_fields)}"
        else:
            what = explain(fault)
        if isinstance(fault.get("ctx", {}).get("error"), Inside):
            path.append(fault["ctx"]["error"].key)
        if path[-1] == "[key]":  # the key of a mapping is what is wrong
            path = path[:-2]
        found.setdefault(".".join(short(part, 200) for part in path), what)
    return list(found.items())


def explain(fault: Mapping[str, Any]) -> str:
    """Return what is wrong, and what would be right, for one error of pydantic's ``errors()``."""
    kind, value, context = fault["type"], fault["input"], fault.get("ctx", {})
    if kind in _TYPES:
        return f"{quoted(value)} is not of type {_TYPES[kind]}{_advice(value, _TYPES[kind])}"
    wordings: dict[str, Callable[[], str]] = {
        "literal_error": lambda: f"unknown {quoted(value)}; known are {_known(context['expected'])}",
        "greater_than_equal": lambda: f"{short(value)} is less than {context['ge']:,.12g}",
        "less_than_equal": lambda: f"{short(value)} is more than {context['le']:,.12g}",
        "greater_than": lambda: f"{short(value)} must be above {context['gt']:,.12g}",
        "less_than": lambda: f"{short(value)} must be below {context['lt']:,.12g}",
        "finite_number": lambda: f"{value} is not a finite number",
        "too_short": lambda: f"{short(value)} is empty",
        "too_long": lambda: f"{context['actual_length']:,} entries; at most {context['max_length']:,} are allowed",
        "string_too_short": lambda: "'' is empty",
        "missing": lambda: "missing",
        "extra_forbidden": lambda: "unknown",
        "value_error": lambda: str(context["error"]),
    }
    return wordings.get(kind, lambda: f"{quoted(value)}: {fault['msg']}")()


def _known(expected: str) -> str:
    return ", ".join(part.strip("'") or "''" for part in expected.replace(" or ", ", ").split(", "))


def _advice(value: Any, wanted: str) -> str:
    """Return what to do about a value of a wrong type, "" where it is plain."""
    if wanted == "str" and isinstance(value, (bool, int, float)):
        return "; put it in quotes"
    if wanted == "bool":
        return "; write true or false"
    return "; write the number alone, such as 1000 or 0.0005" if isinstance(value, str) and wanted != "list" and \
        value[:1].isdigit() else ""


def plain_faults(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return [(key, what)] of values that are right nowhere, such as nulls and control characters.

    The text of a base_url is left to the check of addresses, because it may hold a password.
    """
    return [fault for name, value in values.items() if name != "base_url" or not isinstance(value, str)
            for fault in _plain_faults(value, name, name in NULLABLE)]


def _plain_faults(value: Any, key: str, null: bool = False) -> Iterator[tuple[str, str]]:
    """Yield (key, what) of values that are right nowhere: nulls, control characters, numbers that are not finite.

    `null`: null is allowed.
    """
    if value is None and not null:
        yield key, "it is empty; leave the key out, or write \"\" for an empty text"
    elif isinstance(value, str) and _CONTROL.search(value):
        yield key, f"{quoted(value)} holds control characters"
    elif isinstance(value, str) and len(value) > MAX_TEXT:
        yield key, f"a text of {len(value):,} characters; at most {MAX_TEXT:,} are allowed"
    elif isinstance(value, float) and not math.isfinite(value):
        yield key, f"{value} is not a finite number"
    elif isinstance(value, int) and abs(value) >= 2**63:
        yield key, f"{short(value, 30)} is too large a number"
    elif isinstance(value, dict):
        for name, one in value.items():
            if not isinstance(name, str) or not name or len(name) > 200 or _CONTROL.search(name):
                yield key, f"{quoted(name)} is not a name of a key"
            else:
                yield from (() if name == "base_url" and isinstance(one, str) else
                            _plain_faults(one, f"{key}.{short(name)}", null or name in NULLABLE))
    elif isinstance(value, list):
        for one in value:
            yield from list(_plain_faults(one, key, null))[:1]
    elif value is not None and not isinstance(value, (str, int, float)) and "." in key:
        yield key, f"{short(value)} is not a text, number, true, false, list or mapping"
