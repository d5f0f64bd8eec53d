"""The feature network that the package brings, and how it is trained."""
