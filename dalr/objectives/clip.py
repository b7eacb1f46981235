"""CLIP: symmetric softmax contrast between texts and images.

Radford et al. 2021, "Learning transferable visual models from natural language supervision". The temperature is
learned, from 1/0.07 up to a scale of 100. Rows of one group are never each other's negatives.
"""

PROFILE = {"cross": 1.0, "cross_form": "softmax", "cross_temperature": 0.07, "learn_temperature": True}
