"""Runs one Python function as an agent: one JSON object a line on standard input and output.

    python3 adapter.py --dir DIRECTORY --module MODULE --function FUNCTION [--concurrency N]

The function gets the task's payload, a dict, and returns a dict; None and other values are wrapped. It may be async; one
that isn't runs in a thread. One that takes a second argument gets a Context in it: handle(message, ctx). When the task takes
longer than its timeout, or somebody cancels it, an async function is cancelled as asyncio does it, and ctx.cancelled is
true for all. An answer says that the work has ended, so a cancelled task is answered once the asyncio tasks that it
began and what it gave to asyncio.to_thread have ended too. Whatever the agent's code prints goes to standard error:
descriptor 1 is duplicated for the protocol and then pointed at descriptor 2, so that also a C library or a child process
can't disturb it.

An exception may carry error_class (say how to treat it) and retry_after (seconds).
"""

import argparse
import asyncio
import atexit
import contextvars
import errno
import importlib
import inspect
import json
import logging
import os
import re
import signal
import socket
import sys
import threading
import time
import traceback
import urllib.error
from concurrent.futures import Future, ThreadPoolExecutor

PROTOCOL = 1
CAPABILITIES = ["cancel", "progress", "publish"]
TRACEBACK_LIMIT = 16 * 1024
LINE_ID = re.compile(rb'\s*\{"id":"([A-Za-z0-9-]+)"')
NETWORK_ERRNOS = {errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTUNREACH, errno.EHOSTDOWN}
RESOURCE_ERRNOS = {errno.ENOMEM, errno.ENOSPC, errno.EMFILE, errno.ENFILE}


class StartupError(Exception):
    """The agent can't be started; kind is the error's type as people see it."""

    def __init__(self, kind, message):
        super().__init__(message)
        self.kind = kind


def take_streams():
    """Returns the protocol's own descriptors and leaves harmless ones to the agent's code."""
    protocol_in, protocol_out = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")
    return protocol_in, protocol_out


def load(directory, module_name, function_name):
    """Imports the agent's function. Its directory stands first on the path, this file's isn't on it."""
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [directory] + [p for p in sys.path if os.path.abspath(p or ".") != here]
    name = module_name.removesuffix(".py").replace("/", ".")
    base = os.path.join(directory, *name.split("."))
    if not os.path.exists(base + ".py") and not os.path.isdir(base):
        found = sorted(f for f in os.listdir(directory) if f.endswith(".py"))
        raise StartupError(
            "AgentCallbackNotFoundError",
            f"the module {module_name} isn't in {directory}; Python files there: {', '.join(found) or 'none'}",
        )
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as e:
        traceback.print_exc()
        raise StartupError("AgentDependencyError", f"importing {module_name}: {e}") from None
    except BaseException as e:  # also SystemExit: a module that ends the program can't be an agent
        traceback.print_exc()
        raise StartupError("AgentStartupError", f"importing {module_name}: {type(e).__name__}: {e}") from None
    origin = os.path.realpath(getattr(module, "__file__", None) or "")
    if origin not in (os.path.realpath(base + ".py"), os.path.realpath(os.path.join(base, "__init__.py"))):
        raise StartupError("AgentStartupError", f"the name {module_name} is taken by Python's own module: rename the file")
    return pick(module, module_name, function_name)


def pick(module, module_name, function_name):
    function = module
    for part in function_name.split("."):
        function = getattr(function, part, None)
    if not callable(function):
        found = sorted(n for n, v in vars(module).items() if callable(v) and not n.startswith("_") and getattr(v, "__module__", None) == module.__name__)
        raise StartupError(
            "AgentCallbackNotFoundError",
            f"the callback {function_name} isn't in the module {module_name}; callables there: {', '.join(found) or 'none'}",
        )
    try:
        signature = inspect.signature(function)
    except ValueError:
        return function  # a built-in without a signature
    try:
        signature.bind(*([{}, None] if takes_context(function) else [{}]))
    except TypeError:
        raise StartupError("AgentStartupError", f"the callback {function_name} must take one argument, the message, or two, the message and the context") from None
    return function


