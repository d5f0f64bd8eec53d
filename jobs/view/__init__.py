"""The page of a job: what there is, served to a browser on this machine. Loads neither torch nor ray."""
