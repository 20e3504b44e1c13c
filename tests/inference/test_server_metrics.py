"""The text of /metrics, by hand."""

from inference.server_metrics import ServerMetrics, quote


def test_requests_and_batches_are_counted_by_their_labels() -> None:
    metrics = ServerMetrics()
    for status, seconds in ((200, 0.02), (200, 0.3), (503, 0.001)):
        metrics.record_request("/read", status, seconds)
    metrics.record_batch("user/a", 3, 0.2)
    lines = metrics.format({"questions": 2}).splitlines()
    assert 'product_vqa_requests_total{route="/read",status="200"} 2' in lines
    assert 'product_vqa_requests_total{route="/read",status="503"} 1' in lines
    assert 'product_vqa_request_seconds_bucket{route="/read",le="0.01"} 1' in lines
    assert 'product_vqa_request_seconds_bucket{route="/read",le="0.025"} 2' in lines
    assert 'product_vqa_request_seconds_bucket{route="/read",le="+Inf"} 3' in lines
    assert 'product_vqa_request_seconds_sum{route="/read"} 0.321000' in lines
    assert 'product_vqa_batch_size_bucket{adapter="user/a",le="2.0"} 0' in lines
    assert 'product_vqa_batch_size_bucket{adapter="user/a",le="4.0"} 1' in lines
    assert 'product_vqa_batch_seconds_count{adapter="user/a"} 1' in lines
    assert lines[-2:] == ["# TYPE product_vqa_questions gauge", "product_vqa_questions 2"]
    assert metrics.format({}).endswith("\n")


def test_a_label_is_one_quoted_text() -> None:
    assert quote('a"b\\c\nd') == '"a\\"b\\\\c\\nd"'
