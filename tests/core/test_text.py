"""Names of strangers on a terminal."""

from __future__ import annotations

import io

from trimtab.core.errors import ModelError
from trimtab.core.progress import Stderr
from trimtab.core.text import PrintableStream, printable, table

EVIL = "a\x1b[2Jb\x07\u202ec\r\x9bd"
SHOWN = r"a\x1b[2Jb\x07\u202ec\r\x9bd"


def test_control_characters_are_shown() -> None:
    assert printable(EVIL) == SHOWN
    assert printable("Größe\n\t5 µs, 2×") == "Größe\n\t5 µs, 2×"


def test_messages_tables_and_progress_send_none() -> None:
    stream = io.StringIO()
    Stderr(stream).say(EVIL)
    PrintableStream(stream).write(EVIL)
    text = stream.getvalue() + str(ModelError(EVIL, where=EVIL)) + "".join(table(["n"], [[EVIL]]))
    assert text.count(SHOWN) == 5
    assert not set(text) & set("\x1b\x07\u202e\r\x9b")


def test_a_name_cannot_forge_a_line() -> None:
    assert "\n" not in str(ModelError("is broken", where="a\nok: 0 faults"))
    assert len(table(["n"], [["a\nb"]])) == 3
