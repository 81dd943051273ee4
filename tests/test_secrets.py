"""Passwords and keys: refused before anything is written, and masked in whatever is written or shown."""

import json
import sys
import time
from types import SimpleNamespace

import pytest
import yaml

from kdutils import runs
from kdutils.__main__ import main
from kdutils.errors import StudyError, masked, secret_in
from kdutils.experiments import snakemake_runs
from kdutils.experiments.grid import FOLDER
from kdutils.experiments.loading import load_experiment
from kdutils.experiments.steps import SETTINGS
from kdutils.report.index import render_pages, write_index
from kdutils.teacher.backends import load_teacher
from kdutils.teacher.completion import Completion, Decoding
from kdutils.teacher.store import Request, Store

SECRET = "hunter2-Pass_9word"
MASKED = [  # (text, what is left of it)
    (f"see http://user:{SECRET}@host:8000/v1, then", "see http://***@host:8000/v1, then"),
    (f"https://{SECRET}@host/v1", "https://***@host/v1"), (f"socks5://:{SECRET}@h", "socks5://***@h"),
    (f"http://user:p@s/s?w#{SECRET}@host/v1", "http://***@host/v1"),
    (f"https://host/v1?a=1&api_key={SECRET}&b=2", "https://host/v1?a=1&api_key=***&b=2"),
    (f"https://host/v1?X-Amz-Signature={SECRET}", "https://host/v1?X-Amz-Signature=***"),
    (f"https://host/v1?sig={SECRET}#x", "https://host/v1?sig=***#x"),
    (f"<a href='/v1?x=1&amp;token={SECRET}'>", "<a href='/v1?x=1&amp;token=***'>"),
    (f"https://host/v1?Client%20Secret={SECRET}", "https://host/v1?Client%20Secret=***"),
    (f"{{'Authorization': 'Basic {SECRET}=='}}", "{'Authorization': 'Basic ***'}"),
    (f"authorization: Bearer {SECRET}", "authorization: Bearer ***"), (f"a Bearer {SECRET} here", "a Bearer *** here"),
    ("key sk-abcdefghijklmnop1234 hf_abcdefghijklmnop1234", "key sk-*** hf_***"),
    *((f"it is {start}abcdefghijklmnop1234, not", f"it is {start}***, not") for start in (
        "gsk_", "AIza", "xai-", "nvapi-", "r8_", "AKIA", "glpat-", "pplx-"))]


@pytest.mark.parametrize(("text", "rest"), MASKED)
def test_a_secret_is_masked_and_nothing_else(text, rest):
    assert masked(text) == rest == masked(rest)
    assert SECRET not in str(StudyError(text))


@pytest.mark.parametrize("text", [
    "http://localhost:8000/v1", "http://host:8000/a@b", "https://site.org/@somebody/1", "write to me@site.org", "",
    "max_tokens=5; token=3", "basic understanding of bearer certificates", "a task-force of half_truths", "x?monkey",
    "What is the key? answer=harp", "authorization: none is needed", "sk-learn",
    "xai-org/grok-1", "pplx-70b-chat-online-instruct", "an Aizawa map", "google-t5/t5-small", "é\ud83d 😀"])
def test_what_is_no_secret_stays(text):
    assert masked(text) == text


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "HF_TOKEN", "my_secret", "DATABASE_PASSWORD"])
def test_the_values_of_secret_variables_are_masked_wherever_they_stand(name, monkeypatch):
    monkeypatch.setenv(name, f"{SECRET}/+\n")
    assert masked(f"a{SECRET}/+b {SECRET}%2F%2B") == "a***b ***"
    monkeypatch.setenv(name, "short")
    assert masked("a short text") == "a short text"
    monkeypatch.setenv(name, "lm-studio")  # what servers without keys are given
    assert masked("teachers/lm-studio") == "teachers/lm-studio"


