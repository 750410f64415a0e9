"""Settings: one small module per section of params.yaml, so that a stage depends on its own section alone."""
