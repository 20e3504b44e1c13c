"""How much memory a run will take, estimated from the base model's config before any weights are loaded."""

import weakref
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch._subclasses import FakeTensorMode
from transformers import PaliGemmaConfig, PaliGemmaForConditionalGeneration

from product_vqa.distributed import init_distributed
from product_vqa.errors import InputError
from product_vqa.modeling.loading import resolve_dtype
from training.loading import make_lora
from training.options import ModelOptions, TrainingOptions

TEXT_TOKENS = 20  # of the question, the answer, and the tokens around them
ANSWER_TOKENS = 8  # those with a label, whose logits are computed
# Bytes of a 4-bit weight: half a byte, one 8-bit scale per 64 weights, one 32-bit scale per 256 of these.
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
GB = 1e9


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that one process holds at the peak of a step."""

    weights: int  # of the frozen base model
    adapter: int  # its weights and gradients, float32
    optimizer: int
    activations: int  # what the backward pass needs of a micro-batch, and the logits
    samples: int  # in that micro-batch

    @property
    def total(self) -> int:
        return self.weights + self.adapter + self.optimizer + self.activations

    def __str__(self) -> str:
        """`memory, about 5.4 GB: weights 2.9, adapter 0.1, optimizer 0.1, activations of 8 samples 2.3`"""
        parts = {
            "weights": self.weights,
            "adapter": self.adapter,
            "optimizer": self.optimizer,
            f"activations of {self.samples} samples": self.activations,
        }
        listed = ", ".join(f"{name} {size / GB:.1f}" for name, size in parts.items())
        return f"memory, about {self.total / GB:.1f} GB: {listed}"


def estimate_run(config: PaliGemmaConfig, model_options: ModelOptions, options: TrainingOptions) -> MemoryEstimate:
    """Estimate the memory of these options on one device. Raises InputError if the adapter matches no layer."""
    try:
        return estimate_memory(
            config,
            make_lora(model_options),
            dtype=resolve_dtype(model_options.dtype, device=init_distributed().device),
            load_in_4bit=model_options.load_in_4bit,
            samples=options.per_device_train_batch_size,
            optim=str(options.optim),
            gradient_checkpointing=bool(options.gradient_checkpointing),
        )
    except ValueError as error:
        if "arget module" not in str(error):  # peft's message, which may print a whole layer
            raise
        raise InputError(f"`lora_target_modules`: {' '.join(str(error).split())[:300]}") from error


def estimate_memory(
    config: PaliGemmaConfig,
    lora: LoraConfig,
    *,
    dtype: torch.dtype,
    load_in_4bit: bool,
    samples: int,
    optim: str = "adamw_torch",
    gradient_checkpointing: bool = False,
) -> MemoryEstimate:
    """Run the base model and its adapter on empty tensors, and count what autograd keeps.

    Not included: what the framework itself takes (CUDA about 0.5 GB), fragmentation, and the short-lived results
    within a layer. Raises ValueError, as peft does, where `lora` matches no layer.
    """
    tokens = count_tokens(config)
    model, adapted = build_empty_model(config, lora, dtype=dtype)
    frozen = [parameter for parameter in adapted.parameters() if not parameter.requires_grad]
    weights = sum(parameter.numel() for parameter in frozen) * dtype.itemsize
    if load_in_4bit:
        quantized = sum(
            parameter.numel()
            for name, parameter in model.model.language_model.layers.named_parameters()
            if name.endswith(("proj.base_layer.weight", "proj.weight"))
        )
        weights -= int(quantized * (dtype.itemsize - NF4_BYTES))
    trainable = adapted.get_nb_trainable_parameters()[0]
    with FakeTensorMode():
        use_fake_tensors(model)
        one, two = (_kept_for_backward(model, samples=number, dtype=dtype) for number in (1, 2))
    per_sample = {tower: two[tower] - one[tower] for tower in one}
    fixed = {tower: one[tower] - per_sample[tower] for tower in one}  # whatever the number of samples: DoRA's copies

    text = config.get_text_config()
    if gradient_checkpointing:  # the inputs of all layers, and what one layer at a time keeps
        vision: Any = config.vision_config
        layers = {"vision": vision.num_hidden_layers, "language": text.num_hidden_layers}
        inputs = text.num_hidden_layers * tokens * text.hidden_size * dtype.itemsize
        if adapts_vision(adapted):
            inputs += vision.num_hidden_layers * (tokens - TEXT_TOKENS) * vision.hidden_size * dtype.itemsize
        kept = inputs + max(per_sample[tower] // layers[tower] for tower in layers)
        kept_once = max(fixed[tower] // layers[tower] for tower in layers)
    else:
        kept, kept_once = sum(per_sample.values()), sum(fixed.values())
    logits = ANSWER_TOKENS * text.vocab_size * (dtype.itemsize + 2 * 4)  # and as float32, and their gradient
    return MemoryEstimate(
        weights=weights,
        adapter=trainable * (4 + 4),
        optimizer=trainable * (2 if "8bit" in optim else 8),
        activations=samples * (kept + logits) + kept_once,
        samples=samples,
    )


def count_tokens(config: PaliGemmaConfig) -> int:
    """Return the number of tokens of one sample: its image, its question and its answer."""
    vision: Any = config.vision_config  # its annotation allows a dict, a list of sizes and more
    return int(vision.image_size // vision.patch_size) ** 2 + TEXT_TOKENS


def build_empty_model(
    config: PaliGemmaConfig, lora: LoraConfig, *, dtype: torch.dtype
) -> tuple[PaliGemmaForConditionalGeneration, PeftModel]:
    """Return the base model and the same with its adapter, without weights (on the device `meta`)."""
    with torch.device("meta"):
        model = PaliGemmaForConditionalGeneration(config)
        model.to(dtype)  # type: ignore[arg-type]  # typed by a decorator that drops the signature
        return model, get_peft_model(model, lora)


def adapts_vision(model: PeftModel) -> bool:
    """Return whether the adapter changes SigLIP, so that gradients flow through it."""
    return any("vision_tower" in name for name, parameter in model.named_parameters() if parameter.requires_grad)


def use_fake_tensors(model: torch.nn.Module) -> None:
    """Replace meta tensors by those of the active FakeTensorMode, because autocast asks for a device."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                empty = torch.empty(parameter.shape, dtype=parameter.dtype)
                module._parameters[name] = torch.nn.Parameter(empty, requires_grad=parameter.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)


