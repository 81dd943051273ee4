"""Models as people bring them: every tensor is read or missed by name, and what cannot be read is one line."""

import http.server
import json
import os
import random
import re
import shutil
import socket
import threading
from functools import cache
from pathlib import Path

import pytest
import torch
import transformers
import yaml
from safetensors.torch import load_file, save_file

from kdutils import hub
from kdutils.errors import StudyError
from kdutils.evaluation.encoders import load_encoder
from kdutils.experiments.grid import FOLDER
from kdutils.experiments.inputs import files_of
from kdutils.experiments.loading import load_experiment
from kdutils.student.lm_reader import trained_reader
from kdutils.student.models import load_student
from kdutils.student.training import Recipe, fingerprint
from kdutils.teacher.completion import Decoding
from kdutils.teacher.hf import HfTeacher
from kdutils.teacher.word_scores import SETTINGS, load_model

VOCABULARY = str(Path(__file__).parents[1] / "kdutils" / "mini" / "student")
SIZE = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
        "max_position_embeddings": 128}
T5 = {"d_model": 24, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0}
FAMILIES = {  # name -> (class of the model, config of its class, shape)
    "llama": ("LlamaForCausalLM", "LlamaConfig", SIZE),
    "llama tied": ("LlamaForCausalLM", "LlamaConfig", {**SIZE, "tie_word_embeddings": True}),
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", {"n_embd": 24, "n_layer": 1, "n_head": 2, "n_positions": 128}),
    "t5": ("T5ForConditionalGeneration", "T5Config", T5),
    "t5 untied": ("T5ForConditionalGeneration", "T5Config",
                  {**T5, "tie_word_embeddings": False, "feed_forward_proj": "gated-gelu"}),
    "bert": ("BertModel", "BertConfig", SIZE),
    "bert masked": ("BertForMaskedLM", "BertConfig", SIZE),
    "bert pretrained": ("BertForPreTraining", "BertConfig", SIZE),  # two heads and a pooler
    "bert of three": ("BertForSequenceClassification", "BertConfig", {**SIZE, "num_labels": 3}),
    "bert of one": ("BertForSequenceClassification", "BertConfig", {**SIZE, "num_labels": 1}),
    "roberta": ("RobertaForMaskedLM", "RobertaConfig", SIZE),
    "distilbert": ("DistilBertForMaskedLM", "DistilBertConfig",
                   {"dim": 24, "hidden_dim": 32, "n_layers": 1, "n_heads": 2, "max_position_embeddings": 128}),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a function that writes a model of random weights with the mini vocabulary: family -> folder."""
    @cache
    def write(family):
        torch.manual_seed(1)
        tokenizer = transformers.AutoTokenizer.from_pretrained(VOCABULARY)
        model, config, shape = FAMILIES[family]
        config = getattr(transformers, config)(vocab_size=len(tokenizer), pad_token_id=0, eos_token_id=1,
                                               bos_token_id=None, **shape)
        folder = tmp_path_factory.mktemp(family.replace(" ", "-"))
        getattr(transformers, model)(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return write


@pytest.fixture
def copied(made, tmp_path):
    """Return a function that copies a family's folder, its tensors run through `change` (a dict to a dict)."""
    def write(family, change=dict, name="model"):
        folder = tmp_path / name
        shutil.copytree(made(family), folder)
        rewrite(folder / "model.safetensors", change)
        return folder

    return write


def rewrite(path, change):
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}  # a mapped file cannot be replaced
    path.unlink()
    save_file(change(tensors), path, metadata={"format": "pt"})


