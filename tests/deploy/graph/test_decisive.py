from deploy.graph.decisive import decisive_values
from deploy.graph.importer import import_graph
from deploy.graph.view import Graph
from lut.ops import Conv
from tests.deploy.graph.nets import Net, placed


def exact_ones(net: Net, *outputs: str) -> list[bool]:
    found = placed(net.model(*outputs))
    return [op.exact for op in found if isinstance(op, Conv)]


def compared(net: Net, x: str) -> str:
    """x where it is above a constant, else zero."""
    above = net.node("Greater", [x, net.number(0.5)])
    return net.node("Where", [above, x, net.number(0)])


def test_what_is_compared_is_computed_exactly_and_the_rest_is_not():
    net = Net(32, 16, 24)
    before = net.conv("x", 32, kernel=3)
    beside = net.conv("x", 32, kernel=3)
    after = net.conv(net.add(compared(net, net.act(before, "relu")), beside), 32, kernel=3)
    assert sorted(exact_ones(net, after)) == [False, False, True]


def test_comparisons_behind_the_scores_do_not_count():
    net = Net(32, 16, 24)
    scores = net.conv("x", 32, kernel=3)
    assert exact_ones(net, compared(net, scores), scores) == [False]


def test_none_where_nothing_is_compared():
    net = Net(32, 16, 24)
    assert not decisive_values(Graph(import_graph(net.model(net.conv("x", 8)))["main"]))
