package spec

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// DefaultVersion is the version of an agent that gives none.
const DefaultVersion = "1.0.0"

// ParseEntry reads one agent as people write it: an entry of agents.yaml, as a JSON object. It fills in the defaults and
// lists every fault of the text: keys that don't exist, keys that this version doesn't carry out, values of the wrong
// kind. What the values mean is Check's to judge. The agent is usable only where there are no faults.
func ParseEntry(raw []byte) (*Agent, []Fault) {
	e := entry{activate: true, agent: &Agent{Version: DefaultVersion, Tags: []string{}, Process: NewProcess(), Partitions: DefaultPartitions}}
	e.object("", raw, &e.fields, "an agent", map[string]any{
		"topic": &e.agent.Topic, "name": &e.agent.Name, "id": &e.agent.ID, "type": &e.agent.Type, "description": &e.agent.Description,
		"version": &e.agent.Version, "tags": &e.agent.Tags, "runtime": &e.agent.Runtime, "dir": &e.agent.Dir, "agent_dir": &e.agentDir,
		"callback": &e.agent.Callback, "callback_module": &e.module, "callback_function": &e.function, "command": &e.command, "args": &e.args,
		"env": &e.agent.Env, "config": &e.config, "process": &e.process, "pool": &e.pool, "partitions": &e.agent.Partitions, "activate": &e.activate,
		"filter": &e.agent.Filter, "rate": &e.rate, "accepts": &e.agent.Accepts, "capabilities": &e.agent.Capabilities, "on_incompatible": &e.agent.OnIncompatible,
		"start": &e.agent.Start,
	}, "canary", "resources", "coordination", "init_args", "when", "requires", "labels", "state", "env_from", "profile", "history", "store_results")
	if e.fields == nil {
		return e.agent, e.faults
	}
	e.routing()
	e.agent.Inactive = !e.activate
	e.identity()
	e.program()
	e.parts()
	slices.SortStableFunc(e.faults, func(x, y Fault) int { return strings.Compare(x.Field, y.Field) })
	return e.agent, e.faults
}

// entry is the state of one parse: the agent so far, and the keys that have no field of their own in it.
type entry struct {
	agent  *Agent
	fields map[string]bool // the keys that were given
	faults []Fault

	activate                   bool
	rate                       *float64
	agentDir, module, function string
	command, config            json.RawMessage
	process, pool              json.RawMessage
	args                       []string
}

func (e *entry) fault(field, format string, args ...any) {
	e.faults = append(e.faults, Fault{field, fmt.Sprintf(format, args...)})
}

// object decodes a JSON object key by key into the targets, so that every fault is found and named.
func (e *entry) object(field string, raw []byte, given *map[string]bool, what string, targets map[string]any, later ...string) {
	var values map[string]json.RawMessage
	if err := json.Unmarshal(raw, &values); err != nil || values == nil {
		e.fault(field, "%s is an object of keys and values, this is %s", what, kindOf(raw))
		return
	}
	*given = map[string]bool{}
	prefix := ""
	if field != "" {
		prefix = field + "."
	}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		target, known := targets[key]
		switch {
		case slices.Contains(later, key):
			e.fault(prefix+key, "%s", notCarriedOut(key))
		case !known:
			e.fault(prefix+key, "%s", unknownKey(key, what, targets))
		case hasNUL(values[key]):
			(*given)[key] = true
			e.fault(prefix+key, "has a NUL character: leave it out")
		case string(values[key]) != "null":
			(*given)[key] = true
			if err := json.Unmarshal(values[key], target); err != nil {
				e.fault(prefix+key, "%s", wrongKind(err, values[key]))
			}
		}
	}
}

// hasNUL reports whether a JSON text has a NUL in it, which neither a program's environment nor the registry's database takes.
func hasNUL(raw []byte) bool {
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			continue
		}
		if bytes.HasPrefix(raw[i:], []byte(`\u0000`)) {
			return true
		}
		i++ // what is escaped
	}
	return false
}

// routing refuses what would count as left out, and is something else to who wrote it.
func (e *entry) routing() {
	if e.rate != nil {
		if e.agent.Rate = *e.rate; *e.rate == 0 {
			e.fault("rate", "%s", ZeroRate)
		}
	}
	for _, field := range []string{"filter", "start", "on_incompatible"} {
		if e.fields[field] && map[string]string{"filter": e.agent.Filter, "start": e.agent.Start, "on_incompatible": e.agent.OnIncompatible}[field] == "" {
			e.fault(field, "is empty: leave it out")
		}
	}
}

