"""Targets: the files of an adapter, of a calibration and of a dataset that somebody else published."""

import contextlib
import io
import json
import random
import shutil
import tempfile
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.numpy
from datasets import Dataset, config

from inference.vote_decision import decide
from inference.vote_weights import Source
from inference.votes import NO_VOTE, count_votes
from product_vqa.dataset import find_splits, load_splits
from product_vqa.errors import InputError
from product_vqa.hub import Location
from product_vqa.images import ImageError, as_image
from product_vqa.modeling.adapter import download_adapter
from product_vqa.modeling.calibration import load_calibration
from product_vqa.provenance import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from product_vqa.task.features import FEATURES
from product_vqa.task.prompt import PROMPT_TEMPLATE, TASK_FILE, load_task
from product_vqa.task.schema import ENTITIES
from tests.fuzz.documents import WORDS, generate_json, generate_yaml, random_value
from tests.fuzz.target import Target, assert_message
from tests.inference.challenge import join_rows, load_weights
from tests.tiny import make_rows

_VOTER = Source("a.csv", "0" * 64, adapter_sha256=None, has_confidences=True)
_kept: list[tempfile.TemporaryDirectory[str]] = []


@cache
def _folder(name: str) -> Path:
    made = tempfile.TemporaryDirectory(prefix=f"fuzz-{name}-")
    _kept.append(made)
    return Path(made.name)


def fuzz_adapter_config(data: bytes) -> None:
    """An adapter names its base model as text, or is refused in one line."""
    folder = _folder("adapter")
    if not (folder / ADAPTER_WEIGHTS).exists():
        safetensors.numpy.save_file({"x": np.zeros(1)}, folder / ADAPTER_WEIGHTS)
    (folder / ADAPTER_CONFIG).write_bytes(data)
    try:
        adapter = download_adapter(Location(str(folder)))
        assert adapter.base_model_name is None or isinstance(adapter.base_model_name, str)
        assert adapter.base_model_revision is None or isinstance(adapter.base_model_revision, str)
        assert len(adapter.sha256) == 64
        adapter.locate_base_model()
    except InputError as error:
        assert_message(error)


def fuzz_task_file(data: bytes) -> None:
    """The recorded settings of the base model are some that it can be loaded with, or the file is refused."""
    file = _folder("task") / TASK_FILE
    file.write_bytes(data)
    try:
        settings = load_task(file, adapter="user/adapter")
    except InputError as error:
        assert_message(error)
        return
    if settings is not None:
        assert settings.dtype in ("bfloat16", "float16", "float32")
        assert {type(settings.load_in_4bit), type(settings.disable_logit_softcapping)} == {bool}


def fuzz_calibration(data: bytes) -> None:
    """Calibrated probabilities are probabilities, in the order of those that they are made from."""
    file = _folder("calibration") / "calibration.json"
    file.write_bytes(data)
    try:
        calibration = load_calibration(file, adapter_sha256="0" * 64 if len(data) % 2 else None)
    except InputError as error:
        assert_message(error)
        return
    if calibration is not None:
        str(calibration)
        for scaling in (calibration.answer, calibration.number, calibration.unit):
            scaled = [scaling(probability) for probability in (0.0, 1e-9, 0.3, 0.7, 1 - 1e-9, 1.0)]
            assert all(0 <= probability <= 1 for probability in scaled), scaled
            assert scaled[1:5] == sorted(scaled[1:5]), scaled


def fuzz_vote_weights(data: bytes) -> None:
    """Weights of votes lead to probabilities, and to an answer that was voted for."""
    file = _folder("weights") / "weights.json"
    file.write_bytes(data)
    try:
        weights, fitted_on = load_weights(file, [_VOTER])
    except InputError as error:
        assert_message(error)
        return
    assert str(fitted_on)
    table = pd.DataFrame({"index": [1, 2], "prediction": ["1 inch", ""], "confidence": [0.5, np.nan]})
    tables = {"a.csv": table.assign(entity_name="width")}
    votes, _ = count_votes(tables, join_rows(tables))
    decision = decide(votes, weights)
    assert 0 <= decision.confidences[0] <= 1 and np.isnan(decision.confidences[1])
    assert decision.choices[0] in (0, NO_VOTE) and decision.choices[1] == NO_VOTE


