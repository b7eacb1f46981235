"""SimCSE: two dropout views of a sentence are each other's positive; with triplets, an entailed sentence is.

Gao et al. 2021, "SimCSE: simple contrastive learning of sentence embeddings". Unsupervised where the data has
texts alone; supervised where it has (anchor, positive, hard negative) triplets.
"""

PROFILE = {"info": 1.0, "temperature": 0.05}
