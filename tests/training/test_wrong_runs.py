"""Training runs that cannot work: each ends in one line that names the option or the file, without a traceback."""

import contextlib
import io
import json
import os
import pickle
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from product_vqa.errors import InputError
from tests.commands import call
from tests.tiny import make_rows, save_dataset, write_rows
from tests.training.runs import command
from training import checkpoints, sft


def check_refused(
    monkeypatch: pytest.MonkeyPatch, run: list[str | Path], output_dir: Path, message: str, *more: str | Path
) -> None:
    short = ["--max_steps", "2", "--save_steps", "1", "--eval_steps", "1", "--max_eval_samples", "2"]
    with pytest.raises(InputError, match=message) as raised:
        call(sft.main, monkeypatch, *run, *short, "--output_dir", output_dir, *more)
    assert len(str(raised.value)) < 2000 and "Traceback" not in str(raised.value)


# ---- Options -------------------------------------------------------------------------------------------------------

# Refused before anything is loaded.
AT_ONCE = [
    ("max_steps=0", "the run would make no step"), ("max_steps=-5", "at least -1"), ("max_steps=1.5", "invalid int"),
    (f"max_steps={10**18}", "at most 1e"), ("max_steps=nan", "invalid int"), ("max_steps=", "invalid int"),
    (f"per_device_train_batch_size={10**9}", "at most 65536"), ("per_device_train_batch_size=0", "at least 1"),
    (f"per_device_train_batch_size={10**30}", "at most 65536"), (f"per_device_eval_batch_size={10**9}", "at most"),
    ("per_device_eval_batch_size=0", "at least 1"), (f"gradient_accumulation_steps={10**20}", "at most"),
    ("learning_rate=nan", "finite"), ("learning_rate=inf", "finite"), ("learning_rate=-1", "at least 0"),
    ("learning_rate=1e30", "at most"), ("learning_rate=abc", "invalid float"), ("lora_r=0", "at least 1"),
    ("lora_r=-1", "at least 1"), (f"lora_r={10**9}", "at most"), ("lora_alpha=0", "at least 1"),
    (f"lora_alpha={10**30}", "at most"), ("lora_dropout=nan", "finite"), (f"seed={2**64}", "at most"),
    ("seed=-1", "at least 0"), (f"data_seed={2**63}", "at most"), ("warmup_steps=nan", "finite"),
    ("warmup_steps=-1", "at least 0"), ("warmup_ratio=2", "unknown option"), ("num_train_epochs=inf", "finite"),
    ("num_train_epochs=nan", "finite"), ("num_train_epochs=1e300", "at most"), ("optim=foo", "invalid choice"),
    ("lr_scheduler_type=foo", "invalid choice"), ("lr_scheduler_kwargs={", "--lr_scheduler_kwargs {: not JSON"),
    ("lr_scheduler_kwargs=[]", "No such file"), ("report_to=foo", "not a known tracker"),
    ("report_to=../x", "not a known tracker"), ("report_to=wandb", "not installed"),
    ("report_to=flyte", "not installed"), ("dataloader_num_workers=-1", "at least 0"),
    (f"dataloader_num_workers={10**6}", "at most 256"), ("dataloader_prefetch_factor=2", "num_workers"),
    ("dataloader_persistent_workers=true", "needs --dataloader_num_workers"), ("save_steps=0", "more than 0"),
    ("save_steps=nan", "finite"), ("logging_steps=0", "more than 0"), ("eval_steps=-1", "at least 0"),
    ("save_total_limit=-1", "at least 1"), ("save_strategy=foo", "invalid choice"), ("max_length=8", "no effect"),
    ("max_grad_norm=-1", "at least 0"), ("weight_decay=-1", "at least 0"), ("adam_beta1=2", "at most"),
    ("adam_epsilon=-1", "at least 0"), ("dtype=int8", "invalid choice"), ("bf16=maybe", "Truthy"),
    ("tf32=true", "tf32"), ("attn_implementation=foo", "must be sdpa or eager"),
    ("attn_implementation=kernels-community/flash", "drops|sdpa or eager"), ("lora_target_modules=[", "regular expr"),
    ("lora_target_modules=", "empty pattern"), ("lora_target_modules=(([a-z._0-9])+)+!", "not a group"),
    ("trust_remote_code=true", "no effect"), ("model_init_kwargs={\"trust_remote_code\": true}", "no effect"),
    ("chat_template_path=/etc/passwd", "no effect"), ("accelerator_config=x.json", "--accelerator_config x.json: No"),
    ("accelerator_config=/dev/zero", "not a regular file"), ("accelerator_config={\"foo\": 1}", "foo"),
    ("deepspeed=/dev/zero", "not a regular file"), ("fsdp_config=/dev/zero", "not a regular file"),
    ("fsdp=foo", "fsdp"), ("parallelism_config=x", "invalid"), ("torch_compile_mode=foo", "must be one of"),
    ("use_liger_kernel=true", "not installed"), ("log_level=foo", "invalid choice"), ("debug=foo", "invalid"),
    ("ddp_backend=foo", "invalid choice"), ("ddp_timeout=-1", "at least 1"), ("torch_empty_cache_steps=0", "at least"),
    ("early_stopping_patience=-1", "at least 1"), ("max_train_samples=-1", "at least 1"),
    ("max_eval_samples=-1", "at least 0"), ("eval_accumulation_steps=0", "at least 1"), ("eval_delay=nan", "finite"),
    ("hub_strategy=all_checkpoints", "invalid choice"), ("resume_from_hub=true", "needs --push_to_hub true and"),
    ("hub_take_over=true", "needs --push_to_hub true and"), ("resume_from_hub=maybe", "Truthy"),
    ("label_smoothing_factor=2", "no effect"),
    ("include_num_input_tokens_seen=foo", "Truthy"), ("local_rank=x", "invalid int"), ("push_to_hub=maybe", "Truthy"),
    ("output_dir=", "names no folder"), ("output_dir=a\0b", "null"), ("output_dir=/dev/null", "cannot be created"),
    ("output_dir=/proc/x", "cannot be created"),
]  # fmt: skip


