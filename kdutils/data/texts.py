"""Words, sentences and mentions of an answer in texts of any script. Every other module takes them from here.

A *word* is a run of letters, digits and their combining marks. Chinese, Japanese, Thai, Lao, Khmer and Burmese are
written without spaces between words, and splitting them takes a dictionary. In these scripts every character with its
marks counts as one word, as in sacrebleu's tokenizers for Chinese and for characters. Lengths in words are therefore
longer there, and an answer is found inside a longer word, too. A Korean particle does not count as part of a word when
an answer is searched. Texts in scripts with spaces are not affected.

Spellings of the same text are equal: composed and decomposed accents (NFC), full-width and ordinary letters, digits
and marks, with and without invisible characters (joiners, soft hyphens, direction marks).
"""

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache, partial
from os.path import commonprefix
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SEPARATOR = "\n"  # between source and target of a causal student, which reads both as one text
ENDS = ".!?…"  # these end a sentence if a space follows
WIDE_ENDS = "。！？｡؟۔।॥"  # these end a sentence always; ． is not among them, because it may be a decimal point
CLOSERS = "\"'”’)]」』）】》〉］〕｣＂＇"  # quotes and brackets that may follow the end of a sentence
PAIRS = (("(（", ")）"), ("[［【", "]］】"), ("“", "”"), ("「", "」"), ("『", "』"), ("《", "》"))

# Scripts without spaces: Han and kana with iteration and length marks, Thai, Lao, Burmese, Khmer; without digits.
_UNSPACED = ("\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ece\u0edc-\u0edf\u1000-\u103f\u104c-\u108f\u109a-\u109f\ua9e0-\ua9ef"
             "\ua9fa-\ua9fe\uaa60-\uaa7f\u1780-\u17d3\u17d7\u17dc\u17dd\u2e80-\u2fd5\u3005-\u3007\u3021-\u3029"
             "\u3031-\u3035\u3038-\u303c\u3041-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
             "\uf900-\ufaff\uff66-\uff9f\U0001aff0-\U0001b16f\U00020000-\U000323af")


def _ranges(codes):
    """Return sorted code points as the inside of a character class."""
    runs = []
    for code in codes:
        if runs and runs[-1][1] == code - 1:
            runs[-1][1] = code
        else:
            runs.append([code, code])
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in runs)


# Accents and vowel signs, which \w does not match. Variation selectors (of emoji) are not part of a word.
ACCENTS = _ranges(code for code in range(0x300, 0x1f000)
                if not 0xfe00 <= code <= 0xfe0f and unicodedata.category(chr(code)) in ("Mn", "Mc"))
_UNSPACED_CHAR = re.compile(f"[{_UNSPACED}]")
_UNIT = rf"(?=\w)[{_UNSPACED}][{ACCENTS}]*"  # one character of a script without spaces, with its marks
_LETTER = rf"[^\W{_UNSPACED}](?:(?![{_UNSPACED}])[{ACCENTS}])*"  # one character of any other script
_WORD = re.compile(rf"{_UNIT}|(?:{_LETTER})+")
_PARTS = re.compile(rf"{_UNIT}|(?:(?!{_UNIT}).)+", re.DOTALL)
_LOOSE = re.compile(rf"(?<=[{_UNSPACED}])\s+|\s+(?=[{_UNSPACED}])")
_MARK = re.compile(f"[{ACCENTS}]")
_PARTICLES = re.compile("(?:은|는|이|가|을|를|의|에|에서|에게|로|으로|와|과|도|만|까지|부터|보다|처럼|이다|다|이며|"
                        "이고|이라|라|이므로|입니다|예요|이에요)(?!\\w)")
_WIDE = str.maketrans({**{chr(code): chr(code - 0xfee0) for code in range(0xff01, 0xff5f)}, "\u3000": " "})
_INVISIBLE = re.compile("[\u00ad\u0640\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]")  # with kashida
_VOWEL_POINTS = re.compile("[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u064b-\u0652\u0670]")  # Hebrew, Arabic
LAYOUT = ("Premise:", "Hypothesis:", "What is the relationship?")  # what datasets.nli_question adds
WORDS = re.compile(rf"[\w{ACCENTS}]+(?:['’-][\w{ACCENTS}]+)*")


