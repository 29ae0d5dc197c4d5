"""A memo keeps what passes computed, the newest of each kind, for the copies of one context."""

from __future__ import annotations

from dataclasses import replace

from trimtab.core.context import Context
from trimtab.core.memo import ByIdentity, Memo, MemoKind
from trimtab.core.target import Target

NUMBERS: MemoKind[int] = MemoKind("numbers", 2)
WORDS: MemoKind[str] = MemoKind("words", 2)


def test_kinds_are_kept_apart_and_the_oldest_goes_first() -> None:
    memo = Memo()
    memo.put(WORDS, "a", "word")
    for key in "abac":
        memo.put(NUMBERS, key, ord(key))
    assert memo.items(NUMBERS) == [("a", 97), ("c", 99)]
    assert memo.get(NUMBERS, "b") is None
    assert memo.get(WORDS, "a") == "word"


def test_equal_objects_are_different_keys() -> None:
    first, second = [1], [1]
    memo = Memo()
    memo.put(NUMBERS, ByIdentity(first), 1)
    assert memo.get(NUMBERS, ByIdentity(first)) == 1
    assert memo.get(NUMBERS, ByIdentity(second)) is None


def test_copies_of_a_context_share_its_memo_and_others_do_not() -> None:
    ctx = Context(target=Target.named("arm64"))
    assert replace(ctx, seed=1).memo is ctx.memo
    assert Context(target=ctx.target).memo is not ctx.memo
