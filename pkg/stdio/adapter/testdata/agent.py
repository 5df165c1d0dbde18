import asyncio
import errno
import time


class Busy(Exception):
    error_class = "rate_limited"
    retry_after = 2.5


async def handle(message):
    what = message["do"]
    print("the agent's own output")
    if what == "object":
        return {"a": 1}
    if what == "value":
        return [1, 2]
    if what == "nothing":
        return None
    if what == "timeout":
        raise TimeoutError("slow")
    if what == "network":
        raise ConnectionRefusedError("no")
    if what == "other":
        raise ValueError("x")
    if what == "class":
        raise Busy("later")
    if what == "exit":
        raise SystemExit(3)
    if what == "unwritable":
        return {"a": object()}
    if what == "wait":
        await asyncio.sleep(0.2)
        return {"a": "waited"}


def blocking(message):
    return {"blocking": message["do"]}


def three(message, ctx, more):
    return None


async def told(message, ctx):
    """Says how far it is, publishes, and waits for its end."""
    ctx.log.info("it has begun")
    ctx.progress(0.5, "half of it")
    ctx.publish("news", {"n": 1}, key="k", event_type="t")
    if message["do"] == "stubborn":
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return {"cancelled": ctx.cancelled}
    if message["do"] == "wait":
        await asyncio.sleep(60)
    return {"cancelled": ctx.cancelled}


def thread(message, ctx):
    ctx.progress(message="in a thread")
    for _ in range(500):
        if ctx.cancelled:
            raise RuntimeError("stopped")
        time.sleep(0.02)


async def behind(message, ctx):
    """Waits for what goes on when its wait is cancelled."""
    if message["do"] == "thread":
        await asyncio.to_thread(linger, ctx)
    else:
        await asyncio.wait([asyncio.create_task(asyncio.to_thread(linger, ctx))])


def linger(ctx):
    ctx.progress(message="begun")
    while not ctx.cancelled:
        time.sleep(0.01)
    time.sleep(0.2)
    ctx.progress(message="ended")


def deferred(message, ctx):
    """Isn't async by its looks, and returns what has to be awaited."""
    return told(message, ctx)
