"""Garbage is looked for late, and as usual again afterwards."""

from __future__ import annotations

import gc

from tunesmith.training.session import collecting_late, sparing_what_is_loaded


def test_garbage_is_looked_for_seldom_inside_and_as_usual_afterwards() -> None:
    usual = gc.get_threshold()
    with collecting_late():
        assert gc.get_threshold()[0] > usual[0]
    assert gc.get_threshold() == usual


def test_what_was_loaded_before_is_spared_inside_only() -> None:
    with sparing_what_is_loaded():
        assert gc.get_freeze_count() > 1000
    assert gc.get_freeze_count() == 0
