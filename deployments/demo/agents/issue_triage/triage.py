"""Issue triage: suggests labels and a priority, and says what a report lacks.

The rules are a table of words; nothing is asked of a model or of the network, so that the same issue always gets the
same answer.
"""

import re

# Label -> words that suggest it, in the title or the body.
LABELS = {
    "bug": ("error", "crash", "broken", "fails", "exception", "wrong", "accidently", "accidentally"),
    "documentation": ("readme", "docs", "documentation", "typo", "spelling", "spelled"),
    "dependencies": ("package.json", "dependency", "dependencies", "upgrade", "bump"),
    "security": ("vulnerability", "cve", "xss", "injection", "secret"),
    "performance": ("slow", "timeout", "memory", "latency"),
}

URGENT = frozenset({"security"})
MINOR = frozenset({"documentation"})

# After these nobody needs to look at the issue again.
CLOSING = frozenset({"closed", "deleted", "transferred", "locked"})

SHORT_BODY = 30


class InvalidInput(ValueError):
    """The event holds no issue. No retry can change that, so the class sends it to the dead letters at once."""

    error_class = "invalid_input"


async def handle(message):
    event = message["content"]
    if not isinstance(event, dict) or not isinstance(event.get("issue"), dict):
        raise InvalidInput("the event is no GitHub issue delivery: expected a JSON object with an issue")
    issue, action = event["issue"], event.get("action", "")
    labels = suggest_labels(issue)
    priority = rank(labels, issue)
    needs_info = lacks(issue) if action in ("opened", "reopened", "edited") else []
    return {
        "summary": summary(issue, action, labels, priority, needs_info),
        "issue": "%s#%d" % (event["repository"]["full_name"], issue["number"]),
        "action": action,
        "labels": labels,
        "priority": priority,
        "needs_info": needs_info,
        "attention": action not in CLOSING,
    }


def suggest_labels(issue):
    """The issue's own labels, then those that its words suggest."""
    words = set(re.findall(r"[a-z][a-z.]*[a-z]", text_of(issue).lower()))
    own = [label["name"] for label in issue.get("labels") or []]
    found = [label for label, hints in LABELS.items() if not words.isdisjoint(hints)]
    return own + [label for label in found if label not in own]


def text_of(issue):
    return "%s\n%s" % (issue.get("title") or "", issue.get("body") or "")


def rank(labels, issue):
    if URGENT.intersection(labels):
        return "high"
    if MINOR.intersection(labels) and issue.get("comments", 0) < 5:
        return "low"
    return "normal"


def lacks(issue):
    """What a maintainer would ask the reporter for."""
    body = (issue.get("body") or "").strip()
    if not body:
        return ["a description"]
    if len(body) < SHORT_BODY:
        return ["more detail"]
    return []


def summary(issue, action, labels, priority, needs_info):
    text = "#%d %s: %s, priority %s" % (issue["number"], action, ", ".join(labels) or "no label", priority)
    return text + (", needs " + " and ".join(needs_info) if needs_info else "")
