import pytest

from product_vqa.errors import InputError
from quickstart.pretraining.evaluate import main
from quickstart.pretraining.tasks import KINDS
from tests.commands import ROOT, call


def test_the_command_prints_the_accuracy_of_every_task(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(main, monkeypatch, "--base", ROOT / "quickstart" / "base", "--rows", "3", "--level", "plain")
    header, rule, *rows = capsys.readouterr().out.splitlines()
    assert (header, rule) == ("| question | share correct (of 3) |", "|---|---|")
    accuracy = {kind: float(share) for _, kind, share, _ in (map(str.strip, row.split("|")) for row in rows)}
    assert accuracy.keys() == set(KINDS)
    assert accuracy["define"] == accuracy["expand"] == 1.0
    with pytest.raises(InputError, match="--rows must be at least 1, got 0"):
        call(main, monkeypatch, "--rows", "0")
