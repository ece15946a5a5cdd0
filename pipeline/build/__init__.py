"""Build: recipes become OCI images."""
