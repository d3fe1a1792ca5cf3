import pytest

from scrcl.model.options import ALIGNED, REFINED, ClusterOptions
from scrcl.utils.errors import ScrclValueError


def test_defaults_are_those_of_the_checked_options():
    assert ClusterOptions.checked(100) == ClusterOptions()


def test_options_are_keys():
    found = {ClusterOptions(ALIGNED, 3): "a", ClusterOptions(REFINED, 3): "b"}
    assert found[ClusterOptions.checked(100, n_clusters=3)] == "a"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_clusters": 1}, "n_clusters"),
        ({"n_clusters": 101}, "n_clusters"),
        ({"seed": -1}, "seed"),
        ({"min_cells": 0}, "min_cells"),
        ({"method": "louvain"}, "method"),
        ({"resolution": 1.0}, "read by method='leiden' only"),
        ({"resolution": 1.0, "method": "leiden", "n_clusters": 3}, "not read beside n_clusters=3"),
        ({"resolution": -1.0, "method": "leiden"}, "resolution"),
    ],
)
def test_unsuitable_options(arguments, message):
    with pytest.raises(ScrclValueError, match=message):
        ClusterOptions.checked(100, **arguments)
