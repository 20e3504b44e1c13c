"""How much memory a run will take, before anything is loaded: counted on the base's shape, without its weights."""

import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from product_vqa.errors import InputError

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from transformers import PaliGemmaConfig, PaliGemmaForConditionalGeneration

    from training.options import ModelOptions, TrainingOptions

TEXT_TOKENS = 20  # question, answer, and the tokens around them
ANSWER_TOKENS = 8  # the labelled ones, whose logits are made
# Of a 4-bit weight: half a byte, one 8-bit scale for 64 weights, one 32-bit scale for 256 of these.
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
GB = 1e9


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that one process holds at the widest point of a step."""

    weights: int  # of the frozen base
    adapter: int  # its weights and gradients, float32
    optimizer: int
    activations: int  # what the backward pass needs of a batch, and the logits
    rows: int  # in that batch

    @property
    def total(self) -> int:
        return self.weights + self.adapter + self.optimizer + self.activations

    def __str__(self) -> str:
        """`memory, about 5.4 GB: weights 2.9, adapter 0.1, optimizer 0.1, activations of 8 rows 2.3`"""
        parts = {
            "weights": self.weights,
            "adapter": self.adapter,
            "optimizer": self.optimizer,
            f"activations of {self.rows} rows": self.activations,
        }
        listed = ", ".join(f"{name} {size / GB:.1f}" for name, size in parts.items())
        return f"memory, about {self.total / GB:.1f} GB: {listed}"


def estimate_memory(
    config: "PaliGemmaConfig",
    lora: "LoraConfig",
    *,
    dtype: torch.dtype,
    load_in_4bit: bool,
    rows: int,
    optim: str = "adamw_torch",
    gradient_checkpointing: bool = False,
) -> MemoryEstimate:
    """The base and its adapter are built of empty tensors and run on one row; what autograd keeps is counted.

    Not in it: what a framework takes for itself (CUDA about 0.5 GB), fragments, the short-lived results within a
    layer. Raises ValueError, as peft does, where `lora` fits no layer.
    """
    from torch._subclasses import FakeTensorMode

    tokens = row_tokens(config)
    model, adapted = build_empty(config, lora, dtype=dtype)
    frozen = [parameter for parameter in adapted.parameters() if not parameter.requires_grad]
    weights = sum(parameter.numel() for parameter in frozen) * dtype.itemsize
    if load_in_4bit:
        quantized = sum(
            parameter.numel()
            for name, parameter in model.model.language_model.layers.named_parameters()
            if name.endswith("proj.base_layer.weight") or name.endswith("proj.weight")
        )
        weights -= int(quantized * (dtype.itemsize - NF4_BYTES))
    trainable = adapted.get_nb_trainable_parameters()[0]
    with FakeTensorMode():
        fill_with_fakes(model)
        one, two = (_kept_for_backward(model, rows=number, tokens=tokens, dtype=dtype) for number in (1, 2))
    kept, fixed = two - one, 2 * one - two  # of each row, and of none: DoRA keeps copies of weights

    text = config.get_text_config()
    if gradient_checkpointing:  # the layers' inputs, and one layer at a time
        kept = text.num_hidden_layers * tokens * text.hidden_size * dtype.itemsize + kept // text.num_hidden_layers
        fixed //= text.num_hidden_layers
    logits = ANSWER_TOKENS * text.vocab_size * (dtype.itemsize + 2 * 4)  # and as float32, and their gradient
    return MemoryEstimate(
        weights=weights,
        adapter=trainable * (4 + 4),
        optimizer=trainable * (2 if "8bit" in optim else 8),
        activations=rows * (kept + logits) + fixed,
        rows=rows,
    )


def row_tokens(config: "PaliGemmaConfig") -> int:
    """Of a row: its picture's, its question's and its answer's."""
    return (config.vision_config.image_size // config.vision_config.patch_size) ** 2 + TEXT_TOKENS


def build_empty(
    config: "PaliGemmaConfig", lora: "LoraConfig", *, dtype: torch.dtype
) -> tuple["PaliGemmaForConditionalGeneration", "PeftModel"]:
    """The base in its precision, and the same with its adapter, without weights (on the device `meta`)."""
    from peft import get_peft_model
    from transformers import PaliGemmaForConditionalGeneration

    with torch.device("meta"):
        model = PaliGemmaForConditionalGeneration(config)
        model.to(dtype)
        return model, get_peft_model(model, lora)


def fill_with_fakes(model: torch.nn.Module) -> None:
    """Put the mode's tensors in the place of meta ones: autocast asks for a device."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                empty = torch.empty(parameter.shape, dtype=parameter.dtype)
                module._parameters[name] = torch.nn.Parameter(empty, requires_grad=parameter.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)


class _Kept:
    """A tensor that the graph keeps, and gone with the graph."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor


def _kept_for_backward(model: torch.nn.Module, *, rows: int, tokens: int, dtype: torch.dtype) -> int:
    """Bytes that autograd keeps of rows in the language model, the only part that gradients go through.

    peft's DoRA computes more than it keeps: it detaches a weight's norm from the graph that made it.
    """
    embedded = torch.empty(rows, tokens, model.config.get_text_config().hidden_size, dtype=dtype)
    parameters = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    graph: weakref.WeakSet[_Kept] = weakref.WeakSet()

    def keep(tensor: torch.Tensor) -> _Kept:
        kept = _Kept(tensor)
        graph.add(kept)
        return kept

    with (
        torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda kept: kept.tensor),
    ):
        model.train()
        output = model.model.language_model(inputs_embeds=embedded, use_cache=False)
        storages = {kept.tensor.untyped_storage()._cdata: kept.tensor.untyped_storage() for kept in graph}
        del output  # the graph had to live until here
    return sum(storage.nbytes() for number, storage in storages.items() if number not in parameters)


def estimate_run(
    config: "PaliGemmaConfig", model_options: "ModelOptions", options: "TrainingOptions"
) -> MemoryEstimate:
    """How much memory these options will take on one device. Raises InputError where no layer is to be adapted."""
    from product_vqa.distributed import init_distributed
    from product_vqa.modeling.loading import resolve_dtype
    from training.loading import make_lora

    try:
        return estimate_memory(
            config,
            make_lora(model_options),
            dtype=resolve_dtype(model_options.dtype, device=init_distributed().device),
            load_in_4bit=model_options.load_in_4bit,
            rows=options.per_device_train_batch_size,
            optim=str(options.optim),
            gradient_checkpointing=bool(options.gradient_checkpointing),
        )
    except ValueError as error:
        if "arget modules" not in str(error):
            raise
        raise InputError(f"lora_target_modules: {error}") from error


def device_memory(device: torch.device) -> int:
    """Bytes of the GPU, or of the machine for a CPU."""
    import psutil

    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return psutil.virtual_memory().total


def advice(estimate: MemoryEstimate, available: int) -> str | None:
    """What to do where it will not fit; None where it should."""
    if estimate.total < 0.9 * available:
        return None
    fixed = estimate.total - estimate.activations
    a_row = estimate.activations / estimate.rows
    rows = int((0.9 * available - fixed) / a_row)
    if rows >= 1:
        remedy = (
            f"--per_device_train_batch_size {rows} or less, with --gradient_accumulation_steps so much higher that "
            "their product stays; or --gradient_checkpointing true (45 percent more compute)"
        )
    else:
        remedy = "--load_in_4bit true, --gradient_checkpointing true, or a base of fewer pixels or parameters"
    return f"this will hardly fit into {available / GB:.1f} GB: {remedy}"
