"""Focal loss, class weights, logit adjustment and distillation, against their closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy, log_softmax, one_hot, softmax

from trainer.losses import (
    adjust_logits,
    class_balanced_weights,
    distillation_loss,
    focal_loss,
    inverse_frequency_weights,
    logit_adjusted_loss,
    sample_weights,
)

COUNTS = [900, 70, 20, 10]


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


@given(seed=st.integers(0, 2**31), gamma=st.floats(0.1, 5))
def test_the_gradient_of_focal_loss_is_its_closed_form(seed: int, gamma: float) -> None:
    """d/dz of -(1 - p)^g log p: (g p (1 - p)^(g - 1) log p - (1 - p)^g) (onehot - softmax)."""
    logits, labels, _ = problem(seed)
    z = logits.double().requires_grad_()
    focal_loss(z, labels, gamma).backward()  # type: ignore[no-untyped-call]
    q, target = softmax(logits.double(), 1), one_hot(labels, 4).double()
    p = (q * target).sum(1, keepdim=True)
    slope = gamma * p * (1 - p) ** (gamma - 1) * p.log() - (1 - p) ** gamma
    assert z.grad is not None
    torch.testing.assert_close(z.grad, slope * (target - q) / len(labels), rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("gamma", [0.0, 0.01, 0.5, 2.0, 5.0])
@pytest.mark.parametrize("size", [100.0, 1e4])
def test_extreme_logits_keep_loss_and_gradient_finite(size: float, gamma: float) -> None:
    """Certain and certainly wrong samples give no NaN, whatever gamma."""
    logits = torch.tensor([[size, -size], [-size, size]], requires_grad=True)
    loss = focal_loss(logits, torch.tensor([0, 0]), gamma)
    loss.backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("gamma", [-1.0, float("nan"), float("inf")])
def test_an_impossible_gamma_is_refused(gamma: float) -> None:
    """A negative gamma would reward mistakes."""
    logits, labels, _ = problem(0)
    with pytest.raises(ValueError, match="gamma"):
        focal_loss(logits, labels, gamma)


@given(counts=st.lists(st.integers(1, 5000), min_size=2, max_size=12), beta=st.floats(0, 0.9999))
def test_class_weights_sum_to_the_classes_and_favour_the_rare(counts: list[int], beta: float) -> None:
    """As in the paper they sum to the number of classes; the rarest weigh most."""
    n = np.asarray(counts)
    for weights in (class_balanced_weights(n, beta).numpy(), inverse_frequency_weights(n).numpy()):
        assert float(weights.sum()) == pytest.approx(len(n), rel=1e-5)
        assert (np.diff(weights[np.argsort(n)]) <= 1e-5 * weights.max()).all()


def test_class_balanced_weights_are_the_papers_formula() -> None:
    """(1 - beta) / (1 - beta^n) for a real long tail, scaled to sum to the six classes."""
    counts = np.array([952, 115, 103, 85, 57, 32])
    raw = (1 - 0.99) / (1 - 0.99**counts)
    assert class_balanced_weights(counts, 0.99).tolist() == pytest.approx((raw / raw.sum() * 6).tolist(), rel=1e-6)


def test_class_balanced_weights_span_equal_to_inverse_frequency() -> None:
    """Beta 0 weighs equally; beta near 1 is the inverse frequency."""
    counts = [952, 115, 32]
    assert class_balanced_weights(counts, 0.0).tolist() == pytest.approx([1, 1, 1])
    nearly = class_balanced_weights(counts, 1 - 1e-9)
    assert nearly.tolist() == pytest.approx(inverse_frequency_weights(counts).tolist(), rel=1e-4)


@given(counts=st.lists(st.integers(1, 5000), min_size=2, max_size=12), balance=st.floats(0, 1))
def test_training_weights_average_one_over_the_samples(counts: list[int], balance: float) -> None:
    """They change what is learned, not how fast: proportional to the paper's, with a mean over samples of 1."""
    n = np.asarray(counts)
    weights = sample_weights(n, balance).numpy()
    paper = (inverse_frequency_weights(n) if balance == 1 else class_balanced_weights(n, balance)).numpy()
    assert float((weights * n).sum() / n.sum()) == pytest.approx(1, rel=1e-4)
    np.testing.assert_allclose(weights / weights.sum(), paper / paper.sum(), rtol=1e-5)


def test_an_absent_class_weighs_nothing() -> None:
    """A class without samples gets weight 0, not infinity."""
    assert inverse_frequency_weights([10, 0]).tolist() == [1.0, 0.0]
    assert sample_weights([10, 0], 0.5).tolist() == [1.0, 0.0]
    assert class_balanced_weights([10, 0], 0.9).tolist() == pytest.approx([1.0, 0.0])


@pytest.mark.parametrize("counts", [[], [0, 0], [-1, 2], [float("nan"), 2], [float("inf"), 2]])
def test_impossible_counts_are_refused(counts: list[int]) -> None:
    """Counts are one non-negative number per class, some positive."""
    with pytest.raises(ValueError, match="counts"):
        inverse_frequency_weights(counts)


@given(seed=st.integers(0, 2**31), tau=st.floats(0, 3), soft=st.booleans())
def test_the_adjusted_loss_is_cross_entropy_on_logits_plus_log_prior(seed: int, tau: float, soft: bool) -> None:
    """Menon et al., eq. 10, for hard and soft labels; at tau 0 to the last bit."""
    logits, labels, _ = problem(seed)
    target = softmax(logits.flip(0), 1) if soft else labels
    prior = torch.tensor(COUNTS) / sum(COUNTS)
    expected = cross_entropy(logits + tau * prior.log(), target)
    assert float(logit_adjusted_loss(logits, target, COUNTS, tau)) == pytest.approx(float(expected), rel=1e-5)
    assert torch.equal(logit_adjusted_loss(logits, target, COUNTS, 0.0), cross_entropy(logits, target))


