"""The commands, a file for each noun: job, output, training, cluster, options."""
