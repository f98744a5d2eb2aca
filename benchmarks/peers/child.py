"""Run a peer's part in another interpreter: values go in and out as JSON files. Knows no peer."""

import json
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from benchmarks.peers.peer import NotHere


def ask(peer: str, python: Path, script: str, asked: Mapping[str, object]) -> dict[str, object]:
    """Run a script with what is asked, and return its answer; the script is given two paths, of a file for each."""
    with tempfile.TemporaryDirectory(prefix="nightshift-peer-") as folder:
        asked_file, answer_file = Path(folder) / "asked.json", Path(folder) / "answer.json"
        asked_file.write_text(json.dumps(asked), encoding="utf-8")
        # Isolated: else the script would find our module, which has the peer's name, in place of the peer.
        words = [str(python), "-I", "-W", "ignore", script, str(asked_file), str(answer_file)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode or not answer_file.exists():
            said = done.stderr.strip().splitlines()
            raise NotHere(f"{peer} failed in {python}: {said[-1] if said else 'it said nothing'}")
        return cast("dict[str, object]", json.loads(answer_file.read_text(encoding="utf-8")))