@pytest.mark.parametrize(("option", "message"), AT_ONCE, ids=lambda value: str(value)[:40])
def test_an_option_that_cannot_work_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, option: str, message: str
) -> None:
    arguments: list[str | Path] = ["--dataset_name", "user/data"]
    check_refused(monkeypatch, arguments, tmp_path / "run", message, f"--{option}")


# Refused by a library, once the model is there.
LATER = [
    ("optim=lomo", "--optim, .*lomo_optim"), ("optim=galore_adamw", "--optim"), ("optim_args=x", "--optim_args"),
    ("lr_scheduler_type=cosine_with_min_lr", "--lr_scheduler_type, .*min_lr"),
    ("lr_scheduler_type=warmup_stable_decay", "--lr_scheduler_type, .*num_decay_steps"),
    ("lr_scheduler_kwargs={\"a\": 1}", "--lr_scheduler_kwargs: .*unexpected keyword argument 'a'"),
    ("save_strategy=best", "metric_for_best_model"), ("activation_offloading=true", "."),
    ("torch_compile_backend=foo", "FOO"), ("metric_for_best_model=foo", "--metric_for_best_model: .*eval_foo"),
    ("lora_target_modules=.*", "--lora_target_modules: "), ("lora_target_modules=nothing", "--lora_target_modules: "),
    ("adam_epsilon=0", "loss is nan|not finite"), ("resume_from_checkpoint=/", "choose another checkpoint"),
    ("resume_from_checkpoint=none", "no such folder"), ("dataset_sha256=x", "--dataset_sha256 x: "),
    ("dataset_train_split=foo", "has no split 'foo'"), ("model_name_or_path=/dev/null", "no such folder"),
    ("model_name_or_path=x\ny", "neither a folder nor a repo"), ("dataset_name=a/b/c", "no such folder"),
]  # fmt: skip


