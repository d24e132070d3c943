"""On a GPU each kind of adapter learns in bf16 alone what it learns in fp32."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.gpu.test_training import losses
from tests.pipelines.test_pure_bf16 import KINDS, RATE
from tests.pipelines.test_tunings import adapter, train_on

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_what_fp32_learns(tmp_path: Path, tiny_model: Path, kind: str) -> None:
    pure, exact = (
        train_on(
            tmp_path / precision,
            tiny_model,
            kind,
            compute={"device": "cuda", "precision": precision, "threads": 1},
            **RATE,
        )
        for precision in ("pure_bf16", "fp32")
    )
    assert {weight.dtype for weight in adapter(pure.model).values()} == {torch.bfloat16}
    assert losses(pure) == pytest.approx(losses(exact), rel=0.005)
    assert losses(pure)[-1] < losses(pure)[0]
