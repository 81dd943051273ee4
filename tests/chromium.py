"""A page in headless Chromium that is driven as a person does: keys, files and what a screen reader is told.

Chromium's DevTools protocol runs over a pipe, so no port is open and no package is needed.
"""

import json
import os
import select
import shutil
import subprocess
import time

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
KEYS = {"Tab": (9, ""), "Enter": (13, "\r"), " ": (32, " "), "ArrowRight": (39, ""), "ArrowLeft": (37, "")}
SECONDS = 60  # a step on a busy machine


class Chromium:
    """A window of Chromium with a profile and a folder for downloads of its own; use it in a `with` statement."""

    def __init__(self, address, folder):
        browser = next(filter(None, map(shutil.which, NAMES)), None)
        if not browser or os.name != "posix":
            pytest.skip(f"no Chromium found: put {', '.join(NAMES[:-1])} or {NAMES[-1]} on the PATH")
        self.downloads = folder / "downloads"
        self.downloads.mkdir(parents=True)
        (its_input, self.to), (self.back, its_output) = os.pipe(), os.pipe()
        self.process = subprocess.Popen(
            ["bash", "-c", f'exec "$0" "$@" 3<&{its_input} 4>&{its_output}', browser, "--headless", "--no-sandbox",
             "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update",
             "--disable-sync", "--remote-debugging-pipe", f"--user-data-dir={folder / 'profile'}", "about:blank"],
            pass_fds=(its_input, its_output), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(its_input)
        os.close(its_output)
        self.number, self.rest, self.session = 0, b"", None
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads))
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.open(address)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.kill()
        self.process.wait()
        os.close(self.to)
        os.close(self.back)

    def open(self, address):
        """Go to an address and wait for the page."""
        self.value("window.left = true")
        self.call("Page.navigate", url=address)
        self.wait("document.readyState === 'complete' && !window.left")

    def call(self, method, **parameters):
        """Call a method of the protocol and return its result; events are not kept."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        os.write(self.to, json.dumps(message | ({"sessionId": self.session} if self.session else {})).encode() + b"\0")
        end = time.monotonic() + SECONDS
        while True:
            while b"\0" in self.rest:
                line, self.rest = self.rest.split(b"\0", 1)
                answer = json.loads(line)
                if answer.get("id") == self.number:
                    assert "error" not in answer, (method, answer["error"])
                    return answer["result"]
            ready = select.select([self.back], [], [], max(0, end - time.monotonic()))[0]
            assert ready, f"{method}: no answer of Chromium"
            self.rest += os.read(self.back, 1 << 16)

    def value(self, expression):
        """Return the value of a JavaScript expression."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, expression):
        """Wait until a JavaScript expression is true."""
        end = time.monotonic() + SECONDS
        while not self.value(expression):
            assert time.monotonic() < end, f"never true: {expression}"
            time.sleep(0.02)

    def press(self, *keys):
        """Press keys one after the other, as a keyboard does."""
        for key in keys:
            code, text = KEYS.get(key, (ord(key[0].upper()), key))
            one = {"key": key, "code": f"Digit{key}" if key.isdigit() else key, "windowsVirtualKeyCode": code}
            self.call("Input.dispatchKeyEvent", type="keyDown", **one, **({"text": text} if text else {}))
            self.call("Input.dispatchKeyEvent", type="keyUp", **one)

    def tab_to(self, selector):
        """Press Tab until the element with the focus matches `selector`."""
        for _ in range(40):
            self.press("Tab")
            if self.value(f"document.activeElement.matches({json.dumps(selector)})"):
                return
        raise AssertionError(f"the keyboard does not reach {selector}")

    def told(self):
        """Return what a screen reader is told: (role, name, {property: value}) of every node that is not ignored."""
        nodes = self.call("Accessibility.getFullAXTree")["nodes"]
        return [(node["role"]["value"], node.get("name", {}).get("value", ""),
                 {one["name"]: one["value"].get("value") for one in node.get("properties", [])})
                for node in nodes if not node["ignored"]]

    def download(self, ending):
        """Wait for a finished download whose name ends so, and return its path."""
        end = time.monotonic() + SECONDS
        while True:
            found = [path for path in self.downloads.iterdir() if path.name.endswith(ending)]
            if found and found[0].stat().st_size:
                return found[0]
            assert time.monotonic() < end, f"no download {ending}: {list(self.downloads.iterdir())}"
            time.sleep(0.05)
