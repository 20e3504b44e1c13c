"""Runs of predict: complete ones, launched ones on several processes, interrupted after some batches, and resumed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from inference import predict, predictions
from tests.commands import CPU_2, call, launch


class KilledError(Exception):
    """A kill, after some batches."""


def run_predict(adapter: str, dataset: Path | str, output: Path, *more: Any, processes: str = "1") -> pd.DataFrame:
    """Its predictions: in this process, or of several that are launched as a user does."""
    arguments = [
        "--adapter", adapter, "--dataset", dataset, "--output", output, "--batch_size", "4", "--dtype", "float32",
        *more,
    ]  # fmt: skip
    if processes == "1":
        with pytest.MonkeyPatch.context() as patch:
            call(predict.main, patch, *arguments)
    else:
        launch("inference.predict", *arguments, config_file=CPU_2, processes=processes)
    return pd.read_parquet(output.with_suffix(".parquet"))


def arguments(sources: Mapping[str, Path], output: Path, **more: Any) -> list[Any]:
    """Arguments of predict: the folders in `sources`, float32 and a batch size of 4, unless `more` changes that."""
    options: dict[str, Any] = {**sources, "output": output, "dtype": "float32", "batch_size": 4, **more}
    return [word for name, value in options.items() if value is not None for word in (f"--{name}", value)]


def interrupt(monkeypatch: pytest.MonkeyPatch, options: list[Any], *, after: int) -> None:
    """Run predict, which is killed after this many batches."""
    to_table = predictions.to_table
    computed: list[int] = []

    def cut_off(batch: Any, *args: Any, **kwargs: Any) -> Any:
        if len(computed) == after:
            raise KilledError
        computed.append(batch.number)
        return to_table(batch, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(predictions, "to_table", cut_off)
        with pytest.raises(KilledError):
            call(predict.main, patch, *options)


def resume(monkeypatch: pytest.MonkeyPatch, options: list[Any]) -> list[int]:
    """Run predict to its end; returns the batches that it computed."""
    to_table = predictions.to_table
    computed: list[int] = []

    def record(batch: Any, *args: Any, **kwargs: Any) -> Any:
        computed.append(batch.number)
        return to_table(batch, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(predictions, "to_table", record)
        call(predict.main, patch, *options)
    return computed
