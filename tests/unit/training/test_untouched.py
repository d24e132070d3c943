"""A loss in which no weight that learns took part has a gradient of zero."""

from __future__ import annotations

import torch

from tunesmith.training.gradients import touched


def test_weights_that_learn_get_a_gradient_of_zero_and_others_none() -> None:
    model = torch.nn.Linear(2, 3)
    model.bias.requires_grad_(False)
    loss = touched(torch.tensor(3.0), model)
    assert loss.item() == 3.0
    loss.backward()
    assert model.weight.grad is not None
    assert model.weight.grad.equal(torch.zeros(3, 2))
    assert model.bias.grad is None


def test_a_loss_with_a_gradient_stays_as_it_is() -> None:
    model = torch.nn.Linear(2, 1)
    total = model(torch.ones(2)).sum()
    assert touched(total, model) is total
    with torch.no_grad():
        plain = torch.tensor(1.0)
        assert touched(plain, model) is plain
