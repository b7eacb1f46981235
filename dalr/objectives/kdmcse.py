"""KDMCSE: MCSE taught by a teacher of texts and images, with angular margins that push negatives.

Nguyen et al. 2024, "KDMCSE: knowledge distillation multimodal sentence embeddings with adaptive angular margin
contrastive learning". Sentences are contrasted with images, and with the teacher's own text features (`cross_text`);
the less alike the teacher finds two rows, the wider their margin, by its images for the first and by its texts for the
second. Among sentences the margin is one for all (`info_margin`). The paper's optional filter, which needs a teacher
that puts both sides into one space, is not here.
"""

PROFILE = {
    "info": 1.0,
    "temperature": 0.05,
    "info_margin": 0.15,
    "cross": 0.01,
    "cross_text": 0.01,
    "cross_temperature": 0.05,
    "views": 2,
    "margin": 0.15,
}
