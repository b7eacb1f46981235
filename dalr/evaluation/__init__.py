"""How good a model is: retrieval between texts and images, and sentence similarity (STS)."""
