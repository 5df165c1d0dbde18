"""Reads an OmniDaemon runner on standard input and writes what it registers, as JSON, on standard output.

    python3 -I reader.py NAME < agent_runner.py

The runner is parsed and never run or imported. NAME is its path, for looking whether modules stand beside it. The answer:

    {"agents": [{"line": 12, "fields": [["topic", "file.uploaded"], …], "notes": [[14, "…"]], "lost": null}], "notes": [[3, "…"]]}

lost says why an agent can't be translated at all. A syntax error is {"error": [line, column, message]}.
"""

import ast
import json
import math
import os
import sys

# What AgentConfig and SubscriptionConfig say, by Reeve's names.
AGENT = {"topic": "topic", "name": "name", "description": "description", "version": "version", "tags": "tags"}
SUBSCRIPTION = {
    "max_retries": "config.max_retries",
    "dlq_retry_limit": "config.max_retries",
    "reclaim_idle_ms": "config.reclaim_idle_ms",
    "dlq_enabled": "config.dlq_enabled",
    "consumer_count": "config.concurrency",
}
PROCESS = {
    k: "process." + k
    for k in (
        "request_timeout",
        "graceful_timeout_sec",
        "sigterm_timeout_sec",
        "restart_on_exit",
        "max_restart_attempts",
        "restart_backoff_seconds",
        "heartbeat_interval_seconds",
    )
}
FROM_DIRECTORY = ("agent_name", "agent_dir", "callback_function")  # the order of positional arguments
ADAPTER = "omnidaemon.agent_runner.python_callback_adapter"

# Calls that a runner makes beside registering, and what stands for them in Reeve.
ELSEWHERE = {
    "start_api_server": "the REST API is the registry's: nothing to start",
    "unsubscribe_agent": "pausing is `reeve agent unsubscribe`, or POST /v1/agents/{topic}/{name}/unsubscribe",
    "delete_agent": "deleting is `reeve agent delete`, or DELETE /v1/agents/{topic}/{name}",
    "delete_topic": "deleting a topic's agents is `reeve agent delete-topic`",
    "publish_task": "publishing is `reeve publish`, POST /v1/events, or any Kafka producer",
}


class Unknown(Exception):
    """A value that only running the program would tell."""

    def __init__(self, node, why="only running it would tell"):
        super().__init__(why)
        self.node = node


class Folder(str):
    """A path below the runner's folder, relative to it."""


FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


