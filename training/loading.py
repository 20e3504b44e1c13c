"""Find and load what a run starts from: the base model and the dataset, with the names that its adapter gives them."""

import logging
from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass
from functools import partial

import numpy as np
from accelerate import DistributedType
from datasets import Dataset
from huggingface_hub import constants
from peft import LoraConfig
from transformers import PaliGemmaForConditionalGeneration, PaliGemmaProcessor

from product_vqa.cards import CARD_FILE
from product_vqa.dataset import MAX_CARD_BYTES, count_entities, count_row_groups, load_splits
from product_vqa.disk_space import DiskPlan
from product_vqa.distributed import init_distributed
from product_vqa.documents import DocumentError, parse_front_matter, read_bytes
from product_vqa.downloads import (
    download_base_model,
    download_dataset,
    download_rows,
    plan_base_model,
    plan_dataset,
    plan_rows,
)
from product_vqa.errors import InputError, argument
from product_vqa.hub import Location, download, find_file, locate
from product_vqa.modeling.collator import load_row_image
from product_vqa.modeling.loading import check_image_size, load_base_model, load_processor, resolve_dtype
from product_vqa.schemas import load_schema
from product_vqa.streaming import count_streamed_entities, open_split
from product_vqa.task.attributes import Schema
from training.evaluation import sample_rows, split_rows
from training.options import DatasetOptions, ModelOptions, TrainingOptions, samples_per_step, steps_per_epoch
from training.oversampling import repeat_rows
from training.sample_order import BufferedShuffle, choose_samples
from training.streaming import StreamedRows, check_labels, describe_stream

MAX_LICENSE_LENGTH = 100
TRAIN_REMEDY = "choose a split with labels"
TEST_REMEDY = "choose a split with labels, or set `max_eval_samples` 0 to evaluate nothing"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sources:
    """Where the base model and the dataset are, and what the adapter and its card call them.

    The names never contain the path of a folder on this machine.
    """

    base_model: Location
    dataset: Location
    named_base_model: Location
    named_dataset: Location
    base_license: str | list[str] | None  # as the base model's card states it; the adapter inherits it
    schema: Schema  # the dataset's; the adapter answers its questions


def locate_sources(
    dataset_options: DatasetOptions, model_options: ModelOptions, *, is_published: bool = False
) -> Sources:
    """Find the base model and the dataset, pinned to commits.

    Raises InputError where one cannot be found, or if the adapter `is_published` and would name a base model that
    others cannot load.
    """
    with argument("model_name_or_path"):
        base_model = locate(model_options.model_name_or_path, revision=model_options.model_revision)
    with argument("dataset_name"):
        dataset = locate(
            dataset_options.dataset_name,
            repo_type="dataset",
            revision=dataset_options.dataset_revision,
        )
        schema = load_schema(dataset)
    named_dataset = dataset if dataset.folder is None else Location(dataset.folder.resolve().name)
    return Sources(
        base_model=base_model,
        dataset=dataset,
        named_base_model=_name_base_model(base_model, model_options, is_published=is_published),
        named_dataset=named_dataset,
        base_license=_read_license(base_model),
        schema=schema,
    )


def _name_base_model(base_model: Location, options: ModelOptions, *, is_published: bool) -> Location:
    """Return the repo that the adapter names as its base model: where that is a folder, `base_model_id`."""
    if base_model.folder is None:
        if options.base_model_id not in (None, base_model.name):
            raise InputError(
                f"`base_model_id` {options.base_model_id}: the base model is already named {base_model.name}"
            )
        return base_model
    if options.base_model_id:
        return Location(options.base_model_id)
    if is_published:
        raise InputError(
            f"`push_to_hub`: the base model is a folder ({options.model_name_or_path}), so others could not load the "
            "adapter's base model. Pass `base_model_id` user/name, the repo where they find it"
        )
    name = base_model.folder.resolve().name
    logger.warning(
        "The base model is a folder: the adapter will name it %r, which others cannot load. Pass `base_model_id` "
        "user/name, the repo where they find it.",
        name,
    )
    return Location(name)


