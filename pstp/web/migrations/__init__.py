"""Schema of the read model, version by version."""
