import json
from dataclasses import asdict

from product_vqa.ocr.candidate import Candidate, Evidence


def test_a_candidate_is_json() -> None:
    candidate = Candidate("500.0 gram", Evidence.JOINED, (0.1, 0.2, 0.3, 0.4), 0.9, 4.5)
    assert json.loads(json.dumps(asdict(candidate))) == {
        "answer": "500.0 gram", "evidence": "joined", "box": [0.1, 0.2, 0.3, 0.4], "score": 0.9, "rank_score": 4.5
    }  # fmt: skip
