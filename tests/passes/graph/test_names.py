from __future__ import annotations

from int8_graphs import graph

from trimtab.passes.graph.names import FreeNames


def test_a_name_of_a_subgraph_or_given_out_before_is_taken():
    model = graph(
        """g (float[4] x, bool f) => (float[4] y) {
          [inside] y = If <then_branch = a () => (float[4] t) { t = Neg (x) },
                  else_branch = b () => (float[4] e) { e = Abs (x) }> (f)
        }"""
    )
    names = FreeNames(model.graph)
    assert names.tensor("t") == "t_1"
    assert names.tensor("t") == "t_2"
    assert names.tensor("other") == "other"
    assert names.node("inside") == "inside_1"
    assert names.node("t") == "t"  # nodes and tensors have names of their own
