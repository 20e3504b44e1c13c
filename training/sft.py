"""Fine-tune PaliGemma to read product attributes: dataset + base -> LoRA adapter with its card, on the Hub.

    accelerate launch --config_file training/accelerate/gpu.yaml -m training.sft \\
        --config training/configs/paligemma_3b_224_nf4.yaml --dataset_name user/dataset --output_dir runs/first

Started again with the same options, it goes on from the last whole checkpoint. SIGTERM makes one before it ends.
"""

import logging

from product_vqa.command import parse_options, run, writable_folder

logger = logging.getLogger(__name__)


def main() -> int:
    from training.options import DatasetOptions, ModelOptions, TrainingOptions

    dataset_options, model_options, options = parse_options(
        DatasetOptions, ModelOptions, TrainingOptions, description="Fine-tune PaliGemma to read product attributes."
    )

    from transformers import PrinterCallback, ProgressCallback
    from transformers.trainer_utils import HubStrategy

    from product_vqa.paligemma import TrainingCollator, load_config
    from product_vqa.processes import join_processes
    from training.checkpoints import check_same_run, last_whole_checkpoint, read_state, save_config
    from training.configuration import resolve_config
    from training.console import ConsoleLines
    from training.evaluation import StopEarly, scores_at
    from training.examples import ShowExamples
    from training.memory import advice, device_memory, estimate_run
    from training.preemption import EXIT_CODE, SaveOnSigterm
    from training.publication import Publication
    from training.pushes import PushCheckpoints, open_repo, push_run
    from training.sources import load_data, load_model, locate_sources, warn_of_small_pictures
    from training.trainer import PaliGemmaTrainer

    # What can be wrong is found out before anything long begins.
    output_dir = writable_folder(options.output_dir, flag="--output_dir")
    sources = locate_sources(dataset_options, model_options, is_published=options.push_to_hub)
    config = resolve_config(dataset_options, model_options, options, sources)
    check_same_run(output_dir, config)
    repo_id = None
    if options.push_to_hub:
        repo_id = open_repo(options.hub_model_id or output_dir.name, private=options.hub_private_repo)
    train_rows, test_rows = load_data(sources, dataset_options, seed=options.data_seed or options.seed)
    if test_rows is None and options.eval_strategy != "no":
        logger.warning("No rows to score on (--dataset_test_split, --max_eval_samples): nothing is evaluated.")
        options.eval_strategy, options.load_best_model_at_end = "no", False
        options.early_stopping_patience = None
    base_config = load_config(sources.base, flag="--model_name_or_path")
    memory, state = estimate_run(base_config, model_options, options), join_processes()
    if state.is_main_process:
        print(memory, flush=True)
        if remedy := advice(memory, device_memory(state.device)):
            logger.warning(remedy)
    model, processor, lora = load_model(sources, model_options)
    if state.is_main_process:
        warn_of_small_pictures(train_rows, processor)

    preemption = SaveOnSigterm()
    trainer = PaliGemmaTrainer(
        model=model,
        args=options,
        train_dataset=train_rows,
        eval_dataset=test_rows,
        processing_class=processor,
        data_collator=TrainingCollator(processor),
        peft_config=lora,
        callbacks=[preemption],
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
    checkpoint = options.resume_from_checkpoint or last_whole_checkpoint(output_dir, trainer.accelerator)
    if options.early_stopping_patience is not None:
        stop_early = StopEarly(options.early_stopping_patience)
        trainer.add_callback(stop_early)
        if checkpoint and stop_early.is_due(options, before := read_state(checkpoint)):
            options.max_steps = before.global_step  # it was stopped here
    if trainer.is_world_process_zero():
        save_config(output_dir, config)
    trainer.train(resume_from_checkpoint=checkpoint)
    if preemption.is_stopped:
        if trainer.is_world_process_zero():
            print(f"stopped at step {trainer.state.global_step}, which is saved: start it again, and it goes on")
        trainer.accelerator.end_training()
        return EXIT_CODE

    scores = None
    if test_rows is not None:
        kept = trainer.state.best_global_step if options.load_best_model_at_end else trainer.state.global_step
        scores = scores_at(kept, trainer.state) or trainer.evaluate()
    files = publication.save(output_dir, scores=scores)
    if trainer.is_world_process_zero():
        print(f"adapter: {output_dir}")
        if repo_id is not None:
            url = push_run(output_dir, files=files, repo_id=repo_id, revision=options.hub_revision)
            print(f"pushed: {url}")
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.end_training()
    return 0


if __name__ == "__main__":
    run(main)
