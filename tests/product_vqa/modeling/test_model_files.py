"""Files of a stranger's model: their sizes and kinds are known before they are read."""

import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from product_vqa.errors import InputError
from product_vqa.hub import Location
from product_vqa.modeling.model_files import (
    Tensor,
    check_files,
    check_tokenizer_file,
    find_weights,
    read_header,
    read_json_file,
)


def test_a_header_is_what_safetensors_wrote(tmp_path: Path) -> None:
    tensors = {"a": torch.zeros(2, 3), "b": torch.zeros(4, dtype=torch.bfloat16)}
    save_file(tensors, tmp_path / "x", metadata={"format": "pt"})
    found = read_header(Location("y"), tmp_path / "x", "x")
    assert found == {"a": Tensor("F32", (2, 3)), "b": Tensor("BF16", (4,))}
    assert [tensor.size for tensor in found.values()] == [6, 4]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"dtype": "I64", "data_offsets": [0, 32]},
            "has a tensor a of type 'I64'; expected one of F64, F32, F16, BF16",
        ),
        ({"shape": [2**62, 2**62]}, "tensor a"),
        ({"shape": [10**9, 0], "data_offsets": [0, 0]}, "tensor a"),
        ({"data_offsets": [0, 10**12]}, "has 1000000000000 bytes"),
        ({"data_offsets": [16, 32]}, "overlap or have gaps"),
        ({"shape": [2, 1], "data_offsets": [0, 8]}, "its tensors take 8 bytes, but 16 follow the header"),
    ],
)
def test_a_tensor_that_is_not_in_the_file_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]} | change}).encode()
    (tmp_path / "x").write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 16)
    with pytest.raises(InputError, match=message):
        read_header(Location("y"), tmp_path / "x", "x")


def test_a_pipe_a_link_out_and_a_large_file_are_refused_by_name(tmp_path: Path) -> None:
    location = Location(str(tmp_path / "model"))
    folder = Path(location.name)
    folder.mkdir()
    (folder / "sub").mkdir()
    (folder / "config.json").write_text("{}")
    check_files(location, folder)
    os.mkfifo(folder / "chat_template.jinja")
    with pytest.raises(InputError, match=r"'chat_template\.jinja' is not a regular file"):
        check_files(location, folder)
    (folder / "chat_template.jinja").unlink()
    (tmp_path / "secret.json").write_text("{}")
    (folder / "tokenizer.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(InputError, match=r"'tokenizer\.json' is a link out of the folder"):
        check_files(location, folder)
    (folder / "tokenizer.json").unlink()
    with (folder / "tokenizer.json").open("wb") as stream:
        stream.truncate(10**9)
    with pytest.raises(InputError, match=r"its tokenizer\.json has 1000000000 bytes, more than"):
        check_files(location, folder)


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"[" * 100_000, b'{"a": NaN}'], ids=repr)
def test_what_is_not_a_json_object_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(InputError, match=r"its x\.json is damaged") as refusal:
        read_json_file(Location(str(tmp_path)), tmp_path, "x.json")
    assert "\n" not in str(refusal.value)
    assert read_json_file(Location(str(tmp_path)), tmp_path, "none.json") is None


def test_the_index_of_the_weights_names_files_of_the_folder_only(tmp_path: Path) -> None:
    location, index = Location(str(tmp_path)), tmp_path / "model.safetensors.index.json"
    with pytest.raises(InputError, match=r"has neither model\.safetensors nor .*Pickle files are not loaded"):
        find_weights(location, tmp_path)
    index.write_text(
        '{"weight_map": {"a": "model-2.safetensors", "b": "model-1.safetensors", "c": "model-1.safetensors"}}'
    )
    assert find_weights(location, tmp_path) == ["model-1.safetensors", "model-2.safetensors"]
    for name in ("../x.safetensors", "/x.safetensors", "x.bin", "a/b.safetensors", "*.safetensors", 5):
        index.write_text(json.dumps({"weight_map": {"a": name}}))
        with pytest.raises(InputError, match="which is not allowed"):
            find_weights(location, tmp_path)


@pytest.mark.parametrize("regex", [r"(a+)+b", r"(.*)*x", r"\w+\s*\w+", "x" * 100])
@pytest.mark.parametrize("key", ["Regex", "\\u0052egex"])
def test_a_tokenizer_may_not_split_by_an_expression_that_can_take_forever(
    tmp_path: Path, regex: str, key: str
) -> None:
    location = Location(str(tmp_path))
    text = json.dumps({"pre_tokenizer": {"pattern": {"KEY": regex}}, "model": {}})
    (tmp_path / "tokenizer.json").write_text(text.replace("KEY", key))
    with pytest.raises(InputError, match=r"its tokenizer\.json splits text by the regular expression"):
        check_tokenizer_file(location, tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"pre_tokenizer": {"pattern": {"Regex": "\\\\d"}}}')
    check_tokenizer_file(location, tmp_path)