# Spellings

def compose(text: str) -> str:
    """Return `text` with composed accents (NFC) and with ordinary letters, digits and marks for full-width ones."""
    return text if text.isascii() else unicodedata.normalize("NFC", text).translate(_WIDE)


def fold(text: str) -> str:
    """Return `text` without the differences between spellings: case, width, composition, invisible characters.

    Arabic and Hebrew vowel points are removed, because writers may omit them. Turkish İ becomes i.
    """
    if text.isascii():
        return text.casefold()
    narrow = "".join(unicodedata.normalize("NFKC", char) if "｡" <= char <= "ﾟ" else char for char in text)
    plain = _INVISIBLE.sub("", compose(narrow)).casefold().replace("i\u0307", "i")
    return _VOWEL_POINTS.sub("", unicodedata.normalize("NFC", plain))


# Words

def is_unspaced(text: str) -> bool:
    """Say whether `text` holds a character of a script without spaces between words."""
    return not text.isascii() and _UNSPACED_CHAR.search(text) is not None


def lower_words(text: str) -> list[str]:
    """Return the words of a text in lower case, without punctuation."""
    return re.findall(r"\w+", text.casefold()) if text.isascii() else _WORD.findall(fold(text))


def question_words(item: dict) -> list[str]:
    """Return the words of a question (a record of tables.QUESTIONS), its context and its choices, in their order.

    What a word is: see split_characters. The LAYOUT of a question holds none.
    """
    question = [item["question"][start:end] for start, end in spans_between(item["question"], LAYOUT)]
    runs = WORDS.findall(" ".join([item.get("context") or "", *question, *item["choices"]]))
    return [word for run in runs for word, *_ in split_characters(run)]


def spans_between(text: str, layout: Sequence[str], start: int = 0, end: int | None = None) -> list[tuple[int, int]]:
    """Return [(start, end)] of what lies before, between and behind the texts of `layout` in ``text[start:end]``."""
    end, spans = len(text) if end is None else end, []
    for word in re.compile("|".join(map(re.escape, layout)) or r"(?!)").finditer(text, start, end):
        spans.append((start, word.start()))
        start = word.end()
    return [*spans, (start, end)]


def count_words(text: str) -> int:
    """Return the length of a text in words: pieces between spaces, and characters in scripts without spaces."""
    pieces = text.split()
    if not is_unspaced(text):
        return len(pieces)
    return sum(sum(any(map(str.isalnum, part)) for part, *_ in split_characters(piece)) or 1 for piece in pieces)


def first_words(text: str, count: int) -> str:
    """Return the first `count` words of a text as written, with every run of spaces as one space."""
    if not is_unspaced(text):
        return " ".join(text.split()[:count])
    text = " ".join(text.split())
    for number, word in enumerate(_WORD.finditer(text), 1):
        if number > count:
            return text[:word.start()].rstrip()
    return text


def space_characters(text: str) -> str:
    """Return `text` with spaces around every character and mark of a script without spaces."""
    if not is_unspaced(text):
        return text
    return " ".join(re.sub(rf"{_UNIT}|[\u3001-\u3003\u3008-\u3020\u30fb\u30a0]", r" \g<0> ", compose(text)).split())


def split_characters(text: str, start: int = 0) -> list[tuple[str, int, int]]:
    """Return [(part, start, end)]: each character of a script without spaces, and the texts between them.

    `start` is the position of `text` in a longer one. A text without such characters is one part.
    """
    if not is_unspaced(text):
        return [(text, start, start + len(text))]
    return [(part[0], start + part.start(), start + part.end()) for part in _PARTS.finditer(text)]


def join_characters(text: str) -> str:
    """Return `text` without spaces next to characters of a script without spaces; some vocabularies write them."""
    return _LOOSE.sub("", text) if is_unspaced(text) else text


def word_triples(text: str) -> list[tuple[str, str, str]]:
    """Return the three-word sequences of a text in order."""
    words = lower_words(text)
    return list(zip(words, words[1:], words[2:], strict=False))


