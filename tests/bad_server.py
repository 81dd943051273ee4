"""A server that speaks as much of the OpenAI API as the tests need, and misbehaves as it is told.

``python bad_server.py PORT`` runs a good one in a process of its own, to be killed.
"""

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# What servers reply, in their words, to a prompt that does not fit.
TOO_LONG = {
    "llama.cpp": (400, {"error": {
        "code": 400, "type": "exceed_context_size_error", "n_prompt_tokens": 3001, "n_ctx": 2048,
        "message": "request (3001 tokens) exceeds the available context size (2048 tokens), try increasing it"}}),
    "vLLM": (400, {"object": "error", "type": "BadRequestError", "code": 400, "message":
                   "The decoder prompt (length 3001) is longer than the maximum model length of 2048."}),
    "OpenAI": (400, {"error": {"type": "invalid_request_error", "code": "context_length_exceeded", "message":
                               "This model's maximum context length is 2048 tokens. However, you requested 3025."}}),
    "TGI": (422, {"error_type": "validation", "error":
                  "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 2048. Given: 3001 + 24"}),
    "a proxy": (413, {"error": {"message": "Request Entity Too Large"}}),
}


def text_for(prompt):
    """Return what the server writes after `prompt`."""
    return f" because of {prompt}"


class BadServer(ThreadingHTTPServer):
    """Answers each request as `behave(prompt, number)` says: "good", or one of the ways below to go wrong.

    `behave` may be a list too: one entry per request in their order, "good" after its end.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, behave=(), port=0):
        super().__init__(("127.0.0.1", port), Handler)
        script = list(behave) if not callable(behave) else []
        self.behave = behave if callable(behave) else lambda _, n: script[n] if n < len(script) else "good"
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"
        self.seen, self.lock, self.over = [], threading.Lock(), threading.Event()

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, *_):
        """A client that went away is no news."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        """Say nothing."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.chat = self.path.endswith("/chat/completions")
        prompt = body["messages"][0]["content"] if self.chat else body["prompt"]
        with self.server.lock:
            number = len(self.server.seen)
            self.server.seen.append({"path": self.path, "key": self.headers["Authorization"], **body})
        behaviour = self.server.behave(prompt, number)
        {"good": lambda: self.reply(self.written(text_for(prompt))),
         "slow": lambda: self.server.over.wait(60),
         "500": lambda: self.reply({"error": {"message": "the model fell over"}}, 500),
         "context shared": lambda: self.reply(
             {"error": {"code": 500, "message": "Context size has been exceeded.", "type": "server_error"}}, 500),
         "429": lambda: self.reply({"error": {"message": "slow down"}}, 429, {"Retry-After": "7"}),
         "401": lambda: self.reply({"error": {"message": f"no such key: {self.headers['Authorization']}"}}, 401),
         "400": lambda: self.reply({"error": {"message": "no such parameter: top_q"}}, 400),
         "half": lambda: self.send(b'{"choices": [{"te', 200, {"Content-Length": "400"}),
         "hang up": lambda: None,
         **{f"too long: {name}": lambda status=status, body=body: self.reply(body, status)
            for name, (status, body) in TOO_LONG.items()},
         "other interface": lambda: self.reply({"index": 0, "content": " because", "stop": True, "stop_type": "eos"}),
         "cut by the context": lambda: self.reply(self.written("because of", "length", tokens=9)),
         "not json": lambda: self.send(b'{"choices": [{"text": ', 200),
         "page": lambda: self.send(b"<html>please log in</html>", 200, {"Content-Type": "text/html"}),
         "a list": lambda: self.reply([1]),
         "no choices": lambda: self.reply({**self.written(""), "choices": []}),
         "no text": lambda: self.reply(self.written(None)),
         "empty": lambda: self.reply(self.written("", tokens=0)),
         "nothing to say": lambda: self.reply(self.written("", tokens=1)),
         "reasoned": lambda: self.reply(self.written("", "length", tokens=9)),
         "tool call": lambda: self.reply(self.written("x", "tool_calls")),
         "no reason": lambda: self.reply(self.written("x", None)),
         "filtered": lambda: self.reply(self.written(None, "content_filter")),
         "no usage": lambda: self.reply({**self.written(text_for(prompt)), "usage": None}),
         "odd usage": lambda: self.reply({**self.written(text_for(prompt)), "usage": {"prompt_tokens": "5"}}),
         "half a character": lambda: self.reply(self.written("a \ud83d b"))}.get(
             behaviour, lambda: self.reply(self.written(behaviour)))()
        if behaviour in ("half", "hang up", "slow"):
            self.close_connection = True

    def written(self, text, reason="stop", tokens=5):
        choice = {"index": 0, "finish_reason": reason}
        choice |= {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        return {"id": "1", "object": "text_completion", "created": 1, "model": "m", "choices": [choice],
                "usage": {"prompt_tokens": 3, "completion_tokens": tokens, "total_tokens": 3 + tokens}}

    def reply(self, value, status=200, headers=()):
        self.send(json.dumps(value).encode(), status, headers)

    def send(self, data, status, headers=()):
        headers = {"Content-Type": "application/json", "Content-Length": str(len(data)), **dict(headers)}
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()


def unhurried(_, __):
    time.sleep(0.05)
    return "good"


if __name__ == "__main__":
    print("ready", flush=True)
    BadServer(unhurried, int(sys.argv[1])).serve_forever()
