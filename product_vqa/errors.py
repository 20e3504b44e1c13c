"""The error that a user can fix, and how its message is made."""

from collections.abc import Iterator
from contextlib import contextmanager

MAX_LENGTH = 500  # of the text of a library's error


class InputError(ValueError):
    """Raised for input that cannot be used. The message names the file, row, field or argument, and the remedy.

    Arguments are written in backticks: "`image_size` must be positive". A command prints its own options among them as
    flags (`product_vqa.cli.with_flags`), so a library function does not need to know which command called it.
    """

    names_argument = False


@contextmanager
def argument(name: str) -> Iterator[None]:
    """Prefix an InputError raised inside with the argument's name: "`adapter` user/x: no such model repo".

    The innermost name is kept: the function nearest to the cause knows best which argument it was.
    """
    try:
        yield
    except InputError as error:
        if not error.names_argument:
            error.args = (f"`{name}` {error}",)
            error.names_argument = True
        raise


@contextmanager
def library_errors(what: str = "") -> Iterator[None]:
    """Convert what a library raises about an option into an InputError of one line, after `what`.

    For code of libraries that only looks at options and builds from them: a KeyError there is a name that it does not
    know, a TypeError an option that a function does not have.
    """
    try:
        yield
    except InputError:
        raise
    except (
        ArithmeticError, AttributeError, ImportError, LookupError, MemoryError, RuntimeError, TypeError, ValueError,
    ) as error:  # fmt: skip
        text = " ".join(str(error).split()) or type(error).__name__
        text = f"unknown key {text}" if isinstance(error, KeyError) else text
        raise InputError(f"{what}: {text[:MAX_LENGTH]}" if what else text[:MAX_LENGTH]) from error


def first_line(error: BaseException | str) -> str:
    """Return the first line of an error's message, or the name of its type if the message is empty."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