def fuzz_card_configs(data: bytes) -> None:
    """Whatever a card says, splits are Parquet files in the dataset's own folder."""
    folder = _folder("configs")
    names = ["data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet", "other/x.parquet"]
    if not (folder / "data").exists():
        for name in names:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).touch()
    (folder / "README.md").write_bytes(b"---\n" + data + b"\n---\n# x\n" if len(data) % 4 else data)
    try:
        found = find_splits(Location(str(folder)))
    except InputError as error:
        assert_message(error)
        return
    for split, files in found.items():
        assert isinstance(split, str) and files and set(files) <= set(names)


def fuzz_parquet(data: bytes) -> None:
    """A Parquet file is rows with the dataset's columns, whose images come from its own bytes, or refused."""
    folder = _folder("parquet")
    shutil.rmtree(folder / "data", ignore_errors=True)
    shutil.rmtree(config.HF_DATASETS_CACHE, ignore_errors=True)
    (folder / "data").mkdir()
    (folder / "data" / "train-0.parquet").write_bytes(data)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            splits = load_splits(Location(str(folder)), ["train"])
    except InputError as error:
        assert_message(error)
        return
    for row in splits.get("train", []):
        if row["image"] is not None:
            with contextlib.suppress(ImageError):
                as_image(row["image"])


def _bytes_of(table: pa.Table, **options: Any) -> bytes:
    stream = io.BytesIO()
    pq.write_table(table, stream, **options)
    return stream.getvalue()


@cache
def _table() -> pa.Table:
    config.HF_DATASETS_CACHE = _folder("cache") / "datasets"
    config.DOWNLOADED_DATASETS_PATH = config.HF_DATASETS_CACHE / "downloads"
    return Dataset.from_list(make_rows(2), features=FEATURES).data.table.combine_chunks()


def _with_image(value: dict[str, Any]) -> pa.Table:
    table = _table()
    position = table.column_names.index("image")
    column = pa.array([value] * len(table), type=table.schema.field("image").type)
    return table.set_column(position, table.schema.field("image"), column)


def _parquet_seeds() -> list[bytes]:
    table = _table()
    features = (table.schema.metadata or {}).get(b"huggingface", b"{}")
    without = {b"huggingface": features.replace(b'"Image"', b'"Value"')}
    return [
        _bytes_of(table), _bytes_of(table, compression="none"), _bytes_of(table.replace_schema_metadata(None)),
        _bytes_of(table.replace_schema_metadata(without)), _bytes_of(table.slice(0, 0)),
        _bytes_of(table.replace_schema_metadata({b"huggingface": b"{"})), _bytes_of(table.drop_columns(["index"])),
        _bytes_of(_with_image({"bytes": None, "path": "/etc/hostname"})),
        _bytes_of(_with_image({"bytes": b"not an image", "path": "http://127.0.0.1:9/x.png"})),
        b"PAR1PAR1", b"",
    ]  # fmt: skip


def _generate_parquet(rng: random.Random) -> bytes:
    """A table of the right or of other columns, with metadata of the `datasets` library that may say anything."""
    table = _with_image(
        {"bytes": rng.choice((None, b"", b"x")), "path": rng.choice((None, "/dev/zero", "../x", "data://x"))}
    )
    kind = rng.randrange(4)
    if kind == 0:
        table = table.rename_columns([rng.choice((name, name, name, "x", "")) for name in table.column_names])
    elif kind == 1:
        column = rng.choice(table.column_names)
        values: list[Any] = rng.choice(
            ([1, 2], ["a", None], [[1], []], [{"bytes": b"x"}, None], [1.5, None], [b"x", b""])
        )
        table = table.set_column(table.column_names.index(column), column, pa.array(values))
    elif kind == 2:
        metadata = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))
        features = metadata.setdefault("info", {}).setdefault("features", {})
        name = rng.choice((*features, "y"))
        features[name] = rng.choice((
            {"_type": "Image"}, {"_type": "Audio"}, {"_type": "X"}, {"dtype": "int64", "_type": "Value"}, {},
            {"feature": {"_type": "Image"}, "_type": "List"}, {"_type": "ClassLabel", "names": [1]}, random_value(rng),
        ))  # fmt: skip
        table = table.replace_schema_metadata({b"huggingface": json.dumps(metadata)})
    else:
        table = table.replace_schema_metadata({b"huggingface": generate_json(rng)})
    return _bytes_of(table)


