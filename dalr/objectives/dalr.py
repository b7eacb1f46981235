"""DALR: dual-level alignment of texts and images.

He et al., ACL Findings 2025, "Dual-level alignment learning for multimodal sentence representation":

    L = L_info + λx·L_cross + λc·L_cons + λa·L_soft_cross + μk·L_soft_intra + μr·L_rank

Across modalities, contrast (`cross`), consistency of matched and mismatched pairs (`consistency`) and soft targets
from the teachers' similarities (`soft_cross`); within the text side, the teachers' similarities as a distribution
(`soft_intra`) and as an order (`rank`). The cross-modal terms need paired batches; the others also run on texts
alone while `distil_text` is on. Two profiles: `paper` for sentence embeddings, `catalogue` for image–text retrieval
on product data, with pair weights against captions that do not fit.

Not of the paper, and off in both profiles: cross-modal targets that mix the teachers of both sides (`soft_mix`), soft
targets that grow sharper over the run (`soft_temperature_end`), the teachers' order across modalities (`rank_cross`),
and negatives that count by the text teachers' similarity (`hard_negative_weight`, `false_negative`).
"""

PROFILES = {
    "paper": {
        "info": 1.0,
        "temperature": 0.05,
        "cross": 0.05,
        "cross_temperature": 0.05,
        "consistency": 0.001,
        "soft_cross": 0.1,
        "soft_intra": 0.2,
        "soft_temperature": 0.05,
        "student_temperature": 0.05,
        "rank": 0.1,
        "rank_temperature": 0.05,
        "intra_space": "sentence",
        "views": 2,
    },
    "catalogue": {
        "cross": 1.0,
        "cross_temperature": 0.07,
        "learn_temperature": True,
        "soft_cross": 1.0,
        "soft_temperature": 0.1,
        "intra_space": "shared",
        "pair_weights": True,
    },
}
