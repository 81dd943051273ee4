"""The backend ``openai``: any server with the OpenAI API (vLLM, llama.cpp, Ollama, transformers, a vendor).

Requests run in threads and not in an event loop, because a notebook has a running loop already. `keep` is called on the
caller's thread, as the store requires. The key is read from OPENAI_API_KEY when a request is made. It is sent to the
server of `base_url` and never written to a file.
"""

import json
import os
import queue
import random
import re
import threading
from dataclasses import replace
from functools import partial
from urllib.parse import urlsplit

from kdutils.errors import LONGEST, StudyError, masked, refuse_secrets
from kdutils.teacher.cleaning import preamble_end
from kdutils.teacher.completion import TOP_TOKENS, Completion, Decoding, Keep, Progress
from kdutils.teacher.prompting import read_template
from kdutils.teacher.thinking import without_thinking

VENDOR = "https://api.openai.com/v1"
# The words of servers for why a text ended, in small letters; those without a text are in WITHHELD.
FINISHED = {
    **dict.fromkeys(("stop", "eos", "eos_token", "end_turn", "end_of_turn", "stop_sequence", "stop_str", "stop_token",
                     "complete", "completed", "finished", "done"), "stop"),
    **dict.fromkeys(("length", "max_tokens", "max_length", "max_new_tokens", "max_output_tokens", "model_length",
                     "token_limit"), "length")}
WITHHELD = {"content_filter": "content_filter", "content_filtered": "content_filter", "safety": "content_filter",
            "recitation": "content_filter", "blocklist": "content_filter", "prohibited_content": "content_filter",
            "spii": "content_filter", "guardrail_intervened": "content_filter", "refusal": "refusal"}
THINKING = ("reasoning_content", "reasoning", "thinking")  # fields of a message: vLLM and others, Ollama and OpenRouter
STOPS_SENT = 4  # the API accepts no more
ECHO = "probabilities of the choices need a server that returns log p of a given text"
# Words of servers, with status 400, 413 or 422, for a prompt that does not fit together with the new tokens.
_TOO_LONG = re.compile(r"context|too (?:long|large)|longer than|exceed|must be <=", re.IGNORECASE)
# Codes and words of servers that refuse a single prompt because of what it says.
_FILTERED = re.compile(r"content_filter|content_policy_violation|ResponsibleAIPolicyViolation|content management "
                       r"policy")
_WITHHELD_CHOICE = {"finish_reason": "content_filter", "message": {"content": ""}, "text": ""}
_ADVICE = {
    400: "change what the message names (`request` adds fields, and with null leaves them out)",
    401: "check that OPENAI_API_KEY is set and right", 403: "check that OPENAI_API_KEY is set and right",
    404: "check the model's name, base_url (most end in /v1), and whether it has this endpoint (chat: true or false)",
    422: "change what the message names (`request` adds fields, and with null leaves them out)",
    429: "wait, or lower `requests`",
}


class _Unusable(Exception):
    """A reply without a usable completion."""


class _TooLong(_Unusable):
    """The prompt and the new tokens do not fit into the server's context; asking again does not help."""


class _OtherApi(Exception):
    """A reply in the form of another API: base_url is wrong."""


