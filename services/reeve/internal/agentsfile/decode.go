package agentsfile

import (
	"slices"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"

	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/services/reeve/internal/admission"
)

// decoder walks a file's tree and gathers faults.
type decoder struct {
	faults  *collector
	options Options
}

// entry is an agent as it is written, before anything is inferred.
type entry struct {
	agent spec.Agent
	terms admission.Terms
	where map[string]*token.Token // of every key that is there, by its full name
	start *token.Token

	callback, callbackModule, callbackFunction string
	agentDir                                   string
	command, args                              []string
	restartOnExit                              *bool

	config  func(*spec.Config)  // what the file says, applied over the runtime's defaults
	process func(*spec.Process) // the same
	broken  bool                // a value couldn't be read, so what follows from it isn't checked
}

func newEntry() *entry {
	return &entry{agent: spec.Agent{Partitions: spec.DefaultPartitions}, where: map[string]*token.Token{}, config: func(*spec.Config) {}, process: func(*spec.Process) {}}
}

func (e *entry) has(key string) bool { return e.where[key] != nil }

// at is where a field stands, or else the nearest thing above it.
func (e *entry) at(field string) *token.Token {
	if t := e.where[field]; t != nil {
		return t
	}
	return e.start
}

// setter reads one key's value into the entry; false means that a fault was told.
type setter func(d *decoder, e *entry, what string, n ast.Node) bool

func text(set func(*entry, string)) setter {
	return func(d *decoder, e *entry, what string, n ast.Node) bool {
		s, ok := d.text(what, n)
		if ok {
			set(e, s)
		}
		return ok
	}
}

func texts(set func(*entry, []string)) setter {
	return func(d *decoder, e *entry, what string, n ast.Node) bool {
		l, ok := d.texts(what, n)
		if ok {
			set(e, l)
		}
		return ok
	}
}

func integer(set func(*entry, int64)) setter {
	return func(d *decoder, e *entry, what string, n ast.Node) bool {
		i, ok := d.integer(what, n)
		if ok {
			set(e, i)
		}
		return ok
	}
}

func number(set func(*entry, float64)) setter {
	return func(d *decoder, e *entry, what string, n ast.Node) bool {
		f, ok := d.number(what, n)
		if ok {
			set(e, f)
		}
		return ok
	}
}

func boolean(set func(*entry, bool)) setter {
	return func(d *decoder, e *entry, what string, n ast.Node) bool {
		b, ok := d.boolean(what, n)
		if ok {
			set(e, b)
		}
		return ok
	}
}

func seconds(field func(*spec.Process) *spec.Seconds) setter {
	return func(d *decoder, e *entry, what string, n ast.Node) bool {
		s, ok := d.seconds(what, n)
		if ok {
			e.onProcess(func(p *spec.Process) { *field(p) = s })
		}
		return ok
	}
}

func (e *entry) onConfig(f func(*spec.Config)) {
	before := e.config
	e.config = func(c *spec.Config) { before(c); f(c) }
}

func (e *entry) onProcess(f func(*spec.Process)) {
	before := e.process
	e.process = func(p *spec.Process) { before(p); f(p) }
}

// agentKeys are the keys of an entry, sections included.
func agentKeys() map[string]setter {
	return map[string]setter{
		"topic":             text(func(e *entry, s string) { e.agent.Topic = s }),
		"name":              text(func(e *entry, s string) { e.agent.Name = s }),
		"id":                text(func(e *entry, s string) { e.agent.ID = s }),
		"type":              text(func(e *entry, s string) { e.agent.Type = s }),
		"description":       text(func(e *entry, s string) { e.agent.Description = &s }),
		"version":           text(func(e *entry, s string) { e.agent.Version = s }),
		"tags":              texts(func(e *entry, l []string) { e.agent.Tags = l }),
		"runtime":           text(func(e *entry, s string) { e.agent.Runtime = s }),
		"dir":               text(func(e *entry, s string) { e.agent.Dir = s }),
		"agent_dir":         text(func(e *entry, s string) { e.agentDir = s }),
		"callback":          text(func(e *entry, s string) { e.callback = s }),
		"callback_module":   text(func(e *entry, s string) { e.callbackModule = s }),
		"callback_function": text(func(e *entry, s string) { e.callbackFunction = s }),
		"command":           command,
		"args":              texts(func(e *entry, l []string) { e.args = l }),
		"env":               environment,
		"config":            section("config", configKeys),
		"process":           section("process", processKeys),
		"pool":              section("pool", poolKeys),
		"partitions":        integer(func(e *entry, i int64) { e.agent.Partitions = clamp32(i) }),
		"activate":          boolean(func(e *entry, b bool) { e.agent.Inactive = !b }),
		"filter":            filled(text(func(e *entry, s string) { e.agent.Filter = s })),
		"rate":              rate,
		"accepts":           texts(func(e *entry, l []string) { e.agent.Accepts = l }),
		"capabilities":      texts(func(e *entry, l []string) { e.agent.Capabilities = l }),
		"on_incompatible":   filled(text(func(e *entry, s string) { e.agent.OnIncompatible = s })),
		"start":             filled(text(func(e *entry, s string) { e.agent.Start = s })),
		"when":              when,
		"requires":          requires,
	}
}

