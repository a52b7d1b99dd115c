"""Servers that are killed, for tests: `python jobs_killed.py WHERE LOG SEED KILLS SIDE_BY_SIDE`.

A child takes jobs and does them, as a server does, and is killed at a random moment, mostly after it has
accepted one; then comes the next. The last are left alone until nothing waits or runs. In the log is what
each knew for certain: `accepted ID` after `submit` had returned, `finished ID` after `finish` had said that
the job was its own. They are forks of this process, which has one thread, so that a hundred take seconds.
"""

import asyncio
import hashlib
import os
import random
import signal
import sys
import time

from explainer_runtime.jobs import Limits, database, kept
from explainer_runtime.jobs.queue import Answer, Worker

LIMITS = Limits(lease=0.3, attempts=10_000)
OWNERS = ("ann", "bob")
MOST = 0.03
"""Seconds after which a child is killed that has begun, at most."""


def answer(request: bytes) -> bytes:
    """What a synchronous call would say."""
    return hashlib.sha256(request).hexdigest().encode() * 100


async def serve(where: str, log: int, begun: int, jobs: int, seed: int) -> None:
    """Accept so many jobs and do those that there are, until none is left."""
    store, blobs = kept(where, LIMITS)
    finish = store.finish

    def finish_and_say(id: str, *rest: object, **more: object) -> bool:
        mine = finish(id, *rest, **more)
        if mine:
            os.write(log, f"finished {id}\n".encode())
        return mine

    store.finish = finish_and_say

    async def do(job, beat):
        request = await store.call(blobs.get, job.request)
        beat.told(0.5, "half")
        await asyncio.sleep(0.002)
        return Answer(200, answer(request))

    worker = Worker(store, blobs, do, lambda: 4, tick=0.05)
    worker.start()
    for number in range(jobs):
        request = b"%d %d" % (seed, number)
        digest = await store.call(blobs.put, request)
        job = await store.call(store.submit, OWNERS[number % 2], "m", digest, len(request))
        os.write(log, f"accepted {job.id}\n".encode())
        os.write(begun, b".")
        worker.wake()
    while any(await store.call(store.standing)):
        await asyncio.sleep(0.02)
    await worker.stop()
    store.close()


def fork(where: str, log: int, seed: int) -> tuple[int, int]:
    """The process of a child, and where it says that it has begun."""
    begun, says = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            asyncio.run(serve(where, log, says, 3, seed))
        finally:
            os._exit(0)
    os.close(says)
    return child, begun


def main() -> None:
    where, path, seed, kills, side_by_side = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
    database.WAIT = 60.0  # a machine that is loaded is no database that fails
    chance = random.Random(seed)
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    children = [fork(where, log, number) for number in range(side_by_side)]
    for number in range(kills):
        child, begun = children.pop(0)
        if chance.random() < 0.8:
            os.read(begun, 1)
        time.sleep(chance.uniform(0, MOST))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(begun)
        children.append(fork(where, log, side_by_side + number))
    for child, _ in children:
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
