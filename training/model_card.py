"""The adapter's card: the root's `model_card.md`, filled with what this run was."""

import importlib.resources
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData, constants

import product_vqa
from product_vqa.hub import Location, page_url
from product_vqa.modeling.constrained_decoding import max_answer_tokens
from product_vqa.modeling.loading import UNQUANTIZED_MODULES, nf4_config
from product_vqa.task.prompt import format_prompt
from product_vqa.task.schema import ENTITIES
from training.loading import Sources
from training.trainer import PaliGemmaTrainer

# What an answer looks like; the first attribute that was trained is the card's example.
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


@dataclass(frozen=True)
class RunFacts:
    """What the card says of a run that its configuration does not."""

    adapter_id: str
    base: Location  # as the adapter names it
    base_license: str | list[str] | None
    dataset: Location
    image_size: int  # px
    base_precision: str
    trainable_parameters: int
    train_rows: int
    entities: list[str]  # that the training rows ask for, in the order of all eight
    rows_per_step: int
    steps: int
    epochs: float
    processes: int
    hardware: str
    minutes: float
    final_loss: float | None
    scores: dict[str, float] | None  # what `trainer.evaluate()` returned
    is_chosen_by: bool  # whether the rows of these scores choose the checkpoint that is kept
    max_new_tokens: int  # of the longest answer


def run_facts(
    trainer: PaliGemmaTrainer, sources: Sources, *, scores: dict[str, float] | None, is_chosen_by: bool
) -> RunFacts:
    """Gather from a trainer, after its training or on the way, what its card says."""
    args, model = trainer.args, trainer.model
    quantized = getattr(model.get_base_model(), "is_loaded_in_4bit", False)
    asked = set(trainer.train_dataset.unique("entity_name"))
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return RunFacts(
        adapter_id=trainer.hub_model_id or Path(args.output_dir).resolve().name,
        base=sources.named_base,
        base_license=sources.base_license,
        dataset=sources.named_dataset,
        image_size=model.config.vision_config.image_size,
        base_precision="4-bit NF4 (SigLIP, projector and lm_head not quantized)"
        if quantized
        else str(model.get_base_model().dtype).removeprefix("torch."),
        trainable_parameters=model.get_nb_trainable_parameters()[0],
        train_rows=len(trainer.train_dataset),
        entities=[name for name in ENTITIES if name in asked],
        rows_per_step=args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size,
        steps=trainer.state.global_step,
        epochs=trainer.state.epoch or 0.0,
        processes=args.world_size,
        hardware=torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        minutes=trainer.minutes(),
        final_loss=losses[-1] if losses else None,
        scores=scores,
        is_chosen_by=is_chosen_by,
        max_new_tokens=max_answer_tokens(trainer.processing_class.tokenizer),
    )


