"""AntLM: alternating causal and masked language modelling, to pre-train or adapt a text encoder (arXiv 2412.03275)."""
