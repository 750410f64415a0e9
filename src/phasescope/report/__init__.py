"""A project as one page to look at: what was run, what came out, and every figure with its values."""