def make_card(facts: RunFacts, config: dict[str, Any], *, train_split: str, eval_split: str) -> ModelCard:
    """The card as published: metadata for the Hub's widgets, then text, whose every command runs as it stands."""
    adapter_name = facts.adapter_id.split("/")[-1]
    example = next(name for name in _EXAMPLE_ANSWERS if name in facts.entities)
    return ModelCard.from_template(
        _metadata(facts, name=adapter_name, eval_split=eval_split),
        template_path=str(_template()),
        title=adapter_name,
        adapter_id=facts.adapter_id,
        adapter_name=adapter_name,
        base_id=facts.base.name,
        base_link=_link(facts.base),
        base_revision_argument=f', revision="{facts.base.revision}"' if facts.base.revision else "",
        base_revision_text=_at(facts.base),
        dataset_id=facts.dataset.name,
        dataset_link=_link(facts.dataset, repo_type="dataset"),
        dataset_revision_text=_at(facts.dataset),
        train_split=train_split,
        eval_split=eval_split,
        train_rows=facts.train_rows,
        image_size=facts.image_size,
        base_precision=facts.base_precision,
        dtype=config["dtype"],
        load_in_4bit=config["load_in_4bit"],
        compute_dtype=str(nf4_config(getattr(torch, config["dtype"])).bnb_4bit_compute_dtype).removeprefix("torch."),
        unquantized_modules=json.dumps(UNQUANTIZED_MODULES),
        max_new_tokens=facts.max_new_tokens,
        adapter_kind="DoRA" if config.get("use_dora") else "rsLoRA" if config.get("use_rslora") else "LoRA",
        lora_r=config["lora_r"],
        lora_alpha=config["lora_alpha"],
        trainable_parameters=facts.trainable_parameters,
        steps=facts.steps,
        batch_size=facts.rows_per_step,
        epochs=f"{facts.epochs:.2f}",
        processes=facts.processes,
        hardware=facts.hardware,
        minutes=f"{facts.minutes:.1f}",
        final_loss="unknown" if facts.final_loss is None else f"{facts.final_loss:.4f}",
        scores=_score_table(facts.scores) if facts.scores else None,
        scored_rows=int(facts.scores["eval_samples"]) if facts.scores else 0,
        is_chosen_by=facts.is_chosen_by,
        software=_software(),
        config=yaml.safe_dump(config, sort_keys=True).strip(),
        entities=[entity.replace("_", " ") for entity in facts.entities],
        example_question=format_prompt(example),
        example_answer=_EXAMPLE_ANSWERS[example],
    )


def _template() -> Path:
    """`model_card.md`: inside the package where it was installed as a wheel, else at the root of the checkout."""
    packaged = importlib.resources.files(product_vqa) / "model_card.md"
    root = Path(product_vqa.__file__).parent.parent / "model_card.md"
    return Path(str(packaged)) if packaged.is_file() else root


def _score_table(scores: dict[str, float]) -> dict[str, str]:
    named = {
        title: f"{scores[f'eval_{name}']:.4f} ({scores[f'eval_{name}_low']:.4f} to {scores[f'eval_{name}_high']:.4f})"
        for name, title in (
            ("f1_quantity", "F1, number and unit"),
            ("f1", "F1, exact string (the challenge's own)"),
        )
    }
    exact = {
        f"right number and unit: {entity.replace('_', ' ')}": f"{scores[f'eval_exact_{entity}']:.4f}"
        for entity in ENTITIES
        if f"eval_exact_{entity}" in scores
    }
    return named | exact


def _link(location: Location, *, repo_type: str = "model") -> str:
    """A link to the repo's page; only its name where it is a folder, or lies on a Hub of somebody's own."""
    if location.revision is None or constants.ENDPOINT != "https://huggingface.co":
        return f"`{location.name}`"
    return f"[{location.name}]({page_url(location.name, repo_type=repo_type)})"


def _at(location: Location) -> str:
    return f" at `{location.revision[:12]}`" if location.revision else ""


def _software() -> list[str]:
    from importlib.metadata import version

    names = ("torch", "transformers", "trl", "peft", "accelerate", "bitsandbytes", "datasets")
    return [f"product-vqa {product_vqa.__version__}", *(f"{name} {version(name)}" for name in names)]


def _metadata(facts: RunFacts, *, name: str, eval_split: str) -> ModelCardData:
    scores = facts.scores
    results = []
    for metric, label in (
        (("eval_f1_quantity", "F1, number and unit"), ("eval_f1", "F1, exact string")) if scores else ()
    ):
        results.append(
            EvalResult(
                task_type="visual-question-answering",
                dataset_type=facts.dataset.name,
                dataset_name=facts.dataset.name,
                dataset_split=eval_split,
                dataset_revision=facts.dataset.revision,
                metric_type="f1",
                metric_name=label,
                metric_value=round(float(scores[metric]), 4),
            )
        )
    return ModelCardData(
        base_model=facts.base.name,
        datasets=[facts.dataset.name] if "/" in facts.dataset.name else None,
        language="en",
        library_name="peft",
        license=facts.base_license,
        pipeline_tag="image-text-to-text",
        tags=["paligemma", "lora", "visual-question-answering", "product-attributes"],
        model_name=name if results else None,
        eval_results=results or None,
    )
