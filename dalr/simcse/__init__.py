"""Sentence encoders in tiers: a pipeline of stages, and the tasks of the minBERT setting."""
