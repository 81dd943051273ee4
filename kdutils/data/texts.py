"""What a word, a sentence and a mention of an answer are: the one place that decides it, for texts of any script.

A *word* is a run of letters, digits and the marks that belong to them. Chinese, Japanese, Thai, Lao, Khmer and Burmese
are written without spaces between words, and finding words there takes a dictionary: there each character, with its
marks, counts as one word (as sacrebleu's tokenizers of Chinese and of characters do), so lengths in words are longer
and an answer is found wherever its characters stand, inside a longer word, too. Korean particles are no part of a
word where an answer is looked for. Nothing of this touches a text of letters that are written with spaces.

Two spellings of one text are the same text: composed and decomposed accents (NFC), full-width and ordinary letters,
digits and marks, and whatever is invisible (joiners, soft hyphens, marks of direction).
"""

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache, partial
from os.path import commonprefix

ENDS = ".!?…"  # of sentences where a space follows
WIDE_ENDS = "。！？｡؟۔।॥"  # of sentences whatever follows; ． may stand in a number
CLOSERS = "\"'”’)]」』）】》〉］〕｣＂＇"  # quotes and brackets behind the end of a sentence
LONGEST_CHARACTER, FAR = 8, 16  # tokens that one character can be; characters between two tokens, unknown ones
PAIRS = (("(（", ")）"), ("[［【", "]］】"), ("“", "”"), ("「", "」"), ("『", "』"), ("《", "》"))

# Written without spaces: Han and kana with their signs of repetition and length, Thai, Lao, Burmese, Khmer; no digits.
_UNSPACED = ("\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ece\u0edc-\u0edf\u1000-\u103f\u104c-\u108f\u109a-\u109f\ua9e0-\ua9ef"
             "\ua9fa-\ua9fe\uaa60-\uaa7f\u1780-\u17d3\u17d7\u17dc\u17dd\u2e80-\u2fd5\u3005-\u3007\u3021-\u3029"
             "\u3031-\u3035\u3038-\u303c\u3041-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
             "\uf900-\ufaff\uff66-\uff9f\U0001aff0-\U0001b16f\U00020000-\U000323af")


def _ranges(codes):
    """Return numbers as the inside of a character class."""
    runs = []
    for code in codes:
        if runs and runs[-1][1] == code - 1:
            runs[-1][1] = code
        else:
            runs.append([code, code])
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in runs)


# Accents and vowel signs, which no \w holds; of variation selectors (emoji) none: they are no part of a word.
ACCENTS = _ranges(code for code in range(0x300, 0x1f000)
                if not 0xfe00 <= code <= 0xfe0f and unicodedata.category(chr(code)) in ("Mn", "Mc"))
_UNSPACED_CHAR = re.compile(f"[{_UNSPACED}]")
_UNIT = rf"(?=\w)[{_UNSPACED}][{ACCENTS}]*"  # one character of a script without spaces
_LETTER = rf"[^\W{_UNSPACED}](?:(?![{_UNSPACED}])[{ACCENTS}])*"  # one of any other script
_WORD = re.compile(rf"{_UNIT}|(?:{_LETTER})+")
_PARTS = re.compile(rf"{_UNIT}|(?:(?!{_UNIT}).)+", re.DOTALL)
_LOOSE = re.compile(rf"(?<=[{_UNSPACED}])\s+|\s+(?=[{_UNSPACED}])")
_MARK = re.compile(f"[{ACCENTS}]")
_PARTICLES = re.compile("(?:은|는|이|가|을|를|의|에|에서|에게|로|으로|와|과|도|만|까지|부터|보다|처럼|이다|다|이며|"
                        "이고|이라|라|이므로|입니다|예요|이에요)(?!\\w)")
_WIDE = str.maketrans({**{chr(code): chr(code - 0xfee0) for code in range(0xff01, 0xff5f)}, "\u3000": " "})
_INVISIBLE = re.compile("[\u00ad\u0640\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]")  # and the kashida
_VOWEL_POINTS = re.compile("[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u064b-\u0652\u0670]")  # may be left out

CONTRAST = re.compile(r"n't\b|\b(?:not?|never|cannot|neither|nor|wrong|incorrect|unlike|while|although|but|instead)\b"
                      r"|[不没沒非无無未勿但却卻虽雖错錯誤]|ない|なく|なかっ|ません|しかし|けれど|ไม่|แต่", re.IGNORECASE)
STATED = re.compile(r"\banswer is:? [\"'“‘]?([^.,;\n\"”’]+)"
                    r"|(?:答案[是为為]|答え[はが]|正解[はが])[:：]?\s*[\"'“‘「『]?([^.,;\n\"”’」』。，；]+)",
                    re.IGNORECASE)
