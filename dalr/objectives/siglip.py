"""SigLIP: every text–image pair of the batch as a binary decision of its own, with all group members positive.

Zhai et al. 2023, "Sigmoid loss for language image pre-training". Scale (from 10) and bias (from -10) are learned.
"""

PROFILE = {"cross": 1.0, "cross_form": "sigmoid", "cross_temperature": 0.1, "learn_temperature": True}
