"""Eq. 22-28 against the formulas in numpy."""

import numpy as np
import torch

from trainer import losses

generator = np.random.default_rng(0)


def rows(count: int, width: int = 4) -> np.ndarray:
    return generator.normal(size=(count, width)).astype(np.float32)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_bpr_is_equation_22s_first_term() -> None:
    users, positives, negatives = rows(6), rows(6), rows(6)
    margins = [u @ p - u @ n for u, p, n in zip(users, positives, negatives, strict=True)]
    expected = np.mean([-np.log(1 / (1 + np.exp(-m))) for m in margins])
    got = losses.bpr(*map(torch.from_numpy, (users, positives, negatives)))
    assert np.isclose(got.item(), expected, atol=1e-6)


def test_bpr_counts_known_triplets_only_and_is_zero_without_any() -> None:
    tensors = [torch.from_numpy(rows(5)) for _ in range(3)]
    known = torch.tensor([True, False, False, True, False])
    assert torch.isclose(losses.bpr(*tensors, known), losses.bpr(*(t[known] for t in tensors)))
    assert losses.bpr(*tensors, torch.zeros(5, dtype=torch.bool)) == 0


def test_squared_norm_is_half_the_sum_of_squares_a_triplet() -> None:
    tables = [rows(3), rows(3), rows(3)]
    expected = sum((t.astype(np.float64) ** 2).sum() for t in tables) / 2 / 3
    assert np.isclose(losses.squared_norm(*map(torch.from_numpy, tables)).item(), expected, rtol=1e-5)


def test_info_nce_is_equation_23_with_cosine() -> None:
    content, collaborative, tau = rows(7), rows(7), 0.2
    cosine = unit(content) @ unit(collaborative).T / tau
    expected = -np.mean(np.log(np.diag(softmax(cosine))))
    got = losses.info_nce(torch.from_numpy(content), torch.from_numpy(collaborative), tau)
    assert np.isclose(got.item(), expected, atol=1e-5)


def test_rank_distillation_is_equation_26() -> None:
    teachers, logits, tau = softmax(rows(5, 8)), rows(5, 8), 0.5
    student = softmax(logits / tau)
    expected = tau**2 * np.mean((teachers * np.log(teachers / student)).sum(axis=1))
    got = losses.rank_distillation(torch.from_numpy(teachers), torch.from_numpy(logits), tau)
    assert np.isclose(got.item(), expected, atol=1e-6)


def test_rank_distillation_vanishes_when_the_student_agrees() -> None:
    logits = torch.from_numpy(rows(4, 6))
    agreed = torch.softmax(logits / 0.3, dim=1)
    assert abs(losses.rank_distillation(agreed, logits, 0.3).item()) < 1e-6


def test_embedding_distillation_is_equation_27_a_candidate() -> None:
    student, teacher = rows(9), rows(9)
    expected = np.mean(((unit(student) - unit(teacher)) ** 2).sum(axis=1))
    got = losses.embedding_distillation(torch.from_numpy(student), torch.from_numpy(teacher))
    assert np.isclose(got.item(), expected, atol=1e-6)
    known = torch.tensor([True, False] * 4 + [True])
    part = losses.embedding_distillation(torch.from_numpy(student), torch.from_numpy(teacher), known)
    assert np.isclose(part.item(), np.mean(((unit(student) - unit(teacher)) ** 2).sum(axis=1)[known.numpy()]))


def test_embedding_distillation_teaches_the_student_only() -> None:
    student, teacher = (torch.randn(3, 4, requires_grad=True) for _ in range(2))
    losses.embedding_distillation(student, teacher).backward()
    assert student.grad is not None
    assert teacher.grad is None
