"""The two-layer linear network of Xu & Ziyin (2025), solved exactly: when a network learns features, and how."""
