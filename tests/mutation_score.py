"""What a run of mutmut found: for each file how many mutants a test noticed, and the names of the others."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

# what mutmut keeps of a mutant: the exit status of the tests, here those that say that none of them failed
SURVIVED, NO_TEST = 0, 33


def main() -> None:
    """Print the table and the survivors of what stands in mutants/."""
    total: Counter[str] = Counter()
    survivors = []
    print("| file | mutants | noticed | not reached | survived |\n|---|---|---|---|---|")
    for meta in sorted(Path("mutants").rglob("*.meta")):
        codes = json.loads(meta.read_text())["exit_code_by_key"]
        found = {name: code for name, code in codes.items() if code is not None}
        if not found:
            continue
        count = Counter({SURVIVED: "survived", NO_TEST: "not reached"}.get(code, "noticed") for code in found.values())
        file = meta.relative_to("mutants").with_suffix("")
        print(f"| `{file}` | {len(found)} | {count['noticed']} | {count['not reached']} | {count['survived']} |")
        survivors += [name for name, code in found.items() if code in (SURVIVED, NO_TEST)]
        total += count
    every = sum(total.values())
    if not every:
        raise SystemExit("mutants/ holds no results: run `nox -s mutation` first")
    share = 100 * total["noticed"] / every
    print(f"| all | {every} | {total['noticed']} ({share:.1f}%) | {total['not reached']} | {total['survived']} |")
    print("\nnot noticed:", *survivors, sep="\n  ")


if __name__ == "__main__":
    main()
