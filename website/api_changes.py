"""Breaking changes of the public Python names since a release, by default the newest tag.

    python website/api_changes.py [REF]

Public are the names that `trimtab` and `trimtab.passes` list; griffe reads both versions without
running them. Exit code 1 where code written for the release would break and no file
`changes/*.breaking.md` names what breaks, in backticks.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator

import griffe
from documents import ROOT

_COLOUR = re.compile(r"\x1b\[\d+m")


def newest_release() -> str:
    """Return the newest tag of a release; empty before the first."""
    command = ["git", "tag", "--list", "v*", "--sort=-version:refname", "--merged"]
    return subprocess.check_output(command, cwd=ROOT, text=True).partition("\n")[0]


def breaking_changes(ref: str) -> Iterator[tuple[str, str]]:
    """Yield the names that code written for a version cannot use as before, and what changed."""
    old = griffe.load_git("trimtab", ref=ref, repo=ROOT, resolve_aliases=True)
    new = griffe.load("trimtab", search_paths=[ROOT], try_relative_path=False, resolve_aliases=True)
    for before, now in ((old, new), (old["passes"], new["passes"])):
        public = {}
        for name in map(str, before.exports or ()):
            public |= {f"{before.path}.{name}": name}
            if name in before.members:
                public[before[name].canonical_path] = name
        for change in griffe.find_breaking_changes(before, now):
            path = change.obj.canonical_path
            name = public.get(path) or public.get(path.rpartition(".")[0])
            if name:
                yield name, _COLOUR.sub("", change.explain(griffe.ExplanationStyle.ONE_LINE))


def announced(ref: str) -> set[str]:
    """Return the names whose break is told: in `changes/`, or in the part of a newer release."""
    told = [p.read_text(encoding="utf-8") for p in (ROOT / "changes").glob("*.breaking*.md")]
    newest = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").split("\n## ")[1]
    if not newest.startswith(f"{ref.removeprefix('v')},"):
        told.append(newest.partition("### Breaking\n")[2].partition("### ")[0])
    return set(re.findall(r"`(\w+)`", "".join(told)))


def main() -> int:
    """Print what breaks; the exit code is 1 where not all of it is told."""
    ref = sys.argv[1] if len(sys.argv) > 1 else newest_release()
    if not ref:
        sys.stdout.write("There is no release yet: nothing can break.\n")
        return 0
    told = announced(ref)
    changes = dict.fromkeys(breaking_changes(ref))
    silent = [text for name, text in changes if name not in told]
    sys.stdout.write("".join(f"{text}\n" for _, text in changes))
    sys.stdout.write(f"{len(changes)} breaking changes since {ref}, {len(silent)} not told\n")
    return min(1, len(silent))


if __name__ == "__main__":
    raise SystemExit(main())