def config_of(folder, **changes):
    """Change a model folder's config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def renamed(change):
    return lambda tensors: {change(name): tensor for name, tensor in tensors.items()}


def without(word):
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if word not in name}


def said(load, *arguments, **settings):
    """Return the one line that a load ends in, after the checks that hold for every line."""
    with pytest.raises(StudyError) as caught:
        load(*map(str, arguments), **settings)
    line = str(caught.value)
    assert line.isprintable() and len(line) < 500, line
    return line


def taught(folder, **settings):
    """Load a folder as a teacher and let it write."""
    return HfTeacher(folder, **settings).complete(["A cow is"], Decoding(3))


def attributed(folder):
    return load_model(SETTINGS | {"model": folder})


def read(folder):
    """Train a reader of explanations that starts from a model."""
    one = {"id": "1", "question": "Which?", "choices": ["red", "blue"], "answer": "red", "explanation": "It is red.",
           "masked": "It is ___."}
    return trained_reader({"model": folder})([one | {"id": str(number)} for number in range(8)], [one], 0)


LOADS = {  # what loads weights -> (function of a folder, families that it takes)
    "student": (load_student, ("llama", "gpt2", "t5", "bert masked")),
    "classifier": (lambda folder: load_student(folder, kind="classifier"), ("bert", "distilbert")),
    "teacher": (taught, ("llama", "t5")),
    "teacher, int8": (lambda folder: taught(folder, quantization="int8"), ("llama",)),
    "teacher, nf4": (lambda folder: taught(folder, quantization="nf4"), ("llama", "t5")),
    "encoder": (load_encoder, ("bert", "roberta")),
    "attribution": (attributed, ("t5",)),
    "reader": (read, ("t5",)),
}
EVERY = [(name, family) for name, (_, families) in LOADS.items() for family in families]
FIRST = [(name, families[0]) for name, (_, families) in LOADS.items()]


# Tensors that the files lack or the model does not take

@pytest.mark.parametrize(("name", "family"), EVERY)
def test_a_layer_that_is_missing_is_named_by_whatever_loads_it(name, family, copied):
    word = {"llama": "layers.1.mlp.", "gpt2": "h.0.mlp.", "t5": "decoder.block.0.layer.2.",
            "distilbert": "layer.0.ffn."}.get(family, "encoder.layer.1.")
    folder = copied(family, without(word))
    line = said(LOADS[name][0], folder)
    assert line.startswith(f"{folder}: its weights do not fit ") and word in line and "not in its files" in line


@pytest.mark.parametrize(("name", "family"), FIRST)
def test_tensors_that_the_model_does_not_take_are_named(name, family, copied):
    """As where the config tells of fewer layers than the files hold."""
    word = {"llama": "model.layers.0.", "t5": "decoder.block.0."}.get(family, "encoder.layer.0.")

    def extra(tensors):
        return tensors | {key.replace(".0.", ".7.", 1): tensor.clone() for key, tensor in tensors.items()
                          if word in key}

    line = said(LOADS[name][0], copied(family, extra))
    assert word.replace(".0.", ".7.") in line and "not known to the model" in line and " more" in line


@pytest.mark.parametrize(("name", "family"), FIRST)
def test_a_prefix_of_nobodys_is_in_the_line(name, family, copied):
    line = said(LOADS[name][0], copied(family, renamed(lambda tensor: f"my.student.{tensor}")))
    assert "not known to the model: my.student." in line and "not in its files: " in line


@pytest.mark.parametrize(("family", "settings"), [
    ("llama", {}), ("llama tied", {}), ("gpt2", {}), ("t5", {}), ("t5 untied", {}), ("bert masked", {}), ("bert", {}),
    ("bert pretrained", {}), ("bert masked", {"kind": "classifier"}), ("bert of three", {"kind": "classifier"}),
    ("bert of one", {}), ("distilbert", {"kind": "classifier"}), ("roberta", {"kind": "classifier"})])
def test_a_tensor_left_out_is_named_or_was_never_read(family, settings, made, copied):
    """What still loads is the model of the whole files, number by number: nothing was drawn in the tensor's place."""
    whole = load_student(str(made(family)), **settings)[0].state_dict()
    names, named = sorted(load_file(made(family) / "model.safetensors")), 0
    for place, name in enumerate(random.Random(family).sample(names, 6)):
        folder = copied(family, without(name), f"model-{place}")
        try:
            again = load_student(str(folder), **settings)[0].state_dict()
        except StudyError as error:
            assert name.removeprefix("bert.") in str(error) and str(folder) in str(error)
            named += 1
        else:
            assert all(again[key].equal(tensor) for key, tensor in whole.items()), name
    assert named > 1