def _read_license(base_model: Location) -> str | list[str] | None:
    """Read the license from the base model's card, which is downloaded like any file, so that offline it is cached."""
    try:
        # The second file is in every repo: a pattern without a match would cause a warning.
        with argument("model_name_or_path"):
            folder = download(base_model, patterns=[CARD_FILE, ".gitattributes"])
            file = find_file(base_model, folder, CARD_FILE)
        found = parse_front_matter(read_bytes(file, max_bytes=MAX_CARD_BYTES)).get("license") if file else None
        names = found if isinstance(found, list) else [found or ""]
        if not all(isinstance(name, str) and len(name) <= MAX_LICENSE_LENGTH for name in names):
            raise DocumentError("its license is not a name or a list of names")
    except (InputError, DocumentError, OSError) as error:
        if not constants.HF_HUB_OFFLINE and isinstance(error, InputError):
            raise
        logger.warning("The license of %s is unknown: the adapter's card will state none (%s)", base_model, error)
        return None
    return found


def download_sources(sources: Sources, options: DatasetOptions, *, more: DiskPlan) -> None:
    """Print what will be downloaded and written to disk, check that it fits, and download it.

    `more` is planned in addition. Every process downloads by itself, and the cache's locks let one of them do it. In a
    collective operation, the others could wait for the first one for ten minutes only (NCCL) or half an hour
    (`ddp_timeout`).
    """
    splits = [options.dataset_train_split, options.dataset_test_split]
    like = options.oversample_like
    if init_distributed().is_main_process:
        with argument("model_name_or_path"):
            plan = plan_base_model(sources.base_model)
        with argument("dataset_name"):
            if not options.streaming:
                plan += plan_dataset(sources.dataset, splits)
                if like is not None and like not in splits:
                    plan += plan_rows(sources.dataset, like)
        (plan + more).announce()
    with argument("model_name_or_path"):
        download_base_model(sources.base_model)
    if options.streaming:
        return
    with argument("dataset_name"):
        download_dataset(sources.dataset, splits)
        if like is not None:
            download_rows(sources.dataset, like)


@dataclass(frozen=True)
class Data:
    """The rows of a run. `eval` and `card` are None where there are none or none are wanted."""

    train: Dataset | StreamedRows
    eval: Dataset | None  # scored during training
    card: Dataset | None  # scored at the end for the model card, where the rows of `eval` select the checkpoint
    shuffle: BufferedShuffle | None = None  # of `train`, if it is not shuffled completely


def load_data(sources: Sources, options: DatasetOptions, *, seed: int, is_best_kept: bool) -> Data:
    """Load the rows to train and to evaluate on.

    With `is_best_kept` the rows of `eval` select a checkpoint; then they are at most half of their split, and others
    are for the card. Raises InputError for a split that is missing or has rows without a label.
    """
    if options.streaming:
        return _stream_data(sources.dataset, sources.schema, options, seed=seed, is_best_kept=is_best_kept)
    train_name, test_name = options.dataset_train_split, options.dataset_test_split
    # One process downloads; the others find the files in the cache.
    with init_distributed().main_process_first(), argument("dataset_name"):
        splits = load_splits(sources.dataset, [train_name, test_name])
    if train_name not in splits:
        raise _no_split(sources.dataset, train_name)
    train, test, shuffle = splits[train_name], splits.get(test_name), None
    if options.shuffle_buffer_size is not None:
        num_rows = np.array(count_row_groups(sources.dataset, train_name))
        rows = _choose_rows(num_rows, partial(_entities, train), sources.dataset, options, seed=seed)
        row_groups = np.repeat(np.arange(len(num_rows)), num_rows)[rows]
        train, shuffle = train.select(rows), BufferedShuffle(row_groups, options.shuffle_buffer_size, seed)
    elif options.max_train_samples is not None and options.max_train_samples < len(train):
        train = train.shuffle(seed=seed).select(range(options.max_train_samples))
    _check_labels(train, sources.schema, name=f"`dataset_train_split` {train_name}", remedy=TRAIN_REMEDY)
    if options.oversample_like is not None and shuffle is None:
        repeated = _repeat_rows(_entities(train), sources.dataset, options, seed=seed)
        train = train.select([*range(len(train)), *repeated])
    if test is None or not options.max_eval_samples:
        return Data(train, eval=None, card=None, shuffle=shuffle)
    _check_labels(test, sources.schema, name=f"`dataset_test_split` {test_name}", remedy=TEST_REMEDY)
    chosen, others = _choose_test_rows(test, options, seed=seed, is_best_kept=is_best_kept)
    return Data(train, eval=chosen, card=others, shuffle=shuffle)


