import pytest

from product_vqa.rank import is_first_process


@pytest.mark.parametrize(("rank", "expected"), [(None, True), ("0", True), ("1", False)])
def test_the_first_process_is_the_one_of_rank_0(
    monkeypatch: pytest.MonkeyPatch, rank: str | None, expected: bool
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    assert is_first_process() is expected