YES_NO = ({"yes", "no"}, {"是", "否"}, {"是", "不是"}, {"对", "错"}, {"對", "錯"}, {"はい", "いいえ"}, {"ใช่", "ไม่ใช่"})
LAYOUT = ("Premise:", "Hypothesis:", "What is the relationship?")  # what readers.nli_question adds
WORDS = re.compile(rf"[\w{ACCENTS}]+(?:['’-][\w{ACCENTS}]+)*")
FIRST_SENTENCE = re.compile(rf"(?<=[.!?])\s|(?<=[{WIDE_ENDS}])|(?<=．)(?!\d)")


# Spellings

def composed(text):
    """Return `text` with composed accents (NFC) and full-width letters, digits and marks as ordinary ones."""
    return text if text.isascii() else unicodedata.normalize("NFC", text).translate(_WIDE)


def folded(text):
    """Return `text` without what two spellings of it may differ in: case and width, composition, invisible signs.

    Of Arabic and Hebrew also the vowel points, which writers leave out. The dotted capital of Turkish becomes an i.
    """
    if text.isascii():
        return text.casefold()
    narrow = "".join(unicodedata.normalize("NFKC", char) if "｡" <= char <= "ﾟ" else char for char in text)
    plain = _INVISIBLE.sub("", composed(narrow)).casefold().replace("i\u0307", "i")
    return _VOWEL_POINTS.sub("", unicodedata.normalize("NFC", plain))


# Words

def is_unspaced(text):
    """Say whether there is a character in `text` of a script that puts no spaces between words."""
    return not text.isascii() and _UNSPACED_CHAR.search(text) is not None


def lower_words(text):
    """Return the words of a text in lower case, of any script, without punctuation."""
    return re.findall(r"\w+", text.casefold()) if text.isascii() else _WORD.findall(folded(text))


def question_words(item: dict) -> list[str]:
    """Return the words of a question (a record of tables.QUESTIONS) and of its choices, in their order.

    What a word is: see parted. The LAYOUT of a question holds none.
    """
    question = [item["question"][start:end] for start, end in spans_between(item["question"], LAYOUT)]
    runs = WORDS.findall(" ".join([*question, *item["choices"]]))
    return [word for run in runs for word, *_ in parted(run)]


def spans_between(text: str, layout: Sequence[str], start: int = 0, end: int | None = None) -> list[tuple[int, int]]:
    """Return [(start, end)] of what lies before, between and behind the texts of `layout` in ``text[start:end]``."""
    end, spans = len(text) if end is None else end, []
    for found in re.compile("|".join(map(re.escape, layout)) or r"(?!)").finditer(text, start, end):
        spans.append((start, found.start()))
        start = found.end()
    return [*spans, (start, end)]


def count_words(text):
    """Return the length of a text in words: what stands between spaces; without spaces, see the module, characters."""
    pieces = text.split()
    if not is_unspaced(text):
        return len(pieces)
    return sum(sum(any(map(str.isalnum, part)) for part, *_ in parted(piece)) or 1 for piece in pieces)


def first_words(text, count):
    """Return the first `count` words of a text as it is written, with one space where it has any."""
    if not is_unspaced(text):
        return " ".join(text.split()[:count])
    text = " ".join(text.split())
    for number, found in enumerate(_WORD.finditer(text), 1):
        if number > count:
            return text[:found.start()].rstrip()
    return text


def spaced(text):
    """Return `text` with spaces around every character, and mark, of a script without them; any other as it is."""
    if not is_unspaced(text):
        return text
    return " ".join(re.sub(rf"{_UNIT}|[\u3001-\u3003\u3008-\u3020\u30fb\u30a0]", r" \g<0> ", composed(text)).split())


def parted(text, start=0):
    """Return [(part, start, end)] of a text: each character of a script without spaces, and what lies between them.

    `start` is the place of the text in a longer one. A text without such characters is one part.
    """
    if not is_unspaced(text):
        return [(text, start, start + len(text))]
    return [(found[0], start + found.start(), start + found.end()) for found in _PARTS.finditer(text)]


def tight(text):
    """Return `text` without the spaces beside characters of a script that has none; some vocabularies write them."""
    return _LOOSE.sub("", text) if is_unspaced(text) else text


def triples(text):
    """Return the three-word sequences of a text in order."""
    words = lower_words(text)
    return list(zip(words, words[1:], words[2:], strict=False))


# Mentions of an answer

@lru_cache(10_000)
def _pattern(answer):
    parts = [re.escape(part) for part, *_ in parted(tight(composed(answer)))]
    return re.compile(r"\s*".join(parts), re.IGNORECASE)


def mentions(text, answer):
    """Return [(start, end)] of each place of the composed `text` where `answer` stands as whole words, in any case."""
    return list(_mentions(composed(text), answer)) if answer else []