func (e *entry) identity() {
	a := e.agent
	if a.Topic == "" {
		e.fault("topic", "is missing: name the topic that the agent listens to")
	}
	if a.Name == "" && !e.fields["name"] {
		a.Name = DefaultName(a.Topic)
	}
}

// program settles what runs: the spellings of directory and callback, and the runtime where it shows.
func (e *entry) program() {
	a := e.agent
	if e.agentDir != "" {
		if a.Dir != "" && a.Dir != e.agentDir {
			e.fault("agent_dir", "and dir name two directories: give one of them")
		}
		a.Dir = e.agentDir
	}
	e.callback()
	e.commandLine()
	if a.Runtime == "" {
		a.Runtime = inferRuntime(a)
	}
	if a.Runtime == "" && (a.Callback != "" || e.fields["agent_dir"]) {
		e.fault("runtime", "is missing: give python or node")
	} else if a.Runtime == "" {
		e.fault("callback", "is missing: give callback (module:function), or command")
	}
	if a.Runtime == Command && a.Callback != "" {
		e.fault("callback", "and runtime command exclude each other: give one of them")
	}
	if (a.Runtime == Python || a.Runtime == Node) && len(a.Command) > 0 {
		e.fault("command", "belongs to runtime command, this is %s: leave one of them out", a.Runtime)
	}
}

// callback takes the three spellings: callback, callback_module (dotted or with a colon), callback_function in agent_dir.
func (e *entry) callback() {
	a := e.agent
	spelt := ""
	switch {
	case e.module != "" && strings.Contains(e.module, ":"):
		spelt = e.module
	case e.module != "" && e.function != "":
		spelt = e.module + ":" + e.function
	case e.module != "":
		if i := strings.LastIndexByte(e.module, '.'); i > 0 {
			spelt = e.module[:i] + ":" + e.module[i+1:]
		} else {
			spelt = e.module + ":handle"
		}
	case e.function != "":
		spelt = "callback:" + e.function
	}
	if spelt == "" {
		return
	}
	if a.Callback != "" && a.Callback != spelt {
		e.fault("callback", "is given twice, as %q and as %q: keep one", a.Callback, spelt)
	}
	a.Callback = spelt
}

func (e *entry) commandLine() {
	if e.command == nil {
		if len(e.args) > 0 {
			e.fault("args", "belong to command, which is missing: name the program")
		}
		return
	}
	var program string
	if json.Unmarshal(e.command, &program) == nil {
		e.agent.Command = append([]string{program}, e.args...)
		return
	}
	if err := json.Unmarshal(e.command, &e.agent.Command); err != nil {
		e.fault("command", "is %s: give the program, or a list of the program and its arguments", kindOf(e.command))
		return
	}
	e.agent.Command = append(e.agent.Command, e.args...)
}

func inferRuntime(a *Agent) string {
	if len(a.Command) > 0 && a.Callback == "" {
		return Command
	}
	module, _, _ := strings.Cut(a.Callback, ":")
	switch path.Ext(module) {
	case ".py":
		return Python
	case ".js", ".mjs", ".ts":
		return Node
	}
	return ""
}

// parts reads config, process and pool, whose defaults depend on the runtime.
func (e *entry) parts() {
	a := e.agent
	a.Config = NewConfig(a.Runtime)
	var given map[string]bool
	if e.config != nil {
		c := &a.Config
		var backoff json.RawMessage
		e.object("config", e.config, &given, "config", map[string]any{"max_retries": &c.MaxRetries, "reclaim_idle_ms": &c.ReclaimIdleMS,
			"dlq_enabled": &c.DLQEnabled, "ordering": &c.Ordering, "concurrency": &c.Concurrency, "retry_delays": &c.RetryDelays, "backoff": &backoff})
		if backoff != nil {
			c.Backoff = &Backoff{Factor: 2}
			e.object("config.backoff", backoff, &map[string]bool{}, "backoff", map[string]any{"base": &c.Backoff.Base, "factor": &c.Backoff.Factor, "max": &c.Backoff.Max})
			if !given["retry_delays"] {
				c.RetryDelays = nil // they are made of it
			}
		}
	}
	if e.process != nil {
		e.processPart()
	}
	a.Pool = Pool{Min: 1, Max: 1}
	if e.pool != nil {
		warm := 0
		e.object("pool", e.pool, &given, "pool", map[string]any{"min": &a.Pool.Min, "max": &a.Pool.Max, "warm": &warm})
		if given["min"] && !given["max"] {
			a.Pool.Max = a.Pool.Min
		}
		if warm != 0 {
			e.fault("pool.warm", "is not carried out by this version: leave it out")
		}
	}
}

