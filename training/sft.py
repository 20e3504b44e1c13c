"""Fine-tune PaliGemma to read product attributes: dataset + base -> LoRA adapter with its card, on the Hub.

    accelerate launch --config_file training/accelerate_configs/gpu.yaml -m training.sft \\
        --config training/configs/paligemma_3b_224_nf4.yaml --dataset_name user/dataset --output_dir runs/first

Rerun with the same options, it resumes from the last complete checkpoint. SIGTERM makes one before it ends.
"""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from product_vqa.cli import parse_options, run
from product_vqa.errors import argument
from product_vqa.paths import writable_folder

if TYPE_CHECKING:
    from training.options import DatasetOptions, ModelOptions, TrainingOptions

logger = logging.getLogger(__name__)


def main() -> int:
    from training.options import DatasetOptions, ModelOptions, TrainingOptions

    dataset_options, model_options, options = parse_options(
        DatasetOptions, ModelOptions, TrainingOptions, description="Fine-tune PaliGemma to read product attributes."
    )

    from training.preemption import only_run_in

    with argument("output_dir"):
        output_dir = writable_folder(options.output_dir)
    with only_run_in(output_dir):
        return train(dataset_options, model_options, options, output_dir)


def train(
    dataset_options: "DatasetOptions", model_options: "ModelOptions", options: "TrainingOptions", output_dir: Path
) -> int:
    """Train, score and publish; returns the exit code."""
    from transformers import PrinterCallback, ProgressCallback
    from transformers.trainer_utils import HubStrategy

    from product_vqa.distributed import init_distributed
    from product_vqa.modeling.collator import TrainingCollator
    from product_vqa.modeling.loading import load_config
    from product_vqa.workers import limit_queue, worker_errors
    from training.checkpoints import check_same_run, find_checkpoint, read_state, save_config
    from training.configuration import describe_run, resolve_config
    from training.console import ConsoleLines, format_scores
    from training.evaluation import StopEarly, scores_at
    from training.examples import ShowExamples
    from training.loading import (
        check_steps,
        load_data,
        load_model,
        locate_sources,
        warn_of_small_pictures,
    )  # fmt: skip
    from training.memory import advice, device_memory, estimate_run
    from training.preemption import EXIT_CODE, PreemptedError, SaveOnSigterm
    from training.publication import Publication
    from training.push import PushCheckpoints, open_repo, push_run
    from training.trainer import PaliGemmaTrainer, ResumeEvaluation

    # What can be wrong is found out before anything long begins.
    sources = locate_sources(dataset_options, model_options, is_published=options.push_to_hub)
    config = resolve_config(dataset_options, model_options, options, sources)
    check_same_run(output_dir, config, processes=options.world_size)
    repo_id = None
    if options.push_to_hub:
        repo_id = open_repo(options.hub_model_id or output_dir.name, private=options.hub_private_repo)
    data = load_data(
        sources,
        dataset_options,
        seed=options.seed if options.data_seed is None else options.data_seed,
        is_best_kept=bool(options.load_best_model_at_end),
    )
    check_steps(data.train, options)
    if data.eval is None and options.eval_strategy != "no":
        logger.warning("No rows to score on (--dataset_test_split, --max_eval_samples): nothing is evaluated.")
        options.eval_strategy, options.load_best_model_at_end = "no", False
        options.early_stopping_patience = None
    with argument("model_name_or_path"):
        base_config = load_config(sources.base)
    size = base_config.vision_config.image_size
    options.dataloader_num_workers, prefetch_factor = limit_queue(
        options.dataloader_num_workers, batch_bytes=options.per_device_train_batch_size * 3 * size * size
    )
    options.dataloader_prefetch_factor = options.dataloader_prefetch_factor or prefetch_factor
    memory, state = estimate_run(base_config, model_options, options), init_distributed()
    if state.is_main_process:
        print(memory, flush=True)
        if remedy := advice(memory, device_memory(state.device)):
            logger.warning(remedy)
    this_run = describe_run(config, options)
    checkpoint = find_checkpoint(
        output_dir,
        state,
        run=this_run,
        given=options.resume_from_checkpoint,
        keeps_best=options.load_best_model_at_end,
    )
    model, processor, lora = load_model(sources, model_options)
    if state.is_main_process:
        warn_of_small_pictures(data.train, processor)

    preemption = SaveOnSigterm()
    trainer = PaliGemmaTrainer(
        model=model,
        args=options,
        train_dataset=data.train,
        eval_dataset=data.eval,
        processing_class=processor,
        data_collator=TrainingCollator(processor),
        peft_config=lora,
        preemption=preemption,
        run=this_run,
    )
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(ConsoleLines())
    trainer.add_callback(ShowExamples(trainer))

    publication = Publication(
        trainer,
        sources,
        config,
        train_split=dataset_options.dataset_train_split,
        eval_split=dataset_options.dataset_test_split,
    )
    if repo_id is not None and options.hub_strategy == HubStrategy.EVERY_SAVE:
        trainer.add_callback(PushCheckpoints(publication.save, repo_id=repo_id))
    if options.early_stopping_patience is not None:
        stop_early = StopEarly(options.early_stopping_patience)
        trainer.add_callback(stop_early)
        if checkpoint and stop_early.is_due(options, before := read_state(checkpoint)):
            options.max_steps = before.global_step  # it was stopped here
    trainer.add_callback(ResumeEvaluation(trainer))
    if trainer.is_world_process_zero():
        save_config(output_dir, config)
    try:
        with worker_errors():
            trainer.train(resume_from_checkpoint=checkpoint)
    except PreemptedError:  # in an evaluation before the first step
        preemption.is_stopped = True
    if preemption.is_stopped:
        if trainer.is_world_process_zero():
            print(f"stopped at step {trainer.state.global_step}, which is saved: start it again, and it goes on")
        trainer.accelerator.end_training()
        return EXIT_CODE

    scores = None
    if data.card is not None:
        scores = trainer.score_rows(data.card)
        if trainer.is_world_process_zero():
            print(f"card: {format_scores(scores)} on {len(data.card)} rows that chose no checkpoint")
    elif data.eval is not None:
        kept = trainer.state.best_global_step if options.load_best_model_at_end else trainer.state.global_step
        scores = scores_at(kept, trainer.state) or trainer.evaluate()
    files = publication.save(output_dir, scores=scores, is_chosen_by=data.card is None)
    if trainer.is_world_process_zero():
        print(f"adapter: {output_dir}")
        if repo_id is not None:
            url = push_run(output_dir, files=files, repo_id=repo_id, revision=options.hub_revision)
            print(f"pushed: {url}")
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.end_training()
    return 0


if __name__ == "__main__":
    from training.preemption import end_with_launcher, exit_on_sigterm

    exit_on_sigterm()
    end_with_launcher()
    run(main)
