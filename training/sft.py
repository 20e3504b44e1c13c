"""Fine-tune PaliGemma to extract product attributes: a dataset and a base model become a LoRA adapter on the Hub.

    accelerate launch --config_file training/accelerate_configs/gpu.yaml -m training.sft \\
        --config training/configs/paligemma_3b_224_nf4.yaml --dataset_name user/dataset --output_dir runs/first

Rerun the same command to resume from the last complete checkpoint. SIGTERM saves one and ends the run.
"""

# All imports are here, though `--help` then takes seconds: SFTConfig, which the options extend, takes nearly as long.
import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from product_vqa import cli  # first: it hides lines that libraries log when they are imported

# isort: split
from transformers import PaliGemmaConfig, PrinterCallback, ProgressCallback
from transformers.trainer_utils import HubStrategy

from product_vqa.dataset import find_rows
from product_vqa.disk_space import DiskPlan
from product_vqa.distributed import init_distributed, process_group
from product_vqa.errors import InputError, argument
from product_vqa.modeling.collator import TrainingCollator
from product_vqa.modeling.loading import caps_logits, load_config
from product_vqa.paths import writable_folder
from product_vqa.workers import limit_queue, worker_errors
from training.callbacks import ConsoleLines, PushCheckpoints, ResumeRun, SaveOnSigterm, StopEarly, is_out_of_patience
from training.checkpoints import check_folder, check_same_run, find_checkpoint, plan_checkpoints, read_state
from training.divergence import DivergenceError
from training.evaluation import format_scores, scores_at
from training.hub_state import HubState, StateRepo, adapter_shapes, hold_repo
from training.loading import (
    Data,
    Sources,
    check_steps,
    download_sources,
    load_data,
    load_model,
    locate_sources,
    warn_about_small_images,
)
from training.memory import MemoryEstimate, advise, device_memory, estimate_run
from training.options import DatasetOptions, ModelOptions, TrainingOptions, with_changes
from training.preemption import EXIT_CODE, end_with_launcher, exit_on_sigterm, only_run_in
from training.push import hub_token, open_repo, push_adapter, push_run, save_adapter
from training.run_config import check_hub_options, describe_run, resolve_config, save_config
from training.smoke import SmokeOptions, StepRecorder, describe, find_problem, shorten
from training.state_push import PushStates, push_states
from training.trainer import PaliGemmaTrainer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """What a run works with, found and checked before anything long begins."""

    output_dir: Path
    sources: Sources
    config: dict[str, Any]  # as sft_config.yaml holds it
    description: dict[str, Any]  # as every checkpoint's manifest holds it
    model_config: PaliGemmaConfig
    repo_id: str | None  # where the adapter is pushed to

    @property
    def adapter_id(self) -> str:
        return self.repo_id or self.output_dir.resolve().name


def main() -> int:
    smoke_options, dataset_options, model_options, options = cli.parse_options(
        SmokeOptions,
        DatasetOptions,
        ModelOptions,
        TrainingOptions,
        description="Fine-tune PaliGemma to extract product attributes.",
    )
    options.check_gpus()
    token = options.hub_token
    options = with_changes(options, hub_token=None)  # which the trainer would write into every checkpoint
    if smoke_options.smoke:
        with TemporaryDirectory(prefix="smoke-") as folder, hub_token(token), process_group():
            return smoke(dataset_options, model_options, options, Path(folder))
    with argument("output_dir"):
        output_dir = writable_folder(str(options.output_dir))
    with only_run_in(output_dir), hub_token(token), process_group():
        return train(dataset_options, model_options, options, output_dir)


def train(
    dataset_options: DatasetOptions, model_options: ModelOptions, options: TrainingOptions, output_dir: Path
) -> int:
    """Train, score, save and push an adapter; returns the exit code."""
    run = resolve_run(dataset_options, model_options, options, output_dir)
    with hold_repo(run.repo_id, options) as repo:
        memory = report_memory(run, model_options, options)
        state = find_hub_state(run, repo, model_options, options)
        download_sources(run.sources, dataset_options, more=plan_output(run, options, memory, state))
        data = load_rows(run, dataset_options, options)
        args = resolve_arguments(run, data, options)
        if state is not None:
            state.fetch(output_dir)
        checkpoint = find_resume_point(run, args)
        args = end_where_stopped_early(args, checkpoint)
        trainer = make_trainer(run, data, model_options, args, checkpoint)
        save = partial(save_current, run, trainer)
        states = push_states(trainer, repo, save, run=run.description) if repo is not None else None
        if trainer.is_world_process_zero():
            save_config(output_dir, run.config)
        with worker_errors():
            is_finished = trainer.train_unless_stopped(checkpoint)
        if not is_finished and trainer.is_world_process_zero():
            is_lost = repo is not None and repo.lease.taken_by is not None
            remedy = "" if is_lost else "; rerun the same command to resume"
            print(f"stopped and saved at step {trainer.state.global_step}{remedy}")
        if repo is not None:
            repo.check_held()
        if is_finished:
            finish(run, trainer, data, states)
    return 0 if is_finished else EXIT_CODE


