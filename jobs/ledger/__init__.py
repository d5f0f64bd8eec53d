"""What is true of a job, as objects in a store."""
