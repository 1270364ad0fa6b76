"""Where the pairs of QuantizeLinear and DequantizeLinear stand, and which nodes are layers.

Decision 0066 says why: a map lies in memory in 8 bits wherever a kernel writes it for another one
that reads 8 bits; inside a kernel, sums stay as wide as they are.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import onnx

from deploy.quantise.wiring import ELEMENTWISE, MOVING, Wiring
from deploy.reading.text import plain
from lut.errors import UserError

_WEIGHT = ".weight"
_MEANS = ("GlobalAveragePool", "GlobalMaxPool", "ReduceMax", "ReduceMean")
_MADE_OF = MOVING | ELEMENTWISE | {"Concat"}  # in 8 bits, if what they read is
_NAMED = 6  # layers in a message
_WITHIN = 8  # nodes that an activation is made of at most, such as x * sigmoid(x)


@dataclass(frozen=True)
class Layer:
    """A node with weights that 8-bit kernels are for.

    `number` is its place in the graph, `name` what a user calls it: that of its weights without
    ``.weight``, else the node's.
    """

    number: int
    name: str
    axis: int  # of the output channels in its weights


@dataclass(frozen=True)
class Places:
    """`layers` have weights in 8 bits; `maps` have a pair, read by the nodes `readers[map]`;
    `shared` are groups of maps that have one scale. `of_image` are those of the maps that no layer
    has a part in. `free` are Relu and Clip nodes that their output's scale may do the work of, so
    that they need not be there. `means` are layers of such a map's mean, which stays float, as what
    they give does: their weights alone are in 8 bits. A mean over one axis is a map: its layer is
    one of `layers`, or kept."""

    layers: tuple[Layer, ...]
    maps: tuple[str, ...]
    shared: tuple[tuple[str, ...], ...]
    of_image: frozenset[str]
    readers: dict[str, tuple[int, ...]]
    free: frozenset[int]
    means: tuple[Layer, ...] = ()


def find_layers(wiring: Wiring) -> list[Layer]:
    """All nodes that can be in 8 bits, in order; names are unique."""
    layers: list[Layer] = []
    taken: set[str] = set()
    for number, node in enumerate(wiring.nodes):
        axis = wiring.weight_axis(node)
        if axis is None:
            continue
        weight = node.input[1]
        named = weight.endswith(_WEIGHT) and weight.removesuffix(_WEIGHT) not in taken
        name = weight.removesuffix(_WEIGHT) if named else node.name or node.output[0]
        if name in taken:
            name = node.output[0]
        taken.add(name)
        layers.append(Layer(number, name, axis))
    return layers


def matching(layers: Sequence[Layer], names: Collection[str]) -> frozenset[str]:
    """The names of the layers that `names` say: whole, the beginning before a dot, or with ``*``.
    Raises UserError for one that says none."""
    found: set[str] = set()
    for wanted in names:
        hits = {
            layer.name
            for layer in layers
            if layer.name == wanted
            or layer.name.startswith(f"{wanted}.")
            or fnmatchcase(layer.name, wanted)
        }
        if not hits:
            some = ", ".join(plain(layer.name) for layer in layers[:_NAMED])
            more = f" and {len(layers) - _NAMED} others" if len(layers) > _NAMED else ""
            raise UserError(
                f"--keep {wanted}: no layer has this name; there are {some}{more} (a name, its "
                "beginning before a dot, or with *)"
            )
        found |= hits
    return frozenset(found)


def find_places(wiring: Wiring, keep: Collection[str] = ()) -> Places:
    """Where pairs stand if all layers but those that `keep` names are in 8 bits."""
    return _Finder(wiring, [x for x in find_layers(wiring) if x.name not in keep]).places()


class _Finder:
    def __init__(self, wiring: Wiring, layers: list[Layer]) -> None:
        self._wiring, self._layers = wiring, layers
        self._of_layers = {layer.number for layer in layers}
        # Also those that are kept: their kernels too do what follows before they write.
        self._computing = {layer.number for layer in find_layers(wiring)}
        self._computed = self._find_computed()
        self._inside = self._find_inside()
        self._wanted = self._find_wanted()

    def places(self) -> Places:
        readers = {
            name: numbers
            for name in self._all_maps()
            if name not in self._inside and (numbers := self._readers_in_8_bits(name))
        }
        return Places(
            tuple(self._layers), tuple(readers), self._shared(readers),
            frozenset(readers) - self._computed, readers, self._free(readers),
            self._means(readers),
        )  # fmt: skip

    def _means(self, readers: Collection[str]) -> tuple[Layer, ...]:
        found = []
        for number, node in enumerate(self._wiring.nodes):
            if node.op_type != "Conv" or number in self._computing:
                continue
            maker = self._wiring.maker(node.input[0])
            if maker is None or not self._wiring.is_constant(node.input[1]):
                continue
            mean = self._wiring.nodes[maker]
            if mean.op_type in ("GlobalAveragePool", "ReduceMean") and mean.input[0] in readers:
                found.append(Layer(number, node.name, 0))
        return tuple(found)

    def _all_maps(self) -> list[str]:
        """Of the whole graph, in the order in which they are made, inputs of the graph first."""
        nodes = self._wiring.nodes
        names = dict.fromkeys(
            name
            for node in nodes
            for name in self._wiring.read_maps(node)
            if self._wiring.maker(name) is None
        )
        names.update(dict.fromkeys(n for node in nodes for n in self._wiring.made_maps(node)))
        return list(names)

    def _find_computed(self) -> set[str]:
        """The tensors that layers have a part in: not those of the image end."""
        computed: set[str] = set()
        for number, node in enumerate(self._wiring.nodes):
            if number in self._computing or not computed.isdisjoint(node.input):
                computed.update(node.output)
        return computed

    def _find_wanted(self) -> set[str]:
        """The maps of which something in 8 bits is made: a layer's input, and what moves or meets
        others on the way there."""
        wanted: set[str] = set()
        for number in reversed(range(len(self._wiring.nodes))):
            node = self._wiring.nodes[number]
            if number in self._of_layers:
                wanted.add(node.input[0])
            elif node.op_type in _MADE_OF and not wanted.isdisjoint(node.output):
                wanted.update(self._wiring.read_maps(node))
        return wanted

    def _readers_in_8_bits(self, name: str) -> tuple[int, ...]:
        """Everything that reads a map but layers that are kept, if that is to lie in 8 bits: for a
        layer, or for what moves it. A sum alone does not ask for it where something else, such as a
        layer norm, reads the map wide."""
        if name not in self._wanted:
            return ()
        moved = summed = wide = False
        found = []
        for number in self._wiring.readers(name):
            node = self._wiring.nodes[number]
            if number in self._computing and number not in self._of_layers:
                continue
            found.append(number)
            useful = not self._wanted.isdisjoint(node.output)
            useful = useful and name in self._computed
            if number in self._of_layers or (useful and node.op_type in MOVING | {"Concat"}):
                moved = True
            elif useful and node.op_type in ELEMENTWISE:
                summed = True
            elif node.op_type not in _MEANS:
                wide = True
        return tuple(found) if moved or (summed and not wide) else ()

    def _find_inside(self) -> set[str]:
        """The maps that no kernel writes: those between a layer and the end of what follows it and
        works on each element by itself; and a resize right into the sum that ends in a layer of
        1x1 (`LocalGlobal` of `lut.ops`)."""
        inside: set[str] = set()
        for number in sorted(self._computing):
            current = self._wiring.nodes[number].output[0]
            while (following := self._behind(current)) is not None:
                between, current = following
                inside |= between
        for node in self._wiring.nodes:
            if node.op_type == "Resize" and self._ends_in_local_global(node.output[0]):
                inside.add(node.output[0])
        return inside

    def _behind(self, current: str) -> tuple[set[str], str] | None:
        """The next value that a kernel which computes `current` can write instead, and what is then
        not written."""
        wiring, readers = self._wiring, self._wiring.readers(current)
        if not readers or current in wiring.outputs:
            return None
        if len(readers) > 1:
            return self._behind_composed(current)
        (number,) = readers
        node = wiring.nodes[number]
        if node.op_type not in ELEMENTWISE or not wiring.made_maps(node):
            return None
        others = [name for name in wiring.read_maps(node) if name != current]
        if wiring.shape(current) != wiring.shape(node.output[0]):
            return None
        if any(self._later(other, current) for other in others):
            return None  # the other kernel adds, and reads this map
        return {current}, node.output[0]

    def _behind_composed(self, current: str) -> tuple[set[str], str] | None:
        """As `_behind`, where an activation is made of several nodes, such as x * sigmoid(x)."""
        wiring, inside, nodes = self._wiring, {current}, set[int]()
        for number in range(wiring.readers(current)[0], len(wiring.nodes)):
            node = wiring.nodes[number]
            names = wiring.read_maps(node)
            if not names or not inside.issuperset(names) or node.op_type not in ELEMENTWISE:
                if inside.intersection(names):
                    return None
                continue
            nodes.add(number)
            if len(nodes) > _WITHIN:
                return None
            (made,) = node.output
            if all(nodes.issuperset(wiring.readers(name)) for name in inside):
                return inside, made
            if made in wiring.outputs:
                return None
            inside = inside | {made}
        return None

    def _later(self, other: str, current: str) -> bool:
        """Whether another operand of a sum comes from a kernel after that of `current` which can do
        the sum itself."""
        wiring = self._wiring
        if len(wiring.readers(other)) > 1 or not self._is_fresh(other):
            return False
        makers = [wiring.maker(name) for name in (other, current)]
        return (makers[0] or 0) > (makers[1] or 0)

    def _is_fresh(self, name: str) -> bool:
        """Whether a map is what a layer computes, or that and what follows."""
        number = self._wiring.maker(name)
        if number is None or number in self._computing:
            return number is not None
        node = self._wiring.nodes[number]
        return node.op_type in ELEMENTWISE and any(
            len(self._wiring.readers(n)) == 1 and self._is_fresh(n)
            for n in self._wiring.read_maps(node)
        )

    def _ends_in_local_global(self, resized: str) -> bool:
        wiring, readers = self._wiring, self._wiring.readers(resized)
        total = [
            wiring.nodes[number] for number in readers if wiring.nodes[number].op_type == "Add"
        ]
        if len(readers) != 1 or not total:
            return False
        (other,) = [name for name in total[0].input if name != resized] or [resized]
        if not wiring.is_map(other) or not self._is_fresh(other):
            return False
        maker = wiring.maker(other)
        if maker in self._computing and maker is not None and self._is_pointwise(maker):
            return True  # a 1x1 layer that adds what it upsamples (`Pointwise`, add=low)
        acts = wiring.readers(total[0].output[0])
        if len(acts) != 1 or wiring.bounds(wiring.nodes[acts[0]]) is None:
            return False
        last = wiring.readers(wiring.nodes[acts[0]].output[0])
        return len(last) == 1 and last[0] in self._computing and self._is_pointwise(last[0])

    def _is_pointwise(self, number: int) -> bool:
        weight = self._wiring.shape(self._wiring.nodes[number].input[1])
        return weight[2:] == (1, 1) or len(weight) == 2

    def _shared(self, readers: Collection[str]) -> tuple[tuple[str, ...], ...]:
        """Groups of more than one: what is moved keeps its scale, and what is concatenated gets it,
        where nothing else reads it."""
        group = {name: name for name in readers}

        def root(name: str) -> str:
            while group[name] != name:
                name = group[name]
            return name

        for node in self._wiring.nodes:
            moved = [name for name in node.input[:1] if node.op_type in MOVING]
            if node.op_type == "Concat":
                moved = [n for n in node.input if len(self._wiring.readers(n)) == 1]
            for name in moved:
                for made in node.output:
                    if name in group and made in group:
                        group[root(made)] = root(name)
        members: dict[str, list[str]] = {}
        for name in group:
            members.setdefault(root(name), []).append(name)
        return tuple(tuple(names) for names in members.values() if len(names) > 1)

    def _free(self, readers: dict[str, tuple[int, ...]]) -> frozenset[int]:
        """Behind which every reader reads the pair, and before which nothing else reads."""
        wiring, found = self._wiring, set[int]()
        for name, numbers in readers.items():
            number = wiring.maker(name)
            if number is None or set(wiring.readers(name)) != set(numbers):
                continue
            if name not in wiring.outputs and wiring.bounds(wiring.nodes[number]) is not None:
                found.add(number)
        alone = {n for n in found if found.issuperset(wiring.readers(wiring.nodes[n].input[0]))}
        return frozenset(alone)


def is_free(node: onnx.NodeProto, wiring: Wiring, scale: float, zero_point: int) -> bool:
    """Whether uint8 of this scale saturates where the Relu or Clip does, so that the node changes
    no number behind it."""
    bounds = wiring.bounds(node)
    return bounds is not None and zero_point == 0 and bounds[1] / scale > 254.5
