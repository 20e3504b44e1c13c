"""How numbers and units are written: in labels, answers and submissions."""

from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal

EXACT = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN)  # the default one rounds to 28 digits
# [0-9] and not \d, which also matches the digits of other scripts.
NUMBER_PATTERN = r"[0-9]+(?:\.[0-9]+)?"
UNIT_PATTERN = r"[A-Za-z]+(?: [A-Za-z]+)*"


def format_number(number: Decimal) -> str:
    """Format a number like a Python float, but without exponent or rounding: 500.0, 1.5, 0.00034.

    89 % of the training labels with an integer write it with `.0`, and no label has another trailing zero. So this
    form equals most labels as a string.
    """
    integer, _, fraction = f"{number:f}".partition(".")
    return f"{integer}.{fraction.rstrip('0') or '0'}"
