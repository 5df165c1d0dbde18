package cli

import (
	"slices"
	"strings"
	"time"
)

// checkBounds refuses a limit and a since that mean nothing. since is a time or a duration back, "" for none.
func checkBounds(limit int, since string) error {
	if limit < 0 {
		return usage("--limit %d is out of range: give a number from 1, or 0 for all", limit)
	}
	return checkSince(since)
}

func checkSince(since string) error {
	if since == "" {
		return nil
	}
	if back, err := time.ParseDuration(since); err == nil && back >= 0 {
		return nil
	}
	if _, err := time.Parse(time.RFC3339, since); err != nil {
		return usage("--since %s is neither a time nor a duration back from now: give a time like 2026-01-31T12:00:00Z, or a duration like 15m", since)
	}
	return nil
}

// checkRange refuses a limit that the registry won't take.
func checkRange(limit, most int) error {
	if limit < 1 || limit > most {
		return usage("--limit %d is out of range: give 1 to %d", limit, most)
	}
	return nil
}

// checkWord refuses a flag's word that isn't one of those there are; "" is none given.
func checkWord(flag, word string, known []string) error {
	if word == "" || slices.Contains(known, word) {
		return nil
	}
	return usage("--%s %s is unknown: use %s", flag, word, strings.Join(known, ", "))
}
