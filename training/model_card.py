"""The adapter's model card: the root's `model_card.md`, filled in with what a run was."""

import importlib.resources
import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData, constants

import product_vqa
from product_vqa.hub import Location, page_url
from product_vqa.modeling.constrained_decoding import max_answer_tokens
from product_vqa.modeling.loading import UNQUANTIZED_MODULES, nf4_config
from product_vqa.task.attributes import Attribute, Schema
from product_vqa.task.kinds import (
    SEPARATOR,
    ChoiceKind,
    IntegerKind,
    MultiChoiceKind,
    PatternKind,
    QuantityKind,
    TextKind,
)
from product_vqa.task.schema import is_challenge
from training.loading import Sources
from training.options import samples_per_step
from training.streaming import StreamedRows
from training.trainer import PaliGemmaTrainer

# Typical answers; the card shows that of the first trained attribute.
_EXAMPLE_ANSWERS = {
    "item_weight": "500.0 gram",
    "item_volume": "250.0 millilitre",
    "height": "12.5 centimetre",
    "width": "12.5 centimetre",
    "depth": "12.5 centimetre",
    "voltage": "230.0 volt",
    "wattage": "60.0 watt",
    "maximum_weight_recommendation": "5.0 kilogram",
}
_SCORES = {"f1_quantity": "F1, number and unit", "f1": "F1, exact string"}
_LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "bitsandbytes", "datasets")


@dataclass(frozen=True)
class TrainingFacts:
    """What the card says about a training beyond its configuration; `model_card.md` uses these names."""

    adapter_id: str
    base_model: Location  # as the adapter names it
    base_license: str | list[str] | None
    dataset: Location
    image_size: int  # px
    base_precision: str
    trainable_parameters: int
    train_rows: int  # with those that `oversample_like` repeats
    distinct_rows: int
    entities: list[str]  # those in the training rows, in the order of the schema
    samples_per_step: int
    steps: int
    epochs: float
    processes: int
    hardware: str
    minutes: float
    final_loss: float | None
    scores: dict[str, float] | None  # as `trainer.evaluate()` returns them
    is_selected_by_scores: bool  # whether the rows of these scores selected the checkpoint that is kept
    max_new_tokens: int  # of the longest answer
    schema: Schema


def describe_training(
    trainer: PaliGemmaTrainer,
    sources: Sources,
    *,
    adapter_id: str,
    scores: dict[str, float] | None,
    is_selected_by_scores: bool,
) -> TrainingFacts:
    """Collect what the card says from a trainer, after its training or during it."""
    args, model = trainer.args, trainer.model
    base_precision = str(model.get_base_model().dtype).removeprefix("torch.")
    if getattr(model.get_base_model(), "is_loaded_in_4bit", False):
        base_precision = "4-bit NF4 (SigLIP, projector and lm_head not quantized)"
    rows = trainer.train_dataset
    if isinstance(rows, StreamedRows):
        trained_entities, distinct_rows = rows.entities(), rows.num_distinct
    else:
        trained_entities, distinct_rows = set(rows.unique("entity_name")), len(rows.unique("index"))
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return TrainingFacts(
        adapter_id=adapter_id,
        base_model=sources.named_base_model,
        base_license=sources.base_license,
        dataset=sources.named_dataset,
        image_size=model.config.vision_config.image_size,
        base_precision=base_precision,
        trainable_parameters=model.get_nb_trainable_parameters()[0],
        train_rows=len(rows),
        distinct_rows=distinct_rows,
        entities=[name for name in sources.schema.names if name in trained_entities],
        samples_per_step=samples_per_step(args),
        steps=trainer.state.global_step,
        epochs=trainer.state.epoch or 0.0,
        processes=args.world_size,
        hardware=torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        minutes=trainer.minutes(),
        final_loss=losses[-1] if losses else None,
        scores=scores,
        is_selected_by_scores=is_selected_by_scores,
        max_new_tokens=max_answer_tokens(trainer.processing_class.tokenizer, schema=sources.schema),
        schema=sources.schema,
    )


