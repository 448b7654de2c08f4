"""``pararnn-solvers reproduce``: published figures computed again, theirs beside ours."""

from __future__ import annotations

import json
import time
import warnings
from argparse import Namespace
from typing import Any

from pararnn_solvers.errors import ConvergenceWarning
from pararnn_solvers.reproduction import ANCHORS, Row, find


def run_reproduce(args: Namespace) -> int:
    """Print what the arguments ask for; return 1 if a row disagrees, else 0."""
    if args.list or not args.names:
        width = max(map(len, ANCHORS))
        for name, anchor in ANCHORS.items():
            print(f"{name:<{width}}  {anchor.title}; {anchor.source}")
        return 0
    names = [name for name in args.names if name != "all"]
    for name in names:
        find(name)  # before anything is computed
    names = list(ANCHORS) if "all" in args.names else names
    reports = [report(name, args.json) for name in names]
    if args.json:
        print(json.dumps(reports, indent=2))
    return int(not all(row["agrees"] for found in reports for row in found["rows"]))


def report(name: str, quiet: bool) -> dict[str, Any]:
    """Compute one anchor and return it; print its rows as they come unless `quiet`."""
    anchor = find(name)
    if not quiet:
        print(f"{name}: {anchor.title}\nsource: {anchor.source}\nagrees: {anchor.criterion}\n")
        print(line(Row("case", "theirs", "ours", True), "agrees"))
    began, rows = time.perf_counter(), []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # it is a row of the table
        for row in anchor.rows():
            rows.append(row._asdict())
            if not quiet:
                print(line(row, "yes" if row.agrees else "NO"), flush=True)
    seconds = round(time.perf_counter() - began, 1)
    if not quiet:
        print(f"\n{seconds} s\n")
    about = {"title": anchor.title, "source": anchor.source, "criterion": anchor.criterion}
    return {"name": name, **about, "seconds": seconds, "rows": rows}


def line(row: Row, agrees: str) -> str:
    """Return one line of the table."""
    return f"  {row.case:<24}{row.theirs:>18}  {row.ours:>34}  {agrees}"