class ServedTeacher:
    """A model behind a server, with up to `requests` requests at the same time.

    `base_url`: "" takes OPENAI_BASE_URL of the environment, else OpenAI. It is part of the identity: two servers can
    have a model of one name in different precision. `chat`: send the prompt as a user's message; otherwise it goes
    to the endpoint for text completion, which continues it. `timeout`: seconds without a byte. A busy server sends
    nothing while a request waits or is not complete. A failed request is repeated up to `retries` times, with
    increasing pauses or as the server says (Retry-After).

    With `chat` only: `system` is a message before each prompt; `thinking` (on or off) and `chat_template` (a Jinja
    file) go to the server as fields that vLLM, SGLang and llama.cpp know. `extra`: further fields of each request,
    which take the place of the study's own; None leaves a field out. All four are part of the identity where given.

    The chat endpoint gets no stop texts, because they would also end the thinking of a model. Its texts are cut here.
    """

    def __init__(self, model: str, base_url: str = "", chat: bool = True, requests: int = 8, timeout: float = 600,
                 retries: int = 6, thinking: str = "auto", system: str = "", extra: dict | None = None,
                 chat_template: str = "") -> None:
        if requests < 1:
            raise StudyError(f"requests: {requests} at the same time; give 1 or more")
        if timeout <= 0:
            raise StudyError(f"timeout: {timeout} seconds to wait for a reply; give more than 0")
        self.model, self.chat, self.requests, self.timeout, self.retries = model, chat, requests, timeout, retries
        self.thinking = thinking if chat else "auto"
        refuse_secrets({"model": model})  # it is part of the identity, which the store keeps
        self.base_url = server_address(base_url)
        self.identity = {"backend": "openai", "model": model, "base_url": self.base_url, "chat": bool(chat)}
        template = read_template(chat_template)
        self.messages, self.extra = [{"role": "system", "content": system}] if system else [], dict(extra or {})
        refuse_secrets({"system": system, "request": self.extra})
        self.fields = {"chat_template": template} if template else {}
        if self.thinking != "auto":  # templates name it in one of two ways
            self.fields["chat_template_kwargs"] = dict.fromkeys(("enable_thinking", "thinking"), thinking == "on")
        given = {"thinking": self.thinking if self.thinking != "auto" else "", "system": system, "request": self.extra,
                 "chat_template": template}
        self.identity |= {name: value for name, value in given.items() if value}
        # Newer models of OpenAI accept only max_completion_tokens, many servers only max_tokens.
        self.limit = "max_completion_tokens" if chat and self.base_url == VENDOR else "max_tokens"

    def count_tokens(self, prompts: list[str]) -> list[int]:
        """Return an estimate of the tokens of each prompt, a quarter of its characters: only the server can count."""
        return [-(-len(prompt) // 4) for prompt in prompts]

    def complete(self, prompts: list[str], decoding: Decoding, progress: Progress | None = None,
                 keep: Keep | None = None) -> list[Completion]:
        """Return one Completion per prompt, in their order (see completion.Teacher). Equal prompts are sent once.

        Token counts are None where the server gives none. A text that a content filter withheld, or that is nothing but
        thinking, is a Completion without text; explaining marks it as unusable. Raises StudyError when the server
        keeps failing, or when some prompts do not fit or get no usable reply. These are the error's `prompts`, and
        those that do not fit its `too_long`. All completions that did arrive went to `keep`.
        """
        return self._every(prompts, partial(self._body, decoding=decoding),
                           partial(self._completion, decoding=decoding), progress, keep)

    def score(self, prompts: list[str], continuations: list[str], progress: Progress | None = None,
              keep: Keep | None = None) -> list[Completion]:
        """Return log p of the tokens of a text behind each prompt (see completion.Teacher).

        The server repeats prompt and text with log p of each token (fields `echo` and `logprobs` of the endpoint for
        text completion, as vLLM has them). Raises StudyError for a chat and for a server that does not.
        """
        if self.chat:
            raise StudyError(f"{self.model}: {ECHO}; set chat to false")
        behind = dict(zip(prompts, continuations, strict=True))
        more = {"max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1}

        def body(prompt):
            return {"model": self.model, "prompt": prompt + behind[prompt], "extra_body": {
                **self.fields, **{name: value for name, value in self.extra.items() if value is not None}, **more}}

        return self._every(prompts, body, lambda reply, prompt: self._scored(reply, behind[prompt]), progress, keep,
                           f"{ECHO}; take such a server (vLLM) or the backend hf")

    def first_tokens(self, prompts: list[str], progress: Progress | None = None,
                     keep: Keep | None = None) -> list[Completion]:
        """Return the TOP_TOKENS most probable first tokens of each answer of a chat, with log p.

        They are the text of a Completion: a JSON list of [token, log p] (fields `logprobs` and `top_logprobs` of the
        server, as OpenAI, vLLM and llama.cpp have them). It is empty for an answer that a filter withheld or the model
        refused. `prompts` are as in complete. Raises StudyError where the server refuses, or gives none.
        """
        more = {"logprobs": True, "top_logprobs": TOP_TOKENS}

        def body(prompt):
            asked = self._body(prompt, Decoding(1))
            return asked | {"extra_body": more | asked["extra_body"]}

        return self._every(prompts, body, self._first_tokens, progress, keep)

    def _first_tokens(self, reply, _):
        """Return the most probable first tokens in a reply, as a Completion."""
        try:
            reply = json.loads(reply)
            choice = reply["choices"][0]
            withheld = choice.get("finish_reason") == "content_filter" or (choice.get("message") or {}).get("refusal")
            shown = (choice.get("logprobs") or {}).get("content") or [{}]
            pairs = [[one["token"], float(one["logprob"])] for one in shown[0].get("top_logprobs") or []]
            tokens = [(reply.get("usage") or {}).get(name) for name in ("prompt_tokens", "completion_tokens")]
        except ValueError:
            raise _Unusable("a reply that is not JSON, or log p that is no number") from None
        except (LookupError, TypeError, AttributeError):
            raise _Unusable("a reply without a completion") from None
        if not all(isinstance(token, str) and log_p < 0.01 for token, log_p in pairs):  # a NaN is not below either
            raise _Unusable("first tokens that are no texts, or whose log p is above 0")
        if not (pairs or withheld):
            raise StudyError(f"{self.model} at {self.base_url}: its reply shows no log p of the first tokens (fields "
                             "logprobs and top_logprobs); take a server that does (OpenAI, vLLM, llama.cpp), chat: "
                             "false or the backend hf")
        return Completion(json.dumps([[token, min(log_p, 0.0)] for token, log_p in pairs]), "stop",
                          *(count if type(count) is int else None for count in tokens))

    def _scored(self, reply, text):
        """Return log p of the tokens of `text`, at the end of the repeated text, as a Completion.

        One token that the server has to add is left out. Spaces do not count, because servers show a token without its
        space.
        """
        try:
            reply = json.loads(reply)
            shown, read = reply["choices"][0].get("logprobs"), (reply.get("usage") or {}).get("prompt_tokens")
        except ValueError:
            raise _Unusable("a reply that is not JSON") from None
        except (LookupError, TypeError, AttributeError):
            raise _Unusable("a reply without a completion") from None
        try:
            tokens, values = shown["tokens"][:-1], shown["token_logprobs"][:-1]
            wanted, seen, first = "".join(text.split()), "", len(tokens)
            while first and (len(seen) < len(wanted) or not tokens[first - 1].strip()):
                first -= 1
                seen = "".join(tokens[first].split()) + seen
            values = [float(value) for value in values[first:]]
        except (ValueError, LookupError, TypeError, AttributeError):
            raise StudyError(f"{self.model} at {self.base_url}: {ECHO}, and its reply has none; take such a server "
                             "(vLLM) or the backend hf") from None
        if seen != wanted or not values:
            raise StudyError(f"{self.model} at {self.base_url}: the tokens of its reply do not spell {text!r}, so its "
                             "probability is not known; take the backend hf")
        return Completion(json.dumps(values), "stop", read if type(read) is int else None, 0)

    def _every(self, prompts, body, read, progress, keep, advice=""):
        """Return one Completion per prompt; ``body(prompt)`` is a request, ``read(reply, prompt)`` its Completion.

        `advice`: what to do if the server refuses the requests.
        """
        distinct = list(dict.fromkeys(prompts))
        written, failed = {}, {}
        stopping = threading.Event()
        if distinct:
            client = self._client()
            try:
                for group in self._answers(client, distinct, body, read, stopping):
                    failed |= {prompt: done for prompt, done in group if isinstance(done, Exception)}
                    done = [(prompt, done) for prompt, done in group if isinstance(done, Completion)]
                    written |= done
                    if len(failed) > max(len(written), self.requests):
                        stopping.set()  # so many failures are the server's fault, not that of single prompts
                    if done and keep:
                        keep(done)
                    if done and progress:
                        progress(len(written), len(distinct))
            finally:
                stopping.set()
            client.close()  # not after Ctrl-C: some requests are still running then
        if failed:
            error = StudyError(self._message(failed, len(written), len(distinct), bool(keep), advice))
            error.prompts = list(failed) if _refusal(failed) is None else []
            error.too_long = [prompt for prompt in error.prompts if isinstance(failed[prompt], _TooLong)]
            raise error
        return [written[prompt] for prompt in prompts]

    def contrast(self, *_, **__) -> list[Completion]:
        """Raise StudyError: contrastive decoding needs the probabilities of all tokens, which no server gives."""
        raise StudyError(f"{self.model}: contrastive prompting needs the model itself; set the teacher's backend to hf")

    def _client(self):
        from openai import OpenAI, Timeout

        check_key()
        try:
            return OpenAI(api_key=_key() or "none", base_url=self.base_url, max_retries=self.retries,
                          timeout=Timeout(self.timeout, connect=min(self.timeout, 10)))
        except Exception as error:  # of several types; its traceback would show the proxy's address with its password
            raise StudyError(f"base_url or a proxy of the environment (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY): "
                             f"{error}") from None

    def _answers(self, client, prompts, body, read, stopping):
        """Yield lists of (prompt, Completion or Exception) as they arrive, until all threads have ended."""
        waiting, answered = queue.SimpleQueue(), queue.SimpleQueue()
        for prompt in prompts:
            waiting.put(prompt)

        def work():
            while not stopping.is_set():
                try:
                    prompt = waiting.get_nowait()
                except queue.Empty:
                    break
                try:
                    answered.put((prompt, self._ask(client, prompt, body, read, stopping)))
                except _Unusable as error:
                    answered.put((prompt, error))
                except Exception as error:
                    stopping.set()  # at once, so that no request is added; the running ones are waited for
                    answered.put((prompt, error))
            answered.put(None)

        running = min(self.requests, len(prompts))
        for _ in range(running):
            threading.Thread(target=work, daemon=True).start()  # a daemon: Ctrl-C does not wait for the server
        while running:
            group = [answered.get()]
            while not answered.empty():
                group.append(answered.get())
            running -= group.count(None)
            yield [answer for answer in group if answer]

    def _ask(self, client, prompt, body, read, stopping):
        """Return the Completion of one prompt. The library repeats failed requests, this function unusable replies."""
        from openai import APIStatusError

        endpoint = client.chat.completions if self.chat else client.completions
        for attempt in range(self.retries + 1):
            sent = body(prompt)
            try:
                return read(endpoint.with_raw_response.create(**sent).text, prompt)
            except APIStatusError as error:
                text = error.response.text
                # Decided by what was sent: another thread may have changed the limit since.
                if "max_tokens" in sent and error.status_code in (400, 422) and "max_completion_tokens" in text:
                    self.limit = "max_completion_tokens"
                    return self._ask(client, prompt, body, read, stopping)
                if error.status_code in (400, 403) and _FILTERED.search(text):
                    return read(json.dumps({"choices": [_WITHHELD_CHOICE]}), prompt)
                if error.status_code in (400, 413, 422) and _TOO_LONG.search(text):
                    raise _TooLong(f"{error.status_code} {text}") from None
                raise
            except _TooLong:
                raise
            except _Unusable:
                if attempt == self.retries or stopping.wait(min(0.5 * 2 ** attempt, 8)):
                    raise

    def _body(self, prompt, decoding):
        body = {"model": self.model, self.limit: decoding.max_new_tokens, "temperature": decoding.temperature}
        if self.chat:
            body["messages"] = [*self.messages, {"role": "user", "content": prompt}]
        else:
            body["prompt"] = prompt
            body |= {"stop": list(decoding.stop[:STOPS_SENT])} if decoding.stop else {}
        if decoding.temperature > 0:
            seed = random.Random(f"{decoding.seed} {decoding.sample}").getrandbits(31)  # a different one per sample
            body |= {"top_p": decoding.top_p, "seed": seed}
        extra = {name: value for name, value in self.extra.items() if value is not None}
        if extra.keys() & {"max_tokens", "max_completion_tokens"}:
            body.pop(self.limit)
        for name in self.extra:
            body.pop(name, None)
        options = {**self.fields.get("chat_template_kwargs", {}), **extra.get("chat_template_kwargs", {})}
        return body | {"extra_body": {**self.fields, **extra, **({"chat_template_kwargs": options} if options else {})}}

    def _completion(self, reply, _, decoding):
        try:
            reply = json.loads(reply)
            if isinstance(reply, dict) and not {"choices", "error"} & reply.keys():
                raise _OtherApi
            choice = reply["choices"][0]
            message, reason = choice["message"] if self.chat else {"content": choice["text"]}, choice["finish_reason"]
            text, thinking, refusal = _parts(message)
            usage = reply.get("usage") or {}
            tokens = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
            tokens = [count if type(count) is int else None for count in tokens]
        except ValueError:
            raise _Unusable("a reply that is not JSON") from None
        except (LookupError, TypeError, AttributeError):
            raise _Unusable("a reply without a completion") from None
        ended = reason.lower().removeprefix("finish_reason_") if isinstance(reason, str) else ""
        if ended in WITHHELD or refusal:
            reason = "refusal" if refusal else WITHHELD[ended]
            return Completion((refusal or text or "") if reason == "refusal" else "", reason, *tokens, thinking)
        if ended not in FINISHED:
            raise _Unusable(f"a reply that ended neither by itself nor at the token limit ({reason!r})")
        reason = FINISHED[ended]
        if not isinstance(text, str) and not thinking:
            raise _Unusable("a reply without text")
        done = without_thinking(Completion(text or "", reason, *tokens, thinking))
        if not (text or done.thinking) and not (reason == "stop" and tokens[1]):
            # A model with nothing to say writes an end token. That is a valid completion with an empty text.
            used_up = ", its tokens used up (a model that reasons first needs more)" if reason == "length" else ""
            raise _Unusable("a reply without text" + used_up)
        text = done.text
        start = preamble_end(text) if self.chat else 0
        cut = min((text.find(mark, start) for mark in decoding.stop if mark in text[start:]), default=None)
        own = [self.extra[name] for name in ("max_tokens", "max_completion_tokens") if self.extra.get(name)]
        limit = min(own, default=decoding.max_new_tokens)
        if reason == "length" and cut is None and (tokens[1] or limit) < limit - 1:
            # The server's context was full. This is not a text that ended at the limit of the study.
            raise _TooLong(f"a reply cut off after {tokens[1]} of {limit} tokens")
        return replace(done, text=text[:cut], finish_reason=reason if cut is None else "stop")

    def _message(self, failed, done, total, kept, instead):
        """Return what failed, how many completions there are, and what to do; raise an error of this code again.

        `instead`: advice in the place of the usual one for a status.
        """
        from openai import APIConnectionError, APIStatusError, APITimeoutError, OpenAIError

        error, advice = _refusal(failed), "look at the server's log"
        if error is None:
            what, advice = self._unusable(failed)
        elif isinstance(error, _OtherApi):
            what, advice = "a reply that is not of the OpenAI API", "check base_url (most end in /v1)"
        elif isinstance(error, APIStatusError):
            what = f"{error.status_code} {error.response.text}"  # the library's message omits an unusual reply
            usual = _ADVICE.get(error.status_code, advice)
            if self.thinking != "auto" and "chat_template_kwargs" in what:
                usual = "set thinking: auto, which leaves this field out"
            advice = instead if instead and error.status_code in (400, 404, 422, 501) else usual
            if error.status_code >= 500 and "context" in what.casefold():  # llama.cpp: all requests share one
                advice = "lower `requests`, which share the server's context, or start it with a longer one"
        elif isinstance(error, APIConnectionError):
            what = f"{error.message} {error.__cause__ or ''}"
            advice = f"check that it runs and answers within {self.timeout} seconds, and that base_url is right"
            if isinstance(error, APITimeoutError):
                advice = f"check that it runs; a slow one needs `timeout` above {self.timeout} or fewer `requests`"
        elif isinstance(error, OpenAIError):
            what = str(error)
        else:
            raise error
        what = " ".join(masked(what.replace(_key(), "***") if _key() else what).split())  # some servers repeat the key
        what = "".join(character if character.isprintable() else "?" for character in what)
        start, end = f"{self.model} at {self.base_url}: ", (
            f". {done} of {total} completions are {'kept' if kept else 'there'}; {advice}, then run again"
            + (": it continues from there" if kept else ""))
        room = max(LONGEST - len(start) - len(end) - 100, 120)  # 100: for the questions that stand in front
        return start + (what if len(what) <= room else f"{what[:room]} …") + end

    def _unusable(self, failed):
        """Return (what, advice) where single prompts failed: first those that do not fit, which need other advice."""
        too_long = {prompt: error for prompt, error in failed.items() if isinstance(error, _TooLong)}
        prompt, error = next(iter((too_long or failed).items()))
        which = f"the first ends with {prompt[-80:]!r} and got {error}"
        if not too_long:
            return (f"no usable reply to {len(failed)} of the prompts, tried {self.retries + 1} times each; {which}",
                    "look at the server's log")
        others = f" and {len(failed) - len(too_long)} more got no usable reply" if len(failed) > len(too_long) else ""
        return (f"{len(too_long)} of the prompts: too long for the context, new tokens included{others}; {which}",
                "start the server with a longer context (or a higher limit of a reply), ask for fewer tokens, or leave "
                "out what does not fit (leave_out_too_long: true)")


def _parts(message):
    """Return (text or None, thinking, refusal) of a message, whose content is a text or a list of parts.

    Half a character, which no file can hold, becomes a question mark.
    """
    content, texts, refusal = message.get("content"), [], message.get("refusal") or ""
    thoughts = [next((message[name] for name in THINKING if isinstance(message.get(name), str)), "")]
    for part in content if isinstance(content, list) else []:
        part = part if isinstance(part, dict) else {"text": part}
        kind = str(part.get("type", ""))
        if kind == "refusal":
            refusal = part.get("refusal") or part.get("text") or refusal
        elif "think" in kind or "reason" in kind:
            thoughts.append(_text_in(part.get("thinking") or part.get("text") or part.get("summary")))
        else:
            texts.append(_text_in(part.get("text")))
    if isinstance(content, list):
        content = "".join(texts) if texts else None
    if isinstance(refusal, bool) or not isinstance(refusal, str):
        refusal = ""
    content = _whole_characters(content) if isinstance(content, str) else None
    return content, _whole_characters("\n".join(filter(None, thoughts)).strip()), _whole_characters(refusal)


def _text_in(value):
    """Return the text of a part, which may be a list of parts itself."""
    if isinstance(value, list):
        return "".join(_text_in(one.get("text") if isinstance(one, dict) else one) for one in value)
    return value if isinstance(value, str) else ""


def _whole_characters(text):
    return text.encode("utf-8", "replace").decode("utf-8")


def _refusal(failed):
    """Return the first error that concerns the server and not one prompt, or None."""
    return next((error for error in failed.values() if not isinstance(error, _Unusable)), None)


def _key():
    return os.environ.get("OPENAI_API_KEY", "").strip()


def check_key() -> None:
    """Raise StudyError, without the key in it, where OPENAI_API_KEY has characters that a header cannot have."""
    if not _key().isascii() or not _key().isprintable():
        raise StudyError("OPENAI_API_KEY: has characters that a key cannot have; set it again")


def server_address(address: str = "") -> str:
    """Return a server's address in a standard spelling; "" takes OPENAI_BASE_URL of the environment, else OpenAI's.

    Raises StudyError, without the address in it, for an invalid address or one with a name, password or query.
    """
    name = "base_url" if address else "OPENAI_BASE_URL"
    address = (address or os.environ.get("OPENAI_BASE_URL") or VENDOR).strip()
    try:
        parts = urlsplit(address)
        port, usual = parts.port, {"http": 80, "https": 443}[parts.scheme]
    except (ValueError, KeyError):
        parts = None
    if not parts or not parts.hostname or not address.isprintable() or " " in address:  # urlsplit drops line breaks
        raise StudyError(f"{name}: this is no address of a server; give one such as http://localhost:8000/v1 (a key "
                         "goes into the environment variable OPENAI_API_KEY)")
    if "@" in parts.netloc or "?" in address or "#" in address:
        raise StudyError(f"{name}: contains a name, password or query; the key goes into OPENAI_API_KEY, an "
                         "environment variable")
    refuse_secrets({name: address})
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}{f':{port}' if port not in (None, usual) else ''}{parts.path.rstrip('/')}"
