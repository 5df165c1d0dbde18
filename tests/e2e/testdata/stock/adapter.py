"""An adapter that speaks only the base of the stdio protocol: no ready message, no protocol number, no capabilities.

Its agent echoes the payload it got, or fails as the content's "do" says.
"""

import json
import os
import sys
import time

STARTED = time.time()


def handle(payload):
    content = payload.get("content")
    do = content.get("do") if isinstance(content, dict) else None
    if do == "fail":
        raise RuntimeError("it always fails")
    if do == "flaky" and payload["delivery_attempts"] < 2:
        raise RuntimeError("not at the first try")
    if do == "die":
        os._exit(3)
    if do == "work":
        time.sleep(0.005)
    while do == "gate" and not os.path.exists(content["file"]):
        time.sleep(0.02)
    if do == "text":
        return "just text"
    if isinstance(content, str) and len(content) > 1000:
        return {"length": len(content)}
    return payload


def answer(message):
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def main():
    for line in sys.stdin:
        if not line.strip():
            continue
        request = json.loads(line)
        if not isinstance(request, dict):
            sys.exit(1)
        request_id, kind = request.get("id"), request.get("type")
        if kind == "task":
            try:
                result = handle(request["payload"])
                if not isinstance(result, dict):
                    result = {"result": result}
                answer({"id": request_id, "status": "ok", "result": result})
            except Exception as error:
                answer({"id": request_id, "status": "error", "error": str(error)})
        elif kind == "ping":
            health = {"process_id": os.getpid(), "uptime_seconds": time.time() - STARTED}
            answer({"id": request_id, "status": "ok", "result": {"health": health}})
        elif kind == "shutdown":
            answer({"id": None, "status": "ok", "result": {"message": "bye"}})
            return
        else:
            answer({"id": request_id, "status": "error", "error": "unknown type"})


main()
