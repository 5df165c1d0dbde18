package cli

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"
)

// outputFlag gives a command -o.
func (c *command) outputFlag(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringVarP(&c.format, "output", "o", "table", "how to write: table, json or yaml")
	before := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch c.format {
		case "table", "json", "yaml":
			return before(cmd, args)
		case "wide", "jsonl":
			return usage("-o %s is not available in this version: use table, json or yaml", c.format)
		}
		return usage("-o %s is unknown: use table, json or yaml", c.format)
	}
	return cmd
}

// write writes a value in the format that was asked for; table writes it for people. The value is JSON, as the registry
// gave it.
func (c *command) write(value any, table func()) error {
	if c.format == "table" {
		table()
		return nil
	}
	b, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return fmt.Errorf("write answer: %w", err)
	}
	if c.format == "yaml" {
		if b, err = yaml.JSONToYAML(b); err != nil {
			return fmt.Errorf("write answer: %w", err)
		}
	}
	_, err = fmt.Fprintln(c.Out, strings.TrimRight(string(b), "\n"))
	return err
}

// items is a list as the registry gives it.
type items struct {
	Items []json.RawMessage `json:"items"`
}

// writeList writes a list, for people as a table of one row an item.
func writeList[T any](c *command, list []json.RawMessage, header []string, row func(T) []string) error {
	if list == nil {
		list = []json.RawMessage{}
	}
	rows := make([][]string, 0, len(list))
	for _, raw := range list {
		var item T
		if err := json.Unmarshal(raw, &item); err != nil {
			return fmt.Errorf("read answer: %w", err)
		}
		rows = append(rows, row(item))
	}
	return c.write(items{list}, func() { c.table(header, rows) })
}

func (c *command) table(header []string, rows [][]string) {
	w := tabwriter.NewWriter(c.Out, 0, 0, 3, ' ', 0)
	_, _ = fmt.Fprintln(w, strings.Join(header, "\t"))
	for _, r := range rows {
		_, _ = fmt.Fprintln(w, strings.Join(r, "\t"))
	}
	_ = w.Flush()
}

// facts writes one thing: a name and a value a line, empty values left out.
func (c *command) facts(pairs ...string) {
	w := tabwriter.NewWriter(c.Out, 0, 0, 2, ' ', 0)
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			_, _ = fmt.Fprintf(w, "%s:\t%s\n", pairs[i], pairs[i+1])
		}
	}
	_ = w.Flush()
}

// pages reads a list to its end, or to limit items if that isn't 0.
func pages(limit int, fetch func(size int, token string) ([]byte, error)) ([]json.RawMessage, error) {
	var all []json.RawMessage
	for token := ""; ; {
		size := 1000
		if limit > 0 {
			size = min(size, limit-len(all))
		}
		body, err := fetch(size, token)
		if err != nil {
			return nil, err
		}
		var page struct {
			Items []json.RawMessage `json:"items"`
			Next  string            `json:"next_page_token"`
		}
		if err := json.Unmarshal(body, &page); err != nil {
			return nil, fmt.Errorf("read answer: %w", err)
		}
		all = append(all, page.Items...)
		if page.Next == "" || limit > 0 && len(all) >= limit {
			return all, nil
		}
		token = page.Next
	}
}

func number[N int | int32 | int64](n N) string { return strconv.FormatInt(int64(n), 10) }

// maybe writes a number that may be unknown.
func maybe(n *int64) string {
	if n == nil {
		return "-"
	}
	return number(*n)
}

func milliseconds(ms float64) string {
	switch {
	case ms == 0:
		return "-"
	case ms < 1000:
		return strconv.FormatFloat(ms, 'f', 0, 64) + "ms"
	default:
		return strconv.FormatFloat(ms/1000, 'f', 1, 64) + "s"
	}
}

func moment(t *time.Time) string {
	if t == nil || t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z")
}

// short cuts a text to one line of a table.
func short(s string, n int) string {
	s, _, _ = strings.Cut(s, "\n")
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}

// uptime is a duration as people say it: 45s, 12m, 2h 15m, 3d 4h.
func uptime(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	days, hours, minutes := int(d.Hours())/24, int(d.Hours())%24, int(d.Minutes())%60
	switch {
	case days > 0:
		return fmt.Sprintf("%dd %dh", days, hours)
	case hours > 0:
		return fmt.Sprintf("%dh %dm", hours, minutes)
	case minutes > 0:
		return fmt.Sprintf("%dm %ds", minutes, int(d.Seconds())%60)
	}
	return fmt.Sprintf("%ds", int(d.Seconds()))
}
