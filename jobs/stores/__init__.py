"""Objects on disk and in S3: published whole or not at all."""
