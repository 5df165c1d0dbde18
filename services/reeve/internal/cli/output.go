package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/reeve-run/reeve/pkg/client"
	"github.com/reeve-run/reeve/pkg/spec"
)

// formats are the values of -o.
func formats() []string { return []string{"table", "wide", "json", "jsonl", "yaml"} }

// outputFlag gives a command -o.
func (c *command) outputFlag(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringVarP(&c.format, "output", "o", "table", "how to write: "+strings.Join(formats(), ", "))
	completeFlag(cmd, "output", words(formats()...))
	before := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !slices.Contains(formats(), c.format) {
			return usage("-o %s is unknown: use %s", c.format, strings.Join(formats(), ", "))
		}
		return before(cmd, args)
	}
	return cmd
}

// forPeople reports whether tables are asked for.
func (c *command) forPeople() bool { return c.format == "table" || c.wide() }

// wide reports whether people asked for all there is.
func (c *command) wide() bool { return c.format == "wide" }

// write writes a value in the format that was asked for; table writes it for people. The value is JSON, as the registry
// gave it; in jsonl a list is a line an item, and anything else one line.
func (c *command) write(value any, table func()) error {
	if c.forPeople() {
		table()
		return nil
	}
	b, err := encode(value, c.format)
	if err != nil {
		return fmt.Errorf("write answer: %w", err)
	}
	_, err = c.Out.Write(b)
	return err
}

// encode gives a value in one of the formats for programs, with a line's end behind it unless it is empty.
func encode(value any, format string) ([]byte, error) {
	var plain bytes.Buffer
	e := json.NewEncoder(&plain)
	e.SetEscapeHTML(false)
	if err := e.Encode(value); err != nil {
		return nil, err
	}
	unescapeHTML(&plain)
	var out bytes.Buffer
	switch format {
	case "yaml":
		b, err := yaml.JSONToYAML(plain.Bytes())
		return append(bytes.TrimRight(b, "\n"), '\n'), err
	case "jsonl":
		var list struct {
			Items *[]json.RawMessage `json:"items"`
		}
		if json.Unmarshal(plain.Bytes(), &list) != nil || list.Items == nil {
			list.Items = &[]json.RawMessage{plain.Bytes()}
		}
		for _, item := range *list.Items {
			if err := json.Compact(&out, item); err != nil {
				return nil, err
			}
			out.WriteByte('\n')
		}
		return out.Bytes(), nil
	}
	err := json.Indent(&out, bytes.TrimSpace(plain.Bytes()), "", "  ")
	out.WriteByte('\n')
	return out.Bytes(), err
}

var escape = regexp.MustCompile(`\\(u0026|u003c|u003e|.)`)

// unescapeHTML writes out what the registry's JSON escapes for pages of HTML: a filter is read by people and shells.
func unescapeHTML(b *bytes.Buffer) {
	text := escape.ReplaceAllFunc(b.Bytes(), func(m []byte) []byte {
		switch string(m) {
		case `\u0026`:
			return []byte("&")
		case `\u003c`:
			return []byte("<")
		case `\u003e`:
			return []byte(">")
		}
		return m
	})
	*b = *bytes.NewBuffer(text)
}

// items is a list as the registry gives it.
type items struct {
	Items []json.RawMessage `json:"items"`
}

// A listing is how things of a kind look as rows of a table.
type listing[T any] struct {
	columns []string
	row     func(T) []string
	// more are further columns, of -o wide.
	more    []string
	moreRow func(T) []string
}

// writeList writes a list, for people as a table of one row an item.
func writeList[T any](c *command, list []json.RawMessage, header []string, row func(T) []string) error {
	return writeListing(c, list, listing[T]{columns: header, row: row})
}

// writeAnswer writes the list that an answer has.
func writeAnswer[T any](c *command, body []byte, header []string, row func(T) []string) error {
	var list items
	if err := json.Unmarshal(body, &list); err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	return writeList(c, list.Items, header, row)
}

// headers writes a record's headers as a table.
func (c *command) headers(all []client.RecordHeader) {
	rows := make([][]string, len(all))
	for i, h := range all {
		rows[i] = []string{h.Key, c.clip(h.Value, 100)}
	}
	c.table([]string{"HEADER", "VALUE"}, rows)
}

// writeListing writes a list whose table has further columns.
func writeListing[T any](c *command, list []json.RawMessage, l listing[T]) error {
	if list == nil {
		list = []json.RawMessage{}
	}
	header := l.columns
	if c.wide() {
		header = slices.Concat(header, l.more)
	}
	rows := make([][]string, 0, len(list))
	for _, raw := range list {
		var item T
		if err := json.Unmarshal(raw, &item); err != nil {
			return fmt.Errorf("read answer: %w", err)
		}
		row := l.row(item)
		if c.wide() && l.moreRow != nil {
			row = append(row, l.moreRow(item)...)
		}
		rows = append(rows, row)
	}
	return c.write(items{list}, func() { c.table(header, rows) })
}

func (c *command) table(header []string, rows [][]string) {
	w := tabwriter.NewWriter(c.Out, 0, 0, 3, ' ', 0)
	_, _ = fmt.Fprintln(w, strings.Join(header, "\t"))
	for _, r := range rows {
		for i, cell := range r {
			r[i] = oneLine(cell)
		}
		_, _ = fmt.Fprintln(w, strings.Join(r, "\t"))
	}
	_ = w.Flush()
}

// facts writes one thing: a name and a value a line, empty values left out.
func (c *command) facts(pairs ...string) {
	w := tabwriter.NewWriter(c.Out, 0, 0, 2, ' ', 0)
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			_, _ = fmt.Fprintf(w, "%s:\t%s\n", pairs[i], oneLine(pairs[i+1]))
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

// count is a number with what it counts: 1 task, 2 tasks.
func count[N int | int32 | int64](n N, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return number(n) + " " + thing
}

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

func seconds(s spec.Seconds) string {
	if s.Infinite() {
		return "none"
	}
	return s.Duration().String()
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// orDash keeps a table's cell from being empty.
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// clip shortens a text for a table, and hardly for a wide one.
func (c *command) clip(s string, n int) string {
	if c.wide() {
		n = 1000
	}
	return short(s, n)
}

// oneLine takes out what would end a line or steer a terminal: texts come from agents and their events.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
}

// lines is oneLine for a text of several lines.
func lines(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return ' '
		}
		return r
	}, s)
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
