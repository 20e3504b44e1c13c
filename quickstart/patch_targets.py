"""What a patch of the picture shows: targets for the vision tower, which learns to read from these first.

A handful of words about a whole picture teaches a fresh tower nothing in the time there is; a target for each of the
patches does. The heads that predict them are dropped when the base is written.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from product_vqa.task.schema import ENTITIES
from quickstart.drawing import SIZE, Character
from quickstart.printing import Label

# Name -> (classes, weight in the loss). A patch belongs to the character in whose cell's middle it lies; class 0 of
# the first two means that there is none.
HEADS = {
    "first": (96, 1.0),  # the character: printable ASCII from ! as 1..94
    "second": (96, 0.5),  # the next one, where two of them lie in the patch
    "line": (8, 0.3),  # from 1
    "position": (28, 0.1),  # in the line, from 1
    "previous": (96, 0.5),  # the character before the first; 0 at the line's beginning, 95 for a blank
    "meaning": (3 + len(ENTITIES), 0.5),  # of the line: brand 1, other 2, or an entity
    "place": (11, 0.5),  # of the first within the line's number, 1..9; 10 after the number
}
CLASSES = [classes for classes, _ in HEADS.values()]


def patch_targets(label: Label, characters: Sequence[Character], *, grid: int) -> np.ndarray:
    """(heads, grid * grid) int64 for one picture: patches in rows, from the upper left."""
    targets = np.zeros((len(HEADS), grid * grid), dtype=np.int64)
    first, second, line, position, previous, meaning, place = targets
    for character in characters:
        printed = label.lines[character.line]
        column, row = (min(grid - 1, int(middle / SIZE * grid)) for middle in (character.x, character.y))
        patch = row * grid + column
        code = ord(character.char) - 32
        if first[patch]:
            if not second[patch]:
                second[patch] = code
            continue
        first[patch] = code
        line[patch] = min(character.line + 1, 7)
        position[patch] = min(character.position + 1, 27)
        if character.position:
            before = printed.text[character.position - 1]
            previous[patch] = 95 if before == " " else ord(before) - 32
        meaning[patch] = 1 if printed.is_brand else 2
        for fact in printed.facts:
            meaning[patch] = 3 + ENTITIES.index(fact.entity_name)
            offset = character.position - fact.position
            if offset >= 0:
                place[patch] = min(offset + 1, 9) if offset < len(fact.number) else 10
    return targets


def make_heads(hidden_size: int) -> torch.nn.Linear:
    """All heads as one layer on the tower's last hidden state."""
    return torch.nn.Linear(hidden_size, sum(CLASSES))


def patch_loss(heads: torch.nn.Linear, hidden: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Loss, and the share of printed patches whose first character is right.

    hidden: (B, N, H); targets: (heads, B, N). On empty patches only the characters are supervised, and every fourth.
    """
    logits = heads(hidden).split(CLASSES, dim=-1)
    printed = targets[0] > 0
    loss = hidden.new_zeros(())
    for head, wanted, (name, (_, weight)) in zip(logits, targets, HEADS.items(), strict=True):
        loss = loss + weight * F.cross_entropy(head[printed], wanted[printed])
        if name in ("first", "second"):
            loss = loss + 0.3 * weight * F.cross_entropy(head[~printed][::4], wanted[~printed][::4])
    right = (logits[0].argmax(-1) == targets[0])[printed].float().mean().item()
    return loss, right
