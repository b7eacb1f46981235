"""KDMCSE: MCSE whose text–image negatives are pushed by an angular margin that a teacher sets.

Nguyen et al. 2024, "KDMCSE: knowledge distillation multimodal sentence embeddings with adaptive angular margin
contrastive learning". The less alike the teacher finds two rows, the wider their margin. Of that paper the margin is
here; its contrast with the teacher's own text features, its fixed margin among sentences and its filter of negatives
are not.
"""

PROFILE = {
    "info": 1.0,
    "temperature": 0.05,
    "cross": 0.01,
    "cross_temperature": 0.05,
    "views": 2,
    "margin": 0.1,
}
