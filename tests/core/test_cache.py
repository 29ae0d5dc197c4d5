"""The cache folder of the user."""

from __future__ import annotations

from pathlib import Path

import pytest

from trimtab.core.cache import VARIABLE, cache_root


def test_the_variable_overrides_the_cache_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "kept"))
    assert cache_root() == tmp_path / "kept"


def test_without_the_variable_it_is_the_systems_cache_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_root().name in {"trimtab", "Cache"}
    assert cache_root().is_absolute()
