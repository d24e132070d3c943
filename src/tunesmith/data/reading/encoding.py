"""Open text files whatever their encoding, without losing or hiding a byte.

Bytes that are wrong in an encoding become lone surrogates in the text (byte 0x80 is U+DC80), so
that the rows around them can still be read and the place of each is known; `find_bad_byte` finds
them again.
"""

from __future__ import annotations

import codecs
import contextlib
import re
from pathlib import Path
from typing import TextIO

from tunesmith.errors import DataError

SAMPLE_BYTES = 1 << 20
BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
SURROGATE = re.compile("[\ud800-\udfff]")
GB18030 = re.compile(
    rb"([\x81-\xfe])(?:([\xa1-\xfe])|[\x40-\xa0]|[\x30-\x39][\x81-\xfe][\x30-\x39])"
)
"""A character beyond ASCII; both groups match where GB 2312 has it too."""
MOSTLY = 0.8
KOREAN = 20
"""So many common characters of Chinese text would have one of the second half among them."""
KEEP = "tunesmith.keep"


def open_text(path: Path, encoding: str = "auto") -> TextIO:
    """Open a text file; line ends of any kind become one newline.

    Args:
        encoding: a codec's name, or `auto` to look at the file. A byte order mark decides anyway.

    Raises:
        DataError: if there is no codec of that name.
    """
    named = None if encoding == "auto" else _codec(encoding)
    name = _read_mark(path) or _without_mark(path, named) or detect_encoding(path)
    errors = "surrogateescape" if name == "utf-8-sig" else KEEP  # the same there, and fast
    return open(path, encoding=name, errors=errors, newline=None)


def _read_mark(path: Path) -> str | None:
    with path.open("rb") as file:
        head = file.read(4)
    return next((name for mark, name in BOMS if head.startswith(mark)), None)


def _without_mark(path: Path, named: str | None) -> str | None:
    """Say in which order a file's bytes stand where neither it nor the name of its codec does."""
    if named not in ("utf-16", "utf-32"):
        return named
    with path.open("rb") as file:
        head = file.read(4096)
    if named == "utf-32":
        return "utf-32-be" if head.startswith(b"\0") else "utf-32-le"
    return _wide(head) or "utf-16-le"


def detect_encoding(path: Path) -> str:
    """Tell the encoding of a file from its first bytes that are not ASCII.

    Zero bytes mean UTF-16; then comes UTF-8 wherever most of the text is valid in it, even with a
    few bad bytes; then GB 18030 (GBK, GB 2312) where that gives mostly common Chinese. What is
    neither is taken as UTF-8, so that every bad byte is reported.
    """
    with path.open("rb") as file:
        sample = file.read(SAMPLE_BYTES)
        wide = _wide(sample)
        if wide:
            return wide
        while sample and sample.isascii():
            sample = file.read(SAMPLE_BYTES)
    return "utf-8-sig" if _looks_utf8(sample) or not _looks_chinese(sample) else "gb18030"


def find_bad_byte(text: str) -> re.Match[str] | None:
    """Find the first place where the file's bytes were wrong in its encoding."""
    return None if text.isascii() else SURROGATE.search(text)


def bad_byte_reason(found: re.Match[str]) -> str:
    """Say what stands at such a place."""
    code = ord(found.group())
    if 0xDC00 <= code <= 0xDCFF:
        return f"byte 0x{code - 0xDC00:02x} is wrong in the file's encoding (see data.encoding)"
    return f"half of a character (U+{code:04X})"


def _codec(encoding: str) -> str:
    try:
        name = codecs.lookup(encoding).name
        b"a".decode(name, KEEP)  # some codecs give no text, or take no text that is wrong
    except (LookupError, ValueError):
        raise DataError(
            f"there is no text encoding {encoding!r}",
            hint="write auto, utf-8, utf-16, gbk or another codec's name",
            where="data.encoding",
        ) from None
    # Supersets that read the same text, and a byte order mark or rarer characters too.
    return {"utf-8": "utf-8-sig", "gbk": "gb18030", "gb2312": "gb18030"}.get(name, name)


def _wide(sample: bytes) -> str:
    """Name the UTF-16 without byte order mark that a sample is in, or nothing."""
    head = sample[:4096]
    if len(head) < 4:
        return ""
    even, odd = head[0::2].count(0), head[1::2].count(0)
    half = len(head) // 2
    starts_le, starts_be = head[0] and not head[1], head[1] and not head[0]
    if starts_le and odd > half // 5 and even * 10 < odd:
        return "utf-16-le"
    if starts_be and even > half // 5 and odd * 10 < even:
        return "utf-16-be"
    return ""


def _looks_utf8(sample: bytes) -> bool:
    bad, good = _count(sample, "utf-8")
    return bad <= good // 4


def _looks_chinese(sample: bytes) -> bool:
    """Whether most characters would be punctuation or common Chinese (GB 2312, level 1).

    Other encodings give rare characters: Latin letters with accents, Japanese and traditional
    Chinese all do. Korean gives common ones, but none of their second half.
    """
    bad, good = _count(sample, "gb18030")
    spelled = sample.decode("gb18030", "ignore").encode("gb18030")
    leads = [found[1][0] for found in GB18030.finditer(spelled) if found[2]]
    early = sum(lead in range(0xA1, 0xA4) or lead in range(0xB0, 0xC9) for lead in leads)
    late = sum(lead in range(0xC9, 0xD8) for lead in leads)
    korean = early >= KOREAN and late == 0
    return good > 0 and bad * 20 <= good and early + late >= MOSTLY * good and not korean


def _count(sample: bytes, encoding: str) -> tuple[int, int]:
    """Count bad bytes and good characters beyond ASCII; a character cut by the end is neither."""
    decoder = codecs.getincrementaldecoder(encoding)("surrogateescape")
    text = decoder.decode(sample)
    bad = len(SURROGATE.findall(text))
    ascii_only = text.encode("ascii", "ignore")
    return bad, len(text) - len(ascii_only) - bad


def _keep(problem: UnicodeError) -> tuple[str, int]:
    """Keep what a codec cannot decode: lone surrogates as they are, bytes as lone surrogates."""
    if not isinstance(problem, UnicodeDecodeError):
        raise problem
    if problem.encoding.startswith(("utf-16", "utf-32")):
        with contextlib.suppress(UnicodeDecodeError):
            text, end = codecs.lookup_error("surrogatepass")(problem)
            return str(text), end
    wrong = problem.object[problem.start : problem.end]
    return "".join(chr(0xDC00 + byte) for byte in wrong), problem.end


codecs.register_error(KEEP, _keep)