@pytest.mark.faults
@pytest.mark.parametrize(("option", "message"), LATER, ids=lambda value: str(value)[:40])
def test_an_option_that_a_library_refuses_is_one_line(
    tiny_run: list[str | Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, option: str, message: str
) -> None:
    check_refused(monkeypatch, tiny_run, tmp_path / "run", message, f"--{option}")


# ---- Folders -------------------------------------------------------------------------------------------------------


def test_the_folders_of_the_dataset_and_of_models_are_not_written_to(
    tiny_run: list[str | Path], tiny_base: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(tiny_base)
    (tmp_path / "adapter_config.json").write_text("{}")
    for folder, message in (
        (tiny_base, "is the folder of the base model"),
        (tmp_path / "link", "is the folder of the base model"),
        (tiny_dataset, "is the folder of the dataset"),
        (tmp_path, "holds a model .adapter_config.json. that no run here has written"),
    ):
        check_refused(monkeypatch, tiny_run, folder, message)
        assert not (folder / "sft_config.yaml").exists()
    for folder in (tiny_base, tiny_dataset):
        (folder / ".lock").unlink()


def rows_with(**changes: Any) -> list[dict[str, Any]]:
    return [row | changes for row in make_rows(4)]


@pytest.mark.faults
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "the split has no rows|is not a dataset"),
        (rows_with(entity_value=""), "4 of 4 rows have no label"),
        (rows_with(entity_name="colour"), "colour"),
        (rows_with(entity_name=""), "."),
        (rows_with(image=None), "no_image"),
        (rows_with(image={"bytes": b"x", "path": None}), "not_a_picture"),
        (rows_with(image={"bytes": None, "path": "/etc/passwd"}), "only a path|embedded|bytes"),
    ],
    ids=["no rows", "no labels", "unknown attribute", "no attribute", "no image", "not an image", "a path"],
)
def test_a_dataset_that_cannot_be_trained_on_is_one_line(
    tiny_run: list[str | Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rows: list[Any], message: str
) -> None:
    dataset = save_dataset(tmp_path / "dataset", validation=0)
    file = dataset / "data" / "train-00000-of-00001.parquet"
    if rows:
        write_rows(file, rows)
    else:
        pq.write_table(pq.read_table(file).slice(0, 0), file)
    check_refused(monkeypatch, tiny_run, tmp_path / "run", message, "--dataset_name", dataset)


@pytest.mark.faults
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "processor_config.json"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "empty", "garbled", "null", "list"])
def test_a_damaged_base_model_is_one_line(
    tiny_run: list[str | Path],
    tiny_base: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    name: str,
    damage: str,
) -> None:
    base = Path(shutil.copytree(tiny_base, tmp_path / "base"))
    spoil(base / name, damage)
    check_refused(monkeypatch, tiny_run, tmp_path / "run", "base", "--model_name_or_path", base)


def spoil(file: Path, damage: str) -> None:
    content = file.read_bytes()
    file.unlink()
    if damage != "missing":
        # Changed weights are weights, but for a header of safetensors that is changed.
        half = 64 if file.suffix == ".safetensors" else len(content) // 2
        file.write_bytes(
            {
                "truncated": content[:half],
                "empty": b"",
                "garbled": content[:half] + bytes(b ^ 0x5A for b in content[half : half + 64]) + content[half + 64 :],
                "null": b"null",
                "list": b"[1]",
            }[damage]
        )


# ---- Resuming ------------------------------------------------------------------------------------------------------


