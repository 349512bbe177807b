"""The deviations that chapter 01_sam shows are as small as it says."""

from __future__ import annotations

import pytest

from book.sam_invariants import STEPS, measure


@pytest.mark.parametrize("method", ["SAM", "LSAM"])
@pytest.mark.parametrize("rho", [0.0, 0.05, 2.0])
def test_invariants_hold(method: str, rho: float) -> None:
    found = measure(method, rho)
    assert found.distance < 1e-5
    assert found.restoration == found.rho_zero == found.resumed == 0
    assert found.batch_norm_steps == STEPS
    assert (found.fused is None) == (method == "SAM") and (found.fused or 0) < 1e-5