def takes_context(function):
    """Reports whether a function's second argument is for the context: it has no default, or is called ctx."""
    try:
        arguments = list(inspect.signature(function).parameters.values())
    except ValueError:
        return False
    if len(arguments) < 2:
        return False
    second = arguments[1]
    return second.kind in (second.POSITIONAL_ONLY, second.POSITIONAL_OR_KEYWORD) and (second.default is second.empty or second.name == "ctx")


def is_async(function):
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))


def error_class(e):
    """Maps only what can mean nothing else; None leaves it to the supervisor."""
    named = getattr(e, "error_class", None)
    if isinstance(named, str):
        return named
    if isinstance(e, (TimeoutError, asyncio.TimeoutError, socket.timeout)):
        return "timeout"
    if isinstance(e, MemoryError):
        return "resource"
    if isinstance(e, (ConnectionError, socket.gaierror)):
        return "network"
    if isinstance(e, urllib.error.URLError) and not isinstance(e, urllib.error.HTTPError):
        return error_class(e.reason) if isinstance(e.reason, Exception) else "network"
    if isinstance(e, OSError):
        return "network" if e.errno in NETWORK_ERRNOS else "resource" if e.errno in RESOURCE_ERRNOS else None
    return None


def failure(message_id, e):
    """The answer that tells of an exception."""
    answer = {"id": message_id, "status": "error", "error": str(e) or type(e).__name__, "error_type": type(e).__name__}
    answer["traceback"] = "".join(traceback.format_exception(type(e), e, e.__traceback__))[-TRACEBACK_LIMIT:]
    kind = error_class(e)
    if kind:
        answer["error_class"] = kind
    retry_after = getattr(e, "retry_after", None)
    if isinstance(retry_after, (int, float, str)) and not isinstance(retry_after, bool):
        answer["retry_after"] = retry_after
    return json.dumps(answer)


def success(message_id, result):
    if result is None:
        result = {"status": "completed"}
    elif not isinstance(result, dict):
        result = {"status": "completed", "data": result}
    try:
        return json.dumps({"id": message_id, "status": "ok", "result": result})
    except (TypeError, ValueError, RecursionError) as e:
        # The work is done, and running it again would give the same.
        return json.dumps({"id": message_id, "status": "error", "error": f"the result can't be written as JSON: {e}",
                           "error_type": type(e).__name__, "error_class": "permanent"})


class TaskLog(logging.LoggerAdapter):
    def process(self, msg, kwargs):
        return f"[{self.extra['task_id']}] {msg}", kwargs


def logger():
    """The logger behind ctx.log: it writes to standard error, which is the agent's log."""
    log = logging.getLogger("reeve.task")
    if not log.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False
    return log


class Context:
    """What a function can do about the task that it runs. It may be used from any thread."""

    def __init__(self, send, message_id, payload):
        self._send = send
        self._id = message_id
        self._payload = payload
        self._cancelled = False
        self._log = None

    @property
    def cancelled(self):
        """True once the task has taken longer than its timeout, or somebody has cancelled it: end it soon, or its
        process is ended."""
        return self._cancelled

    @property
    def log(self):
        """A logging.Logger whose lines name the task; they stand in the agent's log."""
        if self._log is None:
            task_id = self._payload.get("task_id") if isinstance(self._payload, dict) else None
            self._log = TaskLog(logger(), {"task_id": task_id})
        return self._log

    def progress(self, fraction=None, message=None):
        """Says how far the task has come: fraction from 0 to 1, and a message for people. Each may be left out.

        Where the agent has no request_timeout, its reclaim_idle_ms counts from here."""
        self._send({"type": "progress", "id": self._id, "fraction": fraction, "message": "" if message is None else str(message)})

    def publish(self, topic, content, key=None, **more):
        """Publishes an event together with the task's outcome, in one transaction, or not at all if the task fails.

        more may be event_id, event_type, correlation_id, tenant_id, reply_to, webhook."""
        unknown = more.keys() - {"event_id", "event_type", "correlation_id", "tenant_id", "reply_to", "webhook"}
        if unknown:
            raise TypeError(f"publish() got unexpected arguments: {', '.join(sorted(unknown))}")
        self._send({"type": "publish", "id": self._id, "topic": topic, "content": content, "key": key, **more})


