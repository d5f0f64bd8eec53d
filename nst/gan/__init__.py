"""What trainings of generators against discriminators share."""
