"""a dump of vectors + an inverter -> a leakage report: jobs/invert.py into OUT/recovered, then the report on it.

Stopped or killed, the same command goes on where it was. `embinv audit` does the same in one process.
"""

import sys
from pathlib import Path

from embinv.commands.audit import (
    DESCRIPTION,
    RECOVERED,
    add_report_arguments,
    wishes_of,
)
from embinv.commands.audit_report import read_before, report
from embinv.commands.inverting import STORES, opened, require_apart, settings_given
from jobs.arguments import job_parser, run_job
from jobs.failures import told_plainly
from jobs.invert import add_arguments, at_hand, invert_dump, resolve, summary
from jobs.provenance import end_provenance, keep_provenance
from jobs.staging import place, shown


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = job_parser(
        DESCRIPTION + STORES,
        "exit codes: 0 done, 1 the run went wrong, 2 a mistake that the message tells how to mend, 130 Ctrl-C\n\n"
        "examples:\n"
        "  python jobs/audit.py --checkpoint runs/my/checkpoint --vectors dump/ --out runs/my/audit\n"
        "  ... --text-column text              the dump holds the texts too: compare\n"
        "  ... --device cuda --workers 4       four inverters on GPUs",
    )
    add_arguments(parser)
    add_report_arguments(parser)
    given = parser.parse_args(argv)
    resolve(given)
    given.recovered = None
    out = place(given.out)
    with at_hand(given, out):
        wishes = wishes_of(given)
        checkpoint = shown(Path(given.checkpoint))
        print(f"# audit: checkpoint={checkpoint}, vectors={opened(given).address}, out={shown(out)}", flush=True)
        require_apart(out, given)
        print(summary(invert_dump(given, out / RECOVERED), shown(out / RECOVERED)))
        with told_plainly(out):
            keep_provenance(out, "audit", settings_given(given))
        report(given, wishes, read_before([out / RECOVERED], Path(given.checkpoint)), out)
        end_provenance(out, "audit")


if __name__ == "__main__":
    run_job(lambda: main(sys.argv[1:]))
