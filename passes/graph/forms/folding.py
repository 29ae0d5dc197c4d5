"""Folding of what depends on constants alone: values, moved weights, and branches of an If."""

from __future__ import annotations

import onnx_ir as ir

from trimtab.core.data import Array

from ..edit import add_initializer, replace_by_constant
from ..evaluate_node import evaluate_node
from ..names import fresh_name, unique_names
from ..queries import const, is_onnx_op, is_unused, opset

#: Operators of masks and shapes; none of them is random or depends on the machine.
FOLDABLE = (
    "Add And Cast Concat ConstantOfShape Div Equal Expand Gather Greater GreaterOrEqual Less "
    "LessOrEqual Mul Not Or Range Reshape Slice Squeeze Sub Tile Transpose Unsqueeze Where"
)
#: Operators that move the elements of a weight and change none.
MOVES = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
_COMPUTED = MOVES | set(FOLDABLE.split())
MAX_DEPTH = 16
#: Bytes of a folded value that may be larger than what it is made of.
SMALL = 1024


def fold_constants(graph: ir.Graph) -> int:
    """Store the results of nodes that read constants only, where that makes the file no larger.

    Returns:
        The number of nodes that are gone; the graph is changed in place, subgraphs are not.
    """
    count = 0
    for node in list(graph):
        if node.op_type not in _COMPUTED or not is_onnx_op(node) or len(node.outputs) > 1:
            continue
        array = constant_value(node.outputs[0], 1)
        if array is not None and array.nbytes <= max(SMALL, _freed(node)):
            count += _store(node, array)
    return count


def fold_moved_weights(model: ir.Model) -> int:
    """Fold Transpose, Reshape and the like of weights that nothing else reads; in place.

    Returns:
        The number of nodes that are gone.
    """
    count = 0
    for node in list(model.graph.all_nodes()):
        if node.op_type not in MOVES or not is_onnx_op(node):
            continue
        array = constant_value(node.outputs[0], 1) if _freed(node) else None
        count += array is not None and _store(node, array)
    return count


def unfold_shared(model: ir.Model, before: ir.Model) -> int:
    """Put back Transpose, Reshape and the like of weights that other nodes read as they are.

    Folded, such a weight is stored twice: the table of an embedding that is the head as well.

    Args:
        model: main graph in which they were folded under their names; changed in place.
        before: the graph before that.

    Returns:
        The number of nodes that are back.
    """
    count = 0
    for node in before.graph:
        folded = model.graph.initializers.get(str(node.outputs[0].name))
        moves = _moves(node)
        root = moves[0].inputs[0] if folded is not None and moves else None
        source = model.graph.initializers.get(str(root.name)) if root is not None else None
        if folded is None or source is None or is_unused(folded) or is_unused(source):
            continue
        large = folded.const_value is not None and folded.const_value.nbytes > SMALL
        if large and not folded.is_graph_output():
            _unfold(model.graph, moves, source, folded)
            count += len(moves)
    return count


def _moves(node: ir.Node) -> list[ir.Node]:
    """Return the moves in a row that end in this node and begin at a constant; none otherwise."""
    found: list[ir.Node] = []
    current: ir.Node | None = node
    while current is not None and current.op_type in MOVES and is_onnx_op(current):
        if any(const(v) is None for v in current.inputs[1:]):
            return []
        found.insert(0, current)
        source = current.inputs[0]
        if const(source) is not None:
            return found
        current = source.producer() if source is not None else None
    return []


def _unfold(graph: ir.Graph, moves: list[ir.Node], source: ir.Value, folded: ir.Value) -> None:
    """Write the moves anew at the beginning of the graph, the last under the folded name."""
    made: list[ir.Node] = []
    value = source
    for move in moves:
        arrays = [(str(v.name), const(v)) for v in move.inputs[1:] if v is not None]
        rest = [add_initializer(graph, name, array) for name, array in arrays if array is not None]
        attributes = list(move.attributes.values())
        made.append(ir.Node(move.domain, move.op_type, [value, *rest], attributes, name=move.name))
        value = made[-1].outputs[0]
        value.type = folded.type
        value.name = fresh_name(graph, str(move.outputs[0].name))
    value.shape, name = folded.shape, str(folded.name)
    folded.replace_all_uses_with(value)
    del graph.initializers[name]
    graph.insert_before(graph[0], made)
    value.name = name


