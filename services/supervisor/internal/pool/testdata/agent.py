"""Does what a task's content asks for."""
import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import time


def deaf():
    print("deaf from here on")
    time.sleep(300)


async def handle(message):
    do = message["content"]
    what = do.get("do")
    if what == "echo":
        return {"echo": do, "pid": os.getpid()}
    if what == "sleep":
        await asyncio.sleep(do["seconds"])
        return {"slept": do["seconds"], "pid": os.getpid()}
    if what == "block":
        time.sleep(do["seconds"])
    if what == "crash":
        os._exit(3)
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "exit":
        await asyncio.sleep(0)
        os._exit(0)
    if what == "raise":
        raise TimeoutError("too slow")
    if what == "print":
        print("printed by python", 42)
        os.system("echo printed by a child")
        sys.stdout.write("without an end")
        return 42
    if what == "noise":
        sys.stderr.write("x" * 2**20 + "\n")
        sys.stderr.buffer.write(b"\xff\xfe\n")
        sys.stderr.buffer.flush()
        return None
    if what == "env":
        return {"env": dict(os.environ), "cwd": os.getcwd(), "path": sys.path[0]}
    if what == "children":
        near = subprocess.Popen(["sleep", "300"])
        far = subprocess.Popen(["setsid", "sleep", "300"])
        return {"pids": [os.getpid(), near.pid, far.pid]}
    if what == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        asyncio.get_running_loop().call_later(0.1, deaf)
    if what == "long":
        return {"long": "x" * do["size"]}
    return None


def blocking(message):
    time.sleep((message["content"] or {}).get("seconds", 0))
    return {"pid": os.getpid()}


async def steered(message, ctx):
    do = message["content"]
    for n in range(do.get("steps", 0)):
        await asyncio.sleep(0.1)
        ctx.progress(n / do["steps"], f"step {n}")
    for topic in do.get("publish", []):
        ctx.publish(topic, {"n": 1}, key="k")
    if "children" in do:
        subprocess.Popen(["sh", "-c", "while :; do echo x >> " + do["children"] + "; sleep 0.02; done"])
    while do.get("stubborn"):
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass
    try:
        await asyncio.sleep(do.get("seconds", 0))
    except asyncio.CancelledError:
        if "finishes" not in do:
            raise
        print("told to end", file=sys.stderr, flush=True)
        await asyncio.sleep(do["finishes"])
    return {"pid": os.getpid()}
