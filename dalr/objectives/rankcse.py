"""RankCSE: SimCSE with the order and the distribution of a text teacher's similarities; texts alone.

Liu et al. 2023, "RankCSE: unsupervised sentence representations learning via learning to rank". The paper takes the
order (ListMLE) or the distribution (ListNet); here are both, and its consistency of the two dropout views
(`agreement`).
"""

PROFILE = {
    "info": 1.0,
    "temperature": 0.05,
    "soft_intra": 1.0,
    "soft_temperature": 0.05,
    "student_temperature": 0.05,
    "rank": 0.1,
    "agreement": 0.1,
    "rank_temperature": 0.05,
    "intra_space": "sentence",
}
