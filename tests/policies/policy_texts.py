"""The policies that ship, and ways to spoil them: what tests of the loader and of the schema share."""

from importlib.resources import files
from pathlib import Path
from random import Random

from policies.files import PolicyText, read_policy

EXAMPLES = ("university.yaml", "department.yaml", "institute.d")
# What has a meaning in YAML, and what other parsers stumbled over.
PIECES = (
    *"[]{}:-|>?'\"\t\n@`#,=~\0\x07é\ud800\ufeff\u2028\U0001f319",
    *("  ", "&a ", "*a", "!!", "!x ", "<<: ", "---\n", "...\n", "%YAML 1.1\n", '"\\U99999999"', '"\\x"'),
    *("null", ".nan", "-1", "9" * 30, "1.5", "0x10", "true", "2026-01-01", "12h", "999999d", "mon-8", "* * * * *"),
    *("\n#%file b.yaml\n", "BEGIN:VEVENT\r\n", "2026-02-30", "25:00", "1e999", "&a [*a]", "sat-mon#9"),
)


def example_policy(name: str) -> PolicyText:
    """Return a policy that ships, as one text."""
    read = read_policy(Path(str(files("policies") / "examples" / name)))
    assert isinstance(read, PolicyText), read
    return read


def mutated(text: str, random: Random) -> str:
    """Spoil a text in a few places."""
    for _ in range(random.randrange(1, 6)):
        place = random.randrange(len(text))
        match random.randrange(4):
            case 0:
                text = text[:place] + random.choice(PIECES) + text[place:]
            case 1:
                text = text[:place] + text[place + random.randrange(40) :]
            case 2:
                other = random.randrange(len(text))
                text = text[:other] + text[place : place + random.randrange(80)] + text[other:]
            case _:
                text = text[:place] + random.choice(PIECES) + text[place + 1 :]
    return text
