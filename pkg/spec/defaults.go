package spec

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// DefaultPartitions is how many partitions a task topic gets.
const DefaultPartitions = 8

// QueueBound is how many unsettled tasks a task partition may hold before dispatching to it waits.
const QueueBound = 4096

// NewConfig is a Config with its defaults, for a runtime.
func NewConfig(runtime string) Config {
	c := Config{MaxRetries: 3, ReclaimIdleMS: 300_000, DLQEnabled: true, Ordering: OrderingKey, Concurrency: 16, RetryDelays: []string{"1s", "5s", "30s"}}
	if runtime == Command {
		c.Concurrency = 1 // such a program may be lock-step
	}
	return c
}

// NewProcess is a Process with its defaults.
func NewProcess() Process {
	return Process{RequestTimeout: 120, DrainTimeout: 30, GracefulTimeoutSec: 5, SigtermTimeoutSec: 5, RestartPolicy: RestartDelayed,
		MaxRestartAttempts: 3, RestartBackoffSeconds: 5, RestartBackoffMaxSeconds: 60, HeartbeatIntervalSeconds: 30}
}

var (
	nameRule  = regexp.MustCompile(`^[A-Za-z0-9]+([_-][A-Za-z0-9]+)*$`)
	topicRule = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)
	nonAlnum  = regexp.MustCompile(`[^A-Za-z0-9]+`)
)

// DefaultName makes an agent's name from its topic: file.uploaded becomes file_uploaded_agent.
func DefaultName(topic string) string {
	return strings.Trim(nonAlnum.ReplaceAllString(topic, "_"), "_") + "_agent"
}

// CheckName reports why a name is illegal, or nil.
func CheckName(name string) error {
	if !nameRule.MatchString(name) {
		return fmt.Errorf("the name %q is illegal: use letters and digits, parted by single '_' or '-'", name)
	}
	return nil
}

// CheckTopic reports why Kafka wouldn't take a topic name, or nil.
func CheckTopic(topic string) error {
	if topic == "." || topic == ".." || len(topic) > 249 || !topicRule.MatchString(topic) {
		return fmt.Errorf("the topic %q is illegal: use 1 to 249 of the characters a-z A-Z 0-9 . _ -", topic)
	}
	return nil
}

// CheckWebhook reports why a result couldn't be sent to a URL, or nil. Whether its address may be reached is decided when it
// is sent. The error doesn't tell what the URL may hold of secrets.
func CheckWebhook(webhook string) error {
	u, err := url.Parse(webhook)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return errors.New("the webhook is no http or https URL: write https://host/path")
	case u.User != nil:
		return errors.New("the webhook names a user before its host, which would be sent to nobody knows whom: leave it out, receivers know Reeve by its signature")
	case u.Fragment != "" || strings.Contains(webhook, "#"):
		return errors.New("the webhook has a fragment (#), which is never sent: leave it out")
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return fmt.Errorf("the webhook's port %s is none: give 1 to 65535, or leave it out", port)
		}
	}
	return nil
}

// A Fault is one thing wrong with a spec.
type Fault struct {
	Field   string // as in agents.yaml: config.ordering
	Message string // what is wrong and what to do
}

// Check lists what is wrong with a spec whose defaults are filled in, and makes retry_delays of a backoff. Tiers are the
// installation's retry tiers, ascending; where they aren't known (nil), delays are read and not compared.
func (a *Agent) Check(tiers []time.Duration) []Fault {
	var fs []Fault
	add := func(field, format string, args ...any) { fs = append(fs, Fault{field, fmt.Sprintf(format, args...)}) }
	if err := CheckTopic(a.Topic); err != nil {
		add("topic", "%v", err)
	}
	if err := CheckName(a.Name); err != nil {
		add("name", "%v", err)
	}
	a.checkRuntime(add)
	for field, dir := range map[string]string{"dir": a.Dir, "process.cwd": a.Process.Cwd} {
		if Escapes(dir) {
			add(field, "%q leads out of its directory: give a relative path without leading '..'", dir)
		}
	}
	a.Routing.check(add)
	a.Config.check(tiers, add)
	a.Process.check(add)
	if a.Pool.Min < 1 || a.Pool.Max != a.Pool.Min {
		add("pool", "min %d and max %d: this version runs fixed pools, give min = max, at least 1", a.Pool.Min, a.Pool.Max)
	}
	if a.Partitions < 1 || a.Partitions > 1024 {
		add("partitions", "%d is out of range: give 1 to 1024", a.Partitions)
	}
	slices.SortFunc(fs, func(x, y Fault) int { return strings.Compare(x.Field, y.Field) })
	return fs
}

type adder func(field, format string, args ...any)

