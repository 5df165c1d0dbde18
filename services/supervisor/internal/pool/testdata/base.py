"""Speaks the base protocol and nothing else, one message after the other."""
import json
import sys
import time

STARTED = time.time()


def send(answer):
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


for line in sys.stdin:
    if not line.strip():
        continue
    message = json.loads(line)
    kind, id = message.get("type"), message.get("id")
    if kind == "task":
        content = message["payload"].get("content")
        if isinstance(content, dict) and content.get("touch"):
            open(content["touch"], "w").close()
            time.sleep(60)
        if isinstance(content, dict) and content.get("sleep"):
            time.sleep(content["sleep"])
        if isinstance(content, dict) and content.get("fail"):
            send({"id": id, "status": "error", "error": content["fail"]})
        else:
            send({"id": id, "status": "ok", "result": {"echo": content, "attempt": message["payload"]["delivery_attempts"]}})
    elif kind == "ping":
        send({"id": id, "status": "ok", "result": {"health": {"uptime_seconds": time.time() - STARTED, "total_requests": 0}}})
    elif kind == "shutdown":
        send({"id": None, "status": "ok", "result": {"message": "shutdown acknowledged"}})
        sys.exit(0)
    else:
        send({"id": id, "status": "error", "error": f"Unknown message type: {kind}"})
