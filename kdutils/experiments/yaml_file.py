"""Read the YAML file of an experiment: plain values alone, every key as the text that stands in the file.

The values are those of YAML 1.2 and JSON: ``5e-5`` is a number, ``no`` and ``on`` are texts and only true and false are
truth values; ``010`` and ``1_0``, which other readers take for 8 and 10, are texts. Names are never numbers: keys, and
the entries of the lists under NAMES, stay as they are written, so a student called ``2.5e-4`` keeps its name.

The file is read event by event and nothing is built that is larger than LARGEST, MOST and DEEPEST allow, so that a
crafted file ends in one line, too: deep nesting, an alias that contains itself, aliases of aliases, tags.
"""

import re
from pathlib import Path

import yaml

from kdutils.errors import StudyError, short
from kdutils.runs import PROJECT

FOLDER = PROJECT / "notebooks" / "experiments"  # of the experiments that ship with the project
LARGEST = 200_000  # bytes of a file
MOST = 20_000  # values and keys, those behind an alias counted wherever they are used
DEEPEST = 20  # mappings and lists inside each other
NAMES = {"promptings", "methods", "transfer"}  # keys whose lists hold names
MERGE = "<<"

_TAG = "tag:yaml.org,2002:"
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS = {"": None, "~": None, "null": None, "Null": None, "NULL": None, "true": True, "True": True, "TRUE": True,
          "false": False, "False": False, "FALSE": False}
_SPECIAL = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")