# Mentions of an answer

@lru_cache(10_000)
def _pattern(answer):
    parts = [re.escape(part) for part, *_ in split_characters(join_characters(compose(answer)))]
    return re.compile(r"\s*".join(parts), re.IGNORECASE)


def find_mentions(text: str, answer: str) -> list[tuple[int, int]]:
    """Return [(start, end)] in ``compose(text)`` of every mention of `answer` as whole words, in any case."""
    return list(_mentions(compose(text), answer)) if answer else []


def _mentions(text, answer):
    pattern, place = _pattern(answer), 0
    while match := pattern.search(text, place):
        start, end = match.span()
        if _begins(text, start) and _ends(text, end):
            yield start, end
            place = max(end, start + 1)
        else:
            place = start + 1


def _begins(text, place):
    """Say whether a word may begin at a place: after no letter, or next to a letter of a script without spaces."""
    return _unspaced_at(text, place) or not (place and _is_letter(text[place - 1])) or _unspaced_at(text, place - 1)


def _ends(text, place):
    """Say whether a word may end at a place: not before a mark that belongs to its last letter."""
    if place == len(text) or not _is_letter(text[place]):
        return True
    if _MARK.match(text, place):
        return False
    return (_unspaced_at(text, place) or _unspaced_at(text, place - 1)
            or "\uac00" <= text[place - 1] <= "\ud7a3" and _PARTICLES.match(text, place) is not None)


def _unspaced_at(text, place):
    return text[place] > "\u0e00" and _UNSPACED_CHAR.match(text, place) is not None


def _is_letter(char):
    return char.isalnum() or char == "_" or char > "\u02ff" and _MARK.match(char) is not None


def names_answer(text: str, answer: str) -> bool:
    """Say whether the text mentions the answer as whole words, in any case."""
    return bool(answer) and next(_mentions(compose(text), answer), None) is not None


def naming_score(text: str, answer: str, choices: Sequence[str] = ()) -> float | None:
    """Return names_answer as a measure of an explanation, 1.0 or 0.0; None where a mention shows nothing.

    "There is no ferry" does not name the answer no. Mentions show nothing where yes and no, true and false, or the
    labels of natural language inference are among the `choices` or, without choices, where `answer` is one of them.
    """
    names = {fold(name) for name in (choices if len(choices) else [answer])}
    if any(known <= names or names <= known for known in (*_ORDINARY, _LABELS)):
        return None
    return float(names_answer(text, answer))


