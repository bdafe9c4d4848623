"""The offline side: data, graphs, teachers, student, distillation, evaluation, export."""
