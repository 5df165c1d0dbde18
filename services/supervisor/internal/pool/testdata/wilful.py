"""Answers as it likes: see the tasks' contents."""
import json
import sys
import time

for line in sys.stdin:
    message = json.loads(line)
    content = message["payload"].get("content") if message["type"] == "task" else None
    if content == "stop reading":
        time.sleep(300)
    if content == "no JSON":
        print('{"id": "%s", "status": "ok", "result": {what: 1}}' % message["id"], flush=True)
        continue
    if content == "glue":
        print("42", end="", flush=True)
    if content == "log":
        print(json.dumps({"id": int(message["id"]), "level": "info"}), flush=True)
    if content == "NaN":
        print(json.dumps({"id": message["id"], "status": "ok", "result": {"x": float("nan")}}), flush=True)
        continue
    if message["type"] == "shutdown":
        sys.exit(0)
    print(json.dumps({"id": message["id"], "status": "ok", "result": {}}), flush=True)