class Runner:
    def __init__(self, source, path):
        self.source, self.path = source, path
        self.tree = ast.parse(source, path)
        self.notes = []
        self.modules, self.names = {}, {}  # imported: alias → module; alias → (module, name)
        self.functions = {}  # name → definition
        self.values = {}  # (function or None, name) → every expression assigned to the name there
        self.globals = {}  # function → the names that it declares global
        self.scopes = {}  # node → the functions that it stands in, the innermost first
        self.index(self.tree, ())

    def index(self, node, scope):
        """Learns what names mean, scope by scope."""
        self.scopes[node] = scope
        if isinstance(node, ast.Import):
            for a in node.names:
                self.modules[a.asname or a.name] = a.name
        elif isinstance(node, ast.ImportFrom):
            for a in node.names:
                self.names[a.asname or a.name] = (node.module or "", a.name)
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                self.assigned(target, node.value, scope)
        elif isinstance(node, (ast.AnnAssign, ast.NamedExpr)) and node.value is not None:
            self.assigned(node.target, node.value, scope)
        elif isinstance(node, (ast.For, ast.AsyncFor, ast.comprehension)):
            self.assigned(node.target, None, scope)
        elif isinstance(node, ast.AugAssign):
            self.assigned(node.target, None, scope)
        if isinstance(node, FUNCTIONS):
            if not isinstance(node, ast.Lambda):
                self.functions[node.name] = node
            self.globals[node] = {name for n in ast.walk(node) if isinstance(n, ast.Global) for name in n.names}
            scope = (node, *scope)
        elif isinstance(node, ast.arg):
            self.assigned(ast.Name(node.arg), None, scope)
        for child in ast.iter_child_nodes(node):
            self.index(child, scope)

    def assigned(self, target, value, scope):
        """Notes what a name is given; None is something that can't be told."""
        if isinstance(target, ast.Name):
            place = scope[0] if scope and target.id not in self.globals[scope[0]] else None
            self.values.setdefault((place, target.id), []).append(value)
        elif isinstance(target, (ast.Tuple, ast.List)):
            for t in target.elts:
                self.assigned(t, None, scope)

    def text(self, node):
        return " ".join((ast.get_source_segment(self.source, node) or "?").split())

    def dotted(self, node):
        """The full name that an expression means, by the imports: os.getenv, omnidaemon.AgentConfig; "" for none."""
        if isinstance(node, ast.Name):
            if node.id in self.names:
                return ".".join(filter(None, self.names[node.id]))
            return self.modules.get(node.id, node.id)
        if isinstance(node, ast.Attribute):
            base = self.dotted(node.value)
            return base and base + "." + node.attr
        return ""

    def called(self, node, name):
        """Reports whether a node is a call of what is called so, wherever it was imported from."""
        return isinstance(node, ast.Call) and self.dotted(node.func).split(".")[-1] == name

    def one(self, node):
        """The one expression that a name stands for where it is used; what is None at first doesn't count."""
        for place in (*self.scopes.get(node, ()), None):
            found = self.values.get((place, node.id))
            if found:
                found = [v for v in found if not (isinstance(v, ast.Constant) and v.value is None)]
                if len(found) != 1 or found[0] is None:
                    break
                return found[0]
        raise Unknown(node)

    def follow(self, node):
        """What a name stands for, through other names."""
        for _ in range(20):
            if not isinstance(node, ast.Name) or node.id in self.names or node.id in self.functions:
                return node
            node = self.one(node)
        raise Unknown(node)

    def value(self, node, notes):
        """A constant, found without running anything."""
        if isinstance(node, ast.Constant):
            if node.value is not None and not isinstance(node.value, (str, bool, int, float)):
                raise Unknown(node)
            return node.value
        if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
            return [self.value(e, notes) for e in node.elts]
        if isinstance(node, ast.Dict) and None not in node.keys:
            return {self.value(k, notes): self.value(v, notes) for k, v in zip(node.keys, node.values)}
        if isinstance(node, ast.Name):
            if node.id == "__file__":
                return Folder(os.path.basename(self.path))
            return self.value(self.one(node), notes)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -self.number(node.operand, notes)
        if isinstance(node, ast.BinOp):
            return self.arithmetic(node, notes)
        if isinstance(node, ast.JoinedStr):
            return "".join(self.piece(v, notes) for v in node.values)
        if isinstance(node, ast.Attribute) and node.attr == "parent":
            return self.parent(node.value, notes)
        if isinstance(node, ast.Attribute) and self.dotted(node) == "sys.executable":
            return "python3"
        if isinstance(node, ast.Call):
            return self.result(node, notes)
        raise Unknown(node)

    def number(self, node, notes):
        v = self.value(node, notes)
        if isinstance(v, bool) or not isinstance(v, (int, float)):
            raise Unknown(node)
        return v

    def arithmetic(self, node, notes):
        left, right = self.value(node.left, notes), self.value(node.right, notes)
        if isinstance(node.op, ast.Div) and isinstance(left, Folder) and isinstance(right, str):
            return Folder(os.path.join(left, right))
        if isinstance(node.op, ast.Add) and type(left) is str and type(right) is str:
            return left + right
        if all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in (left, right)):
            if isinstance(node.op, ast.Add):
                return left + right
            if isinstance(node.op, ast.Sub):
                return left - right
            if isinstance(node.op, ast.Mult):
                return left * right
        raise Unknown(node)

    def piece(self, node, notes):
        """A part of an f-string."""
        if isinstance(node, ast.FormattedValue):
            if node.format_spec is not None or node.conversion != -1:
                raise Unknown(node.value)
            node = node.value
        v = self.value(node, notes)
        if isinstance(v, bool) or not isinstance(v, (str, int)):
            raise Unknown(node)
        return str(v)

    def parent(self, node, notes):
        v = self.value(node, notes)
        if not isinstance(v, Folder) or v in ("", "."):
            raise Unknown(node)
        return Folder(os.path.dirname(v))

    def result(self, node, notes):
        """What a call of a few well-known functions gives."""
        name = self.dotted(node.func)
        args = node.args
        if name in ("os.getenv", "os.environ.get", "decouple.config"):
            return self.setting(node, notes)
        if name in ("os.path.abspath", "os.path.realpath", "pathlib.Path", "str", "int", "float") and len(args) == 1 and not node.keywords:
            v = self.value(args[0], notes)
            if name == "pathlib.Path" and type(v) is str and not os.path.isabs(v):
                return Folder(v)
            if name in ("int", "float"):
                try:
                    return {"int": int, "float": float}[name](v)
                except (TypeError, ValueError):
                    raise Unknown(node) from None
            return v
        if name == "os.path.dirname" and len(args) == 1:
            return self.parent(args[0], notes)
        if name == "os.path.join" and args and not node.keywords:
            parts = [self.value(a, notes) for a in args]
            if all(isinstance(p, str) for p in parts):
                return Folder(os.path.join(*parts)) if isinstance(parts[0], Folder) else os.path.join(*parts)
        if isinstance(node.func, ast.Attribute) and node.func.attr in ("resolve", "absolute", "as_posix") and not args:
            v = self.value(node.func.value, notes)
            if isinstance(v, Folder):
                return v
        raise Unknown(node)

    def setting(self, node, notes):
        """A value from the environment: its default is taken, and said."""
        given = {k.arg: k.value for k in node.keywords}
        default = node.args[1] if len(node.args) > 1 else given.get("default")
        if not node.args or default is None:
            raise Unknown(node, "it comes from the environment and has no default")
        v = self.value(default, notes)
        notes.append([node.lineno, "%s is read from the environment: its default %r stands here" % (self.text(node), v)])
        return v