func configKeys() map[string]setter {
	return map[string]setter{
		"max_retries":     integer(func(e *entry, i int64) { e.onConfig(func(c *spec.Config) { c.MaxRetries = int(i) }) }),
		"reclaim_idle_ms": integer(func(e *entry, i int64) { e.onConfig(func(c *spec.Config) { c.ReclaimIdleMS = i }) }),
		"dlq_enabled":     boolean(func(e *entry, b bool) { e.onConfig(func(c *spec.Config) { c.DLQEnabled = b }) }),
		"ordering":        text(func(e *entry, s string) { e.onConfig(func(c *spec.Config) { c.Ordering = s }) }),
		"concurrency":     integer(func(e *entry, i int64) { e.onConfig(func(c *spec.Config) { c.Concurrency = int(i) }) }),
		"retry_delays":    texts(func(e *entry, l []string) { e.onConfig(func(c *spec.Config) { c.RetryDelays = l }) }),
		"backoff":         backoff,
	}
}

// backoff reads the mapping that retry_delays are made of, where they aren't given.
func backoff(d *decoder, e *entry, what string, n ast.Node) bool {
	b := &spec.Backoff{Factor: 2}
	e.onConfig(func(c *spec.Config) {
		c.Backoff = b
		if !e.has("config.retry_delays") {
			c.RetryDelays = nil
		}
	})
	return d.mapping(e, what, what, n, map[string]setter{
		"base":   text(func(_ *entry, s string) { b.Base = spec.Delay(s) }),
		"factor": number(func(_ *entry, f float64) { b.Factor = f }),
		"max":    text(func(_ *entry, s string) { b.Max = spec.Delay(s) }),
	})
}

func processKeys() map[string]setter {
	return map[string]setter{
		"request_timeout":             seconds(func(p *spec.Process) *spec.Seconds { return &p.RequestTimeout }),
		"drain_timeout":               seconds(func(p *spec.Process) *spec.Seconds { return &p.DrainTimeout }),
		"graceful_timeout_sec":        seconds(func(p *spec.Process) *spec.Seconds { return &p.GracefulTimeoutSec }),
		"sigterm_timeout_sec":         seconds(func(p *spec.Process) *spec.Seconds { return &p.SigtermTimeoutSec }),
		"restart_on_exit":             boolean(func(e *entry, b bool) { e.restartOnExit = &b }),
		"restart_policy":              text(func(e *entry, s string) { e.onProcess(func(p *spec.Process) { p.RestartPolicy = s }) }),
		"max_restart_attempts":        integer(func(e *entry, i int64) { e.onProcess(func(p *spec.Process) { p.MaxRestartAttempts = int(i) }) }),
		"restart_backoff_seconds":     seconds(func(p *spec.Process) *spec.Seconds { return &p.RestartBackoffSeconds }),
		"restart_backoff_max_seconds": seconds(func(p *spec.Process) *spec.Seconds { return &p.RestartBackoffMaxSeconds }),
		"heartbeat_interval_seconds":  seconds(func(p *spec.Process) *spec.Seconds { return &p.HeartbeatIntervalSeconds }),
		"cwd":                         text(func(e *entry, s string) { e.onProcess(func(p *spec.Process) { p.Cwd = s }) }),
	}
}

func poolKeys() map[string]setter {
	return map[string]setter{
		"min":  integer(func(e *entry, i int64) { e.agent.Pool.Min = int(i) }),
		"max":  integer(func(e *entry, i int64) { e.agent.Pool.Max = int(i) }),
		"warm": warm,
	}
}

// section reads a mapping of further keys.
func section(name string, keys func() map[string]setter) setter {
	return func(d *decoder, e *entry, what string, n ast.Node) bool {
		return d.mapping(e, name, what, n, keys())
	}
}

// mapping reads the keys of an entry or of one of its sections.
func (d *decoder) mapping(e *entry, section, what string, n ast.Node, keys map[string]setter) bool {
	ps, ok := d.pairs(what, n)
	for _, p := range ps {
		full := p.key
		if section != "" {
			full = section + "." + p.key
		}
		set, known := keys[p.key]
		switch {
		case !known:
			d.unknown(section, p, names(keys))
			ok = false
		case e.has(full):
			d.faults.at(p.token, "%s stands here twice: keep one", full)
			ok = false
		default:
			e.where[full] = p.token
			if !set(d, e, full, p.value) {
				ok = false
			}
		}
	}
	return ok
}

func names(keys map[string]setter) []string {
	list := make([]string, 0, len(keys))
	for k := range keys {
		list = append(list, k)
	}
	slices.Sort(list)
	return list
}

// command is a list, or a text with args beside it.
func command(d *decoder, e *entry, what string, n ast.Node) bool {
	if _, list := d.unwrap(n).(*ast.SequenceNode); list {
		l, ok := d.texts(what, n)
		e.command = l
		return ok
	}
	s, ok := d.text(what, n)
	if ok {
		e.command = []string{s}
	}
	return ok
}

// environment is a mapping of names to scalars, taken as they are written.
func environment(d *decoder, e *entry, what string, n ast.Node) bool {
	ps, ok := d.pairs(what, n)
	e.agent.Env = make(map[string]string, len(ps))
	for _, p := range ps {
		s, fine := d.text(what+"."+p.key, p.value)
		if !fine {
			ok = false
			continue
		}
		e.agent.Env[p.key] = s
	}
	return ok
}

func warm(d *decoder, _ *entry, what string, n ast.Node) bool {
	i, ok := d.integer(what, n)
	if ok && i != 0 {
		d.faults.at(n.GetToken(), "pool.warm is not available in this version: leave it out or give 0")
		return false
	}
	return ok
}

func clamp32(i int64) int32 { return int32(max(-1, min(i, 1<<30))) }