class Evil:
    """A pickle that creates a file when it is loaded."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.file),)


@pytest.fixture(scope="module")
def finished(tiny_run: list[str | Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of one step."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    with pytest.MonkeyPatch.context() as monkeypatch:
        call(sft.main, monkeypatch, *tiny_run, "--max_steps", "1", "--save_steps", "1", "--max_eval_samples", "0",
             "--eval_strategy", "no", "--output_dir", folder)  # fmt: skip
    return folder


def resume(run: list[str | Path], folder: Path, monkeypatch: pytest.MonkeyPatch, *more: str | Path) -> None:
    call(sft.main, monkeypatch, *run, "--max_steps", "2", "--save_steps", "1", "--max_eval_samples", "0",
         "--eval_strategy", "no", "--output_dir", folder, *more)  # fmt: skip


@pytest.mark.faults
@pytest.mark.parametrize("given", [False, True], ids=["found", "given"])
@pytest.mark.parametrize("form", ["pickle", "torch"])
@pytest.mark.parametrize(
    "name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", "scaler.pt", "pytorch_model.bin",
             "adapter_model.bin", "optimizer.bin"]
)  # fmt: skip
def test_no_pickle_of_a_strangers_checkpoint_runs_code(
    finished: Path,
    tiny_run: list[str | Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    form: str,
    given: bool,
) -> None:
    run = [*tiny_run]
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    checkpoint = folder / "checkpoint-1"
    trap = tmp_path / "trap"
    if form == "pickle":
        (checkpoint / name).write_bytes(pickle.dumps(Evil(trap)))
    else:
        torch.save({"state": Evil(trap)}, checkpoint / name)
    checkpoints.save_manifest(checkpoint, run=json.loads((checkpoint / "manifest.json").read_text())["run"])
    forget_steps(folder)
    more: list[str | Path] = ["--resume_from_checkpoint", checkpoint] if given else []
    if name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        with pytest.raises(InputError, match="checkpoint-1 cannot be loaded"):
            resume(run, folder, monkeypatch, *more)
    else:  # most of them are not read at all
        with contextlib.suppress(InputError):
            resume(run, folder, monkeypatch, *more)
    assert not trap.exists()
    pickle.loads(pickle.dumps(Evil(trap)))
    assert trap.exists(), "the trap works"


def forget_steps(folder: Path) -> None:
    """Let a run of one step resume as one of two."""
    for file in (folder / "sft_config.yaml", folder / "checkpoint-1" / "manifest.json"):
        text = (
            file.read_text().replace("max_steps: 1\n", "max_steps: 2\n").replace('"max_steps": 1,', '"max_steps": 2,')
        )
        file.write_text(text)
    manifest = json.loads((folder / "checkpoint-1" / "manifest.json").read_text())
    checkpoints.save_manifest(folder / "checkpoint-1", run=manifest["run"])


@pytest.mark.faults
@pytest.mark.parametrize("damage", ["truncated", "empty", "garbled", "null", "list"])
@pytest.mark.parametrize(
    "name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "adapter_model.safetensors",
             "adapter_config.json"]
)  # fmt: skip
@pytest.mark.parametrize("signed", [False, True], ids=["noticed", "signed"])
def test_a_damaged_checkpoint_is_one_line_or_not_used(
    finished: Path,
    tiny_run: list[str | Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    damage: str,
    signed: bool,
) -> None:
    """`signed`: a stranger has written the manifest again."""
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    forget_steps(folder)
    checkpoint = folder / "checkpoint-1"
    spoil(checkpoint / name, damage)
    if signed:
        checkpoints.save_manifest(checkpoint, run=json.loads((checkpoint / "manifest.json").read_text())["run"])
    error = ""
    try:
        resume(tiny_run, folder, monkeypatch)
    except InputError as refusal:
        error = str(refusal)
    # Not used: peft's config, which the options make; and a changed byte may be within a number.
    may_resume = signed and (damage == "garbled" or name == "adapter_config.json")
    assert "checkpoint-1" in error or (may_resume and (not error or "Training stopped" in error))


CONFIGS = ["", "null", "[1]", "x", "samples_per_step: x", "samples_per_step: -1", "samples_per_step: 1" + "0" * 30,
           "samples_per_step: [1]", "a: &a [*a]", "\xff", "seed: {a: b}"]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("text", CONFIGS)
def test_a_garbled_record_of_the_run_is_one_line(
    tiny_run: list[str | Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    (tmp_path / "sft_config.yaml").write_bytes(text.encode("latin-1"))
    check_refused(monkeypatch, tiny_run, tmp_path, f"{tmp_path}.*(cannot be read|holds a run with another)")


MANIFESTS: list[Callable[[dict[str, Any]], Any]] = [
    lambda content: [],
    lambda content: {},
    lambda content: content | {"run": []},
    lambda content: content | {"run": {"config": {}}},
    lambda content: content | {"run": {"config": [], "processes": 1, "sharding": "no sharding"}},
    lambda content: content | {"run": content["run"] | {"processes": "x"}},
    lambda content: content | {"run": content["run"] | {"config": {"samples_per_step": "x"}}},
    lambda content: content | {"files": []},
    lambda content: content | {"files": {"x": 1}},
    lambda content: content | {"files": {"../../sft_config.yaml": {"size": 1, "sha256": "x"}}},
    lambda content: content | {"files": {"/etc/passwd": {"size": 1, "sha256": "x"}}},
    lambda content: content | {"files": {"x": {"size": "1", "sha256": 5}}},
]


@pytest.mark.faults
@pytest.mark.parametrize("change", MANIFESTS)
def test_a_manifest_of_other_types_is_a_damage(finished: Path, tmp_path: Path, change: Any) -> None:
    checkpoint = Path(shutil.copytree(finished / "checkpoint-1", tmp_path / "checkpoint-1"))
    assert checkpoints.find_damage(checkpoint) is None
    content = json.loads((checkpoint / "manifest.json").read_text())
    del content["sha256"]
    changed = change(content)
    signed = {"sha256": checkpoints._digest(changed), **changed} if isinstance(changed, dict) else changed
    (checkpoint / "manifest.json").write_text(json.dumps(signed))
    assert checkpoints.find_damage(checkpoint) == f"{checkpoint}/manifest.json has changed since it was written"


# ---- The disk and the token ----------------------------------------------------------------------------------------


@pytest.mark.faults
@pytest.mark.parametrize("kib", [1, 20, 100, 400, 1000, 3000])
def test_a_full_disk_is_one_line(tiny_base: Path, tiny_dataset: Path, tmp_path: Path, kib: int) -> None:
    """RLIMIT_FSIZE fails every write beyond a size, as a full disk does."""
    arguments = command(tiny_base, tiny_dataset, tmp_path / "run", "--max_steps", 2, "--save_steps", 1)
    limited = ["sh", "-c", f'trap "" XFSZ; ulimit -f {kib * 2}; exec "$@"', "sh", *arguments]
    done = subprocess.run(limited, capture_output=True, text=True, timeout=300, cwd=tmp_path,
                          env=os.environ | {"PYTHONPATH": os.getcwd(), "ACCELERATE_USE_CPU": "true"})  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr[-3000:]
    assert done.returncode in (0, 2)
    assert done.returncode == 0 or done.stderr.splitlines()[-1].startswith("error: ")


@pytest.mark.slow
def test_no_secret_is_in_any_file_or_line_of_a_run(
    tiny_run: list[str | Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    secrets = ["hf_thesecrettoken", "wandb-secret-key", "hf_theothertoken"]
    monkeypatch.setenv("WANDB_API_KEY", secrets[1])
    monkeypatch.setenv("HF_TOKEN", secrets[2])
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "run" / "logs"))
    call(
        sft.main, monkeypatch, *tiny_run, "--max_steps", "2", "--save_steps", "1", "--max_eval_samples", "2",
        "--eval_steps", "1", "--hub_token", secrets[0], "--report_to", "tensorboard", "--output_dir", tmp_path / "run",
    )  # fmt: skip
    assert os.environ["HF_TOKEN"] == secrets[2]
    output = capfd.readouterr()
    contents = {str(file): file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()}
    names = {Path(file).name.partition(".tfevents")[0] for file in contents}
    assert {"training_args.bin", "trainer_state.json", "README.md", "events.out"} <= names | {"events.out"}
    assert any("events.out.tfevents" in file for file in contents)
    contents |= {"stdout": output.out.encode(), "stderr": output.err.encode()}
    for name, content in contents.items():
        for secret in secrets:
            assert secret.encode() not in content and secret.encode("utf-16-le") not in content, name


def test_the_trap_of_these_tests_is_a_pickle(tmp_path: Path) -> None:
    stream = io.BytesIO(pickle.dumps(Evil(tmp_path / "trap")))
    with pytest.raises(pickle.UnpicklingError):
        torch.load(stream, weights_only=True)
    assert not (tmp_path / "trap").exists()