class Agent:
    """One call of register_agent on its way to an entry."""

    def __init__(self, runner, call, conditions, loop):
        self.runner, self.line = runner, call.lineno
        self.fields, self.notes, self.lost = {}, [], None
        try:
            self.read(call, conditions, loop)
        except Unknown as e:
            self.lost = "%s: %s" % (runner.text(e.node), e)

    def note(self, node, text):
        self.notes.append([node.lineno, text])

    def read(self, call, conditions, loop):
        if loop is not None:
            raise Unknown(loop.iter, "its agents are registered in a loop: list them one by one")
        given = {k.arg: k.value for k in call.keywords}
        config = given.get("agent_config") or (call.args[0] if call.args else None)
        config = self.runner.follow(config)
        if config is None or not self.runner.called(config, "AgentConfig"):
            raise Unknown(config or call, "it is no AgentConfig(…) that can be read here")
        keys = self.keywords(config, "AgentConfig")
        if "topic" not in keys or "callback" not in keys:
            raise Unknown(config, "topic or callback is missing")
        self.fields["topic"] = self.runner.value(keys.pop("topic"), self.notes)
        if not isinstance(self.fields["topic"], str):
            raise Unknown(config, "the topic is no text")
        callback = keys.pop("callback")
        subscription = keys.pop("config", None)
        tools = keys.pop("tools", None)
        for key, node in keys.items():
            self.take(AGENT, key, node, "AgentConfig")
        self.program(callback)
        if subscription is not None:
            self.subscription(subscription)
        if tools is not None and not (isinstance(tools, (ast.List, ast.Tuple)) and not tools.elts):
            self.note(tools, "tools=%s: Reeve doesn't know an agent's tools, its code does" % self.runner.text(tools))
        self.conditions(conditions)

    def keywords(self, call, what):
        for k in call.keywords:
            if k.arg is None:
                raise Unknown(k.value, "what it holds, handed on by **, can't be read here")
        return {k.arg: k.value for k in call.keywords}

    def take(self, table, key, node, what):
        """Takes a constant under Reeve's name for it, or says why not."""
        field = table.get(key)
        if field is None:
            return self.note(node, "%s(%s=%s): Reeve has nothing by this name" % (what, key, self.runner.text(node)))
        try:
            v = self.runner.value(node, self.notes)
        except Unknown as e:
            return self.note(node, "%s=%s: %s, Reeve's default holds" % (key, self.runner.text(node), e))
        if v is None:
            return None
        if isinstance(v, float) and not math.isfinite(v):
            v = "infinity" if v > 0 else str(v)
        if field in self.fields:
            return self.note(node, "%s=%s: %s is given already" % (key, self.runner.text(node), field))
        self.fields[field] = v
        return None

    def subscription(self, node):
        node = self.runner.follow(node)
        if not self.runner.called(node, "SubscriptionConfig"):
            return self.note(node, "config=%s: it can't be read here, Reeve's defaults hold" % self.runner.text(node))
        for key, value in self.keywords(node, "SubscriptionConfig").items():
            self.take(SUBSCRIPTION, key, value, "SubscriptionConfig")
        return None

    def conditions(self, conditions):
        for test, negated in conditions:
            found = environment(self.runner, test, negated)
            if found and "when.env." + found[0] not in self.fields:
                self.fields["when.env." + found[0]] = found[1]
            else:
                self.note(
                    test,
                    "it is registered only %s %s: say so by when or requires, as requires: [{tcp: \"host:port\"}]; here it is registered always"
                    % ("unless" if negated else "if", self.runner.text(test)),
                )

    # What runs.

    def program(self, node):
        runner = self.runner
        supervised = supervisor(runner, node, self)
        if supervised is not None:
            return self.supervised(supervised)
        node = runner.follow(node)
        if isinstance(node, ast.Name) and node.id in runner.functions:
            module = os.path.splitext(os.path.basename(runner.path))[0]
            self.fields["callback"] = module + ":" + node.id
            starts = "" if guarded(runner) else ", and importing it would start the runner"
            return self.note(runner.functions[node.id], "%s stands in the runner, which imports omnidaemon%s: move it into a module of its own" % (node.id, starts))
        if isinstance(node, ast.Name) and node.id in runner.names:
            module, name = runner.names[node.id]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, (ast.Name, ast.Attribute)) and is_module(runner, node.value):
            module, name = runner.dotted(node.value), node.attr
        else:
            raise Unknown(node, "this callback is no function of a module")
        if not module:
            raise Unknown(node, "which module it is imported from can't be told")
        self.fields["callback"] = module + ":" + name
        base = os.path.join(os.path.dirname(runner.path), *module.split("."))
        if not os.path.isfile(base + ".py") and not os.path.isfile(os.path.join(base, "__init__.py")):
            self.note(node, "the module %s isn't beside the runner: put it there, or set dir" % module)
        return None

    def supervised(self, call):
        """Fields of create_supervisor_from_directory(…) or AgentProcessConfig(…)."""
        keys = self.keywords(call, "supervisor")
        if self.runner.called(call, "create_supervisor_from_directory"):
            keys = {**dict(zip(FROM_DIRECTORY, call.args)), **keys}
            return self.from_directory(call, keys)
        if "command" not in keys:
            raise Unknown(call, "the command is missing")
        self.named(keys.pop("name", None))
        command = self.runner.value(keys.pop("command"), self.notes)
        args = keys.pop("args", None)
        args = self.runner.value(args, self.notes) if args is not None else []
        cwd = keys.pop("cwd", None)
        if cwd is not None:
            self.folder(cwd)
        if ADAPTER in args:
            self.adapter(call, args)
        else:
            self.fields["command"] = [str(a) for a in [command, *args]]
        env = keys.pop("env", None)
        for key, node in keys.items():
            self.take(PROCESS, key, node, "AgentProcessConfig")
        if env is not None:
            self.take({"env": "env"}, "env", env, "AgentProcessConfig")
        return None

    def named(self, node):
        if node is not None and "name" not in self.fields:
            self.take(AGENT, "name", node, "supervisor")

    def adapter(self, call, args):
        """OmniDaemon's adapter for Python callbacks gives way to Reeve's."""
        options = dict(zip(args, args[1:]))
        module, function = options.get("--module"), options.get("--function")
        if not module or not function:
            raise Unknown(call, "the callback adapter's --module and --function are missing")
        inside = self.fields.get("dir", "").replace("/", ".").strip(".") + "."
        self.fields["callback"] = module[len(inside) :] + ":" + function if module.startswith(inside) else module + ":" + function

    def from_directory(self, call, keys):
        for key in FROM_DIRECTORY[1:]:
            if key not in keys:
                raise Unknown(call, key + " is missing")
        self.named(keys.pop("agent_name", None))
        self.folder(keys.pop("agent_dir"))
        function = self.runner.value(keys.pop("callback_function"), self.notes)
        language = keys.pop("language", None)
        language = self.runner.value(language, self.notes) if language is not None else None
        if language == "go":
            raise Unknown(call, "an agent in Go is a program for Reeve: build it, and write command: [./program]")
        if language in ("typescript", "javascript"):
            self.fields["runtime"] = "node"
        if "." in function:
            module, _, name = function.rpartition(".")
            self.fields["callback"] = module + ":" + name
        else:
            self.fields["callback_function"] = function
        for key, node in keys.items():
            self.take(PROCESS, key, node, "create_supervisor_from_directory")

    def folder(self, node):
        """The directory must lie below the runner's, where agents.yaml will be."""
        v = self.runner.value(node, self.notes)
        if not isinstance(v, str):
            raise Unknown(node)
        root = os.path.dirname(os.path.abspath(self.runner.path))
        path = os.path.relpath(os.path.join(root, v), root)
        if path == ".." or path.startswith("../"):
            raise Unknown(node, "the directory isn't below the runner's: Reeve takes agents from below one directory")
        if path != ".":
            self.fields["dir"] = path


