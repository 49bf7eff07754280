"""Writes strict.txt: which characters each charset has, as Python reads them.

Reads a line for each character that golang.org/x/text writes in a charset: the charset's name, the
character's number and its bytes, in hexadecimal. Prints a line for each charset: its name, how many
of these characters Python reads back, and the SHA-256 of their lines. strict_test.go runs it.
"""

import hashlib
import sys

# Names that Python does not know, and what it calls the charset.
CODECS = {
    "IBM00858": "cp858",
    "ISO-8859-6-E": "iso8859_6",
    "ISO-8859-6-I": "iso8859_6",
    "ISO-8859-8-E": "iso8859_8",
    "ISO-8859-8-I": "iso8859_8",
    "windows-874": "cp874",
    "x-mac-cyrillic": "mac_cyrillic",
}

# Characters that Python reads and others do not: iconv of glibc has other ones in their place.
# The editions of GB 18030 differ in private use, and in what was private use in an earlier one.
# In ISO-2022-JP the two shifts are control functions (WHATWG refuses them too).
ELSEWHERE = {
    "ISO-2022-JP": [0x0E, 0x0F],
    "GB18030": [0x1E3F, *range(0x9FB4, 0x9FBC), *range(0xE000, 0xF900), *range(0xFE10, 0xFE1A)],
    "macintosh": [0x2206, 0xF8FF],
}


def reads(name, number, octets):
    """Report whether a strict decoder makes the character of the octets."""
    if number in ELSEWHERE.get(name, ()):
        return False
    try:
        return octets.decode(CODECS.get(name, name)) == chr(number)
    except UnicodeDecodeError:
        return False


counts, sums = {}, {}
for line in sys.stdin:
    name, number, octets = line.rstrip("\n").split(" ")
    if name not in counts:
        counts[name], sums[name] = 0, hashlib.sha256()
    if reads(name, int(number, 16), bytes.fromhex(octets)):
        counts[name] += 1
        sums[name].update(line.encode())
for name in sorted(counts):
    print(name, counts[name], sums[name].hexdigest())