def test_the_password_of_a_proxy_is_masked_without_its_scheme(monkeypatch):
    monkeypatch.setenv("https_proxy", f"user:{SECRET}@proxy:3128")
    assert masked(f"cannot reach user:{SECRET}@proxy:3128") == "cannot reach ***proxy:3128"


@pytest.mark.parametrize("text", ["://" * 100_000 + "@", "http://" + "a:" * 300_000 + "@", "?key" * 100_000 + "=",
                                  "?" + "a.%" * 200_000 + "=", "bearer " * 100_000, "sk-" * 200_000])
def test_a_long_hostile_text_is_masked_in_reasonable_time(text):
    begun = time.process_time()
    masked(text)
    assert time.process_time() - begun < 10


def test_a_secret_is_found_in_any_depth_and_in_what_holds_itself():
    value = {"a": [1, {"b": "x"}], "c": None}
    value["a"].append(value)
    assert secret_in(value) is None
    value["a"][1]["d"] = f"http://u:{SECRET}@h"
    assert secret_in(value) == "a.1.d"
    many = ["x"] * 10
    for _ in range(40):
        many = [many] * 10  # 10^41 texts, if an alias were followed every time
    assert secret_in(many) is None
    assert secret_in({f"http://u:{SECRET}@h": 1}) == ""


@pytest.mark.parametrize("key", ["api_key", "apikey", "API-Key", "X-Api-Key", "xApiKey", "password", "db_password",
                                 "Authorization", "Proxy-Authorization", "token", "access_token", "hfToken",
                                 "authtoken",
                                 "client_secret", "secret", "Ocp-Apim-Subscription-Key", "Cookie", "api_key_2"])
@pytest.mark.parametrize("value", ["9f8e", "Basic dXNlcjpwdw==", ["9f8e"], 12345678])
def test_a_value_is_a_secret_by_the_name_of_its_key(key, value):
    assert secret_in({"request": {"extra_headers": {key: value}}}).startswith(f"request.extra_headers.{key}")
    assert secret_in({key: ""}) is secret_in({key: None}) is secret_in({key: {"seed": "x"}}) is None


@pytest.mark.parametrize("key", ["tokenizer", "max_tokens", "token_budget", "stop_token", "eos_token", "pad_token_id",
                                 "prompt_cache_key", "key", "keys", "tokens", "author", "secretary", "authority",
                                 "per_token", "password_hint"])
def test_other_keys_hold_what_they_like(key):
    assert secret_in({"request": {key: "9f8e"}}) is None


def test_no_parameter_of_a_notebook_is_named_like_a_secret():
    for model in SETTINGS.values():
        assert secret_in(dict.fromkeys(model.model_fields, "x")) is None, model.notebook


# --- experiments -----------------------------------------------------------------------------------------------------


def experiment(tmp_path, place, value):
    settings = yaml.safe_load((FOLDER / "mini.yaml").read_text())
    settings["teachers"]["served"] = {"backend": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1",
                                      "promptings": ["few_shot", "counterfactual"]}
    *above, last = place.split("/")
    inner = settings
    for key in above:
        inner = inner[key]
    inner[last] = value
    path = tmp_path / "leaky.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