def _mentions(text, answer):
    pattern, place = _pattern(answer), 0
    while found := pattern.search(text, place):
        start, end = found.span()
        if _begins(text, start) and _ends(text, end):
            yield start, end
            place = max(end, start + 1)
        else:
            place = start + 1


def _begins(text, place):
    """Say whether a word may begin at a place: no letter stands before it, or one of a script without spaces."""
    return _unspaced_at(text, place) or not (place and _is_letter(text[place - 1])) or _unspaced_at(text, place - 1)


def _ends(text, place):
    """Say whether a word may end at a place; no accent or vowel sign is parted from its letter."""
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


def names_answer(text, answer):
    """Say whether the answer stands in the text as whole words, whatever its case."""
    return bool(answer) and next(_mentions(composed(text), answer), None) is not None


def without_mentions(text, answer, gap):
    """Return `text` with every mention of `answer` replaced by `gap`; what stands around it stays as it is written."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)  # as long as the composed text in which mentions are looked for
    for start, end in reversed(mentions(text, answer)):
        text = text[:start] + gap + text[end:]
    return text


def follows(text, answer, choices):
    """Say whether `text` argues for `answer`: True, False, or None where the text does not show it.

    What decides is the last answer that the text states ("the answer is …"; a yes or no as first word), else the one
    choice that its first sentence names without a word of contrast, else the one choice that it names at all; any other
    text shows nothing. Choices of yes and no are not looked for inside the text: both are ordinary words. Words that
    state or contrast are known of English, Chinese, Japanese and, of contrast, Thai.
    """
    stated = [name for pair in STATED.findall(text) for name in pair if name and _choice_in(name, choices)]
    if stated:
        return _choice_in(stated[-1], choices) == answer
    names = {folded(choice) for choice in choices}
    if names in YES_NO:
        longest = "|".join(sorted(names, key=len, reverse=True))
        first = re.match(rf"\W*({longest})" + ("" if any(map(is_unspaced, names)) else r"\b"), folded(text))
        return first[1] == folded(answer) if first else None
    first = FIRST_SENTENCE.split(text, maxsplit=1)[0]
    for part in ([] if CONTRAST.search(first) else [first]) + [text]:
        named = [choice for choice in choices if names_answer(part, choice)]
        if len(named) == 1:
            return named[0] == answer
    return None


def _choice_in(text, choices):
    """Return the choice that `text` names first (the longest one of those at that place), or None."""
    found = [(places[0][0], -len(choice), choice) for choice in choices if (places := mentions(text, choice))]
    return min(found)[2] if found else None


# Tokens

def token_places(tokenizer, text, ids):
    """Return (start, end) in `text` of each token of `ids`, of a tokenizer that does not say it; (0, 0) for none.

    Each token is read back by itself and looked for behind the one before it; tokens that are parts of a character, as
    bytes are, are read together and all stand where it stands. One that is not found (an unknown one, or a character
    that the vocabulary rewrites) stands between its neighbours; special ones stand nowhere.
    """
    special, places, waiting, at = set(tokenizer.all_special_ids), [(0, 0)] * len(ids), [], 0
    lower = text.casefold() if len(text.casefold()) == len(text) else text
    for number, token in enumerate(ids):
        if token in special:
            waiting = []
            continue
        waiting.append(number)
        piece = _piece(tokenizer, [ids[one] for one in waiting])
        if piece is None and len(waiting) < LONGEST_CHARACTER:
            continue
        found = lower.find(piece.casefold() if lower is not text else piece, at) if piece else -1
        if 0 <= found <= at + FAR:
            at = found + len(piece)
            for one in waiting:
                places[one] = (found, at)
        waiting = []
    special.discard(tokenizer.unk_token_id)
    return [place if place[1] or token in special else _between(text, places, number)
            for number, (token, place) in enumerate(zip(ids, places, strict=True))]


def tokens_before(tokenizer, texts, positions):
    """Return how many tokens of each target text end at or before a position, counted in characters.

    Of a tokenizer that does not say where tokens stand: those that the text up to there has alike.
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


def _piece(tokenizer, ids):
    """Return what some tokens say without the spaces around it; None for a part of a character."""
    text = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    if not text or "\ufffd" in text:
        return None
    return text.strip().removeprefix("##") or text[:1]


def _between(text, places, number):
    """Return the place between the tokens before and behind token `number` that have one, without spaces around it."""
    start = max((end for _, end in places[:number]), default=0)
    end = min((start for start, end in places[number:] if end), default=len(text))
    inside = text[start:end].strip()
    start = text.find(inside, start)
    return (start, start + len(inside)) if inside else (0, 0)
