"""Graded labels from several judges, for small data (Lu et al. 2024, arXiv 2408.11868)."""