def smoke(
    dataset_options: DatasetOptions, model_options: ModelOptions, options: TrainingOptions, output_dir: Path
) -> int:
    """Try a run: a few steps, and one evaluation. Returns the exit code, 1 if something is not finite."""
    shorter, args = shorten(dataset_options, options, output_dir=output_dir)
    run = resolve_run(shorter, model_options, args, output_dir)
    memory = report_memory(run, model_options, args)
    download_sources(run.sources, shorter, more=plan_output(run, args, memory))
    data = load_rows(run, shorter, args)
    trainer = make_trainer(run, data, model_options, resolve_arguments(run, data, args), checkpoint=None)
    recorder = StepRecorder()
    trainer.add_callback(recorder)
    scores = None
    try:
        with worker_errors():
            if not trainer.train_unless_stopped():
                return EXIT_CODE
        scores = trainer.evaluate() if data.eval is not None else None
        problem = find_problem(recorder, scores)
    except DivergenceError as error:
        problem = str(error)
    if trainer.is_world_process_zero():
        if recorder.losses:
            for line in describe(recorder, scores, options, num_rows=len(data.train)):
                print(f"smoke run: {line}")
        print(f"smoke run: {'passed' if problem is None else 'FAILED: ' + cli.with_flags(problem)}", flush=True)
    trainer.accelerator.wait_for_everyone()
    return 0 if problem is None else 1


def resolve_run(
    dataset_options: DatasetOptions, model_options: ModelOptions, options: TrainingOptions, output_dir: Path
) -> Run:
    """Find the base model, the dataset and the repo to push to; check that `output_dir` holds no other run."""
    check_hub_options(options)
    sources = locate_sources(dataset_options, model_options, is_published=options.push_to_hub)
    check_folder(output_dir, sources)
    config = resolve_config(dataset_options, model_options, options, sources)
    check_same_run(output_dir, config, processes=options.world_size)
    with argument("model_name_or_path"):
        model_config = load_config(sources.base_model)
    if model_options.disable_logit_softcapping and not caps_logits(model_config):
        raise InputError(
            f"`disable_logit_softcapping`: {sources.base_model} does not cap its logits, as PaliGemma 2 does; remove "
            "this setting"
        )
    if dataset_options.oversample_like is not None:
        with argument("oversample_like"):
            find_rows(sources.dataset, dataset_options.oversample_like)
    repo_id = None
    if options.push_to_hub:
        repo_id = open_repo(options.hub_model_id or output_dir.name, private=options.hub_private_repo)
    return Run(
        output_dir=output_dir,
        sources=sources,
        config=config,
        description=describe_run(config, options),
        model_config=model_config,
        repo_id=repo_id,
    )


def report_memory(run: Run, model_options: ModelOptions, options: TrainingOptions) -> MemoryEstimate:
    """Print how much memory the run will take, and warn where that is unlikely to fit. Returns the estimate."""
    estimate, state = estimate_run(run.model_config, model_options, options), init_distributed()
    if state.is_main_process:
        print(estimate, flush=True)
        if advice := advise(estimate, device_memory(state.device)):
            logger.warning(advice)
    return estimate


def find_hub_state(
    run: Run, repo: StateRepo | None, model_options: ModelOptions, options: TrainingOptions
) -> HubState | None:
    """Return the state in the repo if the run resumes from it rather than from a local checkpoint."""
    if repo is None:
        return None
    shapes = partial(adapter_shapes, run.model_config, model_options)
    return repo.find(run.output_dir, run=run.description, get_shapes=shapes, options=options)


def plan_output(run: Run, options: TrainingOptions, memory: MemoryEstimate, state: HubState | None = None) -> DiskPlan:
    """Plan what the run writes to its folder."""
    plan = plan_checkpoints(run.output_dir, options, memory)
    return plan if state is None else plan + state.plan(run.output_dir)


def load_rows(run: Run, dataset_options: DatasetOptions, options: TrainingOptions) -> Data:
    """Load the rows to train and to evaluate on."""
    data = load_data(
        run.sources,
        dataset_options,
        seed=options.seed if options.data_seed is None else options.data_seed,
        is_best_kept=bool(options.load_best_model_at_end),
    )
    check_steps(data.train, options)
    problem = data.shuffle.describe_problem() if data.shuffle is not None else None
    if problem is not None and init_distributed().is_main_process:
        logger.warning(problem)
    return data