def read_settings(path: Path | str) -> object:
    """Return what the YAML file at `path` holds, of dict, list, str, int, float, bool and None.

    Raises StudyError, one line with file and line, for what is no YAML, a duplicate key, a key that is no text, a tag,
    several documents, and a file that is larger or deeper than an experiment can be.
    """
    given, path = path, short(str(path), 1000)
    try:
        text = _text_of(given)
        return _Builder().build(yaml.parse(text, Loader=yaml.SafeLoader))
    except _Fault as error:
        raise StudyError(f"{path}: not readable YAML: {error}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}: " if mark else ""
        raise StudyError(f"{path}: not readable YAML: {where}{short(error.problem or error.context, 150)}") from None
    except yaml.reader.ReaderError as error:
        raise StudyError(f"{path}: not readable YAML: character {error.position + 1} is the control character "
                         f"#x{error.character:04x}") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # \U00ffffff is a ValueError of PyYAML's scanner
        raise StudyError(f"{path}: not readable YAML: an escape in it is no character ({short(error, 80)})") from None


class _Fault(Exception):
    """What is wrong with a file, said in words for a person."""


def _text_of(path):
    try:
        data = Path(path).read_bytes() if Path(path).stat().st_size <= LARGEST else None
    except OSError as error:
        raise _Fault(f"the file cannot be read ({error.strerror})") from None
    if data is None:
        raise _Fault(f"it has more than {LARGEST:,} bytes, which is no experiment")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _Fault(f"line {line}: it is not UTF-8; save the file as UTF-8") from None


class _Builder:
    """Values out of the events of one document; `open` are the mappings and lists that have not ended yet."""

    def __init__(self):
        self.open, self.anchors, self.count, self.documents, self.root = [], {}, 0, 0, None

    def build(self, events):
        for event in events:
            line = event.start_mark.line + 1
            if isinstance(event, yaml.DocumentStartEvent):
                self.documents += 1
                if self.documents > 1:
                    raise _Fault(f"line {line}: a second document begins; one file is one experiment")
            elif isinstance(event, yaml.AliasEvent):
                if event.anchor not in self.anchors:
                    raise _Fault(f"line {line}: *{short(event.anchor)} names nothing that ends before it")
                value, text, size, depth = self.anchors[event.anchor]
                self._count(size, line)
                self._check_depth(depth, line)
                self._add(text if self._holds_names() and text is not None else value, text, depth, line)
            elif isinstance(event, yaml.ScalarEvent):
                self._count(1, line)
                text = _paired(event.value, line)
                value = _value_of(event, text, line, self._holds_names())
                self._keep(event.anchor, value, text, 1, 0)
                self._add(value, text, 0, line)
            elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
                self._begin(event, line)
            elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
                self._end(line)
        return self.root

    def _begin(self, event, line):
        self._count(1, line)
        mapping = isinstance(event, yaml.MappingStartEvent)
        if event.tag not in (None, "!", f"{_TAG}{'map' if mapping else 'seq'}"):
            raise _Fault(f"line {line}: the tag {short(event.tag)} is not allowed; plain values please")
        if self.open and self.open[-1].awaits_key:
            raise _Fault(f"line {line}: a key must be a plain text; quote a text that begins with {{ or [")
        self._check_depth(1, line)
        self.open.append(_Open({} if mapping else [], event.anchor, self.count - 1,
                               bool(self.open and self.open[-1].key in NAMES)))

    def _end(self, line):
        done = self.open.pop()
        value = done.merged()
        self._keep(done.anchor, value, None, self.count - done.before, done.depth + 1)
        self._add(value, None, done.depth + 1, line)

    def _add(self, value, text, depth, line):
        """Put a whole value where it belongs; `text`: what stands in the file, None for a mapping or list."""
        if not self.open:
            self.root = value
        else:
            self.open[-1].add(value, text, depth, line)

    def _keep(self, anchor, value, text, size, depth):
        if anchor:
            self.anchors[anchor] = value, text, size, depth

    def _holds_names(self):
        return bool(self.open) and self.open[-1].names and isinstance(self.open[-1].value, list)

    def _count(self, size, line):
        self.count += size
        if self.count > MOST:
            raise _Fault(f"line {line}: more than {MOST:,} values, which is no experiment")

    def _check_depth(self, more, line):
        if len(self.open) + more > DEEPEST:
            raise _Fault(f"line {line}: more than {DEEPEST} mappings or lists inside each other")


class _Open:
    """A mapping or list that is being read: `names` says whether it is a list of names."""

    def __init__(self, value, anchor, before, names):
        self.value, self.anchor, self.before, self.names = value, anchor, before, names
        self.key, self.depth, self.merges = None, 0, []
        self.awaits_key = isinstance(value, dict)

    def add(self, value, text, depth, line):
        self.depth = max(self.depth, depth)
        if isinstance(self.value, list):
            self.value.append(value)
        elif self.awaits_key:
            if text is None:
                raise _Fault(f"line {line}: a key must be a plain text")
            if text in self.value or text == MERGE and self.merges:
                raise _Fault(f"line {line}: duplicate key '{short(text)}'")
            self.key, self.awaits_key = text, False
        else:
            if self.key == MERGE:
                self._merge(value, line)
            else:
                self.value[self.key] = value
            self.key, self.awaits_key = None, True

    def _merge(self, value, line):
        self.merges = value if isinstance(value, list) else [value]
        if not self.merges or not all(isinstance(one, dict) for one in self.merges):
            raise _Fault(f"line {line}: << takes the entries of a mapping, such as <<: *name")

    def merged(self):
        """Return the whole value: what `<<` names comes in where the mapping has no entry of its own."""
        if not self.merges:
            return self.value
        whole = {}
        for one in (self.value, *self.merges):
            whole |= {key: value for key, value in one.items() if key not in whole}
        return whole


def _paired(text, line):
    """Return `text` with the two halves of a character joined, as JSON writes an emoji; half a character is refused."""
    text = _PAIR.sub(lambda found: found[0].encode("utf-16", "surrogatepass").decode("utf-16"), text)
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise _Fault(f"line {line}: {short(text)} holds half a character; write the character itself")
    return text


def _value_of(event, text, line, as_written):
    """Return the value of a scalar; quoted ones are texts, and so are all where names stand (`as_written`)."""
    if event.tag not in (None, "!", *(_TAG + name for name in ("str", "int", "float", "bool", "null"))):
        raise _Fault(f"line {line}: the tag {short(event.tag)} is not allowed; plain values please")
    tag = (event.tag or "!").removeprefix(_TAG)
    if tag == "str" or tag == "!" and (not event.implicit[0] or as_written):
        return text
    value = _plain(text, line)
    kinds = {"int": int, "float": (int, float), "bool": bool, "null": type(None)}
    if tag in kinds and (not isinstance(value, kinds[tag]) or isinstance(value, bool) != (tag == "bool")):
        raise _Fault(f"line {line}: '{short(text)}' is no {tag}")
    return float(value) if tag == "float" else value


def _plain(text, line):
    """Return what an unquoted text means: None, a bool, a number or itself."""
    if text in _WORDS:
        return _WORDS[text]
    number = _INT.fullmatch(text) or _FLOAT.fullmatch(text)
    if number and len(text) > 40:
        raise _Fault(f"line {line}: the number {short(text, 30)} has more than 40 characters")
    if _INT.fullmatch(text):
        return int(text)
    if number or _SPECIAL.fullmatch(text):
        return float(text.replace(".inf", "inf").replace(".Inf", "inf").replace(".INF", "inf").replace(".n", "n")
                     .replace(".N", "N"))
    return text