class _Kept:
    """A tensor that the graph keeps; it disappears with the graph."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor


def _kept_for_backward(
    model: PaliGemmaForConditionalGeneration, *, samples: int, dtype: torch.dtype
) -> dict[str, int]:
    """Count the bytes that autograd keeps in SigLIP with the projector, "vision", and in the language model.

    It keeps something in SigLIP only if the adapter changes it. peft's DoRA computes more than it keeps: it detaches
    the norm of a weight from the graph that computed it.
    """
    vision: Any = model.config.vision_config
    pixels = torch.empty(samples, 3, vision.image_size, vision.image_size, dtype=dtype)
    text = torch.empty(samples, TEXT_TOKENS, model.config.get_text_config().hidden_size, dtype=dtype)
    parameters = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    graph: weakref.WeakSet[_Kept] = weakref.WeakSet()

    def keep(tensor: torch.Tensor) -> _Kept:
        kept = _Kept(tensor)
        graph.add(kept)
        return kept

    def count() -> int:
        storages = {kept.tensor.untyped_storage()._cdata: kept.tensor.untyped_storage() for kept in graph}
        return sum(storage.nbytes() for address, storage in storages.items() if address not in parameters)

    with (
        torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda kept: kept.tensor),
    ):
        model.train()
        image = model.get_image_features(pixels).pooler_output
        in_vision = count()
        output = model.model.language_model(inputs_embeds=torch.cat([image, text], dim=1), use_cache=False)
        in_both = count()
        del output  # it holds the graph, which had to exist until here
    return {"vision": in_vision, "language": in_both - in_vision}


def device_memory(device: torch.device) -> int:
    """Return the bytes of the GPU, or of the machine for a CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return psutil.virtual_memory().total


def advise(estimate: MemoryEstimate, available: int) -> str | None:
    """Return what to change where the run is unlikely to fit in `available` bytes; None where it should fit."""
    usable = 0.9 * available
    if estimate.total < usable:
        return None
    fixed = estimate.total - estimate.activations
    samples = int((usable - fixed) / (estimate.activations / estimate.samples))
    if samples >= 1:
        remedy = (
            f"lower `per_device_train_batch_size` to {samples} or less and raise `gradient_accumulation_steps` to "
            "keep their product, or set `gradient_checkpointing` true (45 percent more compute)"
        )
    else:
        remedy = (
            "set `load_in_4bit` true or `gradient_checkpointing` true, or choose a base model with a lower input "
            "resolution or fewer parameters"
        )
    return f"This is unlikely to fit in {available / GB:.1f} GB: {remedy}."