def make_card(training: TrainingFacts, config: dict[str, Any]) -> ModelCard:
    """Render the card: metadata for the Hub, then text. All commands and code in it run as they are.

    `config` is the resolved configuration of the run (`training.run_config`).
    """
    adapter_name = training.adapter_id.split("/")[-1]
    eval_split = config["dataset_test_split"]
    schema = training.schema
    order = [name for name in _EXAMPLE_ANSWERS if name in schema.attributes] if is_challenge(schema) else schema.names
    example = schema[next(name for name in order if name in training.entities)]
    compute_dtype = nf4_config(getattr(torch, config["dtype"])).bnb_4bit_compute_dtype
    return ModelCard.from_template(
        _make_metadata(training, adapter_name=adapter_name, eval_split=eval_split),
        template_path=str(_template()),
        training=training,
        config=config,
        config_yaml=yaml.safe_dump(config, sort_keys=True).strip(),
        adapter_name=adapter_name,
        adapter_kind=_adapter_kind(config),
        base_model_link=_link(training.base_model),
        base_model_commit=_at_commit(training.base_model),
        dataset_link=_link(training.dataset, repo_type="dataset"),
        dataset_commit=_at_commit(training.dataset),
        eval_split=eval_split,
        compute_dtype=str(compute_dtype).removeprefix("torch."),
        unquantized_modules=json.dumps(UNQUANTIZED_MODULES),
        score_table=_make_score_table(training.scores, schema) if training.scores else None,
        is_challenge=is_challenge(schema),
        software=[f"product-vqa {product_vqa.__version__}", *(f"{name} {version(name)}" for name in _LIBRARIES)],
        entities=[name.replace("_", " ") for name in training.entities],
        silent=[name.replace("_", " ") for name in training.entities if schema[name].not_shown],
        not_silent=[name.replace("_", " ") for name in training.entities if not schema[name].not_shown],
        example_question=example.question,
        example_answer=_EXAMPLE_ANSWERS[example.name] if is_challenge(schema) else _example_answer(example),
    )


def _example_answer(attribute: Attribute) -> str:
    """An answer, or what one looks like."""
    match attribute.kind:
        case QuantityKind() as kind:
            return f"{12 if kind.decimals == 0 else 12.5} {kind.units[0]}"
        case IntegerKind():
            return "12"
        case ChoiceKind(values):
            return next(iter(values))
        case MultiChoiceKind(values):
            return SEPARATOR.join(list(values)[:2])
        case PatternKind(pattern):
            return pattern.text
        case TextKind():
            return "any text"


def _template() -> Path:
    """Find `model_card.md`: in the package where it was installed as a wheel, else at the root of the checkout."""
    packaged = importlib.resources.files(product_vqa) / "model_card.md"
    root = Path(product_vqa.__file__).parent.parent / "model_card.md"
    return Path(str(packaged)) if packaged.is_file() else root


def _adapter_kind(config: dict[str, Any]) -> str:
    if config.get("use_dora"):
        return "DoRA"
    return "rsLoRA" if config.get("use_rslora") else "LoRA"


def _make_score_table(scores: dict[str, float], schema: Schema) -> dict[str, str]:
    table = {}
    for name, title in _score_titles(schema).items():
        value, low, high = (scores[f"eval_{name}{suffix}"] for suffix in ("", "_low", "_high"))
        note = " (the challenge's score)" if name == "f1" and is_challenge(schema) else ""
        table[f"{title}{note}"] = f"{value:.4f} ({low:.4f} to {high:.4f})"
    for entity, attribute in schema.attributes.items():
        if f"eval_exact_{entity}" in scores:
            right = "right number and unit" if isinstance(attribute.kind, QuantityKind) else "right answer"
            table[f"{right}: {entity.replace('_', ' ')}"] = f"{scores[f'eval_exact_{entity}']:.4f}"
    return table


def _score_titles(schema: Schema) -> dict[str, str]:
    has_quantities_only = all(isinstance(one.kind, QuantityKind) for one in schema.attributes.values())
    return _SCORES if has_quantities_only else _SCORES | {"f1_quantity": "F1, in canonical form"}


def _link(location: Location, *, repo_type: str = "model") -> str:
    """Link a repo's page; only its name where it is a folder or on another Hub."""
    if location.revision is None or constants.ENDPOINT != "https://huggingface.co":
        return f"`{location.name}`"
    return f"[{location.name}]({page_url(location.name, repo_type=repo_type)})"


def _at_commit(location: Location) -> str:
    return f" at commit `{location.revision[:12]}`" if location.revision else ""


def _make_metadata(training: TrainingFacts, *, adapter_name: str, eval_split: str) -> ModelCardData:
    scores = training.scores
    results = [
        EvalResult(
            task_type="visual-question-answering",
            dataset_type=training.dataset.name,
            dataset_name=training.dataset.name,
            dataset_split=eval_split,
            dataset_revision=training.dataset.revision,
            metric_type="f1",
            metric_name=title,
            metric_value=round(float(scores[f"eval_{name}"]), 4),
        )
        for name, title in _score_titles(training.schema).items()
        if scores
    ]
    return ModelCardData(
        base_model=training.base_model.name,
        datasets=[training.dataset.name] if "/" in training.dataset.name else None,
        language="en",
        library_name="peft",
        license=training.base_license,  # type: ignore[arg-type]  # a list too, as in any card
        pipeline_tag="image-text-to-text",
        tags=["paligemma", "lora", "visual-question-answering", "product-attributes"],
        model_name=adapter_name if results else None,
        eval_results=results or None,
    )
