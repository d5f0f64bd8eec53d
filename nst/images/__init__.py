"""Pictures as files and as tensors."""
