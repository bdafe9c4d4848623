"""The paper's own experiments, one command each: ablation, sensitivity, modalities, efficiency, t-SNE, robustness.

``definitions`` says what each one trains and what it takes from the outcome, ``conduct`` does it, ``runs`` makes sure
that no training is done twice, ``tables``, ``figures`` and ``report`` show it. Needs the extra ``experiments``.
"""
