"""Breaking changes of public names: found against a release, and allowed where they are told."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

pytest.importorskip("griffe", reason="needs griffelib")

import api_changes

RELEASED = "# Changelog\n\n## 0.1.0, 2026-01-01\n\n### Breaking\n\n- `load` and `save` are new.\n"
TOLD = "`load` takes no name, and\n`save` is gone.\n"


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a release, and the same files after it."""
    (tmp_path / "trimtab" / "passes").mkdir(parents=True)
    (tmp_path / "trimtab" / "__init__.py").write_text(
        '__all__ = ["load", "save"]\ndef load(path, name=""): ...\ndef save(path): ...\n'
    )
    (tmp_path / "trimtab" / "passes" / "__init__.py").write_text("__all__ = []\n")
    (tmp_path / "CHANGELOG.md").write_text(RELEASED)
    name = ("-c", "user.name=a", "-c", "user.email=a@b")
    for command in (("init", "-q"), ("add", "."), (*name, "commit", "-qm", "a"), ("tag", "v0.1.0")):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    monkeypatch.setattr(api_changes, "ROOT", tmp_path)
    monkeypatch.setattr("sys.argv", ["api_changes.py"])
    return tmp_path


@pytest.mark.parametrize(
    ("now", "says"),
    [
        ('__all__ = ["load", "save"]\ndef load(path, name=""): ...\ndef save(path): ...\n', ""),
        ('__all__ = ["load"]\ndef load(path, name=""): ...\n', "save: Public object was removed"),
        ('__all__ = ["load", "save"]\ndef load(path): ...\ndef save(path): ...\n', "load(name)"),
    ],
)
def test_what_breaks_since_the_newest_release_is_told(
    now: str, says: str, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (repository / "trimtab" / "__init__.py").write_text(now)
    assert api_changes.main() == bool(says)
    assert says in capsys.readouterr().out
    fragment = repository / "changes" / "+load.breaking.md"
    fragment.parent.mkdir()
    fragment.write_text(TOLD)
    assert api_changes.main() == 0
    fragment.unlink()  # as the release's changelog takes it in, before there is a tag
    built = RELEASED.replace("## 0.1", f"## 0.2.0, 2026-02-01\n\n### Breaking\n\n- {TOLD}\n## 0.1")
    (repository / "CHANGELOG.md").write_text(built)
    assert api_changes.main() == 0
