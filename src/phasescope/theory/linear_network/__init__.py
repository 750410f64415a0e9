"""The two-layer linear network on one-dimensional data (Xu & Ziyin, 2025): when features are learned, solved exactly."""
