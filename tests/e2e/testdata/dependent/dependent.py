"""An agent whose work needs a service that may be away."""
import os
import socket


class Unavailable(Exception):
    error_class = "dependency"


class Odd(Exception):
    error_class = "network"


def needs():
    try:
        with socket.create_connection(("127.0.0.1", int(os.environ["SERVICE_PORT"])), timeout=2):
            pass
    except OSError as e:
        raise Unavailable(f"the service doesn't answer: {e}") from e


def failures(task):
    """How often this task has failed for a reason of its own: in a file, since any process may run it."""
    fd = os.open(os.path.join(os.environ["STATE"], task.replace("/", "_")), os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    try:
        os.write(fd, b"x")
        return os.fstat(fd).st_size
    finally:
        os.close(fd)


async def handle(message):
    needs()
    content = message["content"]
    if content.get("poison"):
        raise Unavailable("the service doesn't know this one")
    if failures_wanted := content.get("fails", 0):
        if failures(message["task_id"]) <= failures_wanted:
            raise Odd("not yet")
    return {"n": content["n"]}
