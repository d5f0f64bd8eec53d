"""DeepDream."""
