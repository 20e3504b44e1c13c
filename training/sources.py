"""What a run starts from: the base, the dataset, and the names under which adapter and card will mention them."""

import logging
from dataclasses import dataclass

import yaml
from datasets import Dataset
from huggingface_hub import ModelCard, constants
from peft import LoraConfig
from transformers import PaliGemmaForConditionalGeneration, PaliGemmaProcessor

from product_vqa.cards import CARD_FILE
from product_vqa.command import InputError
from product_vqa.dataset import load_splits
from product_vqa.hub import Location, fetch, locate
from product_vqa.paligemma import check_image_size, load_base, load_processor, resolve_dtype
from product_vqa.processes import join_processes
from training.evaluation import sample_rows
from training.options import DatasetOptions, ModelOptions

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
    base = locate(model_options.model_name_or_path, flag="--model_name_or_path", revision=model_options.model_revision)
    dataset = locate(
        dataset_options.dataset_name,
        flag="--dataset_name",
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
        folder = fetch(base, flag="--model_name_or_path", patterns=[CARD_FILE, ".gitattributes"])
        file = folder / CARD_FILE
        return ModelCard(file.read_text(encoding="utf-8")).data.license if file.is_file() else None
    except (ValueError, yaml.YAMLError) as error:  # InputError is one, and so is metadata that cannot be read
        if not constants.HF_HUB_OFFLINE and isinstance(error, InputError):
            raise
        logger.warning("The licence of %s is not known here: the adapter's card names none (%s)", base, error)
        return None


def load_data(sources: Sources, options: DatasetOptions, *, seed: int) -> tuple[Dataset, Dataset | None]:
    """The rows to learn from, and those to score on (None where there are none or none are wanted)."""
    train_name, test_name = options.dataset_train_split, options.dataset_test_split
    with join_processes().main_process_first():  # one process fetches, the others find it in the cache
        splits = load_splits(sources.dataset, [train_name, test_name], flag="--dataset_name")
    if train_name not in splits:
        raise InputError(f"--dataset_name {sources.dataset} has no split {train_name!r} (--dataset_train_split)")
    train, test = splits[train_name], splits.get(test_name)
    if options.max_train_samples is not None and options.max_train_samples < len(train):
        train = train.shuffle(seed=seed).select(range(options.max_train_samples))
    if test is not None and options.max_eval_samples:
        test = sample_rows(test, options.max_eval_samples, seed=seed)
        return train, test
    return train, None


def load_model(
    sources: Sources, options: ModelOptions
) -> tuple[PaliGemmaForConditionalGeneration, PaliGemmaProcessor, LoraConfig]:
    """The frozen base, its processor, and what is to be trained on it."""
    processor = load_processor(sources.base)
    device = join_processes().device
    model = load_base(
        sources.base,
        flag="--model_name_or_path",
        dtype=resolve_dtype(options.dtype, device=device),
        load_in_4bit=options.load_in_4bit,
        attn_implementation=options.attn_implementation,
        device=device if options.load_in_4bit else None,
    )
    check_image_size(model.config, processor, base=sources.base)
    return model, processor, make_lora(options)


def warn_of_small_pictures(rows: Dataset, processor: PaliGemmaProcessor) -> None:
    """Small print is lost before the base sees it, where the dataset was built for a smaller one."""
    wanted = processor.image_processor.size["height"]
    sizes = [max(image.size) for image in rows.select(range(min(20, len(rows))))["image"] if image is not None]
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
