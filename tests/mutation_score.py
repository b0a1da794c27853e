"""Print the result of a mutmut run: the number of mutants noticed in each file, and the names of the others."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

# mutmut stores the exit status of a mutant's tests; this is what each status means. There are no others
FOUND = {1: "noticed", 3: "noticed", 0: "survived", 5: "not reached", 33: "not reached"}
NOT_TRIED = (None, 2, 34)


def row(name: str, count: Counter[str]) -> str:
    """Return a line of the table."""
    cells = [sum(count.values()), *(count[what] for what in ("noticed", "ended", "not reached", "survived"))]
    return f"| {name} | {' | '.join(map(str, cells))} |"


def main() -> None:
    """Print the table and the survivors of the results in mutants/."""
    total: Counter[str] = Counter()
    survivors = []
    print("| file | tried | noticed | did not end, or crashed | not reached | survived |\n|---|---|---|---|---|---|")
    for meta in sorted(Path("mutants").rglob("*.meta")):
        codes = json.loads(meta.read_text())["exit_code_by_key"]
        found = {name: code for name, code in codes.items() if code not in NOT_TRIED}
        if not found:
            continue
        count = Counter(FOUND.get(code, "ended") for code in found.values())
        file = meta.relative_to("mutants").with_suffix("")
        print(row(f"`{file}`", count))
        survivors += [name for name, code in found.items() if FOUND.get(code) in ("survived", "not reached")]
        total += count
    every = sum(total.values())
    if not every:
        raise SystemExit("mutants/ holds no results: run `nox -s mutation` first")
    print(row("all", total))
    share = (total["noticed"] + total["ended"]) / every
    print(f"\n{share:.1%} of the mutants tried were noticed by a test or did not end")
    print("\nnot noticed:", *survivors, sep="\n  ")


if __name__ == "__main__":
    main()
