"""Answers pings; a task named "stop reading" makes it read no more."""
import json
import sys
import time

for line in sys.stdin:
    message = json.loads(line)
    if message["type"] == "task" and message["payload"]["content"] == "stop reading":
        time.sleep(300)
    if message["type"] == "shutdown":
        sys.exit(0)
    print(json.dumps({"id": message["id"], "status": "ok", "result": {}}), flush=True)
