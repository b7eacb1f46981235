"""MCSE: SimCSE on all sentences, and text–image contrast on those that have a picture.

Zhang et al. 2022, "MCSE: multimodal contrastive learning of sentence embeddings".
"""

PROFILE = {"info": 1.0, "temperature": 0.05, "cross": 0.01, "cross_temperature": 0.05, "views": 2}
