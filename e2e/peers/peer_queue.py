"""Celery as the guide sets it up: late acknowledgement, prefetch 2, concurrency 4, gzip, broker and results in Redis.

Results are kept, as our ledger keeps the end of each task.

    peer_queue.py enqueue N    puts N empty tasks with a payload of 300 bytes into the queue
    peer_queue.py done         prints how many tasks the worker has done since it started
"""

import os
import sys

from celery import Celery

app = Celery("peer_queue", broker=os.environ["PEER_REDIS_URL"], backend=os.environ["PEER_REDIS_URL"])
app.conf.update(
    task_acks_late=True,
    task_compression="gzip",
    result_compression="gzip",
    worker_prefetch_multiplier=2,
    worker_max_tasks_per_child=1000,
    broker_connection_retry_on_startup=True,
)
PAYLOAD = "x" * 300


@app.task(name="empty")
def empty(payload):
    pass


def done():
    stats = app.control.inspect(timeout=1).stats()
    if not stats:
        sys.exit("no worker answers")
    return sum(worker["total"].get("empty", 0) for worker in stats.values())


if __name__ == "__main__":
    if sys.argv[1] == "enqueue":
        with app.producer_pool.acquire(block=True) as producer:
            for _ in range(int(sys.argv[2])):
                empty.apply_async((PAYLOAD,), producer=producer)
    else:
        print(done())
