"""Reference pages, made from the code: commands, passes, metrics, targets, files, errors."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import functools
import html
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from documents import ROOT, command_lines, documents, fields_table, table

from trimtab.commands import registry
from trimtab.core import errors
from trimtab.core.fields import attribute_lines
from trimtab.core.metric import METRICS
from trimtab.core.target import PRESETS, Target
from trimtab.passes import registry as passes
from trimtab.passes.base import Pass
from trimtab.runtime_bench.gate.budget_file import KEYS
from trimtab.search.recipe import Recipe
from trimtab.search.result import Constraints, OutcomeData, Result

#: Most examples of a command that its page shows.
EXAMPLES = 8


def pages() -> dict[str, str]:
    """Return the text of every generated page, by its path on the site."""
    found = {"reference/commands/index.md": _command_list()}
    for name in registry.names():
        found[command_page(name)] = _command(name)
    return found | {
        "reference/passes.md": _passes(),
        "reference/metrics.md": _metrics(),
        "reference/targets.md": _targets(),
        "reference/files.md": _files(),
        "reference/errors.md": _errors(),
    }


def command_page(name: str) -> str:
    """Return the path of the page of a command."""
    return f"reference/commands/{name}.md"


def _command_list() -> str:
    rows = [
        (f"[`trimtab {name}`]({name}.md)", registry.command(name).SUMMARY)
        for name in registry.names()
    ]
    return (
        "# Commands\n\nEach takes `--quiet`, `--verbose` and `--debug`. Each "
        "[pass](../passes.md) is a command as well: `trimtab simplify float.onnx -o o.onnx`.\n\n"
        + table(("command", "does"), rows)
    )


def _command(name: str) -> str:
    parser = registry.parser_of(name, registry.command(name))
    module = registry.command(name)
    parts = [f"# trimtab {name}", f"```\n{parser.usage}\n```", _prose(module.__doc__ or "")]
    examples = _examples().get(name, [(module.EXAMPLE, "")])
    if examples:
        lines = "\n".join(f"# {said}\n{line}" if said else line for line, said in examples)
        parts.append(f"## Examples\n\n```bash\n{lines}\n```")
    # argparse has no public way to read its groups.
    for group in parser._action_groups:  # noqa: SLF001
        rows = [_option(parser, a) for a in group._group_actions if a.dest != "help"]  # noqa: SLF001
        if rows:
            head = ("argument", "meaning", "default")
            title = (group.title or "").removeprefix("positional ").capitalize()
            parts.append(f"## {title}\n\n{table(head, rows)}")
    return "\n\n".join(parts)


def _option(parser: argparse.ArgumentParser, action: argparse.Action) -> tuple[str, str, str]:
    words = registry.words_of(action)
    value = "" if action.nargs == 0 else f" {words}"
    names = ", ".join(f"`{o}{value}`" for o in action.option_strings) or f"`{words}`"
    text = (action.help or "") % {**vars(action), "prog": parser.prog}
    text, _, default = text.partition(" (default")
    if not default and action.default not in (None, False, argparse.SUPPRESS, ()):
        default = str(action.default)
    rest = default.partition(")")[2] if ")" in default else ""
    default = default.partition(")")[0].strip(" :")
    return names, _plain(text + rest), f"`{default}`" if default and action.nargs != 0 else ""


@functools.cache
def _examples() -> dict[str, list[tuple[str, str]]]:
    """Return the command lines of all documents by command, each once, those described first."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for path in documents():
        for line, said in command_lines(path.read_text(encoding="utf-8")):
            known = found[line.split()[1]]
            known[line] = known.get(line) or said
    return {
        name: sorted(lines.items(), key=lambda item: not item[1])[:EXAMPLES]
        for name, lines in found.items()
    }


def _passes() -> str:
    parts = [
        "# Passes\n\nA pass is a value and a function: its fields are its whole configuration. The "
        "same names and fields work in Python (`trimtab.passes`), on the command line "
        "(`trimtab NAME MODEL -o OUT`, `_` written as `-`) and in recipes."
    ]
    for name, kind in sorted(passes().items()):
        doc = _cleaned(kind.__doc__ or "").partition("Attributes:")[0]
        parts.append(f"## {name}\n\n{_prose(doc)}\n\n`trimtab.passes.{kind.__name__}`")
        if kind.fields():
            parts.append(table(("field", "type", "default", "meaning"), _fields(kind)))
    return "\n\n".join(parts)


def _fields(kind: type[Pass]) -> list[tuple[str, str, str, str]]:
    return [
        (f"`{f.name}`", f"`{f.metavar}`", f.default_word and f"`{f.default_word}`", _plain(f.help))
        for f in kind.fields().values()
    ]


def _metrics() -> str:
    rows = [
        (f"`{name}`", metric.needs, "lower" if metric.lower_is_better else "higher")
        for name, metric in METRICS.items()
    ]
    return (
        "# Metrics\n\nFor `--metric` of `eval`, `optimize`, `quantize` and in budgets files. Each "
        "takes `output=NAME`, to judge one output: `top1:output=logits`. `module:callable` is a "
        "metric of [your own](../tutorials/own-metric.md). What each output counts "
        "without labels: [fidelity](../quality.md).\n\n"
        + table(("metric", "needs", "better"), rows)
    )


