// Pull-request size: a label from XS to XXL by the lines that a pull request changes.

const SIZES = [
  ["XS", 10],
  ["S", 50],
  ["M", 250],
  ["L", 1000],
  ["XL", 5000],
  ["XXL", Infinity],
];

// A change over many files is harder to review than its lines say: each of these steps makes it a size larger.
const MANY_FILES = [25, 100];

export async function handle(message) {
  const event = message.content;
  const pull = event?.pull_request;
  if (!pull) {
    throw Object.assign(new Error("the event is no GitHub pull request delivery"), { error_class: "invalid_input" });
  }
  const label = sizeOf(pull);
  return {
    summary: `#${pull.number} ${event.action}: size/${label}, +${pull.additions} -${pull.deletions} in ${files(pull)}`,
    pull_request: `${event.repository.full_name}#${pull.number}`,
    label: `size/${label}`,
    additions: pull.additions,
    deletions: pull.deletions,
    changed_files: pull.changed_files,
    advice: adviceFor(label, pull),
  };
}

function sizeOf(pull) {
  const lines = pull.additions + pull.deletions;
  const byLines = SIZES.findIndex(([, below]) => lines < below);
  const larger = MANY_FILES.filter((limit) => pull.changed_files > limit).length;
  return SIZES[Math.min(byLines + larger, SIZES.length - 1)][0];
}

function adviceFor(label, pull) {
  if (pull.draft) return "a draft: no review yet";
  if (label === "XL" || label === "XXL") return "consider splitting it";
  return "ready for review";
}

function files(pull) {
  return pull.changed_files === 1 ? "1 file" : `${pull.changed_files} files`;
}
