"""A catalogue of images and captions: checked, embedded, searched, and shown."""