@pytest.mark.parametrize("settings", [{}, {"kind": "classifier"}])
def test_what_a_start_from_an_encoder_adds_is_drawn_and_the_rest_is_the_encoders(settings, made, copied):
    own = load_file(made("bert pretrained") / "model.safetensors")
    student = load_student(str(made("bert pretrained")), **settings)[0].state_dict()
    halves = ("bert.",) if settings else ("encoder.", "decoder.bert.")
    for half in halves:
        for name, tensor in own.items():
            if name.startswith("bert.") and ".pooler." not in name:
                assert student[half + name.removeprefix("bert.")].equal(tensor), name
    half_a_head = copied("bert pretrained", without("cls.predictions.transform.dense"))
    if settings:
        assert load_student(str(half_a_head), **settings)  # a head that it does not use
        half_a_pooler = copied("bert pretrained", without("pooler.dense.bias"), "pooler")
        assert "not in its files: bert.pooler.dense.bias" in said(load_student, half_a_pooler, **settings)
    else:
        assert "cls.predictions.transform.dense.bias" in said(load_student, half_a_head)


def test_only_the_head_of_a_classifier_may_be_of_another_size(copied):
    folder = copied("bert of three")
    assert load_student(str(folder), kind="classifier")[0].config.num_labels == 1
    config_of(folder, intermediate_size=16)
    line = said(load_student, folder, kind="classifier")
    assert "of another size: bert.encoder.layer.0.intermediate.dense.bias [64] for [16]" in line
    lost = copied("bert of one", without("classifier."), "lost")
    assert "classifier.bias, classifier.weight" in said(load_student, lost)


def test_heads_of_the_file_are_left_out_where_only_the_encoder_is_wanted(made, copied):
    for family in ("bert pretrained", "bert of three", "roberta", "distilbert"):
        model, _ = load_encoder(str(made(family)))
        own = load_file(made(family) / "model.safetensors")
        prefix = family.split()[0] + "."
        state = model.state_dict()
        assert all(state[name.removeprefix(prefix)].equal(tensor) for name, tensor in own.items()
                   if name.startswith(prefix))
    assert "embeddings.LayerNorm.bias" in said(load_encoder, copied("bert pretrained", without("LayerNorm.bias")))


# Names that wrappers have changed

@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod.", "base_model.model."])
@pytest.mark.parametrize(("name", "family"), [
    ("student", "llama"), ("student", "t5"), ("student", "bert masked"), ("encoder", "bert"), ("teacher", "llama"),
    ("teacher, nf4", "llama")])
def test_a_wrappers_prefix_is_taken_off_and_said_once(prefix, name, family, made, copied, capsys):
    folder = copied(family, renamed(lambda tensor: prefix + tensor))
    found, plain = LOADS[name][0](str(folder)), LOADS[name][0](str(made(family)))
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    assert len(lines) == 1 and lines[0].startswith(f"{folder}: the names of its tensors hold '")
    assert all(f"'{part}.'" in lines[0] for part in re.findall(r"_orig_mod|module|base_model\.model", prefix))
    if name in ("student", "encoder"):
        wanted = plain[0].state_dict()
        assert all(tensor.equal(wanted[key]) for key, tensor in found[0].state_dict().items())
    else:
        assert found == plain


def test_a_part_that_was_compiled_alone_is_read(made, copied):
    folder = copied("llama", renamed(lambda name: name.replace("layers.1.", "layers.1._orig_mod.")))
    wanted = load_student(str(made("llama")))[0].state_dict()
    assert all(tensor.equal(wanted[key]) for key, tensor in load_student(str(folder))[0].state_dict().items())


