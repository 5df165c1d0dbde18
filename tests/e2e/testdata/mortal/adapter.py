"""An agent that can't do a kind of event until somebody mends it: until the file mended-<kind> is there."""

import json
import os
import sys
import time


def main():
    for line in sys.stdin:
        request = json.loads(line)
        kind, answer = request.get("type"), {"id": request.get("id"), "status": "ok", "result": {}}
        if kind == "task":
            content = request["payload"]["content"]
            time.sleep(0.001)
            if not os.path.exists("mended-" + content["kind"]):
                answer = {"id": request["id"], "status": "error", "error_class": "permanent",
                          "error": "kind %s is broken, seen at event %d" % (content["kind"], content["n"])}
        elif kind == "ping":
            answer["result"] = {"health": {}}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
        if kind == "shutdown":
            return


main()
