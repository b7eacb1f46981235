"""Distillation from one or several text teachers: their embeddings, and how their similarities are spread.

The embeddings by squared error (Reimers and Gurevych 2020, "Making monolingual sentence embeddings multilingual"),
the similarities by KL as in RankCSE; a small encoder learns from large ones on texts alone.
"""

PROFILE = {
    "embedding": 1.0,
    "soft_intra": 1.0,
    "soft_temperature": 0.05,
    "student_temperature": 0.05,
    "intra_space": "sentence",
    "sentence_head": "none",
}
