"""Catalogues on disk: manifests of rows, safe image opening, and the stream of batches."""
