package cli

import (
	"strings"
	"testing"
)

func TestWhatMeansNothingIsRefusedBeforeTheRegistryIsAsked(t *testing.T) {
	for line, says := range map[string]string{
		"dlq redrive orders/hello --origin nonsense":    "--origin:",
		"dlq redrive orders/hello --origin other/0/1":   "no event of orders",
		"dlq purge orders/hello --origin orders/x/1":    "--origin:",
		"dlq list --limit 5":                            "name the agent",
		"dlq list orders/hello --limit -1":              "--limit -1 is out of range",
		"dlq list orders/hello --since yesterday":       "--since yesterday is neither",
		"task list --status nope":                       "--status nope is unknown: use retrying",
		"task list --error-class nope":                  "--error-class nope is unknown",
		"task list --since yesterday":                   "--since yesterday is neither",
		"task list --since -5m":                         "--since -5m is neither",
		"task list --limit -1":                          "--limit -1 is out of range",
		"task list --agent orders":                      "write TOPIC/NAME",
		"bus streams --limit 0":                         "give 1 to 10000",
		"bus inspect orders --limit 1001":               "give 1 to 1000",
		"bus dlq orders --limit -1":                     "--limit -1 is out of range",
		"publish orders --content 1 --reply-to bad/one": "--reply-to:",
		"dev --brokers=":                                "--brokers is empty",
		"dev --brokers a:1,,b:1":                        "names an empty one",
		"dev --database-url=":                           "--database-url is empty",
	} {
		f := newFake()
		if got := f.reeve(t, "", strings.Fields(line)...); got.code != Usage || !strings.Contains(got.err, says) || len(f.keys) > 0 {
			t.Errorf("%s: %d requests, %+v, want %q", line, len(f.keys), got, says)
		}
	}
}