class Running:
    """A task that runs."""

    __slots__ = ("task", "context", "begun", "cancelled", "asynchronous", "work")

    def __init__(self, context, asynchronous):
        self.task = None
        self.context = context
        self.begun = self.cancelled = False
        self.asynchronous = asynchronous  # it can be cancelled where it waits
        self.work = set()  # what it has begun beside itself: asyncio tasks, and futures of threads

    def follow(self, future):
        self.work.add(future)
        future.add_done_callback(self.work.discard)


# The task for which this code runs, also in the asyncio tasks and threads that it begins.
CURRENT = contextvars.ContextVar("reeve_task", default=None)


def make_task(loop, coroutine, **options):
    """The loop's task factory: a task is followed by whose code began it."""
    task = asyncio.Task(coroutine, loop=loop, **options)
    running = CURRENT.get()
    if running is not None:
        running.follow(task)
    return task


class Threads(ThreadPoolExecutor):
    """The loop's own executor. To cancel who waits for a thread doesn't end the thread."""

    def submit(self, function, /, *args, **kwargs):
        future = super().submit(function, *args, **kwargs)
        running = CURRENT.get()
        if running is not None:
            running.follow(future)
        return future


class Agent(asyncio.Protocol):
    def __init__(self, function, out, concurrency):
        self.function = function
        self.contextual = takes_context(function)
        self.thread = threading.get_ident()
        self.running = {}  # by message id
        self.asynchronous = is_async(function)
        self.out = out
        self.threads = None if self.asynchronous else ThreadPoolExecutor(concurrency, thread_name_prefix="task")
        self.loop = asyncio.get_running_loop()
        self.loop.set_task_factory(make_task)
        self.loop.set_default_executor(Threads(thread_name_prefix="asyncio"))
        self.done = self.loop.create_future()
        self.tasks = set()
        self.parts = []
        self.answers = []
        self.started = self.pinged = time.monotonic()
        self.cpu = time.process_time()
        self.total = self.failed = 0

    # Input

    def data_received(self, data):
        head, newline, rest = data.partition(b"\n")
        self.parts.append(head)
        if not newline:
            return
        lines = rest.split(b"\n")
        first, self.parts = b"".join(self.parts), [lines.pop()]
        for line in (first, *lines):
            if line.strip():
                self.line(line)

    def connection_lost(self, exc):
        self.end()

    def line(self, line):
        try:
            message = json.loads(line)
        except (ValueError, RecursionError) as e:
            # Also what is JSON and too much for Python: its stack bounds nesting, and integers have at most 4,300 digits.
            # Whoever asked must hear of it.
            asked = LINE_ID.match(line)
            return self.answer(json.dumps({"id": asked and asked[1].decode(), "status": "error", "error": f"Invalid JSON: {e}",
                                           "error_type": type(e).__name__, "error_class": "invalid_input"}))
        if not isinstance(message, dict):
            return self.answer(json.dumps({"id": None, "status": "error", "error": "Invalid message: not an object"}))
        kind, message_id = message.get("type"), message.get("id")
        if kind == "task":
            payload = message.get("payload")
            running = self.running[message_id] = Running(Context(self.send, message_id, payload) if self.contextual else None, self.asynchronous)
            task = running.task = self.loop.create_task(self.run(message_id, payload, running))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
        elif kind == "cancel":
            self.cancel(message_id)
        elif kind == "ping":
            self.answer(json.dumps({"id": message_id, "status": "ok", "result": self.pong()}))
        elif kind == "shutdown":
            self.answer(json.dumps({"id": None, "status": "ok", "result": {"message": "shutdown acknowledged"}}))
            self.end()
        else:
            self.answer(json.dumps({"id": message_id, "status": "error", "error": f"Unknown message type: {kind}"}))

    # Work

    def cancel(self, message_id):
        """Asks a task to end. It is answered as ever, with whatever the function makes of it."""
        running = self.running.get(message_id)
        if running is None:
            return
        running.cancelled = True
        if running.context:
            running.context._cancelled = True
        if running.asynchronous and running.begun:  # a thread can't be: it has to look at ctx.cancelled
            running.task.cancel()

    async def run(self, message_id, payload, running):
        self.total += 1
        running.begun = True
        CURRENT.set(running)
        arguments = (payload, running.context) if self.contextual else (payload,)
        try:
            if running.cancelled:
                raise asyncio.CancelledError("the task was cancelled before it had begun")
            if self.asynchronous:
                result = await self.function(*arguments)
            else:
                result = await self.loop.run_in_executor(self.threads, self.function, *arguments)
                if inspect.isawaitable(result):
                    running.asynchronous = True
                    if running.cancelled:
                        running.task.cancel()
                    result = await result
            answer = success(message_id, result)
        except BaseException as e:  # also SystemExit: one task must not end the others
            if self.done.done():
                raise
            self.failed += 1
            answer = failure(message_id, e)
        running.asynchronous = False  # there is nothing left to cancel
        if running.cancelled:
            await self.rest(running)
        self.running.pop(message_id, None)
        self.answer(answer)

    async def rest(self, running):
        """Waits until what a cancelled task has begun beside itself has ended. What never does ends with the process."""
        while work := list(running.work):
            await asyncio.wait([asyncio.wrap_future(f) if isinstance(f, Future) else f for f in work])
            await asyncio.sleep(0)  # so that they are taken out

    def pong(self):
        now, cpu = time.monotonic(), time.process_time()
        wall = now - self.pinged
        percent = 100 * (cpu - self.cpu) / wall if wall > 0 else 0.0
        self.pinged, self.cpu = now, cpu
        return {"type": "pong", "protocol": PROTOCOL, "capabilities": CAPABILITIES, "health": {
            "process_id": os.getpid(), "uptime_seconds": round(now - self.started, 3), "total_requests": self.total,
            "failed_requests": self.failed, "memory_mb": memory_mb(), "cpu_percent": round(percent, 2)}}

    # Output

    def send(self, message):
        """Sends a message about a task, from any thread."""
        text = json.dumps(message)
        if threading.get_ident() == self.thread:
            self.answer(text)
        else:
            self.loop.call_soon_threadsafe(self.answer, text)

    def answer(self, text):
        """Answers of one turn of the loop leave in one write."""
        if not self.answers:
            self.loop.call_soon(self.flush)
        self.answers.append(text)

    def flush(self):
        if self.answers:
            data, self.answers = ("\n".join(self.answers) + "\n").encode(), []
            write(self.out, data)

    def end(self):
        if not self.done.done():
            self.flush()
            self.done.set_result(None)


