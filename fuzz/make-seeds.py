#!/usr/bin/env python3
"""Writes fuzz/seeds from real files: the golden logs and the history of the system before.

    python3 fuzz/make-seeds.py

The seeds are committed; this runs again when a format or the form of a target's input changes.
"""
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SEEDS = ROOT / "fuzz" / "seeds"
GOLDEN = [ROOT / "tests/data/golden/log-v1", ROOT / "tests/data/golden/log-v1-gaps"]
FIRST_FRAME = 8192


def write(target, name, data):
    (SEEDS / target).mkdir(parents=True, exist_ok=True)
    (SEEDS / target / name).write_bytes(bytes(data))


def trimmed(path):
    """The file without the zeros at its end, which the targets put back."""
    return path.read_bytes().rstrip(b"\0")


for log in GOLDEN:
    files = [trimmed(path) for path in sorted(log.glob("*.seg"))]
    raw = bytearray([255])
    for number, data in enumerate(files, 1):
        # Lengths are two bytes: number, length, bytes.
        raw += bytes([number]) + len(data).to_bytes(2, "little") + data
        write("recovery", f"{log.name}-{number}", bytes([240, 0]) + data)
        write("frame", f"{log.name}-{number}-header", bytes([0]) + data[:4096])
        write("frame", f"{log.name}-{number}-frames", data[FIRST_FRAME:FIRST_FRAME + 1500])
        write("frame", f"{log.name}-{number}-payload", bytes([1, 0, 0, 0]) + data[FIRST_FRAME + 48:][:200])
        # Mode 3: one file of a whole store is nothing but these bytes.
        write("open", f"{log.name}-{number}", bytes([3 | (number - 1) << 2]) + data)
        # A choice above 239 reads a byte changed in the middle of a frame.
        broken = bytearray(data)
        broken[FIRST_FRAME + 60] ^= 1
        write("recovery", f"{log.name}-{number}-broken", bytes([240, 0]) + broken)
    write("directory", log.name, raw)

# One bit of a header, a frame, the database; a sector; a cut; with the database and without.
for mode in (0, 1):
    for name, change in [
        ("header", [0, 20, 0, 0, 1]),
        ("frame", [0, 70, 32, 0, 1]),
        ("sector", [1, 0, 33, 230, 0]),
        ("cut", [1, 0, 34, 250, 0]),
        ("database", [2, 0, 17, 0, 1]),
    ]:
        write("open", f"mode-{mode}-{name}", [mode, *change])

legacy = ROOT / "tests/data/legacy"
for path in sorted(legacy.iterdir()):
    data = path.read_bytes()
    if data.startswith(b"SQLite"):
        continue
    # Cut behind a line: a seed is small so that its changes are many.
    some = data[:3000].rsplit(b"\n", 1)[0] + b"\n"
    write("import_cli", f"lines-{path.stem}", bytes([0, 2]) + some)
    write("import_cli", f"stdin-{path.stem}", bytes([96, 4]) + some)

commands = {
    "append": b"append\0--company-guid\0g\0--company-alterid\0" b"1\0--company-name\0n\0--level\0info\0m",
    "import": b"import\0old.jsonl\0--tz\0Europe/Berlin\0--dry-run",
    "repair": b"repair\0--accept-loss\0" b"3\0--yes",
    "tail": b"tail\0-f\0--output\0ndjson",
}
for name, text in commands.items():
    write("import_cli", f"arguments-{name}", bytes([96, 0]) + text)
for name, choice, options in [
    ("list", 0, b"\0event\0" b"\x0124h\0\x02now\0\x03error\0\x04success"),
    ("list-json", 8, b"\x0aname\0" b"\x0f\0\x0e"),
    ("runs", 3, b"\x00running\0\x011h"),
    ("tail", 2, b"\x005\0\x013"),
]:
    write("import_cli", f"command-{name}", bytes([96, 1, choice]) + options)
for name, text in [("iso", b"Asia/Kolkata\x002024-03-31T02:30:00"), ("ago", b"UTC\x0090m"), ("zone", b"+05:30\x002024-02-29")]:
    write("import_cli", f"time-{name}", bytes([96, 6]) + text)
write("import_cli", "text", bytes([96, 7]) + "\x1b[31m\u202e ß \"\\".encode())

# Tapes of choices: every operation comes up in a row of counting bytes.
for target in ("script", "store", "recovery", "directory"):
    for step in (1, 7, 37):
        write(target, f"counting-{step}", [(at * step) % 239 for at in range(1, 120)])
