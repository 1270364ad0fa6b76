import json

import pytest

from tests.deploy.graph.importer.backend_nodes import OUTCOMES, collect, outcomes

AGAIN = "python -m tests.deploy.graph.importer.backend_nodes"


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return outcomes(collect(), tmp_path_factory.mktemp("nodes"))


def test_every_node_is_right_or_refused(found):
    wrong = {name: outcome for name, outcome in found.items() if outcome.startswith("wrong")}
    assert not wrong
    assert all(outcome.isprintable() for outcome in found.values())  # one line each
    assert sum(outcome == "right" for outcome in found.values()) >= 700


def test_the_list_says_which(found):
    assert found == json.loads(OUTCOMES.read_text()), f"if that is meant, {AGAIN} writes it anew"
