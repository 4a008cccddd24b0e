"""What questions cost a reader of a published catalogue: seconds, and bytes read against bytes needed.

    python -m flows.bench_queries [PARTITIONS [ROWS [REPEATS]]]

writes a catalogue of replicas of the mock sky's answers (200 partitions of 50,000 rows), asks it three
questions by DuckDB, Polars and LSDB, each in a process of its own, and prints a table.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from upath import UPath

from flows.questions import ENGINES, READS, REPEATS, Answer, Cost, Target, cost, needed_bytes
from flows.replicas import ORDER, answers_for_the_mock_sky, publish_replicas
from pipeline.sky import Partition


def ask_alone(engine: str, question: str, target: Target, repeats: int) -> Cost:
    """What a question costs in a process of its own, whose imports do not count."""
    order = json.dumps([engine, question, asdict(target), repeats])
    command = [sys.executable, "-m", "flows.bench_queries", "--ask", order]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{engine}, {question}: {done.stderr}")
    facts = json.loads(done.stdout.splitlines()[-1])
    return Cost(**(facts | {"answer": tuple(facts["answer"])}))


def agree(answers: Sequence[Answer]) -> bool:
    """Whether all engines found the same; sums of floats may differ by their order."""
    return bool(np.allclose(answers, answers[0], rtol=1e-6))


def table_row(question: str, engine: str, found: Cost, needed: int) -> str:
    """One line of the table."""
    cells = [
        question,
        engine,
        f"{found.cold:.2f}",
        f"{found.warm:.2f}",
        f"{found.processor:.2f}",
        f"{needed / 1e6:.1f}",
        f"{found.asked / 1e6:.1f}",
        f"{found.fetched / 1e6:.1f}",
        f"{found.fetched / needed:.2f}",
    ]
    return "| " + " | ".join(cells) + " |"


HEADS = (
    "question",
    "by",
    "cold [s]",
    "warm [s]",
    "processor [s]",
    "needed [MB]",
    "asked for [MB]",
    "from disk [MB]",
    "from disk / needed",
)


def main(partitions: int = 200, rows: int = 50_000, repeats: int = REPEATS) -> None:
    """Make the catalogue, ask, and print the table."""
    with TemporaryDirectory(prefix="ojala-bench-") as name:
        answers = answers_for_the_mock_sky(Path(name))
        leaves = publish_replicas(UPath(name) / "ojala", answers, partitions, rows)
        size = sum(leaf.bytes for leaf in leaves.values())
        print(f"{partitions * rows:,} rows in {partitions} leaves, {size / 1e9:.2f} GB\n")
        print("| " + " | ".join(HEADS) + " |\n|" + "---|" * len(HEADS))
        target = Target.at_corner(str(Path(name, "ojala")), Partition(ORDER, 0))
        for question in READS:
            needed = needed_bytes(question, target)
            answered = []
            for engine in ENGINES:
                found = ask_alone(engine, question, target, repeats)
                answered.append(found.answer)
                print(table_row(question, engine, found, needed), flush=True)
            if not agree(answered):
                raise RuntimeError(f"{question}: the engines found different things: {answered}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--ask"]:
        by, what, place, times = json.loads(sys.argv[2])
        print(json.dumps(asdict(cost(by, what, Target(**place), times))))
    else:
        main(*(int(argument) for argument in sys.argv[1:]))
