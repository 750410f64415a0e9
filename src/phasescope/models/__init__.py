"""Networks, the taps their activations are read at, and their state as flat vectors."""