def is_module(runner, node):
    """Reports whether an expression names something imported."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return isinstance(node, ast.Name) and (node.id in runner.modules or node.id in runner.names or any(m.split(".")[0] == node.id for m in runner.modules))


def is_main(test):
    return any(isinstance(n, ast.Name) and n.id == "__name__" for n in ast.walk(test))


def guarded(runner):
    """Reports whether importing the file runs no loop of events."""
    calls = [s.value for s in runner.tree.body if isinstance(s, ast.Expr) and isinstance(s.value, ast.Call)]
    return not any(runner.dotted(c.func).split(".")[-1] in ("run", "run_until_complete") for c in calls)


def environment(runner, test, negated):
    """NAME and value where a condition compares an environment variable with a text or several; None for any other."""
    equal, among = (ast.NotEq, ast.NotIn) if negated else (ast.Eq, ast.In)
    if not (isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], (equal, among))):
        return None
    left, right = test.left, test.comparators[0]
    if isinstance(test.ops[0], equal) and isinstance(left, ast.Constant):
        left, right = right, left
    try:
        left = runner.follow(left)
        if isinstance(left, ast.Subscript) and runner.dotted(left.value) == "os.environ":
            name = runner.value(left.slice, [])
        elif isinstance(left, ast.Call) and runner.dotted(left.func) in ("os.getenv", "os.environ.get", "decouple.config") and len(left.args) == 1 and not left.keywords:
            name = runner.value(left.args[0], [])
        else:
            return None
        value = runner.value(right, [])
    except Unknown:
        return None
    many = isinstance(test.ops[0], among)
    if many != isinstance(value, list) or not value or not all(isinstance(v, str) for v in (value if many else [value])):
        return None
    return name, value


def supervisor(runner, node, agent):
    """The call that makes the supervisor to which a callback hands its message; None for a callback without one."""
    node = runner.follow(node)
    if isinstance(node, ast.Attribute) and node.attr == "handle_event":
        return made(runner, node.value, node)
    if isinstance(node, ast.Lambda):
        return handing(runner, node.body)
    if isinstance(node, ast.Name) and node.id in runner.functions:
        return forwarded(runner, runner.functions[node.id], agent)
    return None


def handing(runner, node):
    for call in ast.walk(node):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "handle_event":
            return made(runner, call.func.value, call)
    return None


LOGS = ("print", "debug", "info", "warning", "error", "exception")


def forwarded(runner, function, agent):
    found = handing(runner, function)
    if found is None:
        return None
    for s in function.body:
        doc = isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant)
        log = isinstance(s, ast.Expr) and isinstance(s.value, ast.Call) and runner.dotted(s.value.func).split(".")[-1] in LOGS
        plain = isinstance(s, ast.Return) and isinstance(s.value, ast.Name) or hands_on(runner, s)
        if not doc and not log and not plain and not isinstance(s, ast.Global):
            agent.note(s, "%s does more than hand the message on, which isn't translated: %s" % (function.name, runner.text(s)[:120]))
    return found


def hands_on(runner, s):
    """Reports whether a statement only gets the supervisor, or hands it the message, and keeps or returns what comes."""
    if not isinstance(s, (ast.Assign, ast.AnnAssign, ast.Return)) or any(not isinstance(t, ast.Name) for t in getattr(s, "targets", [])):
        return False
    call = s.value.value if isinstance(s.value, ast.Await) else s.value
    if not isinstance(call, ast.Call):
        return False
    if isinstance(call.func, ast.Attribute) and call.func.attr == "handle_event":
        return all(isinstance(a, ast.Name) for a in call.args)
    return runner.called(call, "create_supervisor_from_directory") or isinstance(call.func, ast.Name) and call.func.id in runner.functions and not call.args


def made(runner, node, whole):
    """The call that makes a supervisor, through names and functions that return it."""
    for _ in range(20):
        node = node.value if isinstance(node, ast.Await) else runner.follow(node)
        if not isinstance(node, ast.Call):
            if isinstance(node, ast.Await):
                continue
            break
        if runner.called(node, "create_supervisor_from_directory") or runner.called(node, "AgentProcessConfig"):
            return node
        inner = None
        if runner.called(node, "AgentSupervisor"):
            inner = node.args[0] if node.args else {k.arg: k.value for k in node.keywords}.get("config")
        elif isinstance(node.func, ast.Name) and node.func.id in runner.functions:
            returns = [r.value for r in ast.walk(runner.functions[node.func.id]) if isinstance(r, ast.Return) and r.value is not None]
            inner = returns[-1] if returns else None
        if inner is None:
            break
        node = inner
    raise Unknown(whole, "which supervisor the message is handed to can't be told")


class Place:
    """Where a call stands: the conditions and the loop around it, and the function."""

    def __init__(self, call, conditions, loop, function):
        self.call, self.conditions, self.loop, self.function = call, conditions, loop, function


def registrations(runner):
    """Every call of register_agent in its order, as an Agent."""
    found, sites = [], {}  # name of a function of the runner → where it is called

    def block(body, conditions, loop, function):
        for statement in body:
            walk(statement, conditions, loop, function)
            if isinstance(statement, ast.If) and not statement.orelse and isinstance(statement.body[-1], (ast.Return, ast.Raise, ast.Continue)):
                conditions = conditions + [(statement.test, True)]

    def walk(node, conditions, loop, function):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            place = Place(node, conditions, loop, function)
            if name == "register_agent":
                found.append(place)
            elif name in ELSEWHERE:
                runner.notes.append([node.lineno, "%s(…): %s" % (name, ELSEWHERE[name])])
            elif name in runner.functions:
                sites.setdefault(name, []).append(place)
        if isinstance(node, (ast.For, ast.AsyncFor)):
            loop = node
        if isinstance(node, FUNCTIONS) and not isinstance(node, ast.Lambda):
            conditions, loop, function = [], None, node.name
        for field, value in ast.iter_fields(node):
            if isinstance(node, ast.If) and field in ("body", "orelse") and not is_main(node.test):
                block(value, conditions + [(node.test, field == "orelse")], loop, function)
            elif isinstance(value, list) and value and isinstance(value[0], ast.stmt):
                block(value, conditions, loop, function)
            else:
                for child in value if isinstance(value, list) else [value]:
                    if isinstance(child, ast.AST):
                        walk(child, conditions, loop, function)

    walk(runner.tree, [], None, None)
    return [Agent(runner, p.call, *around(p, sites)) for p in found]


def around(place, sites):
    """The conditions and the loop around a call, those around the one call of its function included."""
    conditions, loop = list(place.conditions), place.loop
    for _ in range(20):
        callers = sites.get(place.function, [])
        if len(callers) != 1:
            break
        place = callers[0]
        conditions, loop = place.conditions + conditions, loop or place.loop
    return conditions, loop


def main():
    source = sys.stdin.buffer.read()
    try:
        runner = Runner(source.decode("utf-8"), sys.argv[1])
        agents = registrations(runner)
    except SyntaxError as e:
        return {"error": [e.lineno or 0, e.offset or 0, e.msg]}
    except (ValueError, RecursionError) as e:  # no UTF-8, a zero byte, deeper than any program
        return {"error": [0, 0, str(e)]}
    return {
        "agents": [{"line": a.line, "fields": list(a.fields.items()), "notes": a.notes, "lost": a.lost} for a in agents],
        "notes": runner.notes,
    }


json.dump(main(), sys.stdout)
