"""Pretrain the small PaliGemma of the quickstart from random weights.

    accelerate launch --config_file training/accelerate_configs/cpu_2.yaml \\
        -m quickstart.pretraining.pretrain --minutes 230 --bf16 true
    python -m quickstart.pretraining.pretrain --minutes 2

It runs on one core, in two processes, or on a GPU; the first two minutes already show progress. Rerun the same command
to resume from the last checkpoint, also with more `--minutes`. The command writes `base/` (loadable at any time),
`curve.csv` and `checkpoint.pt` to `--output_dir`.

**Two stages.** First the vision tower alone learns to name the character in each patch
(quickstart.pretraining.patch_targets), on images that become harder. Then the complete model
learns to answer questions about the printed text (quickstart.pretraining.tasks), on images with one line, two, three,
and finally all. The stages depend on the share of the minutes that has passed, so the schedule fits any length and any
machine. The images depend only on that share, the seed, the step and the process.

`--base` continues with a model that has been pretrained already: the run then begins where two thirds of the minutes
would have passed.

    accelerate launch --config_file training/accelerate_configs/cpu_2.yaml \\
        -m quickstart.pretraining.pretrain --base quickstart/base --minutes 60 --bf16 true
"""

import csv
from collections import defaultdict
from pathlib import Path

from product_vqa.cli import parse_options, run
from product_vqa.errors import argument
from product_vqa.paths import writable_folder
from quickstart.pretraining.options import PretrainOptions
from quickstart.pretraining.tasks import KINDS
from quickstart.rendering.levels import HARD, STANDARD

COLUMNS = ("minutes", "step", "images", "first", "patch_loss", "packed_loss", "answer_loss", *KINDS, "hard_get")


def main() -> None:
    (options,) = parse_options(PretrainOptions, description="Pretrain the small PaliGemma of the quickstart.")

    from product_vqa.distributed import init_distributed  # after parsing, as --help does not need torch
    from quickstart.pretraining.accuracy import measure_accuracy
    from quickstart.pretraining.samples import ANSWERS_FROM
    from quickstart.pretraining.trainer import Pretrainer

    with argument("output_dir"):
        folder = writable_folder(options.output_dir)
    state = init_distributed()
    trainer = Pretrainer(options, device=state.device, rank=state.process_index, num_processes=state.num_processes)
    checkpoint = folder / "checkpoint.pt"
    if checkpoint.is_file():
        with argument("output_dir"):
            trainer.load(checkpoint)
        if state.is_main_process:
            print(f"Resuming at minute {trainer.minutes:.2f}, step {trainer.step}", flush=True)

    interval = max(0.5, options.minutes / 20)  # minutes between evaluations
    due = trainer.minutes + interval
    history: dict[str, list[float]] = defaultdict(list)  # since the last evaluation
    while trainer.minutes < options.minutes:
        for name, value in trainer.train_step(trainer.progress).items():
            history[name].append(value)
        if trainer.minutes < min(due, options.minutes):
            continue
        due = trainer.minutes + interval
        if state.is_main_process:
            row = {"minutes": trainer.minutes, "step": trainer.step, "images": trainer.images}
            row |= {name: sum(values[-50:]) / len(values[-50:]) for name, values in history.items()}
            if trainer.progress >= ANSWERS_FROM:
                row |= measure_accuracy(
                    trainer.model, processor=trainer.processor, rows=options.eval_rows, level=STANDARD
                )
                row["hard_get"] = measure_accuracy(
                    trainer.model, processor=trainer.processor, rows=options.eval_rows, level=HARD, kinds=["get"]
                )["get"]
            append_to_curve(folder / "curve.csv", row)
            trainer.save(checkpoint)
            trainer.save_base(folder / "base")
        history.clear()
        state.wait_for_everyone()
    if state.is_main_process:
        print(f"{folder / 'base'}: {trainer.images} images in {trainer.minutes:.1f} minutes")
    state.destroy_process_group()


def append_to_curve(file: Path, row: dict[str, float]) -> None:
    """Append a row to the CSV and print it."""
    is_new = not file.exists()
    with file.open("a", newline="") as lines:
        writer = csv.DictWriter(lines, COLUMNS, lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow({name: value if isinstance(value, int) else round(value, 4) for name, value in row.items()})
    shown = [f"{name} {value if isinstance(value, int) else f'{value:.3f}'}" for name, value in row.items()]
    print("  ".join(shown), flush=True)


if __name__ == "__main__":
    run(main)