def resolve_arguments(run: Run, data: Data, options: TrainingOptions) -> TrainingOptions:
    """Return the trainer's arguments: the options, adapted to the rows and to the memory for batches.

    sft_config.yaml records the options as they were given. Pushing is done by `training.push`, not by the trainer.
    """
    vision: Any = run.model_config.vision_config
    num_workers, prefetch_factor = limit_queue(
        options.dataloader_num_workers, batch_bytes=options.per_device_train_batch_size * 3 * vision.image_size**2
    )
    args = with_changes(
        options,
        push_to_hub=False,
        dataloader_num_workers=num_workers,
        dataloader_prefetch_factor=options.dataloader_prefetch_factor or prefetch_factor,
    )
    if data.eval is None and options.eval_strategy != "no":
        logger.warning("No rows to evaluate on (`dataset_test_split`, `max_eval_samples`): evaluation is skipped.")
        args = with_changes(args, eval_strategy="no", load_best_model_at_end=False, early_stopping_patience=None)
    return args


def find_resume_point(run: Run, args: TrainingOptions) -> str | None:
    """Return the checkpoint to resume from; None to start from the beginning."""
    return find_checkpoint(
        run.output_dir,
        init_distributed(),
        run=run.description,
        given=args.resume_from_checkpoint,
        keeps_best=bool(args.load_best_model_at_end),
    )


def end_where_stopped_early(args: TrainingOptions, checkpoint: str | None) -> TrainingOptions:
    """A run that was stopped early trains no further when it is rerun: its checkpoint's step is the last one."""
    if checkpoint is None or args.early_stopping_patience is None:
        return args
    state = read_state(checkpoint)
    if not is_out_of_patience(args.early_stopping_patience, args, state):
        return args
    return with_changes(args, max_steps=state.global_step)


def make_trainer(
    run: Run, data: Data, model_options: ModelOptions, args: TrainingOptions, checkpoint: str | None
) -> PaliGemmaTrainer:
    """Load the model and make its trainer, with all callbacks."""
    model, processor, lora = load_model(run.sources, model_options)
    if init_distributed().is_main_process:
        warn_about_small_images(data.train, processor)
    trainer = PaliGemmaTrainer(
        model=model,
        args=args,
        train_dataset=data.train,
        eval_dataset=data.eval,
        shuffle=data.shuffle,
        processing_class=processor,
        data_collator=TrainingCollator(processor, run.sources.schema),
        peft_config=lora,
        sigterm=SaveOnSigterm(),
        run=run.description,
        schema=run.sources.schema,
    )
    for verbose in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(verbose)
    trainer.add_callback(ConsoleLines())
    if run.repo_id is not None and args.hub_strategy == HubStrategy.EVERY_SAVE:
        trainer.add_callback(
            PushCheckpoints(partial(save_current, run, trainer), push=partial(push_adapter, repo_id=run.repo_id))
        )
    if args.early_stopping_patience is not None:
        trainer.add_callback(StopEarly(args.early_stopping_patience))
    if checkpoint is not None:
        trainer.add_callback(ResumeRun(trainer.finish_evaluation, folders=[run.output_dir, Path(checkpoint).parent]))
    return trainer


def save_current(run: Run, trainer: PaliGemmaTrainer, folder: Path) -> list[str]:
    """Save the adapter as it is at a step, with the scores of that step if there are any."""
    return save_adapter(
        folder,
        trainer,
        adapter_id=run.adapter_id,
        sources=run.sources,
        config=run.config,
        scores=scores_at(trainer.state.global_step, trainer.state),
        is_selected_by_scores=bool(trainer.args.load_best_model_at_end),
    )


def finish(run: Run, trainer: PaliGemmaTrainer, data: Data, states: PushStates | None) -> None:
    """Score the adapter, save it with its card, and push it."""
    is_main = trainer.is_world_process_zero()
    scores = score_adapter(trainer, data)
    if scores is not None and data.card is not None and is_main:
        print(f"card: {format_scores(scores)} on {len(data.card)} rows that did not select the checkpoint")
    files = save_adapter(
        run.output_dir,
        trainer,
        adapter_id=run.adapter_id,
        sources=run.sources,
        config=run.config,
        scores=scores,
        is_selected_by_scores=data.card is None and bool(trainer.args.load_best_model_at_end),
    )
    if is_main:
        print(f"adapter: {run.output_dir}")
        if run.repo_id is not None:
            push = partial(push_run, run.output_dir, files=files, repo_id=run.repo_id)
            if states is not None:
                states.retry()
                push = partial(push, check_head=states.check_head)
            print(f"pushed: {push(revision=trainer.args.hub_revision)}")
    trainer.accelerator.wait_for_everyone()


def score_adapter(trainer: PaliGemmaTrainer, data: Data) -> dict[str, float] | None:
    """Score the adapter that is kept, on the rows for the card or else on those of the evaluation."""
    if data.card is not None:
        return trainer.score_rows(data.card)
    if data.eval is None:
        return None
    state = trainer.state
    kept_step = state.best_global_step if trainer.args.load_best_model_at_end else state.global_step
    return scores_at(kept_step, state) or trainer.evaluate()


if __name__ == "__main__":
    exit_on_sigterm()
    end_with_launcher()
    cli.run(main)
