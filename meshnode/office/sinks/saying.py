"""What other programs say, made fit for a sentence: one line, nothing that a terminal would obey."""

from __future__ import annotations

import re
import ssl


def readable(text: str) -> str:
    """In one line, without control characters and whatever else cannot be seen."""
    return "".join(letter for letter in " ".join(text.split()) if letter.isprintable())


def why(error: Exception) -> str:
    """The words of an error, without the numbers around them."""
    if isinstance(error, OSError) and error.strerror and not isinstance(error, ssl.SSLError):
        return error.strerror.lower()
    text = re.sub(r"^\[[^]]*\] *| *\(_ssl\.c:\d+\)$", "", readable(str(error)))
    return (text[:1].lower() + text[1:]).rstrip(".") or type(error).__name__