func (a *Agent) checkRuntime(add adder) {
	switch a.Runtime {
	case Python, Node:
		module, function, ok := strings.Cut(a.Callback, ":")
		if !ok || module == "" || function == "" {
			add("callback", "%q is no callback: write module:function", a.Callback)
		} else if Escapes(module) {
			add("callback", "the module %q leads out of the agent's directory", module)
		}
	case Command:
		if len(a.Command) == 0 || a.Command[0] == "" {
			add("command", "is missing: runtime command needs the program and its arguments")
		}
	case SDK:
		a.checkSDK(add)
	default:
		add("runtime", "%q is unknown: use python, node or command", a.Runtime)
	}
}

// checkSDK refuses what is about processes: a Go program's functions have none.
func (a *Agent) checkSDK(add adder) {
	for field, given := range map[string]bool{"dir": a.Dir != "", "callback": a.Callback != "", "command": len(a.Command) > 0, "env": len(a.Env) > 0, "pool": a.Pool != Pool{1, 1}} {
		if given {
			add(field, "is about processes, and the agent is a function of a Go program (runtime sdk): leave it out")
		}
	}
	p, defaults := a.Process, NewProcess()
	p.RequestTimeout, p.DrainTimeout = defaults.RequestTimeout, defaults.DrainTimeout
	if p != defaults {
		add("process", "of a Go program's function (runtime sdk) has request_timeout and drain_timeout only: leave out the rest")
	}
}

func (c *Config) check(tiers []time.Duration, add adder) {
	if c.MaxRetries < 0 || c.MaxRetries > 1000 {
		add("config.max_retries", "%d is out of range: give 0 to 1000", c.MaxRetries)
	}
	if c.ReclaimIdleMS < 1 {
		add("config.reclaim_idle_ms", "%d is out of range: give at least 1", c.ReclaimIdleMS)
	}
	if !slices.Contains([]string{OrderingNone, OrderingKey, OrderingStrict}, c.Ordering) {
		add("config.ordering", "%q is unknown: use none, key or strict", c.Ordering)
	}
	if c.Concurrency < 1 || c.Concurrency > 10_000 {
		add("config.concurrency", "%d is out of range: give 1 to 10000", c.Concurrency)
	}
	if c.backoff(tiers, add); c.Backoff == nil && len(c.RetryDelays) == 0 {
		add("config.retry_delays", "is empty: give at least one delay%s", oneOf(tiers))
	}
	for _, s := range c.RetryDelays {
		d, err := time.ParseDuration(s)
		if err != nil {
			add("config.retry_delays", "%q is no duration: write 5s, 30s, 5m", s)
		} else if tiers != nil && !slices.Contains(tiers, d) {
			add("config.retry_delays", "%s", noTier(s, d, tiers))
		}
	}
}

func oneOf(tiers []time.Duration) string {
	if tiers == nil {
		return ""
	}
	return " of " + tierList(tiers)
}

// MaxSeconds is the longest time that a process may be given, but for infinity where there may be no limit.
const MaxSeconds = 365 * 24 * 60 * 60

func (p Process) check(add adder) {
	for field, s := range map[string]Seconds{"request_timeout": p.RequestTimeout, "heartbeat_interval_seconds": p.HeartbeatIntervalSeconds} {
		if !(s > 0) || s > MaxSeconds && !s.Infinite() {
			add("process."+field, "%s is out of range: give more than 0 seconds, up to %d (a year), or infinity", s, MaxSeconds)
		}
	}
	for field, s := range map[string]Seconds{"drain_timeout": p.DrainTimeout, "graceful_timeout_sec": p.GracefulTimeoutSec,
		"sigterm_timeout_sec": p.SigtermTimeoutSec, "restart_backoff_seconds": p.RestartBackoffSeconds, "restart_backoff_max_seconds": p.RestartBackoffMaxSeconds} {
		if !(s >= 0) || s > MaxSeconds {
			add("process."+field, "%s is out of range: give 0 to %d seconds (a year)", s, MaxSeconds)
		}
	}
	if !slices.Contains([]string{RestartImmediate, RestartDelayed, RestartManual, RestartNever}, p.RestartPolicy) {
		add("process.restart_policy", "%q is unknown: use immediate, delayed, manual or never", p.RestartPolicy)
	}
	if p.MaxRestartAttempts < 0 {
		add("process.max_restart_attempts", "%d is out of range: give at least 0", p.MaxRestartAttempts)
	}
}

// Escapes reports, by its text alone, whether a path leads out of the directory it is relative to.
func Escapes(p string) bool {
	if p == "" {
		return false
	}
	clean := path.Clean(strings.ReplaceAll(p, `\`, "/"))
	return path.IsAbs(clean) || clean == ".." || strings.HasPrefix(clean, "../")
}