def _stream_data(dataset: Location, schema: Schema, options: DatasetOptions, *, seed: int, is_best_kept: bool) -> Data:
    """Find the rows to train on, which are read during training, and load those to evaluate on into memory.

    They are the rows that `load_data` loads from a copy on disk with the same `shuffle_buffer_size`.
    """
    assert options.shuffle_buffer_size is not None
    with argument("dataset_name"):
        train = open_split(dataset, options.dataset_train_split)
        test = open_split(dataset, options.dataset_test_split) if options.max_eval_samples else None
    if train is None:
        raise _no_split(dataset, options.dataset_train_split)
    rows = StreamedRows(
        train, schema=schema, rows=_choose_rows(train.num_rows, train.entities, dataset, options, seed=seed)
    )
    shuffle = BufferedShuffle(rows.row_groups, options.shuffle_buffer_size, seed)
    if init_distributed().is_main_process:
        logger.info(describe_stream(rows, test))
    if len(rows):
        rows[0]  # a split without labels, or without images, is refused before the base model is loaded
    if test is None:
        return Data(rows, eval=None, card=None, shuffle=shuffle)
    with argument("dataset_name"):
        table = Dataset.from_dict({"index": range(len(test)), "entity_name": test.entities()})
        chosen, others = _choose_test_rows(table, options, seed=seed, is_best_kept=is_best_kept)
        check = partial(check_labels, schema=schema, name=f"`dataset_test_split` {test.split}", remedy=TEST_REMEDY)
        loaded = test.load([*chosen["index"], *(others["index"] if others is not None else ())], check=check)
    card = None if others is None else loaded.select(range(len(chosen), len(loaded)))
    return Data(rows, eval=loaded.select(range(len(chosen))), card=card, shuffle=shuffle)


def _entities(rows: Dataset) -> list[str]:
    return rows.select_columns("entity_name")["entity_name"][:]


def _no_split(dataset: Location, split: str) -> InputError:
    return InputError(f"`dataset_name` {dataset} has no split {split!r} (`dataset_train_split`)")


def _choose_rows(
    num_rows: np.ndarray,
    read_entities: Callable[[], Sequence[str]],
    dataset: Location,
    options: DatasetOptions,
    *,
    seed: int,
) -> np.ndarray:
    """Choose the rows of a run that reads row groups of `num_rows` rows; some may be repeated."""
    rows = choose_samples(num_rows, options.max_train_samples or int(num_rows.sum()), seed=seed)
    if options.oversample_like is not None:
        with argument("dataset_name"):
            entities = read_entities()
        repeated = _repeat_rows([entities[row] for row in rows], dataset, options, seed=seed)
        rows = np.concatenate([rows, rows[repeated]])
    return rows


