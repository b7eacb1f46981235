"""STS regression: the cosine of two sentences is taught people's score of their similarity.

Reimers and Gurevych 2019, "Sentence-BERT". The tower is trained as it will be used, without a head.
"""

PROFILE = {"score": 1.0, "sentence_head": "none"}
