"""Notes each call in a file, in the order of the calls, and fails where MOODY says so."""

import os
import time

LOG = os.open(os.environ["ORDER_LOG"], os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o644)
MOODY = os.environ.get("MOODY") == "1"


def handle(message):
    event, attempt = message["content"], message["delivery_attempts"]
    os.write(LOG, f"{event['key']} {event['n']} {attempt}\n".encode())
    time.sleep(0.005)
    if MOODY and event["n"] % 200 == 100:
        raise RuntimeError("never")
    if MOODY and event["n"] % 100 == 50 and attempt == 1:
        raise RuntimeError("not yet")
    return event["n"]
