"""The largest batch that fits in the memory of a device."""

from collections.abc import Callable

from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size


def find_largest(attempt: Callable[[int], None], largest: int) -> int:
    """Return `largest`, half of it, a quarter, ...: the first size whose `attempt` does not run out of memory.

    A size of 1 is not tried. Raises what an attempt raises otherwise.
    """
    size = largest
    while size > 1:
        try:
            attempt(size)
            break
        except RuntimeError as error:
            if not should_reduce_batch_size(error):
                raise
        clear_device_cache()  # not in `except`, where the failed batch is still in memory
        size //= 2
    clear_device_cache()
    return size
