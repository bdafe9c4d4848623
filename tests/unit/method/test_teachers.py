"""Eq. 16, 25 and 29 against loops."""

import numpy as np
import torch

from trainer.teachers import Teachers, ensemble_ranking
from trainer.views import IdEncoder, ModalityEncoder, ViewEncoders


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max())
    return e / e.sum()


def encoders() -> ViewEncoders:
    return ViewEncoders(IdEncoder(4, 6, 3, 1), {"text": ModalityEncoder(6, 3, 2, 1, "last")})


def test_ensemble_is_the_uniform_mean_of_softened_rankings() -> None:
    generator = np.random.default_rng(0)
    views = {name: generator.normal(size=(9, 5)).astype(np.float32) for name in ("id", "image", "text")}
    users, candidates, tau = np.array([0, 2]), np.array([4, 5, 8]), 0.3
    expected = [
        np.mean([softmax(view[u] @ view[candidates].T / tau) for view in views.values()], axis=0) for u in users
    ]
    tensors = {name: torch.from_numpy(view) for name, view in views.items()}
    ensemble = ensemble_ranking(tensors, {}, torch.from_numpy(users), torch.from_numpy(candidates), tau)
    assert np.allclose(ensemble, expected, atol=1e-6)


def test_a_teacher_is_silent_on_users_and_candidates_without_its_view() -> None:
    generator = np.random.default_rng(1)
    views = {name: torch.from_numpy(generator.normal(size=(7, 5)).astype(np.float32)) for name in ("id", "text")}
    users, candidates = torch.tensor([0, 1]), torch.tensor([3, 4, 5, 6])
    present = torch.tensor([True, False, True, True, True, True, False])
    ensemble = ensemble_ranking(views, {"text": present}, users, candidates, 0.5).numpy()
    of_id = [softmax((views["id"][u] @ views["id"][candidates].T / 0.5).numpy()) for u in (0, 1)]
    assert np.allclose(ensemble[1], of_id[1], atol=1e-6)  # user 1 has no text view
    of_text = softmax((views["text"][0] @ views["text"][candidates[:3]].T / 0.5).numpy()) * 3 / 4
    expected = np.array([*((of_id[0][:3] + of_text) / 2), of_id[0][3]])
    assert np.allclose(ensemble[0], expected / expected.sum(), atol=1e-6)


def test_silence_about_all_candidates_leaves_the_others_ranking() -> None:
    views = {name: torch.randn(4, 3) for name in ("id", "text")}
    nobody = torch.zeros(4, dtype=torch.bool)
    users, candidates = torch.tensor([0]), torch.tensor([2, 3])
    ensemble = ensemble_ranking(views, {"text": nobody}, users, candidates, 1.0)
    alone = ensemble_ranking({"id": views["id"]}, {}, users, candidates, 1.0)
    assert torch.allclose(ensemble, alone)


def test_teachers_start_as_the_student_and_follow_it_by_name() -> None:
    student = encoders()
    teachers = Teachers(encoders(), student)
    for name, parameter in teachers.encoders.named_parameters():
        assert torch.equal(parameter, dict(student.named_parameters())[name])
    before = {name: p.detach().clone() for name, p in teachers.encoders.named_parameters()}
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.normal_()
    teachers.synchronise(student, momentum=0.9)
    for name, parameter in teachers.encoders.named_parameters():
        expected = 0.9 * before[name] + 0.1 * dict(student.named_parameters())[name]
        assert torch.allclose(parameter, expected, atol=1e-6)