@pytest.mark.parametrize("load", [load_student, taught])
def test_a_model_saved_with_its_adapter_says_to_merge(load, made, copied):
    state = peft_model(made("llama")).state_dict()
    folder = copied("llama", lambda tensors: {name: tensor.clone() for name, tensor in state.items()})
    assert "merge it (merge_and_unload) and save again" in said(load, folder)


# Adapters

def peft_model(folder, **settings):
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(2)
    auto = getattr(transformers, json.loads((folder / "config.json").read_text())["architectures"][0])
    return get_peft_model(auto.from_pretrained(folder), LoraConfig(**{
        "r": 4, "target_modules": "all-linear", "init_lora_weights": False, **settings}))


def adapter_of(folder, where, **settings):
    """Write an adapter for the model in `folder`; return (the adapter's folder, the model with it)."""
    model = peft_model(folder, **settings)
    model.save_pretrained(where)
    return where, model


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_an_adapter_is_loaded_onto_its_base_and_merged(family, made, tmp_path):
    folder, model = adapter_of(made(family), tmp_path / "adapter")
    student, tokenizer = load_student(str(folder))
    ids = tokenizer(["A cow is an animal"], return_tensors="pt")["input_ids"]
    inputs = {"input_ids": ids, **({"decoder_input_ids": ids} if family == "t5" else {})}
    theirs = model.eval()(**inputs).logits
    torch.testing.assert_close(student(**inputs).logits, theirs, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(load_student(str(made(family)))[0](**inputs).logits, theirs, atol=1e-2)
    assert all(weight.requires_grad for weight in student.parameters()), "a student is trained"
    student.save_pretrained(tmp_path / "saved")
    tokenizer.save_pretrained(tmp_path / "saved")
    assert {path.name for path in (tmp_path / "saved").iterdir()} >= {"model.safetensors", "config.json"}
    torch.testing.assert_close(load_student(str(tmp_path / "saved"))[0](**inputs).logits, student(**inputs).logits)
    teacher = HfTeacher(str(folder))
    torch.testing.assert_close(teacher.model(**inputs).logits, theirs, rtol=1e-4, atol=1e-5)
    if family == "llama":
        out = model.generate(input_ids=ids, do_sample=False, max_new_tokens=4, pad_token_id=0)[0, ids.shape[1]:]
        written = teacher.complete(["A cow is an animal"], Decoding(4))[0].text
        assert written == tokenizer.decode(out, skip_special_tokens=True)


def test_an_adapter_and_its_base_are_both_inputs_of_what_is_made_from_them(copied, tmp_path):
    import pandas as pd

    base = copied("llama")
    folder, _ = adapter_of(base, tmp_path / "adapter")

    class Job:
        kind, notebook = "students", "11_train_standard"
        parameters = {"model": str(folder), "output": "outputs/a-test/students/one"}

    def known():
        student = {"model": str(folder)}
        return (HfTeacher(str(folder)).identity,
                fingerprint(pd.DataFrame(), {}, Recipe("standard", student, {}))["model_files"])

    (folder / ".DS_Store").write_text("of the system")
    files = set(files_of(Job))
    assert {base / "model.safetensors", folder / "adapter_model.safetensors"} <= files
    assert not any(file.name.startswith(".") for file in files)
    seen = [known()]
    for path in (folder / "adapter_model.safetensors", base / "model.safetensors"):
        rewrite(path, lambda tensors: {name: tensor + 1 for name, tensor in tensors.items()})
        seen.append(known())
    config = folder / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"lora_alpha": 99}))
    seen.append(known())
    for part in (0, 1):
        found = [json.dumps(one[part], sort_keys=True) for one in seen]
        assert len(set(found)) == len(found)


