import asyncio
import errno


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


def two(message, ctx):
    return None
