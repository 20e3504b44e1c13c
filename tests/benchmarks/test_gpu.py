"""What the GPU benchmark reports: a table with every run, also those that failed or were skipped."""

from pathlib import Path

import pytest
import torch

from benchmarks.base_models import PALIGEMMA_3B, make_base_config, save_base_model
from benchmarks.gpu import RUNS, Benchmark, Result, format_table
from benchmarks.gpu_runs import Step, count_predict_flop, make_dataset


@pytest.mark.faults  # it runs the real shape on empty tensors
def test_the_operations_of_an_answer_are_those_worked_out_by_hand() -> None:
    # SigLIP 219 GFLOP, the prompt 1,089 to 1,110, six more tokens 5 each; lm_head 1 for each of seven tokens.
    assert count_predict_flop(make_base_config(PALIGEMMA_3B)) / 1e12 == pytest.approx(1.35, abs=0.03)


@pytest.mark.faults  # it saves a vocabulary of 257,216 pieces
def test_a_profiled_step_has_the_precision_of_the_trainer(tmp_path: Path) -> None:
    save_base_model(tmp_path / "base", PALIGEMMA_3B.shrink())
    make_dataset(tmp_path / "dataset", number=4)
    step = Step(str(tmp_path / "base"), str(tmp_path / "dataset"))
    dtypes: set[torch.dtype] = set()
    for name, layer in step.model.named_modules():
        if name.endswith("q_proj.lora_B.default"):  # its weights are float32
            layer.register_forward_hook(lambda _layer, _inputs, output: dtypes.add(output.dtype))
    step.run(2)
    assert dtypes == {torch.bfloat16}


def test_a_run_without_time_left_is_a_row_of_the_table(tmp_path: Path) -> None:
    benchmark = Benchmark(tmp_path / "work", tmp_path, rate=0.1, is_tiny=False, budget_s=0)
    results = benchmark.measure(RUNS[:1])
    assert results == [Result("train 224 bfloat16", exit_code=None)]
    table = format_table(
        {
            "gpu": "A GPU", "matrix_tflops": 789.12, "torch": "2.13.0", "seconds": 500,
            "runs": [vars(one) for one in (*results, Result("x", 0, 1.0, 97.0, 0.3, 19.4, 21.1, {"batch_size": 4}))],
        }
    )  # fmt: skip
    assert "| train 224 bfloat16 | skipped |  |  |  |  |  |" in table
    assert "| x | 0 | 97.0 | 0.3 | 19.4 | 21.1 | batch_size 4 |" in table
