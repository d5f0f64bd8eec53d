"""Training of generators: what a training is, its loop, and what is kept. Ray is `jobs.training.driver`'s."""