REFUSED = {
    "password": ("teachers/served/base_url", f"http://user:{SECRET}@host/v1", "OPENAI_API_KEY"),
    "name alone": ("teachers/served/base_url", f"http://{SECRET}@host/v1", "OPENAI_API_KEY"),
    "key": ("teachers/served/base_url", f"http://host/v1?key={SECRET}", "OPENAI_API_KEY"),
    "any query": ("teachers/served/base_url", f"http://host/v1?a={SECRET}", "OPENAI_API_KEY"),
    "fragment": ("teachers/served/base_url", f"http://host/v1#{SECRET}", "OPENAI_API_KEY"),
    "file": ("teachers/served/base_url", f"file:///etc/{SECRET}", "no address of a server"),
    "other scheme": ("teachers/served/base_url", f"ftp://host/{SECRET}", "no address of a server"),
    "no scheme": ("teachers/served/base_url", f"localhost:8000/{SECRET}", "no address of a server"),
    "no host": ("teachers/served/base_url", f"http:///{SECRET}", "no address of a server"),
    "line break": ("teachers/served/base_url", f"http://ho\nst/{SECRET}", "no address of a server"),
    "control character": ("teachers/served/base_url", f"http://host/\x1b{SECRET}", "no address of a server"),
    "space": ("teachers/served/base_url", f"http://host/ {SECRET}", "no address of a server"),
    "of a prompting": ("promptings/few_shot/base_url", f"file:///{SECRET}", "no address of a server"),
    "model": ("teachers/served/model", f"https://user:{SECRET}@host/m", "teachers.served.model"),
    "student": ("students/mini-t5/model", f"https://user:{SECRET}@host/m", "students.mini-t5.model"),
    "tokenizer": ("students/mini-t5/tokenizer", f"https://h/m?token={SECRET}", "students.mini-t5.tokenizer"),
    "folder": ("datasets/mini/folder", f"https://user:{SECRET}@host/d", "datasets.mini.folder"),
    "published": ("teachers/served/published_folder", f"https://user:{SECRET}@host/d", "published_folder"),
    "about": ("about", f"it ran at http://user:{SECRET}@host/v1", "key 'about'"),
    "needs": ("needs", f"a key such as sk-{SECRET}", "key 'needs'"),
    "stop text": ("teachers/served/stop", [f"http://u:{SECRET}@h"], "teachers.served.stop.0"),
    "named": ("teachers/served/request", {"api_key": SECRET}, "teachers.served.request.api_key"),
    "header": ("teachers/served/request", {"extra_headers": {"X-Api-Key": SECRET}}, "request.extra_headers.X-Api-Key"),
    "basic": ("teachers/served/request", {"extra_headers": {"Authorization": f"Basic {SECRET}"}}, "s.Authorization"),
    "wrong type": ("seeds", f"http://u:{SECRET}@h", "key 'seeds'"),
    "unknown key": (f"http:__u:{SECRET}@h", 1, "a key: holds a password or a key"),
}


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
@pytest.mark.parametrize("name", REFUSED)
def test_a_secret_is_refused_before_anything_is_written(name, more, tmp_path, own_outputs, capsys):
    place, value, says = REFUSED[name]
    path = experiment(tmp_path, place, value)
    if name == "unknown key":
        path.write_text(path.read_text().replace("http:__", "http://"))
    assert main(["run", str(path), *more]) == 2
    out, error = capsys.readouterr()
    assert error.startswith("error: ") and error.count("\n") == 1 and says in error
    assert SECRET not in out + error
    assert not own_outputs.exists()


@pytest.mark.parametrize(("name", "value"), [("OPENAI_BASE_URL", f"http://user:{SECRET}@host/v1"),
                                             ("OPENAI_BASE_URL", f"file:///{SECRET}"),
                                             ("OPENAI_API_KEY", f"{SECRET}…"), ("OPENAI_API_KEY", f"{SECRET}\nx")])
def test_what_the_environment_says_of_a_server_is_checked_with_the_experiment(name, value, tmp_path, monkeypatch):
    path = experiment(tmp_path, "teachers/served/base_url", "")
    monkeypatch.setenv("OPENAI_API_KEY", f"{SECRET}\n")  # a line break at its end is no fault
    assert load_experiment(path)
    monkeypatch.setenv(name, value)
    with pytest.raises(StudyError, match=f"key 'teachers.served': {name}: ") as refused:
        load_experiment(path)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("name", ["/models/Llama-3.1-8B-Instruct", "accounts/x/models/y", "./m", "~m", "a/b/c"])