def write(descriptor, data):
    """Writes everything. The supervisor always reads, so this waits for moments only."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view):]


def memory_mb():
    try:
        with open("/proc/self/statm") as f:
            return round(int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20, 2)
    except OSError:
        return 0.0


async def serve(function, protocol_in, protocol_out, concurrency):
    agent = Agent(function, protocol_out, concurrency)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: agent, os.fdopen(protocol_in, "rb", 0))
    await agent.done
    transport.close()
    for task in list(agent.tasks):
        task.cancel()
    if agent.threads:
        agent.threads.shutdown(wait=False, cancel_futures=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--dir", required=True)
    parser.add_argument("--module", required=True)
    parser.add_argument("--function", required=True)
    parser.add_argument("--concurrency", type=int, default=16)
    options = parser.parse_args()
    sys.argv[1:] = []
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a stop comes from the supervisor
    protocol_in, protocol_out = take_streams()
    try:
        function = load(os.path.realpath(options.dir), options.module, options.function)
    except StartupError as e:
        write(protocol_out, (json.dumps({"type": "startup_error", "status": "error", "error_type": e.kind, "error": str(e)}) + "\n").encode())
        print(f"{e.kind}: {e}", file=sys.stderr)
        return 1
    asyncio.run(serve(function, protocol_in, protocol_out, options.concurrency))
    if any(t.name.startswith("task") for t in threading.enumerate()):
        atexit._run_exitfuncs()
        sys.stdout.flush()
        os._exit(0)  # or the interpreter would wait for functions that nobody waits for
    return 0


if __name__ == "__main__":
    sys.exit(main())
