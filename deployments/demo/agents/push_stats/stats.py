"""Push statistics: pushes and commits per repository, branch and author.

The counters live in memory. They say what this process has seen, and start again with it.
"""

from collections import Counter


class Repository:
    """What was pushed to one repository."""

    def __init__(self):
        self.pushes = 0
        self.commits = 0
        self.forced = 0
        self.tags_deleted = 0
        self.branches = Counter()
        self.authors = Counter()

    def add(self, event):
        kind, name = split_ref(event["ref"])
        commits = event.get("commits") or []
        self.pushes += 1
        self.commits += len(commits)
        self.forced += bool(event.get("forced"))
        self.tags_deleted += bool(kind == "tags" and event.get("deleted"))
        if kind == "heads":
            self.branches[name] += 1
        self.authors.update(commit["author"]["name"] for commit in commits)

    def figures(self):
        return {
            "pushes": self.pushes,
            "commits": self.commits,
            "forced": self.forced,
            "tags_deleted": self.tags_deleted,
            "busiest_branches": self.branches.most_common(3),
            "busiest_authors": self.authors.most_common(3),
        }


repositories = {}


async def handle(message):
    event = message["content"]
    name = event["repository"]["full_name"]
    repository = repositories.setdefault(name, Repository())
    repository.add(event)
    return {
        "summary": "%s: %d pushes, %d commits, %d tags deleted"
        % (name, repository.pushes, repository.commits, repository.tags_deleted),
        "repository": name,
        **repository.figures(),
    }


def split_ref(ref):
    """refs/heads/feature/x becomes heads and feature/x."""
    _, kind, name = ref.split("/", 2)
    return kind, name
