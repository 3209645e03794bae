"""Running jobs in this process, without Ray: the debugger's door."""

from __future__ import annotations

import traceback

from plmray.orchestrate.jobs import Job, JobRunner, JobSource, Report


class Here:
    """A place with one slot. A job that fails becomes failed rows; the next one runs."""

    concurrency = 1

    def __init__(self, runner: JobRunner) -> None:
        self.runner = runner

    def run(self, source: JobSource) -> None:
        while isinstance(job := source.next_job(), Job):
            try:
                report = self._run_job(source, job)
            except Exception as error:
                source.finish(job, None, error=short_trace(error))
            else:
                source.finish(job, report)

    def _run_job(self, source: JobSource, job: Job) -> Report | None:
        report = None
        for report in self.runner.reports(job):
            if source.observe(job, report):
                return report
        return report


def short_trace(error: BaseException, lines: int = 12) -> str:
    """The error and the end of its traceback, for a result's ``error`` field."""
    text = "".join(traceback.format_exception(error)).strip().splitlines()
    return "\n".join([f"{type(error).__name__}: {error}", *text[-lines:]])
