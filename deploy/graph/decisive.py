"""Values of which a rounding, however small, may choose between others."""

from tvm import relax

from deploy.graph.view import Graph

_COMPARES = frozenset(
    f"relax.{name}"
    for name in (
        "argmax", "argmin", "ceil", "equal", "floor", "greater", "greater_equal", "less",
        "less_equal", "not_equal", "round", "sign", "topk", "trunc",
    )
)  # fmt: skip


def decisive_values(graph: Graph) -> set[relax.Var]:
    """What a comparison or a rounding ahead of the class scores, the last result, is made of: what
    says where a number is unpooled, which of two branches counts.

    Where many numbers of an image are equal, as in a sky of one colour, they must stay so.
    """
    before_scores = _made_of(graph, graph.results[-1:])
    compared = [
        argument
        for var in before_scores
        if (call := graph.call(var, *_COMPARES)) is not None
        for argument in call.args
        if isinstance(argument, relax.Var)
    ]
    return _made_of(graph, compared)


def _made_of(graph: Graph, values: list[relax.Var]) -> set[relax.Var]:
    todo, seen = list(values), set()
    while todo:
        var = todo.pop()
        value = graph.definition(var)
        if var not in seen and value is not None:
            seen.add(var)
            todo.extend(relax.analysis.free_vars(value))
    return seen