def _targets() -> str:
    fields = [f.name for f in dataclasses.fields(Target) if f.name != "name"]
    rows = [
        (f"`{field}`", *(str(getattr(target, field)) for target in PRESETS.values()))
        for field in fields
    ]
    return (
        "# Targets\n\n`--target NAME` says where the model will run, which decides on int8 types, "
        "operators and the widths that channels are cut to. `auto` is this machine.\n\n"
        + table(("", *(f"`{name}`" for name in PRESETS)), rows)
        + "\n"
        + fields_table(attribute_lines(Target))
    )


def _files() -> str:
    keys = ", ".join(f"`{key}`" for key in KEYS)
    return "\n\n".join(
        [
            "# Files\n\nWhat trimtab writes and reads beside models.",
            "## budgets.yaml\n\nFor `trimtab gate`; the budgets and how each is decided: "
            f"[the gate in CI](../ci.md). Keys of a gate: {keys}. A key that does not exist is "
            "refused with its line and the nearest one that does.",
            "## recipe.yaml\n\nFor `trimtab run`: the same passes again, to the same bytes. Each "
            "entry of `passes` is the [name of a pass](passes.md), or a mapping of it to its "
            "fields; fields at their defaults are left out.",
            "```yaml\nname: int8\nmodel: float.onnx\nseed: 0\npasses:\n- simplify\n"
            "- quantize-static: {data: calib.npz, ranges: mse}\n```",
            fields_table(attribute_lines(Recipe)),
            "## Constraints of optimize\n\nIn Python a mapping of these to numbers or texts "
            '(`{"max_drop": 0.01, "max_size": "4MB", "max_latency": "p95=5ms"}`).',
            fields_table(attribute_lines(Constraints)),
            "## result.json\n\nThe evidence of `trimtab optimize`: `trimtab report` makes a page "
            "or Markdown of it. `schema` counts up where the meaning of a field changes.",
            fields_table(attribute_lines(OutcomeData)),
            "### An entry of results",
            fields_table(attribute_lines(Result)),
        ]
    )


def _errors() -> str:
    parts = [
        "# Errors\n\nAn error says what happened, where, and what to do next; the exit code tells "
        "its kind. In Python all are subclasses of `trimtab.TrimtabError` with the attributes "
        "`what`, `where` and `hint`. The messages below are those of the source code; `...` stands "
        "for what is only known when it happens."
    ]
    raised = _raised()
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, errors.TrimtabError):
            doc = (kind.__doc__ or "").partition("\n")[0]
            parts.append(f"## {name}\n\n{doc} Exit code {kind.exit_code}.")
            if raised.get(name):
                parts.append(table(("message", "what to do"), sorted(raised[name].items())))
    return "\n\n".join(parts)


def _raised() -> dict[str, dict[str, str]]:
    """Return the messages of the source by error, each with its hint."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for node in _nodes():
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
            what = _template(node.args[0])
            if what and re.search(r"[a-z]{3}", what):
                hints = [_template(k.value) for k in node.keywords if k.arg == "hint"]
                found[node.func.id][_plain(what)] = _plain("".join(h or "" for h in hints))
    return found


def _nodes() -> Iterator[ast.AST]:
    folders = ("core", "exporter", "models", "passes", "runtime_bench", "trimtab")
    for path in sorted(p for folder in folders for p in _sources(ROOT / folder)):
        yield from ast.walk(ast.parse(path.read_text(encoding="utf-8")))


def _sources(folder: Path) -> Iterable[Path]:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            yield from _sources(entry)
        elif entry.suffix == ".py":
            yield entry


def _template(node: ast.expr) -> str | None:
    """Return a literal text, values in it as `...`; None where it is computed."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        parts = [v.value if isinstance(v, ast.Constant) else "..." for v in node.values]
        return "".join(map(str, parts))
    return None


def _cleaned(doc: str) -> str:
    """Return a docstring without its indentation."""
    first, _, rest = doc.partition("\n")
    lines = rest.splitlines()
    indent = min((len(s) - len(s.lstrip()) for s in lines if s.strip()), default=0)
    return "\n".join([first, *(s[indent:] for s in lines)])


def _prose(doc: str) -> str:
    """Return a docstring as Markdown: indented parts are code already."""
    parts = re.split(r"\n\s*\n", doc.strip())
    return "\n\n".join(p if p.startswith("    ") else _plain(p) for p in parts)


def _plain(text: str) -> str:
    """Return text whose signs are shown as they are, options and what is in backticks as code."""
    text = re.sub(r"(?<![`\w-])(--[a-z][a-z0-9-]*)(?![^`]*`(?:[^`]*`[^`]*`)*[^`]*$)", r"`\1`", text)
    parts = re.split(r"(`[^`]*`)", text)
    parts[::2] = [re.sub(r"([*_\[\]#~])", r"\\\1", html.escape(p, quote=False)) for p in parts[::2]]
    return "".join(parts)
