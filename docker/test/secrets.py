"""Looks for private keys in what programs print.

    secrets.py KEYS TEXT...     KEYS is a folder with key files, JSON arrays of 64 numbers

Every form in which a key is written counts: numbers, base58, hexadecimal, base64, of the whole or of its secret half; eight
numbers in a row are enough. Texts with a planted key must be found out first. Python 3.8 and the standard library are enough.
"""

import base64
import glob
import json
import os
import re
import sys

ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def base58(data):
    number, digits = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        digits = ALPHABET[digit] + digits
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + digits


def forms(key):
    secret = key[:32]
    for part in (key, secret):
        yield from (base58(part), part.hex(), base64.b64encode(part).decode().rstrip("="))
    for at in range(0, 32, 8):
        yield ",".join(str(number) for number in secret[at:at + 8])


def betrayed(keys, text):
    """Names of the keys of which something stands in the text."""
    # Numbers are told however they are set apart.
    packed = re.sub(r"(?<=\d)\s*[,;]?\s+(?=\d)|(?<=\d)\s*,\s*(?=\d)", ",", text)
    return [name for name, key in keys.items() if any(form in text or form in packed for form in forms(key))]


def main():
    keys = {}
    for path in glob.glob(os.path.join(sys.argv[1], "*.json")):
        with open(path, encoding="utf-8") as file:
            keys[os.path.basename(path)] = bytes(json.load(file))
    if not keys or any(len(key) != 64 for key in keys.values()):
        sys.exit("there are no keys to look for")
    for name, key in keys.items():
        for form in [*forms(key), json.dumps(list(key)), " ".join(map(str, key))]:
            if name not in betrayed(keys, "2026 INFO key=%s and more" % form):
                sys.exit("a planted key was not found")
    size, found = 0, []
    for path in sys.argv[2:]:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read()
        size += len(text)
        found += ["%s is in %s" % (name, os.path.basename(path)) for name in betrayed(keys, text)]
    if found or not size:
        sys.exit("\n".join(found) or "there is no text to look at")
    print("none of %d keys is in %d bytes of %d logs" % (len(keys), size, len(sys.argv) - 2))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main()
