"""Laws of what is kept in memory: bounded by its bytes, the longest unseen first."""

from __future__ import annotations

from taxadiffusion.web.memory import Memory


def test_the_longest_unseen_leaves_first() -> None:
    memory: Memory[str] = Memory(30)
    for key in "abc":
        memory.put(key, key.upper(), 10)
    assert memory.get("a") == "A"
    memory.put("d", "D", 10)
    assert [memory.get(key) for key in "abcd"] == ["A", None, "C", "D"]
    memory.put("d", "d", 30)
    assert [memory.get(key) for key in "acd"] == [None, None, "d"]


def test_what_is_exchanged_counts_once_and_what_is_too_large_is_not_kept() -> None:
    memory: Memory[int] = Memory(30)
    for value in range(100):
        memory.put("a", value, 20)
    memory.put("b", 1, 10)
    assert (memory.get("a"), memory.get("b"), len(memory)) == (99, 1, 2)
    memory.put("c", 1, 31)
    assert len(memory) == 0
