"""Set weights to zero by magnitude.

Zeros alone bring no speed on onnxruntime: they shrink the compressed file (or the file itself, with
--store sparse), and they are where retraining starts.
"""

from __future__ import annotations

import argparse

SUMMARY = "set weights to zero by magnitude"


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of the command: those of the pass."""
    from trimtab.commands.one_pass import add_fields, add_model_and_output, add_surroundings
    from trimtab.passes import find

    add_model_and_output(parser)
    add_fields(parser, find("prune-magnitude"))
    add_surroundings(parser)


def execute(args: argparse.Namespace) -> int:
    """Prune and write."""
    from trimtab.commands.one_pass import apply, given_fields
    from trimtab.passes import find

    kind = find("prune-magnitude")
    return apply([kind.from_json(given_fields(args, kind))], args)
