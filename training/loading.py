"""What a run starts from: the base, the dataset, and the names under which adapter and card will mention them."""

import logging
from dataclasses import dataclass

import yaml
from accelerate import DistributedType
from datasets import Dataset
from huggingface_hub import ModelCard, constants
from peft import LoraConfig
from transformers import PaliGemmaForConditionalGeneration, PaliGemmaProcessor

from product_vqa.cards import CARD_FILE
from product_vqa.dataset import load_splits
from product_vqa.distributed import init_distributed
from product_vqa.errors import InputError, argument
from product_vqa.hub import Location, download, locate
from product_vqa.modeling.collator import load_row_image
from product_vqa.modeling.loading import check_image_size, load_base_model, load_processor, resolve_dtype
from training.evaluation import sample_rows, split_rows
from training.options import DatasetOptions, ModelOptions, TrainingOptions, samples_per_step, steps_per_epoch

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sources:
    """Where base and dataset lie, and what to call them: a folder of this machine is never named outside of it."""

    base: Location
    dataset: Location
    named_base: Location
    named_dataset: Location
    base_license: str | list[str] | None  # as its own card states it: an adapter inherits it


def locate_sources(
    dataset_options: DatasetOptions, model_options: ModelOptions, *, is_published: bool = False
) -> Sources:
    """Find base and dataset, pinned to commits. Raises InputError with the flag and the remedy.

    An adapter that `is_published` must name a base that others can load.
    """
    with argument("model_name_or_path"):
        base = locate(model_options.model_name_or_path, revision=model_options.model_revision)
    with argument("dataset_name"):
        dataset = locate(
            dataset_options.dataset_name,
            repo_type="dataset",
            revision=dataset_options.dataset_revision,
        )
    named_base = base
    if base.folder is not None:
        name = base.folder.resolve().name
        if model_options.base_model_id:
            name = model_options.base_model_id
        elif is_published:
            raise InputError(
                f"--push_to_hub: the base model is a folder ({model_options.model_name_or_path}), and the adapter "
                "would name one that nobody can load. --base_model_id user/name says where others find it"
            )
        else:
            logger.warning(
                "The base is a folder: the adapter will name it %r, which nobody can load. --base_model_id user/name "
                "says where it can be had.",
                name,
            )
        named_base = Location(name)
    elif model_options.base_model_id not in (None, base.name):
        raise InputError(f"--base_model_id {model_options.base_model_id}: the base is already named {base.name}")
    named_dataset = dataset if dataset.folder is None else Location(dataset.folder.resolve().name)
    return Sources(base, dataset, named_base, named_dataset, _license(base))


def _license(base: Location) -> str | list[str] | None:
    """What the base's card says. It is a file like the others, so that it is found offline as well."""
    try:
        # The second is in every repo: a pattern that matches nothing would be warned of.
        with argument("model_name_or_path"):
            folder = download(base, patterns=[CARD_FILE, ".gitattributes"])
        file = folder / CARD_FILE
        return ModelCard(file.read_text(encoding="utf-8")).data.license if file.is_file() else None
    except (ValueError, yaml.YAMLError) as error:  # InputError is one, and so is metadata that cannot be read
        if not constants.HF_HUB_OFFLINE and isinstance(error, InputError):
            raise
        logger.warning("The licence of %s is not known here: the adapter's card names none (%s)", base, error)
        return None


@dataclass(frozen=True)
class Data:
    """The rows of a run. `eval` and `card` are None where there are none or none are wanted."""

    train: Dataset
    eval: Dataset | None  # scored while it trains
    card: Dataset | None  # scored at the end, where the rows of `eval` have chosen the checkpoint