func (e *entry) processPart() {
	p := &e.agent.Process
	var given map[string]bool
	var restart bool
	e.object("process", e.process, &given, "process", map[string]any{"request_timeout": &p.RequestTimeout, "drain_timeout": &p.DrainTimeout,
		"graceful_timeout_sec": &p.GracefulTimeoutSec, "sigterm_timeout_sec": &p.SigtermTimeoutSec, "restart_on_exit": &restart,
		"restart_policy": &p.RestartPolicy, "max_restart_attempts": &p.MaxRestartAttempts, "restart_backoff_seconds": &p.RestartBackoffSeconds,
		"restart_backoff_max_seconds": &p.RestartBackoffMaxSeconds, "heartbeat_interval_seconds": &p.HeartbeatIntervalSeconds, "cwd": &p.Cwd})
	if !given["restart_on_exit"] {
		return
	}
	switch {
	case given["restart_policy"] && restart == (p.RestartPolicy == RestartNever):
		e.fault("process.restart_on_exit", "%t and restart_policy %s contradict each other: keep one", restart, p.RestartPolicy)
	case !given["restart_policy"] && restart:
		p.RestartPolicy = RestartDelayed
	case !given["restart_policy"]:
		p.RestartPolicy = RestartNever
	}
}

func notCarriedOut(key string) string {
	if key == "when" || key == "requires" {
		return "is decided by `reeve apply` and `reeve dev`, where they run: leave it out here"
	}
	return "is not carried out by this version: leave it out"
}

func unknownKey(key, what string, targets map[string]any) string {
	names := slices.Sorted(maps.Keys(targets))
	hint := ""
	if near := Nearest(key, names); near != "" {
		hint = fmt.Sprintf(" (did you mean %s?)", near)
	}
	return fmt.Sprintf("is no key of %s%s: there are %s", what, hint, strings.Join(names, ", "))
}

func wrongKind(err error, raw []byte) string {
	var kind *json.UnmarshalTypeError
	if !errors.As(err, &kind) {
		return err.Error()
	}
	want := kind.Type.Kind().String()
	switch {
	case strings.HasPrefix(want, "int"):
		want = "a whole number"
	case want == "float64":
		want = "a number"
	case want == "bool":
		want = "true or false"
	case want == "slice":
		want = "a list"
	case want == "map", want == "struct":
		want = "an object of keys and values"
	case want == "string":
		want = "a text (in quotes)"
	}
	return fmt.Sprintf("is %s: give %s", kindOf(raw), want)
}

// kindOf names a JSON value for people.
func kindOf(raw []byte) string {
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 {
		return "nothing"
	}
	switch raw[0] {
	case '{':
		return "an object"
	case '[':
		return "a list"
	}
	if len(raw) > 40 {
		raw = append(raw[:40:40], "…"...)
	}
	return string(raw)
}

// Nearest is the name most like a misspelt one, or "" where none is near enough to be meant.
func Nearest(word string, names []string) string {
	best, bestDistance := "", 1+len(word)/3
	for _, name := range names {
		if d := distance(strings.ToLower(word), strings.ToLower(name)); d <= bestDistance {
			if d < bestDistance || best == "" {
				best, bestDistance = name, d
			}
		}
	}
	return best
}

// distance counts the edits (a letter added, dropped, changed, or two neighbours swapped) between two words.
func distance(a, b string) int {
	rows := [3][]int{make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)}
	for j := range rows[1] {
		rows[1][j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, row := rows[0], rows[1], rows[2]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		rows = [3][]int{last, row, before}
	}
	return rows[1][len(b)]
}
