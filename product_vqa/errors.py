"""What is raised when an input cannot be used."""

from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """The caller's input cannot be used. The message names the file, row, field or argument, and the remedy.

    Arguments are written in backticks: "`image_size` must be positive". A command prints those that are options of its
    own as flags (`product_vqa.cli.with_flags`), so a library function never has to know which command called it.
    """

    names_argument = False


@contextmanager
def argument(name: str) -> Iterator[None]:
    """Put the argument's name in front of an InputError raised inside: "`adapter` user/x: no such model repo".

    The innermost name is kept: the function nearest to the cause knows best which argument it was.
    """
    try:
        yield
    except InputError as error:
        if not error.names_argument:
            error.args = (f"`{name}` {error}",)
            error.names_argument = True
        raise


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or the name of its type where the message is empty."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
