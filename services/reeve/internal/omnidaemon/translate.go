package omnidaemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/services/reeve/internal/agentsfile"
)

// Translation is a runner as agents.yaml.
type Translation struct {
	YAML []byte
	// Agents and Lost count the entries, and the registrations that became comments only.
	Agents, Lost int
	// Notes are everything that isn't translated, or not as it was, by line.
	Notes []Note
}

// Translate writes agents.yaml. It is meant to stand in the runner's directory, which directories are relative to.
func (r *Runner) Translate() Translation {
	var t Translation
	var out strings.Builder
	fmt.Fprintf(&out, "# Made of %s by `reeve import`: read it before you apply it. Directories are relative to this file.\n", filepath.Base(r.path))
	for _, n := range r.notes {
		fmt.Fprintf(&out, "# line %d: %s\n", n.Line, oneLine(n.Text))
	}
	t.Notes = append(t.Notes, r.notes...)
	var entries strings.Builder
	seen := map[string]int{}
	for i := range r.agents {
		g := &r.agents[i]
		g.mendNames()
		text := g.yaml()
		if g.lost == "" {
			g.lost = r.refusal(text, seen, g.line)
		}
		if g.lost != "" {
			t.Lost++
			g.notes = append(g.notes, Note{g.line, "not translated: " + g.lost})
			text = commented(text)
		} else {
			t.Agents++
		}
		fmt.Fprintf(&entries, "\n  # line %d\n", g.line)
		for _, n := range g.notes {
			fmt.Fprintf(&entries, "  # line %d: %s\n", n.Line, oneLine(n.Text))
		}
		entries.WriteString(text)
		t.Notes = append(t.Notes, g.notes...)
	}
	out.WriteString("agents:")
	if t.Agents == 0 {
		out.WriteString(" []")
	}
	out.WriteString("\n" + entries.String())
	t.YAML = []byte(out.String())
	slices.SortStableFunc(t.Notes, func(a, b Note) int { return a.Line - b.Line })
	t.Notes = slices.Compact(t.Notes) // what concerns several agents is told once
	return t
}

// refusal says why a file with an entry wouldn't load, or "".
func (r *Runner) refusal(text string, seen map[string]int, line int) string {
	listed, err := agentsfile.Parse("", []byte("agents:\n"+text), agentsfile.Options{AgentsDir: filepath.Dir(r.path)})
	var faults agentsfile.Faults
	if errors.As(err, &faults) {
		return faults[0].Message
	}
	ref := listed[0].Agent.Ref()
	if first, twice := seen[ref]; twice {
		return fmt.Sprintf("%s is registered on line %d already: give one of them another name", ref, first)
	}
	seen[ref] = line
	return ""
}

var illegal = regexp.MustCompile(`[^A-Za-z0-9]+`)
var illegalInTopic = regexp.MustCompile(`[^A-Za-z0-9._-]+`)

// mendNames makes names legal that OmniDaemon takes and Kafka or Reeve don't, and says so.
func (g *registered) mendNames() {
	mend := func(field string, check func(string) error, mended func(string) string) {
		old, ok := g.fields[field].(string)
		if !ok || check(old) == nil {
			return
		}
		if name := mended(old); check(name) == nil {
			g.fields[field] = name
			g.notes = append(g.notes, Note{g.line, fmt.Sprintf("the %s %q is illegal here: it became %s", field, old, name)})
		}
	}
	mend("name", spec.CheckName, func(s string) string { return strings.Trim(illegal.ReplaceAllString(s, "-"), "-") })
	mend("topic", spec.CheckTopic, func(s string) string { return strings.Trim(illegalInTopic.ReplaceAllString(s, "."), ".") })
}

// order is that of an entry's keys; a section stands where its first key would.
var order = []string{"topic", "name", "description", "version", "tags", "runtime", "dir", "callback", "callback_function", "command", "env", "config", "process", "when"}

// yaml writes an entry.
func (g *registered) yaml() string {
	var b strings.Builder
	dash := "  - "
	line := func(indent, key, value string) {
		fmt.Fprintf(&b, "%s%s%s:%s\n", dash, indent, key, value)
		dash = "    "
	}
	for _, key := range order {
		if v, ok := g.fields[key]; ok {
			if m, isMap := v.(map[string]any); isMap {
				line("", key, "")
				for _, k := range slices.Sorted(maps.Keys(m)) {
					line("  ", scalar(k), " "+value(m[k]))
				}
			} else {
				line("", key, " "+value(v))
			}
		}
		g.section(key, line)
	}
	return b.String()
}

// section writes the fields below a key.
func (g *registered) section(key string, line func(indent, key, value string)) {
	var below []string
	for f := range g.fields {
		if strings.HasPrefix(f, key+".") {
			below = append(below, f)
		}
	}
	if len(below) == 0 {
		return
	}
	slices.Sort(below)
	line("", key, "")
	if key == "when" {
		line("  ", "env", "")
		for _, f := range below {
			line("    ", scalar(strings.TrimPrefix(f, "when.env.")), " "+value(g.fields[f]))
		}
		return
	}
	for _, f := range below {
		line("  ", strings.TrimPrefix(f, key+"."), " "+value(g.fields[f]))
	}
}

// value writes a constant.
func value(v any) string {
	switch v := v.(type) {
	case string:
		return scalar(v)
	case []any:
		parts := make([]string, len(v))
		for i, x := range v {
			parts[i] = value(x)
		}
		return "[" + strings.Join(parts, ", ") + "]"
	}
	b, err := json.Marshal(v)
	if err != nil {
		return `""` // a value that came as JSON is JSON
	}
	return string(b)
}

var plain = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_./-]*(:[A-Za-z0-9_./-]+)*$`)

// words that YAML takes for something else than a text.
var words = []string{"true", "false", "yes", "no", "on", "off", "null", "y", "n"}

// scalar writes a text, in quotes where YAML could take it for anything else.
func scalar(s string) string {
	if plain.MatchString(s) && !slices.Contains(words, strings.ToLower(s)) {
		return s
	}
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		return `""` // a text always marshals
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func commented(text string) string {
	if text == "" {
		return ""
	}
	return "  # " + strings.ReplaceAll(strings.TrimSuffix(strings.ReplaceAll(text, "\n  ", "\n"), "\n")[2:], "\n", "\n  # ") + "\n"
}

// oneLine keeps a comment one.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
