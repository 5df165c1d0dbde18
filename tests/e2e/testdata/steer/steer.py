"""Does what a task's content asks for, and says how far it is."""
import asyncio
import os
import subprocess
import time


async def handle(message, ctx):
    do = message["content"]
    if "trace" in do:
        # Work that would go on in the background if it weren't ended with its attempt.
        with open(do["trace"], "a") as f:
            f.write(f"begin {message['delivery_attempts']} {time.time()}\n")
        subprocess.Popen(["sh", "-c", f"while :; do echo \"work {message['delivery_attempts']} $(date +%s.%N)\" >> {do['trace']}; sleep 0.01; done"])
    if do.get("fail") or "fails_once" in do and not os.path.exists(do["fails_once"]):
        if "fails_once" in do:
            open(do["fails_once"], "w").close()
        raise ValueError("as asked")
    ctx.progress(0.25, "a quarter")
    end = time.monotonic() + do.get("seconds", 0)
    while time.monotonic() < end:
        try:
            await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            if not do.get("stubborn"):
                raise
    return {"version": do.get("n")}
