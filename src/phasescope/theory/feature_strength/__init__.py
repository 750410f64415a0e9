"""The feature-strength model of Schneider & Prabhushankar (2024): learning phases in a network that can be solved."""
