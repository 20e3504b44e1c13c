"""Targets for the vision tower: what each patch of an image shows.

A few words about a complete image teach a new tower nothing in the available time; a target for each patch does. The
heads that predict the targets are not part of the saved base model.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from product_vqa.task.schema import ENTITIES
from quickstart.rendering.drawing import SIZE, Character
from quickstart.rendering.label_text import Fact, Label, Line


class Head(NamedTuple):
    """One prediction about a patch. A character belongs to the patch that contains the middle of its cell."""

    classes: int
    weight: float  # in the loss


_SPACE = 95  # class of a space in `previous`; the other characters are printable ASCII, `!` is 1 and `~` is 94
HEADS = {
    "first": Head(96, 1.0),  # the patch's first character; 0 if there is none
    "second": Head(96, 0.5),  # its second character; 0 if there is none
    "line": Head(8, 0.3),  # the number of the line, from 1
    "position": Head(28, 0.1),  # of the first character in the line, from 1
    "previous": Head(96, 0.5),  # the character before the first; 0 at the start of the line
    "meaning": Head(3 + len(ENTITIES), 0.5),  # of the line: brand 1, other 2, or an entity from 3
    "number_position": Head(11, 0.5),  # of the first character in the number, 1..9; 10 after it, 0 before it
}
_CLASSES = [head.classes for head in HEADS.values()]


def patch_targets(label: Label, characters: Sequence[Character], *, grid: int) -> np.ndarray:
    """(heads, grid * grid) int64 for one image: patches row by row, from the upper left."""
    targets = np.zeros((len(HEADS), grid * grid), dtype=np.int64)
    first, second, line, position, previous, meaning, number_position = targets
    for character in characters:
        printed = label.lines[character.line]
        column, row = (min(grid - 1, int(middle / SIZE * grid)) for middle in (character.x, character.y))
        patch = row * grid + column
        if first[patch]:
            if not second[patch]:
                second[patch] = _class_of(character.char)
            continue
        first[patch] = _class_of(character.char)
        line[patch] = min(character.line + 1, 7)
        position[patch] = min(character.position + 1, 27)
        if character.position:
            previous[patch] = _class_of(printed.text[character.position - 1])
        fact = _fact_at(printed, character.position)
        if fact is None:
            meaning[patch] = 1 if printed.is_brand else 2
            continue
        meaning[patch] = 3 + ENTITIES.index(fact.entity_name)
        offset = character.position - fact.position
        if offset >= 0:
            is_in_number = offset < len(fact.number)
            number_position[patch] = min(offset + 1, 9) if is_in_number else 10
    return targets


def _fact_at(line: Line, position: int) -> Fact | None:
    """The fact that a character belongs to: in `W 30 x H 20 in` the width's end with the 30."""
    for fact in line.facts:
        if position < fact.position + len(fact.number):
            return fact
    return line.facts[-1] if line.facts else None


def _class_of(char: str) -> int:
    return _SPACE if char == " " else ord(char) - 32


def make_heads(hidden_size: int) -> torch.nn.Linear:
    """All heads as one layer on the tower's last hidden state."""
    return torch.nn.Linear(hidden_size, sum(_CLASSES))


def patch_loss(heads: torch.nn.Linear, hidden: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, float]:
    """The loss, and the share of printed patches whose first character is predicted correctly.

    hidden: (B, N, H); targets: (heads, B, N). On empty patches only the characters are supervised, and only on every
    fourth of them.
    """
    logits = heads(hidden).float().split(_CLASSES, dim=-1)
    is_printed = targets[0] > 0
    loss = hidden.new_zeros(())
    for predicted, target, (name, head) in zip(logits, targets, HEADS.items(), strict=True):
        loss = loss + head.weight * F.cross_entropy(predicted[is_printed], target[is_printed])
        if name in ("first", "second"):
            empty_loss = F.cross_entropy(predicted[~is_printed][::4], target[~is_printed][::4])
            loss = loss + 0.3 * head.weight * empty_loss
    accuracy = (logits[0].argmax(-1) == targets[0])[is_printed].float().mean().item()
    return loss, accuracy
