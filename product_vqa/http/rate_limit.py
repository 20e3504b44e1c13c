"""At most so many requests per second to one host."""

import threading


class RateLimit:
    """Hands out the moments at which requests may be sent: one every `1 / per_second` seconds for each host."""

    def __init__(self, per_second: float) -> None:
        self._interval_s = 1 / per_second
        self._next: dict[str, float] = {}  # host -> the earliest moment of its next request
        self._lock = threading.Lock()

    def reserve(self, host: str, *, now: float) -> float:
        """Reserve the next moment for a request to `host`; returns how many seconds it is from `now`."""
        with self._lock:
            moment = max(now, self._next.get(host, now))
            self._next[host] = moment + self._interval_s
        return moment - now