def replace_mentions(text: str, answer: str, gap: str) -> str:
    """Return `text` with every mention of `answer` replaced by `gap`."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)  # as long as compose(text), to which the positions refer
    for start, end in reversed(find_mentions(text, answer)):
        text = text[:start] + gap + text[end:]
    return text


_CONTRAST = re.compile(r"n't\b|\b(?:not?|never|cannot|neither|nor|wrong|incorrect|unlike|while|although|but|instead)\b"
                       "|[不没沒非无無未勿但却卻虽雖错錯誤]|ない|なく|なかっ|ません|しかし|けれど|ไม่|แต่", re.IGNORECASE)
_STATED = re.compile(r"\banswer is:? [\"'“‘]?([^.,;\n\"”’]+)"
                    r"|(?:答案[是为為]|答え[はが]|正解[はが])[:：]?\s*[\"'“‘「『]?([^.,;\n\"”’」』。，；]+)",
                    re.IGNORECASE)
_NO_ANSWER = re.compile(r"^\W*(?:not|never|neither|nor)\b.*?(?:\bbut\b|$)", re.IGNORECASE | re.DOTALL)
_EITHER = re.compile(r"\bor\b", re.IGNORECASE)
_YES_NO = ({"yes", "no"}, {"是", "否"}, {"是", "不是"}, {"对", "错"}, {"對", "錯"}, {"はい", "いいえ"}, {"ใช่", "ไม่ใช่"})
_TRUE_FALSE = {"true", "false"}
_ORDINARY = (*_YES_NO, _TRUE_FALSE)  # choices that are also ordinary words: these are not searched inside a text
_LABELS = {"entailment", "neutral", "contradiction"}  # datasets.NLI_LABELS; texts say "contradicts" or "follows"
# Not behind a title ("Mr. Smith"), and behind initials not before a small letter ("the U.S. would").
_NO_END = r"(?<!\b[MD]r\.)(?<!\bMs\.)(?<!\bMrs\.)(?<!\bSt\.)(?<!\bvs\.)"
_SENTENCE_ENDS = re.compile(rf"(?<=[.!?]){_NO_END}\s(?!(?<=\b\w\.\w\.\s)[a-z])|(?<=[{WIDE_ENDS}])|(?<=．)(?!\d)")


_NOT = r"(?: ?not|n[\'’]t)"
_DENIED_BEFORE = re.compile(r"(?:n[\'’]t|\b(?:not|never|nor|neither|cannot|rather than|instead of))"
                            r"(?: (?:be|a|an|the|in|on|at|to)){0,3} [\"\'“‘]?$", re.IGNORECASE)
_JUDGED = re.compile(rf"[\"\'”’)]{{0,2}} (?:is|are|was|were|can?|could|would|should)(?P<no>{_NOT})?(?: be)?"
                     rf"(?P<not>{_NOT})? (?:(?P<wrong>wrong|incorrect)|(?:the |a )?(?:right|correct|best))\b",
                     re.IGNORECASE)
_VERDICT = re.compile(  # "It is not true that", "The claim that … is false.", "That isn't a true claim.", "False."
    rf"(?:(?:it|this|that|(?:the|this|that|my) (?:claim|statement|sentence)(?: that [^.;]+?)?)(?: is| was|[\'’]?s)"
    rf"(?P<no>{_NOT}| never)?(?: (?:absolutely|actually|clearly|definitely|indeed|really))?(?: an?)?|(?P<not>not)?) ?"
    r"(?P<word>true|untrue|false)(?: (?:claim|statement|sentence))?"
    r"(?: that |(?=[.,;:!)…]| [-–—]|$| (?:and(?! false)|as|because|due|since)\b))", re.IGNORECASE)
_LEAD = re.compile(r"\W*(?:(?:and )?(?:so|thus|hence|therefore|however|but|in fact|actually|indeed),? |(?:no|yes), )?"
                   r"(?:because )?(?:I (?:know|think) (?:that )?)?", re.IGNORECASE)
_SO = re.compile(r"[,;] (?=(?:and )?(?:so|thus|hence|therefore)\b)", re.IGNORECASE)
_CONCEDED = re.compile(r"\b(?:but|however|yet|though|although|while|whereas)\b", re.IGNORECASE)


def split_sentences(text: str) -> list[str]:
    """Return the sentences of a text, without the spaces around them."""
    return [part.strip() for part in _SENTENCE_ENDS.split(text) if part.strip()]


def argues_for(text: str, answer: str, choices: Sequence[str]) -> bool | None:
    """Say whether `text` argues for `answer`, None if the text does not show it.

    Decided by, in this order: the last answer that the text states ("the answer is …", a yes or no as first word, or,
    for the choices true and false, "it is not true that …", see _verdict); the one choice that its first sentence
    names, if that sentence has no word of contrast; the one choice that the text names. If this is not `answer` and is
    named only in sentences with a word of contrast, as in "Unlike a library, it …", nothing is shown. Yes and no, true
    and false are not searched inside the text, because they are ordinary words. Words that state an answer are known in
    English, Chinese and Japanese (verdicts in English alone), words of contrast also in Thai.
    """
    if (stated := _states(text, answer, choices)) is not None:
        return stated
    if {fold(choice) for choice in choices} in _ORDINARY:
        return None
    first = _SENTENCE_ENDS.split(text, maxsplit=1)[0]
    for part in ([] if _CONTRAST.search(first) else [first]) + [text]:
        named = [choice for choice in choices if names_answer(part, choice)]
        if len(named) == 1:
            if _only_denied(part, named[0]) or named[0] != answer and _only_contrasted(part, named[0]):
                return None
            return named[0] == answer
    return None


def _only_contrasted(text, choice):
    named = [sentence for sentence in split_sentences(text) if names_answer(sentence, choice)]
    return bool(named) and all(map(_CONTRAST.search, named))


def _states(text, answer, choices):
    """Say whether the choice that a text states last is `answer`, None if it states none.

    A text states a choice by "the answer is …", yes or no also as its first word, true or false also by a verdict.
    """
    told = [name for pair in _STATED.findall(text) for name in pair if name and _first_named(name, choices)]
    names = {fold(choice) for choice in choices}
    if names == _TRUE_FALSE and (verdict := _verdict(told[-1] if told else text)):
        return verdict == fold(answer)
    if stated := [choice for name in told if (choice := _choice_in(name, choices))]:
        return stated[-1] == answer
    if names not in _YES_NO:
        return None
    longest = "|".join(sorted(names, key=len, reverse=True))
    first = re.match(rf"\W*({longest})" + ("" if any(map(is_unspaced, names)) else r"\b"), fold(text))
    return first[1] == fold(answer) if first else None


def _verdict(text):
    """Return what an English text says about a claim, "true" or "false", or None.

    Read are the beginnings of sentences and what follows ", so", as in "Cats have no wings, so the claim is false".
    What follows "it is true that" is taken for the claim, so its own "not" does not count; a verdict in it does: "It is
    true that it is not true" says false. A true before a "but" or "however" may only concede something, and is left
    out. None if no verdict is left, or two that differ.
    """
    found, parts = set(), [part for sentence in split_sentences(text) for part in _SO.split(sentence)]
    conceding = max((number for number, part in enumerate(parts) if _CONCEDED.search(part)), default=-1)
    for number, part in enumerate(parts):
        place, verdict = _LEAD.match(part).end(), None
        while judged := _VERDICT.match(part, place):
            true = (judged["word"].casefold() == "true") != bool(judged["no"] or judged["not"])
            place, verdict = judged.end(), true if verdict is None else true == verdict
        if verdict is False:
            found.add("false")
        elif verdict and conceding <= number and not _CONCEDED.search(part, place):
            found.add("true")
    return found.pop() if len(found) == 1 else None


def denies_answer(text: str, answer: str, choices: Sequence[str]) -> bool:
    """Say whether `text` contradicts `answer` in words: it states another answer, or says that `answer` is not it.

    The last answer that the text states (see argues_for) is another choice, or nothing is stated and every mention of
    `answer` is denied: "not `answer`", "instead of `answer`", "`answer` is wrong". The words of denial are English. A
    text that never mentions the answer does not deny it.
    """
    if (stated := _states(text, answer, choices)) is not None:
        return not stated
    if {fold(choice) for choice in choices} in _ORDINARY:
        return False
    return _only_denied(text, answer)


def _only_denied(text, answer):
    text, places = compose(text), find_mentions(text, answer)
    return bool(places) and all(_denied(text, start, end) for start, end in places)


def _denied(text, start, end):
    judged = _JUDGED.match(text, end)
    wrong = judged and bool(judged["wrong"]) != bool(judged["no"] or judged["not"])
    return bool(wrong or _DENIED_BEFORE.search(text[:start]))


def _choice_in(text, choices):
    """Return the choice that an answer names: ice in "not water but ice". None in "not water" and "water or ice"."""
    text = _NO_ANSWER.sub("", text)
    if _EITHER.search(text) and sum(bool(find_mentions(text, choice)) for choice in choices) > 1:
        return None
    return _first_named(text, choices)


def _first_named(text, choices):
    """Return the choice that a text names first (the longest if several begin there), or None."""
    named = [(places[0][0], -len(choice), choice) for choice in choices if (places := find_mentions(text, choice))]
    return min(named)[2] if named else None


# Tokens

_LONGEST_CHARACTER = 8  # tokens that one character may take
_FAR = 16  # a token begins at most so many characters behind the token before it
_TAG_BEHIND = re.compile(r"\n\[\w+\]$")  # see student.methods.place_tag
_CONTEXT = re.compile(r"(?:\[\w+\] )?(Context: ).*(\nQuestion: )")  # see questions.format_question


def locate_tokens(tokenizer: "PreTrainedTokenizerBase", text: str, ids: Sequence[int]) -> list[tuple[int, int]]:
    """Return (start, end) in `text` of each token of `ids`, for a tokenizer that gives no offsets; (0, 0) for none.

    Each token is decoded alone and searched behind the token before it. Tokens that are parts of a character, such as
    bytes, are decoded together and all get the place of the character. A token that is not found (an unknown one, or
    a character that the vocabulary rewrites) gets the place between its neighbours; special tokens get none.
    """
    special, places, waiting, at = set(tokenizer.all_special_ids), [(0, 0)] * len(ids), [], 0
    lower = text.casefold() if len(text.casefold()) == len(text) else text
    for number, token in enumerate(ids):
        if token in special:
            waiting = []
            continue
        waiting.append(number)
        piece = _piece(tokenizer, [ids[i] for i in waiting])
        if piece is None and len(waiting) < _LONGEST_CHARACTER:
            continue
        start = lower.find(piece.casefold() if lower is not text else piece, at) if piece else -1
        if 0 <= start <= at + _FAR:
            at = start + len(piece)
            for i in waiting:
                places[i] = (start, at)
        waiting = []
    special.discard(tokenizer.unk_token_id)
    return [place if place[1] or token in special else _between(text, places, number)
            for number, (token, place) in enumerate(zip(ids, places, strict=True))]


def count_tokens_before(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str],
                        positions: Sequence[int]) -> list[int]:
    """Return how many tokens of each target text end at or before a position, given in characters.

    If the tokenizer gives no offsets: the tokens that the text up to the position and the whole text share.
    """
    if not texts:
        return []
    encode = partial(tokenizer, add_special_tokens=False)
    if tokenizer.is_fast:
        offsets = encode(text_target=texts, return_offsets_mapping=True)["offset_mapping"]
        return [sum(end <= position for _, end in spans) for spans, position in zip(offsets, positions, strict=True)]
    whole = encode(text_target=texts)["input_ids"]
    heads = encode(text_target=[text[:place] for text, place in zip(texts, positions, strict=True)])["input_ids"]
    return [len(commonprefix([head, ids])) for head, ids in zip(heads, whole, strict=True)]


def kept_tokens(tokenizer: "PreTrainedTokenizerBase", text: str, count: int, limit: int) -> list[int]:
    """Return which of the `count` tokens of a source text are left if at most `limit` may be read.

    A task tag and the last token are kept. What is cut is the end of the context; if the text without its context is
    still too long, or has none, the end of this text, which is that of a rationale if there is one.
    """
    if count <= limit:
        return list(range(count))
    context, tag = _CONTEXT.match(text), _TAG_BEHIND.search(text)
    starts = [*((context.start(1), context.start(2)) if context else ()), *((tag.start(),) if tag else ())]
    special = {*tokenizer.all_special_ids} - {tokenizer.unk_token_id}
    lead = int(tokenizer(text)["input_ids"][0] in special)  # a start token, which is no text
    before = [lead + number for number in count_tokens_before(tokenizer, [text] * len(starts), starts)]
    tail = min(limit, count - before.pop() if tag else 1)
    if not context:
        return [*range(limit - tail), *range(count - tail, count)]
    head, question = min(before[0], limit - tail), before[1]
    if head + count - question <= limit:
        return [*range(limit - count + question), *range(question, count)]
    return [*range(head), *range(question, question + limit - head - tail), *range(count - tail, count)]


def _piece(tokenizer, ids):
    """Return the text of some tokens without spaces around it, None if they are part of a character."""
    text = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    if not text or "\ufffd" in text:
        return None
    return text.strip().removeprefix("##") or text[:1]


def _between(text, places, number):
    """Return the place between the nearest located tokens before and after token `number`, without spaces."""
    start = max((end for _, end in places[:number]), default=0)
    end = min((start for start, end in places[number:] if end), default=len(text))
    inside = text[start:end].strip()
    start = text.find(inside, start)
    return (start, start + len(inside)) if inside else (0, 0)
