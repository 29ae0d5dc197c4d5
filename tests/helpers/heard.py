"""Progress that keeps what is said."""

from __future__ import annotations

from trimtab.core.progress import Silent


class Heard(Silent):
    """Lines that were said, in order."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)