def load_data(sources: Sources, options: DatasetOptions, *, seed: int, is_best_kept: bool) -> Data:
    """`is_best_kept`: whether the rows of `eval` choose a checkpoint; then they are half of the split at most."""
    train_name, test_name = options.dataset_train_split, options.dataset_test_split
    with (
        init_distributed().main_process_first(),
        argument("dataset_name"),
    ):  # one process fetches, the others find it in the cache
        splits = load_splits(sources.dataset, [train_name, test_name])
    if train_name not in splits:
        raise InputError(f"--dataset_name {sources.dataset} has no split {train_name!r} (--dataset_train_split)")
    train, test = splits[train_name], splits.get(test_name)
    if options.max_train_samples is not None and options.max_train_samples < len(train):
        train = train.shuffle(seed=seed).select(range(options.max_train_samples))
    _check_labels(train, name=f"`dataset_train_split` {train_name}", remedy="choose a split with labels")
    if test is None or not options.max_eval_samples:
        return Data(train, None, None)
    remedy = "choose a split with labels, or --max_eval_samples 0 to score nothing"
    _check_labels(test, name=f"`dataset_test_split` {test_name}", remedy=remedy)
    if not is_best_kept or len(test) < 2:
        return Data(train, sample_rows(test, options.max_eval_samples, seed=seed), None)
    chosen, others = split_rows(test, min(options.max_eval_samples, len(test) // 2), seed=seed)
    card = sample_rows(others, options.max_card_samples, seed=seed) if options.max_card_samples else None
    return Data(train, chosen, card)


def _check_labels(rows: Dataset, *, name: str, remedy: str) -> None:
    """Raises InputError if a row has no label."""
    labels = rows.select_columns(["index", "entity_value"])
    unlabelled = [index for index, value in zip(labels["index"], labels["entity_value"], strict=True) if not value]
    if unlabelled:
        raise InputError(
            f"{name}: {len(unlabelled)} of {len(rows)} rows have no label (entity_value is empty), the first of them "
            f"index {unlabelled[0]}: {remedy}"
        )


def check_steps(rows: Dataset, options: TrainingOptions) -> None:
    """Raises InputError if the run would make no step."""
    if len(rows) == 0:
        raise InputError("--dataset_train_split: the split has no rows")
    if steps_per_epoch(options, len(rows)) == 0:
        raise InputError(
            f"dataloader_drop_last: {len(rows)} rows are fewer than the {samples_per_step(options)} samples of one "
            "step, so that not a single step would be made; leave it out, or lower per_device_train_batch_size"
        )


def load_model(
    sources: Sources, options: ModelOptions
) -> tuple[PaliGemmaForConditionalGeneration, PaliGemmaProcessor, LoraConfig]:
    """The frozen base, its processor, and what is to be trained on it."""
    processor = load_processor(sources.base)
    state = init_distributed()
    device = state.device
    # FSDP and DeepSpeed spread the weights over the devices themselves.
    is_whole = state.distributed_type not in (DistributedType.FSDP, DistributedType.DEEPSPEED)
    with argument("model_name_or_path"):
        model = load_base_model(
            sources.base,
            dtype=resolve_dtype(options.dtype, device=device),
            load_in_4bit=options.load_in_4bit,
            attn_implementation=options.attn_implementation,
            device=device if options.load_in_4bit or is_whole else None,
        )
    check_image_size(model.config, processor, base_model=sources.base)
    return model, processor, make_lora(options)


def warn_of_small_pictures(rows: Dataset, processor: PaliGemmaProcessor) -> None:
    """Small print is lost before the base sees it, where the dataset was built for a smaller one."""
    wanted = processor.image_processor.size["height"]
    first = rows.select(range(min(20, len(rows))))
    sizes = [max(load_row_image(row).size) for row in first if row["image"] is not None]
    num_smaller = sum(size < wanted for size in sizes)
    if 2 * num_smaller > len(sizes):
        logger.warning(
            "%s of the first %s pictures are smaller than the %s px that the base takes in: dataset_builder.build "
            "--image_size %s or more keeps what they show, if the originals are larger",
            num_smaller, len(sizes), wanted, wanted,
        )  # fmt: skip


def make_lora(options: ModelOptions) -> LoraConfig:
    return LoraConfig(
        r=options.lora_r,
        lora_alpha=options.lora_alpha,
        lora_dropout=options.lora_dropout,
        target_modules=options.lora_target_modules,
        use_rslora=options.use_rslora,
        use_dora=options.use_dora,
        task_type="CAUSAL_LM",
    )