@given(seed=st.integers(0, 2**31), tau=st.floats(0.1, 3))
def test_post_hoc_adjustment_undoes_what_the_adjusted_loss_adds(seed: int, tau: float) -> None:
    """Learning with the prior and taking it out afterwards are the two signs of one correction."""
    logits, labels, _ = problem(seed)
    plain = cross_entropy(logits, labels)
    assert float(logit_adjusted_loss(adjust_logits(logits, COUNTS, tau), labels, COUNTS, tau)) == pytest.approx(
        float(plain), rel=1e-4, abs=1e-5
    )


def test_post_hoc_adjustment_raises_the_rare_class() -> None:
    """At tau 1 a tie under a prior of 9:1 goes to the rare class, by the log of nine."""
    adjusted = adjust_logits(torch.zeros(1, 2), [9, 1], 1.0)
    assert float(adjusted[0, 1] - adjusted[0, 0]) == pytest.approx(np.log(9), rel=1e-6)


def test_adjusted_posteriors_of_two_gaussians_reach_the_least_balanced_error() -> None:
    """Exact posteriors under 19:1 adjusted at tau 1 cut midway between the means, as the balanced Bayes rule does."""
    x = torch.linspace(-3, 5, 2001, dtype=torch.float64)
    log_density = torch.stack([-(x**2) / 2, -((x - 2) ** 2) / 2], 1)
    posterior = log_density + torch.tensor([19 / 20, 1 / 20]).log()
    assert float(x[posterior.argmax(1) == 1].min()) > 2.4
    assert float(x[adjust_logits(posterior, [19, 1], 1.0).argmax(1) == 1].min()) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(("counts", "tau"), [([10, 0], 1.0), ([10, 5], -1.0), ([10, 5], float("nan"))])
def test_adjustment_without_a_prior_or_with_a_negative_strength_is_refused(counts: list[int], tau: float) -> None:
    """A class never seen has no prior; a negative tau would push the rare classes down."""
    for call in (
        lambda: adjust_logits(torch.zeros(1, 2), counts, tau),
        lambda: logit_adjusted_loss(torch.zeros(1, 2), torch.tensor([0]), counts, tau),
    ):
        with pytest.raises(ValueError, match=r"tau|every class"):
            call()


@given(seed=st.integers(0, 2**31), temperature=st.floats(0.5, 20), alpha=st.floats(0, 1))
def test_distillation_is_the_papers_formula(seed: int, temperature: float, alpha: float) -> None:
    """alpha T^2 KL(teacher || student), both at temperature T, plus (1 - alpha) cross-entropy."""
    student, labels, _ = problem(seed)
    teacher = problem(seed + 1)[0]
    s, t = student.double(), teacher.double()
    p, log_q = softmax(t / temperature, 1), log_softmax(s / temperature, 1)
    divergence = (p * (log_softmax(t / temperature, 1) - log_q)).sum(1).mean()
    expected = alpha * temperature**2 * divergence + (1 - alpha) * cross_entropy(s, labels)
    assert float(distillation_loss(s, t, labels, temperature, alpha)) == pytest.approx(float(expected), rel=1e-9)


def test_a_student_at_large_temperature_matches_centred_logits() -> None:
    """T to infinity: half the mean squared difference of the centred logits (Hinton et al., section 2.1)."""
    s, labels, _ = problem(3)
    t = problem(4)[0]
    s, t = s.double(), t.double()
    difference = (s - s.mean(1, keepdim=True)) - (t - t.mean(1, keepdim=True))
    expected = difference.square().mean() / 2
    assert float(distillation_loss(s, t, labels, 1e4, 1.0)) == pytest.approx(float(expected), rel=1e-2)


def test_the_factor_keeps_the_gradient_about_as_large_at_any_temperature() -> None:
    """From T 4 to T 64 the gradient's size changes by less than a fifth; without T^2 it would by 250."""
    student, labels, _ = problem(5)
    teacher = problem(6)[0]
    sizes = []
    for temperature in (4.0, 64.0):
        z = (student / 5).requires_grad_()
        distillation_loss(z, teacher / 5, labels, temperature, 1.0).backward()  # type: ignore[no-untyped-call]
        assert z.grad is not None
        sizes.append(float(z.grad.norm()))
    assert sizes[0] == pytest.approx(sizes[1], rel=0.2)


def test_the_teacher_is_not_trained() -> None:
    """No gradient flows into the teacher's logits."""
    student, labels, _ = problem(7)
    teacher = problem(8)[0].requires_grad_()
    distillation_loss(student.requires_grad_(), teacher, labels, 2.0, 0.5).backward()  # type: ignore[no-untyped-call]
    assert teacher.grad is None


@pytest.mark.parametrize(("temperature", "alpha"), [(0.0, 0.5), (-1.0, 0.5), (float("nan"), 0.5), (2.0, 1.5)])
def test_an_impossible_temperature_or_share_is_refused(temperature: float, alpha: float) -> None:
    """Temperatures are above 0, the teacher's share lies in 0..1."""
    logits, labels, _ = problem(0)
    with pytest.raises(ValueError, match=r"temperature|alpha"):
        distillation_loss(logits, logits, labels, temperature, alpha)