def test_the_name_of_a_served_model_is_no_path(name, tmp_path):
    jobs = load_experiment(experiment(tmp_path, "teachers/served/model", name)).jobs
    assert [job.parameters["model"] for job in jobs if job.folder == "explanations/mini/served/few_shot"] == [name]
    with pytest.raises(StudyError, match="no such file or folder"):
        load_experiment(experiment(tmp_path, "teachers/served", {
            "backend": "hf", "model": "/models/nowhere", "promptings": ["few_shot", "counterfactual"]}))


# --- what is written -------------------------------------------------------------------------------------------------


def test_a_notebook_stops_at_a_secret_in_its_parameters_and_its_folder_is_not_made(tmp_path):
    with pytest.raises(StudyError, match="02_test: key 'base_url'.*OPENAI_API_KEY") as refused:
        runs.start_run("02_test", str(tmp_path / "run"), {"base_url": f"http://user:{SECRET}@host/v1"})
    assert SECRET not in str(refused.value) and not (tmp_path / "run").exists()
    for settings in ({"base_url": f"http://host/v1?x={SECRET}"}, {"base_url": "", "model": f"http://u:{SECRET}@h"}):
        with pytest.raises(StudyError) as refused:
            load_teacher({"backend": "openai", "model": "m", "chat": False, "requests": 1, "timeout": 5, **settings})
        assert SECRET not in str(refused.value)