_ADAPTER = {
    "peft_type": "LORA", "base_model_name_or_path": "google/paligemma-3b-pt-224", "revision": None, "r": 8,
    "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM", "lora_dropout": 0.0,
    "auto_mapping": None, "bias": "none", "modules_to_save": None, "rank_pattern": {}, "init_lora_weights": True,
}  # fmt: skip
_TASK = {"prompt_template": PROMPT_TEMPLATE, "base_model": {"dtype": "bfloat16", "load_in_4bit": True}}
_SCALING = {"temperature": 1.2, "bias": -0.1}
_CALIBRATION = {"answer": _SCALING, "number": _SCALING, "unit": _SCALING, "adapter_sha256": "0" * 64, "rows": 100}

_OF_ENTITY = {"intercept": -1.5, "vote": [1.5], "slope": [1.0], "share_empty": 0.0}
_WEIGHTS = {
    "files": [asdict(_VOTER)],
    "references": "labels.csv",
    "rows": 100,
    "f1": 0.9,
    "entities": dict.fromkeys((*ENTITIES, "unknown"), _OF_ENTITY),
}


def _changed(rng: random.Random, value: Any) -> Any:
    """A copy of a JSON value with some of its parts replaced, dropped or added."""
    if rng.random() < 0.12:
        return random_value(rng)
    if isinstance(value, dict):
        made = {key: _changed(rng, item) for key, item in value.items() if rng.random() < 0.95}
        return made | ({"extra": random_value(rng)} if rng.random() < 0.1 else {})
    if isinstance(value, list):
        return [_changed(rng, item) for item in value]
    return (
        rng.choice((1e-320, 1e308, -1.0, 0, 10**400, True, "1", "../x", "/etc", "(a+)+!"))
        if rng.random() < 0.1
        else value
    )


def _json_target(name: str, fuzz: Any, value: dict[str, Any]) -> Target:
    def seeds() -> list[bytes]:
        return [json.dumps(value).encode(), json.dumps(value, indent=2).encode(), b"{}", b"[]", b"null", b""]

    def generate(rng: random.Random) -> bytes:
        return json.dumps(_changed(rng, value)).encode()

    words = tuple(f'"{key}": '.encode() for key in value) + WORDS
    return Target(name, fuzz, seeds, words=words, generate=generate, max_bytes=4000)


_CONFIGS = (
    b"configs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data/train-*\n",
    b"configs:\n- config_name: a\n  data_files: data/*.parquet\n- config_name: b\n  data_files:\n    train: x\n",
    b"configs:\n- config_name: default\n  data_files:\n  - split: train\n    path: [data/train-*, other/*]\n",
    b"configs:\n- config_name: default\n  data_files: http://127.0.0.1:9/x.parquet\n", b"configs: x\n",
    b"license: mit\n",
)  # fmt: skip


def _generate_configs(rng: random.Random) -> bytes:
    if rng.random() < 0.3:
        return b"configs:\n- " + generate_yaml(rng).replace(b"\n", b"\n  ")
    default = {"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*"}]}
    return json.dumps(_changed(rng, {"configs": [default, _changed(rng, default)]})).encode()


_WORDS = (
    b"configs:\n", b"- config_name: ", b"  data_files:\n", b"  - split: ", b"    path: ", b"data/", b"**",
    b"*.parquet",
    b"hf://", b"zip://", b"::", b"[!a]", b"(?", *WORDS,
)  # fmt: skip

TARGETS = [
    _json_target("adapter_config", fuzz_adapter_config, _ADAPTER),
    _json_target("task_file", fuzz_task_file, _TASK),
    _json_target("calibration", fuzz_calibration, _CALIBRATION),
    _json_target("vote_weights", fuzz_vote_weights, _WEIGHTS),
    Target("card_configs", fuzz_card_configs, lambda: list(_CONFIGS), words=_WORDS, generate=_generate_configs,
    max_bytes=4000),
    Target(
        "parquet", fuzz_parquet, _parquet_seeds, generate=_generate_parquet,
        words=(b"PAR1", b"huggingface", b'"_type"', b'"Image"', b'"Audio"', b'"Value"', b"path", b"bytes",
        b"\x15\x00"),
    ),
]  # fmt: skip