ADAPTERS = {  # what is wrong -> (change of the folder, what is said)
    "base that is not there": (lambda folder: adapter_config(folder, base_model_name_or_path="/nowhere/base"),
                               "an adapter whose base cannot be used (/nowhere/base: no such folder"),
    "base that the Hub lacks": (lambda folder: adapter_config(folder, base_model_name_or_path="nobody/base"),
                                "nobody/base"),
    "no base": (lambda folder: adapter_config(folder, base_model_name_or_path=None), "does not name its base"),
    "no weights": (lambda folder: (folder / "adapter_model.safetensors").unlink(), "without adapter_model.safetensors"),
    "pickled weights": (lambda folder: (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin"),
                        "without adapter_model.safetensors; other formats are not loaded"),
    "cut short": (lambda folder: cut(folder / "adapter_model.safetensors"), "adapter_model.safetensors: "),
    "config that is no JSON": (lambda folder: (folder / "adapter_config.json").write_text("{"),
                               "adapter_config.json is not valid JSON"),
    "other names": (lambda folder: rewrite(folder / "adapter_model.safetensors",
                                           renamed(lambda name: name.replace("self_attn", "attention"))),
                    "tensors not in its file: model.layers.0.self_attn.k_proj.lora_A"),
    "half of it": (lambda folder: rewrite(folder / "adapter_model.safetensors", without("layers.1.")),
                   "tensors not in its file: model.layers.1."),
    "a layer too many": (lambda folder: rewrite(folder / "adapter_model.safetensors", lambda tensors: tensors | {
        name.replace(".0.", ".7.", 1): tensor.clone() for name, tensor in tensors.items() if "0.mlp.up_proj" in name}),
                         "tensors not known to the base: model.layers.7.mlp.up_proj.lora_A"),
    "another rank": (lambda folder: adapter_config(folder, r=2), "size mismatch"),
    "unknown type": (lambda folder: adapter_config(folder, peft_type="NOSUCH"), "NOSUCH"),
    "a whole model beside it": (lambda folder: shutil.copytree(VOCABULARY, folder, dirs_exist_ok=True),
                                "it holds a whole model and an adapter"),
}


def adapter_config(folder, **changes):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def cut(path):
    path.write_bytes(path.read_bytes()[:-50])


@pytest.mark.parametrize("wrong", ADAPTERS)
def test_an_adapter_that_cannot_be_merged_is_named(wrong, made, tmp_path):
    folder, _ = adapter_of(made("llama"), tmp_path / "adapter")
    change, says = ADAPTERS[wrong]
    change(folder)
    for load in (load_student, taught):
        line = said(load, folder)
        assert says in line and "adapter" in line


def test_an_adapter_on_a_quantised_teacher_says_to_merge_first(made, tmp_path):
    folder, _ = adapter_of(made("llama"), tmp_path / "adapter")
    assert "set quantization to none, or merge it" in said(HfTeacher, folder, quantization="nf4")


# Quantised weights

@pytest.mark.parametrize(("method", "says"), [("awq", "gptqmodel"), ("gptq", "optimum"), ("exl2", "does not know"),
                                              (None, "an unnamed method")])
def test_weights_that_were_saved_quantised_are_refused_before_anything_is_written(method, says, copied):
    if method in ("awq", "gptq"):
        from transformers.utils import is_gptqmodel_available

        if is_gptqmodel_available():
            pytest.skip("the library that reads these is installed")
    folder = copied("llama", renamed(lambda name: name.replace("proj.weight", "proj.qweight")))
    config_of(folder, quantization_config={"quant_method": method, "bits": 4, "group_size": 8})
    for load in (HfTeacher, load_student):
        line = said(load, folder)
        assert line.startswith(f"{folder}: its weights are quantised ({method or 'by'}") and says in line
        assert "give the model before it was quantised" in line
    assert load_student(str(folder), random_weights=True)  # its shape alone is another matter


def test_quantised_tensors_without_a_word_in_the_config_are_told_by_their_names(copied):
    folder = copied("llama", renamed(lambda name: name.replace("proj.weight", "proj.qweight")))
    for load in (HfTeacher, load_student):
        assert "quantised by GPTQ or AWQ, of which its config.json says nothing" in said(load, folder)


def test_what_bitsandbytes_saved_is_a_teacher_but_no_student(made, tmp_path):
    settings = transformers.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    model = transformers.AutoModelForCausalLM.from_pretrained(made("llama"), quantization_config=settings)
    model.save_pretrained(tmp_path)
    transformers.AutoTokenizer.from_pretrained(VOCABULARY).save_pretrained(tmp_path)
    assert taught(str(tmp_path)) == taught(str(tmp_path), quantization="nf4")
    assert "quantised already (bitsandbytes), not as int8" in said(taught, tmp_path, quantization="int8")
    assert "cannot be trained" in said(load_student, tmp_path)


# Pickles

class Bomb:
    """What a pickle runs when it is opened."""

    def __reduce__(self):
        return os.mkdir, (os.environ["PICKLE_WRITES"],)


@pytest.mark.parametrize("name", ["student", "teacher", "encoder"])
def test_a_pickle_is_not_opened_and_how_to_convert_it_is_said(name, copied, tmp_path, monkeypatch):
    monkeypatch.setenv("PICKLE_WRITES", str(tmp_path / "opened"))
    folder = copied(LOADS[name][1][0])
    (folder / "model.safetensors").unlink()
    torch.save({"weight": Bomb()}, folder / "pytorch_model.bin")
    line = said(LOADS[name][0], folder)
    assert "pytorch_model.bin" in line and "write it with save_pretrained" in line
    assert not (tmp_path / "opened").exists()


def test_models_of_the_hub_are_treated_alike(made, tmp_path, monkeypatch):
    """The Hub's cache is laid out by hand."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))

    def cached(name, files):
        cache = tmp_path / "hub" / f"models--me--{name}"
        (cache / "refs").mkdir(parents=True)
        (cache / "refs" / "main").write_text("a" * 40)
        (cache / "snapshots").mkdir()
        return Path(shutil.copytree(files, cache / "snapshots" / ("a" * 40)))

    cached("llama", made("llama"))
    pickled = cached("pickled", made("llama"))
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    adapter, _ = adapter_of(made("llama"), tmp_path / "adapter")
    onto_local = load_student(str(adapter))[0].state_dict()
    adapter_config(adapter, base_model_name_or_path="me/llama")
    cached("adapter", adapter)
    onto_cached = load_student("me/adapter")[0].state_dict()
    assert all(tensor.equal(onto_local[key]) for key, tensor in onto_cached.items())
    assert taught("me/adapter") == taught(str(adapter)) != taught("me/llama")
    identity = HfTeacher("me/adapter").identity
    assert identity["revision"] == "a" * 40 and identity["adapter"]
    for load in (load_student, taught):
        assert said(load, "me/pickled").startswith("me/pickled: its weights are a pickle (pytorch_model.bin)")
        assert said(load, "me/misspelt").startswith("me/misspelt: cannot be loaded (")


# Vocabularies

def with_tokens(folder, *tokens):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(list(tokens))
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("family", "kind"), [("llama", ""), ("llama tied", ""), ("t5", ""), ("t5 untied", ""),
                                              ("gpt2", ""), ("bert masked", ""), ("bert masked", "classifier")])
def test_a_student_gets_rows_for_the_tokens_that_were_added(family, kind, made, copied, tmp_path, capsys):
    folder = with_tokens(copied(family), "<one>", "<two>")
    capsys.readouterr()
    student, tokenizer = load_student(str(folder), kind=kind, seed=3)
    assert capsys.readouterr().out == (
        f"{folder}: 2 of the tokenizer's {len(tokenizer)} tokens ('<one>', '<two>') had no row in the model's "
        "embedding; "
        "new rows are drawn from the seed\n")
    plain = load_student(str(made(family)), kind=kind, seed=3)[0]
    table, old = student.get_input_embeddings().weight, plain.get_input_embeddings().weight
    assert table.shape[0] == len(tokenizer) == old.shape[0] + 2 and table[:-2].equal(old)
    same, other = (load_student(str(folder), kind=kind, seed=seed)[0].get_input_embeddings().weight for seed in (3, 4))
    assert same.equal(table) and not other.equal(table)
    student.save_pretrained(tmp_path / "saved")
    tokenizer.save_pretrained(tmp_path / "saved")
    again = load_student(str(tmp_path / "saved"))[0].state_dict()
    assert all(tensor.equal(again[key]) for key, tensor in student.state_dict().items())


def test_a_vocabulary_that_is_another_models_is_refused_with_the_advice_that_helps(copied):
    folder = copied("llama")
    config_of(folder, vocab_size=500)
    rewrite(folder / "model.safetensors", lambda tensors: {
        name: tensor[:500] if tensor.shape[0] > 500 else tensor for name, tensor in tensors.items()})
    for load in (load_student, HfTeacher):
        assert "the model knows 500; the two do not belong together: fetch the model again" in said(load, folder)
    line = said(load_student, folder, tokenizer=VOCABULARY)
    assert "the model knows 500; take the tokenizer that belongs to the model" in line


def test_a_teacher_without_a_row_for_a_token_writes_until_a_prompt_holds_it(made, copied):
    for family in ("llama", "t5"):
        folder = copied(family, name=family)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        tokenizer.add_special_tokens({"pad_token": "<padding>"})  # fills up rows: it is not in the table either
        tokenizer.save_pretrained(folder)
        prompts = ["A cow is", "A cow is an animal that", "A"]
        done = HfTeacher(str(folder)).complete(prompts, Decoding(4))
        assert done == HfTeacher(str(made(family))).complete(prompts, Decoding(4))
        line = said(lambda name: HfTeacher(name).complete(["A", "A <padding> cow"], Decoding(4)), folder)
        assert "prompt 1 holds the token '<padding>', which was added to the tokenizer without a row" in line


@pytest.mark.parametrize(("load", "family"), [(load_encoder, "bert"), (attributed, "t5")])
def test_an_encoder_without_a_row_for_a_token_is_refused(load, family, copied):
    assert "resize the table (resize_token_embeddings)" in said(load, with_tokens(copied(family), "<one>"))


# Files that are broken, names that are misspelt

def indexed(folder, shards=None):
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    if shards is None:
        shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": shards}))


BROKEN = {  # what is wrong -> (change of the folder, what is said)
    "a shard is missing": (indexed, "names files that are not there: model-00002-of-00002.safetensors"),
    "an index of nothing": (lambda folder: indexed(folder, {}), "model.safetensors.index.json names no files"),
    "weights cut short": (lambda folder: cut(folder / "model.safetensors"), "model.safetensors: "),
    "weights of nothing": (lambda folder: (folder / "model.safetensors").write_bytes(b""), "model.safetensors: "),
    "a config that is no JSON": (lambda folder: (folder / "config.json").write_text("{"),
                                 "config.json is not valid JSON"),
    "a config that is a list": (lambda folder: (folder / "config.json").write_text("[]"),
                                "config.json is not a JSON object"),
    "a config of 3,000 levels": (lambda folder: (folder / "config.json").write_text("[" * 3000 + "]" * 3000),
                                 "config.json is not valid JSON"),
    "a config of a wrong type": (lambda folder: config_of(folder, hidden_size="x", d_model="x"), "x"),
    "a tokenizer that is no JSON": (lambda folder: (folder / "tokenizer.json").write_text("{"),
                                    "tokenizer.json is not valid JSON"),
    "a tokenizer of nothing": (lambda folder: (folder / "tokenizer.json").write_text('{"model": {}}'), "tokenizer: "),
}


@pytest.mark.parametrize("name", ["student", "teacher", "encoder", "attribution"])
@pytest.mark.parametrize("wrong", BROKEN)
def test_a_file_that_is_broken_is_named(name, wrong, copied):
    folder = copied(LOADS[name][1][0])
    change, says = BROKEN[wrong]
    change(folder)
    line = said(LOADS[name][0], folder)
    assert says in line and line.startswith(f"{folder}: ")


@pytest.mark.parametrize("name", ["student", "classifier", "encoder", "attribution", "reader"])
def test_a_misspelt_name_of_the_hub_is_in_the_line(name):
    assert said(LOADS[name][0], "google-t5/t5-smal").startswith("google-t5/t5-smal: cannot be loaded (")


def test_a_misspelt_tokenizer_is_in_the_line(made):
    for settings in ({}, {"random_weights": True}):
        line = said(load_student, made("t5"), tokenizer="google-t5/t5-smal", **settings)
        assert line.startswith("google-t5/t5-smal: cannot be loaded (tokenizer: ")


# Before anything runs

@pytest.mark.parametrize("place", ["students/mini-t5", "teachers/mini-llama", "teachers/mini-t5-tuned/finetune",
                                   "evaluation/simulator", "evaluation"])
def test_an_experiment_with_a_model_folder_that_is_not_whole_is_refused(place, copied, tmp_path):
    settings = yaml.safe_load((FOLDER / "mini.yaml").read_text())
    folder = copied("llama", renamed(lambda name: name.replace("proj.weight", "proj.qweight")))
    inner = settings
    for key in place.split("/"):
        inner = inner.setdefault(key, {})
    key = "encoder" if place == "evaluation" else "model"
    inner[key] = str(folder)
    inner.pop("random_weights", None)
    path = tmp_path / "broken.yaml"
    path.write_text(yaml.safe_dump(settings))
    line = said(load_experiment, path)
    assert f"{place.replace('/', '.')}.{key}'" in line and "quantised by GPTQ or AWQ" in line
    rewrite(folder / "model.safetensors", renamed(lambda name: name.replace("qweight", "weight")))
    assert load_experiment(str(path))


def test_a_teacher_whose_decoder_has_no_start_is_named(tmp_path):
    from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

    tokenizer = AutoTokenizer.from_pretrained(VOCABULARY)
    shape = T5Config(vocab_size=len(tokenizer), **{key: T5[key] for key in T5 if key != "decoder_start_token_id"})
    T5ForConditionalGeneration(shape).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(StudyError, match="names no decoder_start_token_id, so its decoder cannot begin; add it"):
        HfTeacher(str(tmp_path)).complete(["A cow is"], Decoding(4))


@pytest.fixture
def hub_at(monkeypatch):
    """Return a function that makes the Hub's library ask another address, as if nothing had been asked before."""
    from huggingface_hub import constants

    def at(address):
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        hub.reach_hub.cache_clear()
    yield at
    hub.reach_hub.cache_clear()


def test_a_hub_that_does_not_answer_is_asked_once(hub_at, capfd):
    from huggingface_hub import constants

    with socket.socket() as closed:  # bound, and does not listen
        closed.bind(("127.0.0.1", 0))
        hub_at(f"http://127.0.0.1:{closed.getsockname()[1]}")
        for load in (hub.read_tokenizer, lambda name: hub.read_config(hub.find_model(name))):
            with pytest.raises(StudyError, match="nobody/nothing: cannot be loaded"):
                load("nobody/nothing")
    shown = capfd.readouterr()
    assert shown.err.count("does not answer") == 1 and "Retry" not in shown.err and not shown.out
    assert constants.HF_HUB_OFFLINE


def test_a_hub_that_answers_stays_in_use(hub_at, capfd):
    from huggingface_hub import constants

    class Refusing(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_error(503)

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        hub_at(f"http://127.0.0.1:{server.server_port}")
        assert hub.reach_hub() and not constants.HF_HUB_OFFLINE
        server.shutdown()
    assert not capfd.readouterr().err
