"""CycleGAN (Zhu, Park, Isola, Efros 2017): networks, losses, training step, and the method that applies a
generator."""