def _freed(node: ir.Node) -> int:
    """Return the bytes of the constants that only this node reads."""
    own = [v for v in set(node.inputs) if v is not None and len(set(v.uses())) == 1]
    own = [v for v in own if not v.is_graph_output() and v.is_initializer()]
    return sum(v.const_value.nbytes for v in own if v.const_value is not None)


def _store(node: ir.Node, array: Array) -> bool:
    """Put a constant in the place of a node; return False where it gives an output its name."""
    if node.outputs[0].is_graph_output():
        return False
    sources = [v for v in node.inputs if v is not None]
    replace_by_constant(node, array)
    for source in sources:
        if source.is_initializer() and is_unused(source) and not source.is_graph_input():
            assert source.graph is not None
            source.graph.initializers.pop(str(source.name), None)
    return True


def constant_value(value: ir.Value | None, depth: int = MAX_DEPTH) -> Array | None:
    """Return the array of a value that depends on constants only; None where it does not.

    Args:
        value: value of a graph.
        depth: most operators in a row that are computed.
    """
    known = const(value)
    if known is not None or value is None:
        return known
    node = value.producer()
    if node is None or depth == 0 or not is_onnx_op(node) or not node.inputs:
        return None
    if node.op_type not in _COMPUTED or len(node.outputs) > 1:
        return None
    inputs = [None if v is None else constant_value(v, depth - 1) for v in node.inputs]
    if any(a is None and v is not None for a, v in zip(inputs, node.inputs, strict=True)):
        return None
    return evaluate_node(node, inputs, opset(node))[0]


def fold_branches(model: ir.Model) -> int:
    """Put the branch in the place of each If whose condition is constant, nested ones too.

    Returns:
        The number of Ifs that are gone; the model is changed in place.
    """
    count = 0
    while waiting := [n for n in model.graph.all_nodes() if _taken(n) is not None]:
        node = waiting[0]
        branch = _taken(node)
        assert branch is not None
        _inline(node, branch)
        count += 1
    if count:
        unique_names(model)
    return count


def _taken(node: ir.Node) -> ir.Graph | None:
    """Return the branch that an If always takes; None where that is not known."""
    if node.op_type != "If" or not is_onnx_op(node):
        return None
    condition = constant_value(node.inputs[0])
    if condition is None or condition.size != 1:
        return None
    taken = "then_branch" if condition.reshape(-1)[0] else "else_branch"
    return node.attributes[taken].as_graph()


def _inline(node: ir.Node, branch: ir.Graph) -> None:
    graph = node.graph
    assert graph is not None
    results, nodes = list(branch.outputs), list(branch)
    branch.outputs.clear()
    for name, value in list(branch.initializers.items()):
        del branch.initializers[name]
        if name in graph.initializers:
            value.name = fresh_name(graph, name)
        graph.register_initializer(value)
    branch.remove(nodes)
    graph.insert_before(node, nodes)
    for old, new in zip(node.outputs, results, strict=True):
        source = _named(node, old, new) if old.is_graph_output() else new
        source.type = source.type or old.type
        source.shape = source.shape or old.shape
        ir.convenience.replace_all_uses_with(old, source, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def _named(node: ir.Node, old: ir.Value, new: ir.Value) -> ir.Value:
    """Return a value for a graph output, under its name: a copy where the value has another use."""
    maker = new.producer()
    if maker is None or maker.graph is not node.graph or new.is_graph_output():
        copy = ir.node("Identity", [new], name=f"{node.name}/{old.name}")
        assert node.graph is not None
        node.graph.insert_before(node, copy)
        new = copy.outputs[0]
    new.type, new.shape = old.type or new.type, old.shape or new.shape
    name, old.name = old.name, None
    new.name = name
    return new
