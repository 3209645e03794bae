"""Interrupt this head's running jobs and wait for them: what a pod does before it is killed (preStop)."""

import time

from ray.job_submission import JobStatus, JobSubmissionClient

WAIT_S = 120  # more than RAY_JOB_STOP_WAIT_TIME_S, less than terminationGracePeriodSeconds

client = JobSubmissionClient("http://127.0.0.1:8265")
asked = [job.submission_id for job in client.list_jobs() if job.submission_id and job.status == JobStatus.RUNNING]
for job in asked:
    client.stop_job(job)
deadline = time.monotonic() + WAIT_S
while time.monotonic() < deadline and not all(client.get_job_status(job).is_terminal() for job in asked):
    time.sleep(1)
