"""Names of recipes, and the tasks that make them."""

from __future__ import annotations

import pytest

from pipeline.recipe import UnknownName, maker_of


def test_a_recipe_is_made_by_the_task_of_its_kind() -> None:
    assert maker_of("nginx") == "recipe:nginx"
    assert maker_of("debian-cloud") == "kernel:debian-cloud"


def test_a_recipe_that_is_not_there_is_refused_with_near_names() -> None:
    with pytest.raises(UnknownName, match=r"recipe 'ngimx': no such recipe \(did you mean nginx\?\)"):
        maker_of("ngimx")
    with pytest.raises(UnknownName, match="debian-cloud"):
        maker_of("debian-clod")
