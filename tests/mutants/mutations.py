"""All mutants of a file, made by mutmut's operators."""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import libcst as cst
from libcst.metadata import MetadataWrapper
from mutmut.mutation.file_mutation import MutationVisitor
from mutmut.mutation.mutators import mutation_operators
from mutmut.mutation.pragma_handling import IgnoredCode


class Mutant(NamedTuple):
    """A change of one place, named by what it changes: the name stays valid when other lines are edited."""

    function: str  # with its class; "" for code outside of functions
    removed: str  # the lines that it changes, without indentation
    added: str
    number: int = 1  # 2, 3 ... for a change that the function has several times

    def __str__(self) -> str:
        number = f" #{self.number}" if self.number > 1 else ""
        lines = [f"{sign} {line}" for sign, text in zip("-+", self[1:3], strict=True) for line in text.splitlines()]
        return "\n".join([f"@@ {self.function or 'module'}{number}", *lines])


class _Visitor(MutationVisitor):
    """mutmut's visitor, which also enters functions with decorators, and knows where it is.

    mutmut leaves these functions alone and never runs its mutants of code outside of functions, because it puts all
    mutants into one file as functions of their own.
    """

    def __init__(self) -> None:
        super().__init__(mutation_operators, IgnoredCode(set(), set(), set()))
        self.functions: list[str] = []  # of each mutation
        self._path: list[str] = []

    def on_visit(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.FunctionDef | cst.ClassDef):
            self._path.append(node.name.value)
        return super().on_visit(node)

    def on_leave(self, original_node: cst.CSTNode) -> None:
        if isinstance(original_node, cst.FunctionDef | cst.ClassDef):
            self._path.pop()
        super().on_leave(original_node)

    def _create_mutations(self, node: cst.CSTNode) -> None:
        super()._create_mutations(node)
        self.functions += [".".join(self._path)] * (len(self.mutations) - len(self.functions))

    def _skip_node_and_children(self, node: cst.CSTNode) -> bool:
        return not isinstance(node, cst.FunctionDef) and super()._skip_node_and_children(node)


def mutate(source: str) -> Iterator[tuple[Mutant, str]]:
    """Yield the mutants of a module, each with the module's text."""
    visitor = _Visitor()
    module = MetadataWrapper(cst.parse_module(source)).visit(visitor)
    seen: Counter[Mutant] = Counter()
    for mutation, function in zip(visitor.mutations, visitor.functions, strict=True):
        text = module.deep_replace(mutation.original_node, mutation.mutated_node).code
        mutant = Mutant(function, *_changed_lines(source.splitlines(), text.splitlines()))
        seen[mutant] += 1
        yield mutant._replace(number=seen[mutant]), text


def _changed_lines(old: list[str], new: list[str]) -> tuple[str, str]:
    while old and new and old[0] == new[0]:
        old, new = old[1:], new[1:]
    while old and new and old[-1] == new[-1]:
        old, new = old[:-1], new[:-1]
    return "\n".join(map(str.strip, old)), "\n".join(map(str.strip, new))
