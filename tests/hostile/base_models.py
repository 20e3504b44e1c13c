"""Hostile base models: what is done to the files of a good one, by name."""

import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.hostile.adapters import (
    CONFIG,
    NOT_FILES,
    Case,
    Sources,
    Touch,
    cut,
    documents,
    edit,
    processors,
    remote_code,
    replace,
    sparse,
    tensor_files,
    write,
)

_BASE_FILES = ("config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja")


def base_model_cases() -> list[Case]:
    cases = [
        *(("config", name, change) for name, change in _base_configs()),
        *(("config.json", name, change) for name, change in documents("config.json")),
        *(("processor", name, change) for name, change in processors()),
        *(("weights", name, change) for name, change in _base_weights()),
        *(("files", f"{name} as a {kind}", replace(name, kind)) for name in _BASE_FILES for kind in NOT_FILES),
    ]
    return [Case(f"base model, {kind}: {name}", change, is_base_model=True) for kind, name, change in cases]


def _base_configs() -> Iterator[tuple[str, Callable[[Path, Sources], None]]]:
    numbers = (10**9, -1, 0, "8", 1.5, None, True, [], 10**30)
    for field in ("hidden_size", "num_hidden_layers", "vocab_size", "num_attention_heads", "intermediate_size"):
        for value in numbers:
            yield f"{field} {str(value)[:12]}", edit("config.json", "text_config", field, value=value)
    for field in (
        "image_size",
        "patch_size",
        "hidden_size",
        "num_channels",
        "num_hidden_layers",
        "num_attention_heads",
    ):
        for value in (*numbers, 3):
            yield f"vision {field} {str(value)[:12]}", edit("config.json", "vision_config", field, value=value)
    values: dict[str, tuple[Any, ...]] = {
        "model_type": ("gemma", "os", 5, None), "image_token_index": (10**9, -1, "x", 5),
        "projection_dim": (10**9, 64),
        "text_config": (5, [], None, {}, {"model_type": "llama"}),
        "vision_config": (5, None, {}, {"model_type": "clip"}),
        "quantization_config": ({"quant_method": "gptq"}, {"quant_method": "quanto"}, "x"),
        "dtype": ("os.system", 5, "int8"),
        "torch_dtype": ("os.system", "float99"), "attn_implementation": ("user/kernel", "kernels-community/x"),
        "_attn_implementation": ("user/kernel",), "_name_or_path": ("SECRET",), "use_kernels": (True,),
        "num_labels": (10**9,),
        "id2label": ({"a": "b"},), "architectures": (["Evil"], 5), "pruned_heads": ({"0": [0]},),
        "tie_word_embeddings": (5, False),
        "auto_map": ({"AutoConfig": "evil.Evil"},), "transformers_version": ("99", 5),
        "chunk_size_feed_forward": (10**9,),
        "fusion_config": ({"patch_embeddings": True},), "tp_plan": ("auto",), "distributed_config": ({"tp_size": 2},),
        "generation_config": ({"a": 1},), "eos_token_id": (10**9, "x"), "output_hidden_states": (True, "x"),
    }  # fmt: skip
    for field, choices in values.items():
        for value in choices:
            yield f"{field} {str(value)[:25]}", edit("config.json", field, value=value)
    for field, value in {
        "rope_parameters": {"rope_type": "yarn", "factor": 1e308}, "rope_scaling": {"type": "dynamic", "factor": -1},
        "rope_theta": 1e308, "hidden_act": "os.system", "layer_types": ["x"] * 10**4, "head_dim": 63,
        "rms_norm_eps": -1,
        "attention_dropout": 5, "num_key_value_heads": 3, "sliding_window": -1, "use_cache": "x",
        "attn_implementation": "a/b",
    }.items():  # fmt: skip
        yield f"text {field}", edit("config.json", "text_config", field, value=value)
    yield "code named in config.json", remote_code("config.json", "AutoConfig")
    for number, value in enumerate(
        ({"custom_generate": "user/x"}, {"watermarking_config": {"a": 1}}, {"max_length": "x"})
    ):
        yield f"generation_config {number}", write("generation_config.json", json.dumps(value).encode())
    yield "generation_config nested", write("generation_config.json", b"[" * 100_000)


def _base_weights() -> Iterator[tuple[str, Callable[[Path, Sources], None]]]:
    for name, data in tensor_files():
        yield name, write("model.safetensors", data)
    for share in (0.01, 0.5, 0.99):
        yield f"cut at {share:.0%}", cut("model.safetensors", share)
    yield "sparse, 8 GB", sparse("model.safetensors")

    def index(weight_map: Any) -> Callable[[Path, Sources], None]:
        def change(folder: Path, sources: Sources) -> None:
            (folder / "model.safetensors").unlink()
            text = json.dumps({"metadata": {}, "weight_map": weight_map}).replace("SECRET", str(sources.secret))
            (folder / "model.safetensors.index.json").write_text(text)

        return change

    for number, weight_map in enumerate((
        {"a": "../../x.safetensors"}, {"a": "SECRET"}, {"a": "/etc/passwd"}, {"a": 5}, {}, [], "x", {"a": "x.bin"},
        {"a": "none.safetensors"}, {"a": "*.safetensors"}, {"a": "\0.safetensors"}, {"a": "sub/x.safetensors"},
    )):  # fmt: skip
        yield f"index {number}", index(weight_map)
    yield "none", lambda folder, sources: (folder / "model.safetensors").unlink()

    def pickled(folder: Path, sources: Sources) -> None:
        (folder / "model.safetensors").unlink()
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Touch(sources.mark)))

    def with_adapter(folder: Path, sources: Sources) -> None:
        (folder / CONFIG).write_text(json.dumps({"base_model_name_or_path": str(sources.secret), "peft_type": "LORA"}))

    yield "a pickle", pickled
    yield "an adapter next to it", with_adapter
