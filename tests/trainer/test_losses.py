"""Focal loss and class weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy, one_hot, softmax

from trainer.losses import class_balanced_weights, focal_loss, inverse_frequency_weights


def problem(seed: int, n: int = 17, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random logits, labels and class weights."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn((n, classes), generator=generator) * 5
    labels = torch.randint(classes, (n,), generator=generator)
    return logits, labels, torch.rand(classes, generator=generator) + 0.1


@given(seed=st.integers(0, 2**31), weighted=st.booleans(), soft=st.booleans())
def test_gamma_zero_is_cross_entropy_to_the_last_bit(seed: int, weighted: bool, soft: bool) -> None:
    """At gamma 0 focal loss is cross-entropy, hard or soft labels, with or without weights."""
    logits, labels, weight = problem(seed)
    w = weight if weighted else None
    target = softmax(logits.flip(0), 1) if soft else labels
    assert torch.equal(focal_loss(logits, target, 0.0, w), cross_entropy(logits, target, w))


@given(seed=st.integers(0, 2**31), gamma=st.floats(0.1, 5))
def test_focal_loss_is_the_papers_formula(seed: int, gamma: float) -> None:
    """-(1 - p)^gamma log p of the true class, averaged."""
    logits, labels, _ = problem(seed)
    p = softmax(logits.double(), 1)[torch.arange(len(labels)), labels]
    expected = -((1 - p) ** gamma * p.log()).mean()
    assert float(focal_loss(logits.double(), labels, gamma)) == pytest.approx(float(expected), rel=1e-9, abs=1e-12)


@given(seed=st.integers(0, 2**31), gamma=st.floats(0, 3))
def test_one_hot_targets_equal_hard_labels(seed: int, gamma: float) -> None:
    """A soft target without doubt is a hard label."""
    logits, labels, _ = problem(seed)
    hard = focal_loss(logits, labels, gamma)
    soft = focal_loss(logits, one_hot(labels, 4).float(), gamma)
    assert float(hard) == pytest.approx(float(soft), rel=1e-4, abs=1e-6)


def test_extreme_logits_keep_loss_and_gradient_finite() -> None:
    """Certain and certainly wrong samples give no NaN, whatever gamma."""
    logits = torch.tensor([[1e4, -1e4], [-1e4, 1e4]], requires_grad=True)
    loss = focal_loss(logits, torch.tensor([0, 0]), 0.5)
    loss.backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_negative_gamma_is_refused() -> None:
    """A negative gamma would reward mistakes."""
    logits, labels, _ = problem(0)
    with pytest.raises(ValueError, match="gamma"):
        focal_loss(logits, labels, -1.0)


@given(counts=st.lists(st.integers(1, 5000), min_size=2, max_size=12), beta=st.floats(0, 0.9999))
def test_weights_average_one_over_the_samples(counts: list[int], beta: float) -> None:
    """Weights change what is learned, not how fast: their mean over samples is 1, the rarest weigh most."""
    n = np.asarray(counts)
    for weights in (class_balanced_weights(n, beta).numpy(), inverse_frequency_weights(n).numpy()):
        assert float((weights * n).sum() / n.sum()) == pytest.approx(1, rel=1e-4)
        assert (np.diff(weights[np.argsort(n)]) <= 1e-5 * weights.max()).all()


def test_class_balanced_weights_span_equal_to_inverse_frequency() -> None:
    """Beta 0 weighs equally; beta near 1 is the inverse frequency."""
    counts = [952, 115, 32]
    assert class_balanced_weights(counts, 0.0).tolist() == pytest.approx([1, 1, 1])
    nearly = class_balanced_weights(counts, 1 - 1e-9)
    assert nearly.tolist() == pytest.approx(inverse_frequency_weights(counts).tolist(), rel=1e-4)


def test_an_absent_class_weighs_nothing() -> None:
    """A class without samples gets weight 0, not infinity."""
    assert inverse_frequency_weights([10, 0]).tolist() == [1.0, 0.0]
    assert class_balanced_weights([10, 0], 0.9).tolist() == pytest.approx([1.0, 0.0])


@pytest.mark.parametrize("counts", [[], [0, 0], [-1, 2]])
def test_impossible_counts_are_refused(counts: list[int]) -> None:
    """Counts are one non-negative number per class, some positive."""
    with pytest.raises(ValueError, match="counts"):
        inverse_frequency_weights(counts)