def test_what_other_programs_wrote_is_masked(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_API_KEY", SECRET)
    text = f'a "quoted\\" ?key={SECRET}" http://user:x@host {SECRET}\n'
    hidden = 'a "quoted\\" ?key=***" http://***@host ***\n'
    cell = {"cell_type": "code", "source": text, "metadata": {}, "outputs": [
        {"output_type": "error", "ename": "E", "evalue": text, "traceback": [text, text]}]}
    for name in ("papermill.log", "error.txt", "other.txt"):
        (tmp_path / name).write_text(text)
    (tmp_path / "notebook.ipynb").write_text(json.dumps({"cells": [cell], "nbformat": 4}, indent=1))
    runs.mask_run(tmp_path)
    assert (tmp_path / "papermill.log").read_text() == (tmp_path / "error.txt").read_text() == hidden
    assert (tmp_path / "other.txt").read_text() == text
    found = json.loads((tmp_path / "notebook.ipynb").read_text())["cells"][0]
    assert found["source"] == hidden and found["outputs"][0]["traceback"] == [hidden, hidden]
    (tmp_path / "error.txt").write_bytes(b"\xff\xfe no secret")
    before = (tmp_path / "error.txt").stat().st_mtime_ns
    runs.mask_run(tmp_path)
    assert (tmp_path / "error.txt").stat().st_mtime_ns == before, "without a secret a file is left alone"


def test_the_logs_of_an_experiment_are_masked_when_it_ends(tmp_path, monkeypatch):
    """A job that failed with a key in its message, as a library without StudyErrors would."""
    monkeypatch.setenv("MY_API_KEY", SECRET)
    job = tmp_path / "data" / "mini"
    job.mkdir(parents=True)
    code = ("import pathlib, sys; text = 'ValueError: http://user:pass-word@host ' + sys.argv[1]; print(text)\n"
            "[pathlib.Path('data/mini', name).write_text(text) for name in ('error.txt', 'papermill.log')]\n"
            "sys.exit(1)")
    monkeypatch.setattr(snakemake_runs, "snakemake_command", lambda *_, **__: [sys.executable, "-c", code, SECRET])
    monkeypatch.chdir(tmp_path)
    experiment = SimpleNamespace(folder=tmp_path, jobs=[SimpleNamespace(folder="data/mini")])
    assert snakemake_runs.run_snakemake(experiment, None) == 1
    for path in (tmp_path / "snakemake.log", job / "error.txt", job / "papermill.log"):
        assert path.read_text().strip() == "ValueError: http://***@host ***"


def test_a_sealed_notebook_holds_no_secret_and_its_checksum_is_right(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_API_KEY", SECRET)
    runs.start_run("01_test", str(tmp_path), {}).finish({})
    (tmp_path / "notebook.ipynb").write_text(json.dumps({"cells": [{"source": f"print({SECRET!r})"}]}))
    runs.add_notebook_checksum(tmp_path)
    assert SECRET not in (tmp_path / "notebook.ipynb").read_text() and runs.check_run(tmp_path) == []


def test_pages_and_index_mask_what_a_run_left(tmp_path, monkeypatch):
    import nbformat

    monkeypatch.setenv("MY_API_KEY", SECRET)
    text = f"{SECRET} https://user:pass-word@host/v1?api_key=another-one"
    failed = nbformat.v4.new_output("error", ename="ValueError", evalue=text, traceback=[text])
    shown = nbformat.v4.new_output("display_data", data={"text/html": f"<p>{text}</p>", "text/plain": text})
    cells = [nbformat.v4.new_markdown_cell(text), nbformat.v4.new_code_cell(f"x = {text!r}", outputs=[shown, failed])]
    runs_of = []
    for name, files in (("a", {}), ("b", {"error.txt": text}), ("c", {"metrics.json": json.dumps({text: 1})})):
        folder = tmp_path / name
        folder.mkdir()
        nbformat.write(nbformat.v4.new_notebook(cells=cells if name == "a" else []), folder / "notebook.ipynb")
        for file, content in ({"manifest.json": "{}"} if "metrics.json" in files else {} | files).items():
            (folder / file).write_text(content)
        runs_of.append({"name": name, "folder": folder, "kind": "data", "parameters": {"base_url": text, "x": [text]},
                        "labels": {"teacher": text}})
    render_pages(tmp_path, runs_of)
    write_index(tmp_path, runs_of, {"name": "x", "about": text, "needs": text, "command": text})
    pages = [page.read_text() for page in tmp_path.rglob("*.html")]
    assert len(pages) == 4 and sum("https://***@host/v1" in page for page in pages) >= 2
    assert not [page for page in pages for secret in (SECRET, "pass-word", "another-one") if secret in page]


def test_the_readable_identity_in_the_store_is_masked_and_its_key_is_not(tmp_path):
    identity = {"backend": "other", "where": f"http://user:{SECRET}@host"}
    request = Request(identity, "Why?", Decoding(9))
    with Store(tmp_path / "store.sqlite") as store:
        store.put([(request, Completion("so", "stop", 1, 1))])
        assert store.get([request.key])[request.key].text == "so"
        assert store.summary()[0]["teacher"] == {"backend": "other", "where": "http://***@host"}
    assert SECRET.encode() not in (tmp_path / "store.sqlite").read_bytes()


# --- what Snakemake is given -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["--executor", "moon-shot"], ["--executor=moon-shot"], ["-e", "moon-shot"],
                                   ["-emoon-shot"], ["--jobs", "3", "-e=moon-shot", "--quiet"]])
def test_a_missing_executor_is_one_line_that_says_what_to_install(words, own_outputs, capsys):
    for more in ([], ["--dry-run"]):
        assert main(["run", "mini", *more, "--", *words]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "pip install snakemake-executor-plugin-moon-shot" in error
    assert not own_outputs.exists()


def test_an_executor_that_is_there_or_not_asked_for_is_no_matter(tmp_path, monkeypatch):
    for words in ([], ["--executor", "local"], ["--executor"], ["--keep-going", "--edit-notebook", "x"]):
        assert snakemake_runs.missing_executor(words) == ""
    assert "no name" in snakemake_runs.missing_executor(["--executor", "a.b; rm"])
    (tmp_path / "snakemake_executor_plugin_moon_shot.py").write_text("")
    assert snakemake_runs.missing_executor(["-e", "moon-shot"])
    monkeypatch.syspath_prepend(tmp_path)
    assert snakemake_runs.missing_executor(["-e", "moon-shot"]) == ""
