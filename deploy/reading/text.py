"""A file's own words in our messages: short, and nothing in them that a terminal obeys."""

_LONGEST = 60


def plain(text: str | bytes, longest: int = _LONGEST) -> str:
    """Text of a file as one line of printable characters; its middle is left out where it is long.

    Control characters, line breaks and what is no Unicode are written as escapes.
    """
    if isinstance(text, bytes):
        text = text[: 4 * longest].decode("utf-8", "backslashreplace")
    if len(text) > longest:
        half = (longest - 3) // 2
        text = f"{text[:half]}...{text[-half:]}"
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode()
        for c in text
    )


def one_line(error: BaseException, longest: int = 200) -> str:
    """What another library's error says, as `plain` text."""
    if isinstance(error, MemoryError) or "bad_alloc" in str(error)[:200]:
        raise MemoryError from error  # not what the error is about: whoever bounds memory says so
    words = " ".join(str(error)[: 4 * longest].split())
    return plain(words, longest) or type(error).__name__


def size_text(number_of_bytes: float) -> str:
    """Bytes for a person: "3.2 GB"."""
    for unit, factor in (("TB", 2**40), ("GB", 2**30), ("MB", 2**20)):
        if number_of_bytes >= factor:
            return f"{min(number_of_bytes / factor, 1e9):.3g} {unit}"
    return f"{number_of_bytes / 1024:.3g} kB"