def _choose_test_rows(
    test: Dataset, options: DatasetOptions, *, seed: int, is_best_kept: bool
) -> tuple[Dataset, Dataset | None]:
    """Choose the rows of the evaluation, and those for the card."""
    if not is_best_kept or len(test) < 2:
        return sample_rows(test, options.max_eval_samples, seed=seed), None
    chosen, others = split_rows(test, min(options.max_eval_samples, len(test) // 2), seed=seed)
    return chosen, sample_rows(others, options.max_card_samples, seed=seed) if options.max_card_samples else None


def _repeat_rows(entities: Sequence[str], dataset: Location, options: DatasetOptions, *, seed: int) -> list[int]:
    """Choose the rows that `oversample_like` repeats."""
    split = options.oversample_like
    assert split is not None
    count = count_streamed_entities if options.streaming else count_entities
    with init_distributed().main_process_first(), argument("oversample_like"):
        counts = count(dataset, split)
    repeated, added = repeat_rows(entities, counts, seed=seed)
    if init_distributed().is_main_process:
        listed = ", ".join(f"{entity} +{number}" for entity, number in added.items()) or "none"
        print(f"rows repeated to approach the distribution of attributes in split {split}: {listed}")
    return repeated


def _check_labels(rows: Dataset, schema: Schema, *, name: str, remedy: str) -> None:
    """Raises InputError if a row has no label; an empty one counts where the schema says `not_shown`, if others have
    labels.
    """
    labels = rows.select_columns(["index", "entity_value", "entity_name"])
    columns = (labels[column][:] for column in ("index", "entity_value", "entity_name"))
    without = [(index, name) for index, value, name in zip(*columns, strict=True) if not value]
    may_be_empty = schema.not_shown if len(without) < len(rows) else ()
    unlabelled = [index for index, entity_name in without if entity_name not in may_be_empty]
    if unlabelled:
        raise InputError(
            f"{name}: {len(unlabelled)} of {len(rows)} rows have no label (entity_value is empty), the first of them "
            f"index {unlabelled[0]}: {remedy}"
        )


def check_steps(rows: Sized, options: TrainingOptions) -> None:
    """Raises InputError if the run would make no step."""
    if len(rows) == 0:
        raise InputError("`dataset_train_split`: the split has no rows")
    if steps_per_epoch(options, len(rows)) == 0:
        raise InputError(
            f"`dataloader_drop_last`: {len(rows)} rows are fewer than the {samples_per_step(options)} samples of one "
            "step, so the run would make no step; remove this setting, or lower `per_device_train_batch_size`"
        )


def load_model(
    sources: Sources, options: ModelOptions
) -> tuple[PaliGemmaForConditionalGeneration, PaliGemmaProcessor, LoraConfig]:
    """Load the frozen base model and its processor, and configure the adapter."""
    processor = load_processor(sources.base_model)
    state = init_distributed()
    # FSDP and DeepSpeed shard the weights onto the devices themselves.
    is_sharded = state.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)
    with argument("model_name_or_path"):
        model = load_base_model(
            sources.base_model,
            dtype=resolve_dtype(options.dtype, device=state.device),
            load_in_4bit=options.load_in_4bit,
            attn_implementation=options.attn_implementation,
            disable_logit_softcapping=options.disable_logit_softcapping,
            device=state.device if options.load_in_4bit or not is_sharded else None,
        )
    check_image_size(model.config, processor, base_model=sources.base_model)
    return model, processor, make_lora(options)


def warn_about_small_images(rows: Dataset | StreamedRows, processor: PaliGemmaProcessor) -> None:
    """Warn where the dataset was built for a smaller base model: small print is lost before this one sees it."""
    image_size = processor.image_processor.size["height"]
    first = [rows[position] for position in range(min(20, len(rows)))]
    sizes = [max(load_row_image(row).size) for row in first if row["image"] is not None]
    num_smaller = sum(size < image_size for size in sizes)
    if 2 * num_smaller > len(sizes):
        logger.warning(
            "%s of the first %s images are smaller than the base model's %s px. If the originals are larger, rebuild "
            "the dataset with dataset_builder.build --image_size %s or more.",
            num_smaller, len(sizes), image_size, image_size,
        )  # fmt: skip


def make_lora(options: ModelOptions) -> LoraConfig:
    """Configure the adapter."""
    return LoraConfig(
        r=options.lora_r,
        lora_alpha=options.lora_alpha,
        lora_dropout=options.lora_dropout,
        target_modules=options.lora_target_modules,
        use_rslora=options.use_rslora,
        use_dora=options.use_dora,
        task_type="CAUSAL_LM",
    )
