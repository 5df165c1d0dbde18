"""Issue notifications: who should hear of what happened to an issue.

The author, the assignees and whoever is mentioned hear of it; the person who did it doesn't.
"""

import re

MENTION = re.compile(r"(?<![\w/])@([A-Za-z0-9](?:[A-Za-z0-9-]{0,37}[A-Za-z0-9])?)")


async def handle(message):
    # An event that isn't a JSON object makes this line raise. The agent gives no error class, so it is tried again
    # after a second, and dead-lettered when its retries are used up.
    event = message["content"]
    issue, actor = event["issue"], event["sender"]["login"]
    people = {}
    hear(people, issue.get("user"), "author")
    for person in issue.get("assignees") or []:
        hear(people, person, "assignee")
    hear(people, event.get("assignee"), "assignee")
    for login in MENTION.findall(issue.get("body") or ""):
        people.setdefault(login, "mentioned")
    people.pop(actor, None)
    return {
        "summary": "#%d %s by %s: %s" % (issue["number"], event["action"], actor, ", ".join(people) or "nobody else to tell"),
        "issue": "%s#%d" % (event["repository"]["full_name"], issue["number"]),
        "subject": "[%s] %s" % (event["repository"]["full_name"], issue["title"]),
        "by": actor,
        "recipients": [{"login": login, "because": why} for login, why in sorted(people.items())],
    }


def hear(people, person, why):
    """Adds a person, once, for the first reason found. GitHub sends null for an account that is gone."""
    if person and person.get("login"):
        people.setdefault(person["login"], why)
