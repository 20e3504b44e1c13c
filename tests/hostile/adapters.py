"""Hostile adapters: what is done to the files of a good one, by name."""

import json
import os
import pickle
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
EVIL_REGEXES = (
    "(([a-z._0-9])+)+!", "(a+)+$", "(.*)*x", "(.|.)*!", "([a-z]+)*[A-Z]", "(\\w+\\.?)+!", "(x+x+)+y", "(.*?,){20}P",
    "((((a?)*)*)*)*b", "(?=(.*)*!)x", "(?<=(a|b)c)d", "(\\w)\\1+", "(", "[", "\\", "a{1000}{1000}{1000}",
    "(?P<a>x)(?P=a)",
    "*", "x" * 5000, "(?:" * 400 + ")" * 400,
)  # fmt: skip


@dataclass(frozen=True)
class Sources:
    """What a hostile file points at, and must never be read, asked or run."""

    secret: Path  # a file of this machine
    server: str  # http://127.0.0.1:PORT
    mark: Path  # code that runs would create it


@dataclass(frozen=True)
class Case:
    name: str
    change: Callable[[Path, Sources], None]  # a good folder
    is_base_model: bool = False
    names_base_model: bool = False  # which is not passed to the command then


class Touch:
    """A pickle that creates a file when it is loaded."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return os.mknod, (str(self.file),)


def adapter_cases() -> list[Case]:
    return [
        *_configs(), *_weights(),
        *(Case(f"{CONFIG}: {name}", change) for name, change in documents(CONFIG)),
        *(Case(f"product_vqa.json: {name}", change) for name, change in _task_files()),
        *(Case(f"calibration.json: {name}", change) for name, change in _calibrations()),
        *(Case(f"processor of an adapter: {name}", change) for name, change in processors()),
        *(Case(f"{name} as a {kind}", replace(name, kind)) for name in _SMALL_FILES for kind in NOT_FILES),
    ]  # fmt: skip


_SMALL_FILES = (CONFIG, WEIGHTS, "product_vqa.json", "calibration.json")
NOT_FILES = ("pipe", "folder", "link to /dev/zero", "link to a secret", "dangling link", "loop of links")


def replace(name: str, kind: str) -> Callable[[Path, Sources], None]:
    def change(folder: Path, sources: Sources) -> None:
        file = folder / name
        file.unlink(missing_ok=True)
        if kind == "pipe":
            os.mkfifo(file)
        elif kind == "folder":
            file.mkdir()
        else:
            target = {
                "link to /dev/zero": "/dev/zero", "link to a secret": sources.secret,
                "dangling link": folder / "none", "loop of links": file,
            }[kind]  # fmt: skip
            file.symlink_to(target)

    return change


def edit(name: str, *keys: str, value: Any) -> Callable[[Path, Sources], None]:
    """Set a field of a JSON file. In a text, SECRET and SERVER are replaced by what they must not reach."""

    def change(folder: Path, sources: Sources) -> None:
        content = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
        place = content
        for key in keys[:-1]:
            place = place[key]
        filled = value
        if isinstance(value, str):
            filled = value.replace("SECRET", str(sources.secret)).replace("SERVER", sources.server)
        place[keys[-1]] = filled
        (folder / name).write_text(json.dumps(content))

    return change


def write(name: str, data: bytes) -> Callable[[Path, Sources], None]:
    return lambda folder, sources: (folder / name).write_bytes(data) and None


def documents(name: str) -> Iterator[tuple[str, Callable[[Path, Sources], None]]]:
    """Files that do not hold a JSON object."""
    for what, data in {
        "empty": b"", "a list": b"[]", "a number": b"7", "null": b"null", "no JSON": b"{", "not UTF-8": b"\xff\xfe{}",
        "UTF-16": "{}".encode("utf-16"), "nested 100,000 deep": b"[" * 100_000, "an object, nested": b'{"a":' * 9999,
        "NaN": b'{"r": NaN}', "a number of 10,000 digits": b'{"r": ' + b"9" * 10_000 + b"}",
        "a lone surrogate": b'{"\\ud800": 1}', "9 MB": b'{"a": "' + b"x" * 9_000_000 + b'"}', "a NUL": b'{"a": "\0"}',
    }.items():  # fmt: skip
        yield what, write(name, data)


def _configs() -> Iterator[Case]:
    for number, regex in enumerate(EVIL_REGEXES):
        for field in ("target_modules", "exclude_modules"):
            yield Case(f"{field}: regular expression {number}", edit(CONFIG, field, value=regex))
        for field in ("rank_pattern", "alpha_pattern"):
            yield Case(f"{field}: regular expression {number}", edit(CONFIG, field, value={regex: 4}))
    values: dict[str, tuple[Any, ...]] = {
        "r": (0, -1, 10**9, 10**30, "8", 8.5, None, True, [], {}),
        "lora_alpha": (-1, 1e308, 10**400, "8", None, False, []),
        "target_modules": ("", [], {}, 5, None, [1], ["("], [None], ["a" * 5000], ["x"] * 20_000, ["c_attn"],
        [["q_proj"]]),
        "rank_pattern": ({"q_proj": 10**9}, {"q_proj": -1}, {"q_proj": "4"}, {"q_proj": 1.5}, [], 5, "x",
                         {f"m{number}": 4 for number in range(600)}, {"r": 10**6}),
        "alpha_pattern": ({"q_proj": "x"}, {"q_proj": 1e300}, [1], 5, "x"),
        "modules_to_save": ("model", ["model"], ["layers"], ["(a+)+!"], 5, [5], ["../x"], ["lm_head"], ["none"], [""]),
        "layers_to_transform": ("0", [0.5], ["x"], [[0]], {}, 10**9, [10**30]),
        "layers_pattern": ("(a+)+!", 5, ["("], [5], {}),
        "layer_replication": ([[0, 10**6]], [[0, 2]] * 1000, "x"),
        "trainable_token_indices": ([0, 10**9], {"embed_tokens": [1]}, "x"),
        "target_parameters": (["x"], "(a+)+!"),
        "megatron_config": ({"a": 1}, "x"), "megatron_core": ("os", "antigravity"),
        "init_lora_weights": ("pissa", "pissa_niter_1000000000", "olora", "corda", "loftq", "eva", "gaussian",
        "os.system", 5),
        "loftq_config": ({"loftq_bits": 10**9}, "x"), "corda_config": ({"cache_file": "SECRET"}, "x"),
        "eva_config": ({"rho": -1}, "x"), "use_dora": ("yes", 1, [1]), "use_rslora": ("yes", 1, {"a": 1}),
        "use_qalora": (True,), "use_bdlora": ({"a": 1},), "arrow_config": ({"top_k": 1},), "lora_bias": (True,),
        "bias": ("all", "lora_only", 5, "x"), "fan_in_fan_out": (True, "x"), "alora_invocation_tokens": ([1],),
        "runtime_config": ({"ephemeral_gpu_offload": True}, "x"), "lora_dropout": (1e9, "x", -1),
        "auto_mapping": ({"base_model_class": "X", "parent_library": "os"}, "x"), "task_type": ("SEQ_CLS", "x", 5),
        "peft_type": ("IA3", "XLORA", "PROMPT_TUNING", "ADALORA", "lora", 5, None, [], {"a": 1}),
        "unknown_field": (1, {"a": [1]}),
        "revision": (5, "a\nb", [], "x" * 5000),
    }  # fmt: skip
    for field, choices in values.items():
        for value in choices:
            yield Case(f"{field}: {str(value)[:30]}", edit(CONFIG, field, value=value))
    for value in ("SECRET", "../../etc", "/etc", "/dev", "SERVER/x", "file:///etc", "hf://user/x", "~root",
    "a\nb", "\0",
                  "x" * 5000, "", 5, [], {"a": 1}, "C:\\x", "user/../x", "-", "a@b@c", "\ud800"):  # fmt: skip
        yield Case(
            f"base model {str(value)[:20]!a}", edit(CONFIG, "base_model_name_or_path", value=value),
            names_base_model=True,
        )  # fmt: skip


def _safetensors(header: Any, data: bytes = b"", *, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor_files() -> Iterator[tuple[str, bytes]]:
    one = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
    key = "base_model.model.model.language_model.layers.0.mlp.up_proj.lora_A.weight"
    yield "empty", b""
    yield "a Git LFS pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    yield "a pickle", pickle.dumps({"a": 1})
    yield "a header of 2**63 bytes", struct.pack("<Q", 2**63)
    yield "a header of 100 MB", struct.pack("<Q", 10**8) + b" " * 1000
    yield "a header that is not JSON", _safetensors(b"{")
    yield "a header that is a list", _safetensors([])
    yield "a header nested 100,000 deep", _safetensors(b"[" * 100_000)
    yield (
        "a key that occurs twice",
        _safetensors(f'{{"{key}": {json.dumps(one)}, "{key}": {json.dumps(one)}}}'.encode(), b"\0" * 16),
    )
    yield "no tensors", _safetensors({})
    for name, change in {
        "integers": {"dtype": "I64", "data_offsets": [0, 32]},
        "8-bit floats": {"dtype": "F8_E4M3", "data_offsets": [0, 4]},
        "an unknown type": {"dtype": "os.system"}, "a type that is a list": {"dtype": []},
        "a negative size": {"shape": [-2, -2]},
        "a size of 2**62": {"shape": [2**62, 2**62]}, "no numbers": {"shape": [10**9, 0], "data_offsets": [0, 0]},
        "a text as size": {"shape": ["2", 2]}, "100,000 dimensions": {"shape": [1] * 100_000},
        "offsets outside": {"data_offsets": [0, 10**12]}, "offsets backwards": {"data_offsets": [16, 0]},
        "a negative offset": {"data_offsets": [-16, 0]}, "a gap": {"data_offsets": [16, 32]},
        "one offset": {"data_offsets": [0]},
        "more bytes than numbers": {"data_offsets": [0, 64]},
    }.items():  # fmt: skip
        yield name, _safetensors({key: one | change}, b"\0" * 64)
    yield "overlapping tensors", _safetensors({key: one, f"{key}2": one}, b"\0" * 16)
    yield "a name with an escape sequence", _safetensors({"\x1b[31m\n": one}, b"\0" * 16)
    yield "metadata that is a list", _safetensors({"__metadata__": [], key: one}, b"\0" * 16)


def sparse(name: str) -> Callable[[Path, Sources], None]:
    def change(folder: Path, sources: Sources) -> None:
        with (folder / name).open("wb") as stream:
            stream.truncate(8 * 1024**3)

    return change


def cut(name: str, share: float) -> Callable[[Path, Sources], None]:
    def change(folder: Path, sources: Sources) -> None:
        data = (folder / name).read_bytes()
        (folder / name).unlink()  # it may be a link
        (folder / name).write_bytes(data[: int(len(data) * share)])

    return change


def _tensors(change_tensors: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Path, Sources], None]:
    def change(folder: Path, sources: Sources) -> None:
        from safetensors.torch import load_file, save_file

        tensors = change_tensors(load_file(folder / WEIGHTS))
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / WEIGHTS)

    return change


def _pickled(folder: Path, sources: Sources) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "adapter_model.bin").write_bytes(pickle.dumps(Touch(sources.mark)))


def _weights() -> Iterator[Case]:
    for name, data in tensor_files():
        yield Case(f"weights: {name}", write(WEIGHTS, data))
    for share in (0.001, 0.01, 0.1, 0.5, 0.9, 0.999):
        yield Case(f"weights: cut at {share:.1%}", cut(WEIGHTS, share))
    yield Case("weights: sparse, 8 GB", sparse(WEIGHTS))
    yield Case("weights: a pickle instead", _pickled)
    for what, change in {
        "NaN": lambda tensors: {key: tensor * float("nan") for key, tensor in tensors.items()},
        "infinity": lambda tensors: {key: tensor + float("inf") for key, tensor in tensors.items()},
        "another rank": lambda tensors: {key: tensor[:1] for key, tensor in tensors.items()},
        "transposed": lambda tensors: {key: tensor.T for key, tensor in tensors.items()},
        "flat": lambda tensors: {key: tensor.flatten() for key, tensor in tensors.items()},
        "one is missing": lambda tensors: dict(list(tensors.items())[1:]),
        "other names": lambda tensors: {f"x.{key}": tensor for key, tensor in tensors.items()},
        "no base_model prefix": lambda tensors: {key[11:]: tensor for key, tensor in tensors.items()},
        "only one": lambda tensors: dict(list(tensors.items())[:1]),
        "doubles": lambda tensors: {key: tensor.double() for key, tensor in tensors.items()},
    }.items():
        yield Case(f"weights: {what}", _tensors(change))


def _task_files() -> Iterator[tuple[str, Callable[[Path, Sources], None]]]:
    yield from documents("product_vqa.json")
    template = "What is the {entity}?"
    for number, content in enumerate((
        {"prompt_template": "x" * 10_000}, {"prompt_template": 5}, {"prompt_template": ["\n"]}, {},
        {"prompt_template": template, "base_model": 5}, {"prompt_template": template, "base_model": {"dtype": "os"}},
        {"prompt_template": template, "base_model": {"dtype": "float32", "load_in_4bit": "x"}},
        {"prompt_template": template, "base_model": {"dtype": [], "load_in_4bit": True}},
        {"prompt_template": template, "base_model": {"dtype": "float32", "load_in_4bit": False, "a": 1}},
    )):  # fmt: skip
        yield f"content {number}", write("product_vqa.json", json.dumps(content).encode())


def _calibrations() -> Iterator[tuple[str, Callable[[Path, Sources], None]]]:
    yield from documents("calibration.json")
    for number, scaling in enumerate((
        {}, 5, [], {"temperature": 1e308}, {"temperature": -1}, {"temperature": 0}, {"temperature": "1"},
        {"bias": 1e308},
        {"bias": None}, {"temperature": 10**400}, {"other": 1}, {"temperature": True}, {"bias": [1]},
    )):  # fmt: skip
        content = dict.fromkeys(("answer", "number", "unit"), scaling)
        yield f"scaling {number}", write("calibration.json", json.dumps(content).encode())


def remote_code(name: str, key: str) -> Callable[[Path, Sources], None]:
    """A repo whose files name a class in a Python file of theirs."""

    def change(folder: Path, sources: Sources) -> None:
        (folder / "evil.py").write_text(
            f"import pathlib\npathlib.Path({str(sources.mark)!r}).touch()\nclass Evil: pass\n"
        )
        content = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
        content["auto_map"] = {key: "evil.Evil"} if key != "AutoTokenizer" else {key: ["evil.Evil", "evil.Evil"]}
        content |= {
            "processor_class": "Evil",
            "tokenizer_class": "Evil",
            "model_type": "evil",
            "image_processor_type": "Evil",
        }
        (folder / name).write_text(json.dumps(content))

    return change


def _with_processor(change: Callable[[Path, Sources], None]) -> Callable[[Path, Sources], None]:
    """Copy the base model's processor into the folder first, if it is an adapter's."""

    def changed(folder: Path, sources: Sources) -> None:
        base = folder.parent / "base"
        for name in ("processor_config.json", "tokenizer.json", "tokenizer_config.json"):
            if not (folder / name).exists():
                (folder / name).write_bytes((base / name).read_bytes())
        change(folder, sources)

    return changed


def processors() -> Iterator[tuple[str, Callable[[Path, Sources], None]]]:
    image = "processor_config.json", "image_processor"
    values: dict[str, tuple[Any, ...]] = {
        "size": ({"height": 10**6, "width": 10**6}, {"height": 28, "width": 10**6}, {"shortest_edge": 28}, 28, "x", {},
                 {"height": -1, "width": -1}, {"height": 28.5, "width": 28.5}, {"height": 56, "width": 56}),
        "image_seq_length": (10**9, 0, -1, "4", 5), "do_resize": (False, "x"), "do_normalize": (False,),
        "image_mean": ([0.5], "x", [[1]], [1e308] * 3, [None] * 3), "image_std": ([0, 0, 0], [1e-320] * 3),
        "rescale_factor": (0, 1e308, "x"), "resample": (99, "x", -1),
        "image_processor_type": ("CLIPImageProcessor", "os", 5),
        "crop_size": (10**9,), "do_center_crop": (True,), "do_pad": (True,),
    }  # fmt: skip
    for field, choices in values.items():
        for value in choices:
            yield f"{field} {str(value)[:25]}", _with_processor(edit(*image, field, value=value))
    yield "image_processor is a list", _with_processor(edit("processor_config.json", "image_processor", value=[]))
    yield (
        "processor_class of another model",
        _with_processor(edit("processor_config.json", "processor_class", value="CLIPProcessor")),
    )
    for name, key in (("processor_config.json", "AutoProcessor"), ("tokenizer_config.json", "AutoTokenizer")):
        yield f"code named in {name}", _with_processor(remote_code(name, key))
    for field, value in {
        "image_token": 5, "bos_token": None, "eos_token": {"a": 1}, "pad_token": "none",
        "tokenizer_class": "os.system",
        "model_max_length": -1, "padding_side": "up", "extra_special_tokens": 5, "added_tokens_decoder": {"x": 1},
        "chat_template": "{{ ''.__class__.__mro__ }}", "backend": "x", "add_bos_token": "x",
        "additional_special_tokens": 7,
    }.items():  # fmt: skip
        yield f"tokenizer_config {field}", _with_processor(edit("tokenizer_config.json", field, value=value))
    yield from (
        (f"tokenizer_config, {name}", _with_processor(change)) for name, change in documents("tokenizer_config.json")
    )
    for name, data in {
        "empty": b"", "no JSON": b"{", "a list": b"[]", "an object": b"{}", "nested": b"[" * 100_000,
        "not UTF-8": b"\xff",
    }.items():  # fmt: skip
        yield f"tokenizer.json, {name}", _with_processor(write("tokenizer.json", data))
    for number, regex in enumerate(("(a+)+b", "(([a-z ])+)+!", "(.*)*x")):
        part = {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
        yield (
            f"tokenizer.json, pre_tokenizer {number}",
            _with_processor(edit("tokenizer.json", "pre_tokenizer", value=part)),
        )
        part = {"type": "Replace", "pattern": {"Regex": regex}, "content": "x"}
        for place in ("normalizer", "decoder"):
            yield f"tokenizer.json, {place} {number}", _with_processor(edit("tokenizer.json", place, value=part))
    for field, part in {
        "truncation": {"max_length": 1, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
        "padding": {"strategy": {"Fixed": 10**9}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
                    "pad_type_id": 0, "pad_token": "<pad>"},
        "model": {"type": "WordLevel", "vocab": {"a": 4 * 10**9}, "unk_token": "a"},
        "added_tokens": [{"id": -1}], "post_processor": {"type": "x"}, "normalizer": {"type": "Lowercase"},
    }.items():  # fmt: skip
        yield f"tokenizer.json, {field}", _with_processor(edit("tokenizer.json", field, value=part))
