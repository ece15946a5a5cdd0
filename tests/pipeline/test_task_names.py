"""The names tasks get for image references."""

from pipeline.task import named


def test_references_that_look_alike_as_file_names_stay_apart():
    assert named(["oci:a/b:1", "oci:a-b:1", "oci:a/b:1"]) == {"oci-a-b-1": "oci:a/b:1", "oci-a-b-1-2": "oci:a-b:1"}
