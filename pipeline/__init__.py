"""The pipeline: from OCI images and recipes to the content-addressed artifacts a zone boots from."""
