"""Running jobs in this process, without Ray: for debugging, and on a machine that has torch alone."""

from __future__ import annotations

from plmray.sweep.folder.costs import Costs
from plmray.sweep.workers.packed import Host, News
from plmray.trials.job import Job, JobRunner, JobSource, Report, job_key, short_trace


class Here:
    """A place with one slot. A job that fails becomes failed rows; the next one runs."""

    concurrency = devices = 1

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


class PackedHere:
    """The same with many jobs at a time, their trials in packs on this process's device."""

    devices = 1

    def __init__(self, host: Host, concurrency: int, costs: Costs) -> None:
        self.host, self.concurrency, self.costs = host, concurrency, costs
        self.live: dict[str, Job] = {}

    def run(self, source: JobSource) -> None:
        try:
            while self._take_jobs(source):
                for news in self.host.advance():
                    if news.key in self.live:  # a job stopped a moment ago may have more to say
                        self._hear(source, news)
        finally:
            self.costs.add_packs([self.host.facts()])

    def _take_jobs(self, source: JobSource) -> bool:
        """Take jobs as long as there is room; whether any is live."""
        while len(self.live) < self.concurrency and isinstance(job := source.next_job(), Job):
            key = job_key(job)
            self.live[key] = job
            self.host.submit(key, job)
        return bool(self.live)

    def _hear(self, source: JobSource, news: News) -> None:
        job, report = self.live[news.key], news.report
        stops = report is not None and (source.observe(job, report) or report.finished)
        if report is None or stops:
            del self.live[news.key]
            self.host.drop(news.key)
            source.finish(job, report, error=news.error)
