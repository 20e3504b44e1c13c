"""What a server counts, in the text format of Prometheus."""

import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
BATCH_SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)


class Histogram:
    """Counts of values up to each limit, by a label's value."""

    def __init__(self, limits: Sequence[float]) -> None:
        self._limits = limits
        self._counts: dict[str, list[int]] = {}
        self._sums: Counter[str] = Counter()  # of values, which are floats

    def add(self, label: str, value: float) -> None:
        counts = self._counts.setdefault(label, [0] * (len(self._limits) + 1))
        for number, limit in enumerate(self._limits):
            counts[number] += value <= limit
        counts[-1] += 1
        self._sums[label] += value  # type: ignore[assignment]

    def lines(self, name: str, label_name: str) -> Iterator[str]:
        yield f"# TYPE {name} histogram"
        for label, counts in self._counts.items():
            labels = f"{label_name}={quote(label)}"
            for limit, count in zip([*map(str, self._limits), "+Inf"], counts, strict=True):
                yield f'{name}_bucket{{{labels},le="{limit}"}} {count}'
            yield f"{name}_sum{{{labels}}} {self._sums[label]:.6f}"
            yield f"{name}_count{{{labels}}} {counts[-1]}"


class ServerMetrics:
    """Requests by route and status, batches by adapter. Any thread may record, and any may read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._seconds = Histogram(SECONDS)
        self._batch_sizes = Histogram(BATCH_SIZES)
        self._batch_seconds = Histogram(SECONDS)

    def record_request(self, route: str, status: int, seconds: float) -> None:
        with self._lock:
            self._requests[route, status] += 1
            self._seconds.add(route, seconds)

    def record_batch(self, adapter: str, size: int, seconds: float) -> None:
        with self._lock:
            self._batch_sizes.add(adapter, size)
            self._batch_seconds.add(adapter, seconds)

    def format(self, gauges: Mapping[str, float]) -> str:
        """The text for `/metrics`, with `gauges` of this moment."""
        with self._lock:
            lines = ["# TYPE product_vqa_requests_total counter"]
            lines += [
                f'product_vqa_requests_total{{route={quote(route)},status="{status}"}} {count}'
                for (route, status), count in self._requests.items()
            ]
            lines += self._seconds.lines("product_vqa_request_seconds", "route")
            lines += self._batch_sizes.lines("product_vqa_batch_size", "adapter")
            lines += self._batch_seconds.lines("product_vqa_batch_seconds", "adapter")
        for name, value in gauges.items():
            lines += [f"# TYPE product_vqa_{name} gauge", f"product_vqa_{name} {value:g}"]
        return "\n".join(lines) + "\n"


def quote(label: str) -> str:
    """A label's value: `user/adapter` in quotes."""
    escaped = label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    return f'"{escaped}"'
