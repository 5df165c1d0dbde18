package config

import (
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/reeve-run/reeve/internal/egress"
	"github.com/reeve-run/reeve/pkg/security"
	"github.com/reeve-run/reeve/pkg/topics"
)

// Names of the services, as Load takes them and as they stand in node and transactional ids.
const (
	Registry   = "registry"
	Dispatcher = "dispatcher"
	Supervisor = "supervisor"
	Dev        = "dev" // all three in one process
)

// Config is one service process's configuration.
type Config struct {
	Kafka Kafka
	// DatabaseURL is the registry's Postgres. Required by the registry; no other service touches it.
	DatabaseURL string
	// HTTPAddr is where the service listens. Defaults to 127.0.0.1 with 8765 (registry, dev), 8766 (dispatcher) or
	// 8767 (supervisor).
	HTTPAddr string
	// AgentsDir is the directory that the agents' directories are below. Defaults to the working directory.
	AgentsDir string
	// Node is the process's stable name. Defaults to the host's name, dev in dev.
	Node string
	// OutcomesKeep is how long outcomes stay on Kafka after they were projected. Defaults to 24 h.
	OutcomesKeep time.Duration
	LogLevel     string // debug, info, warn or error. Defaults to info
	LogFormat    string // text or json. Defaults to text
	// Auth says whether REST asks for a key. Defaults to true; false in dev, and possible only on a loopback address.
	Auth bool
	// AdminKey is the first key.
	AdminKey string
	// Webhooks says how results are sent to URLs. Only the dispatcher acts on it.
	Webhooks Webhooks
}

// Webhooks is how dispatchers send results to the URLs that events name.
type Webhooks struct {
	// Allow lists the addresses, networks and hosts that may be reached although they aren't public; see egress.ParseAllow.
	// Defaults to none; in dev to this machine's loopback addresses.
	Allow []string
	// Secrets is a file of signing secrets by URL. Defaults to none: webhooks go unsigned.
	Secrets string
	// Retries are the delays between one try and the next; there is one try more than there are delays. Defaults to
	// 5s 5m 30m 2h 5h 10h.
	Retries []time.Duration
	// Timeout of one try, from its connection to the answer. Defaults to 15 s.
	Timeout time.Duration
}

// Kafka is the part of the configuration that Kafka clients need.
type Kafka struct {
	Brokers     []string        // host:port. Defaults to 127.0.0.1:9092
	Prefix      string          // of topics, groups and transactional ids. Defaults to reeve
	Replication int16           // of the topics that are created. Defaults to -1, the brokers' own default
	RetryTiers  []time.Duration // ascending. Defaults to 1s 5s 30s 5m 1h
	Security    security.Config // TLS and SASL. Defaults to neither
}

// Names derives the names of topics, groups and transactional ids.
func (k Kafka) Names() topics.Names { return topics.Names{Prefix: k.Prefix} }

// Default is the configuration of a service whose environment says nothing.
func Default(service string) Config {
	c := Config{
		Kafka:        Kafka{Brokers: []string{"127.0.0.1:9092"}, Prefix: topics.DefaultPrefix, Replication: -1, RetryTiers: topics.DefaultTiers()},
		HTTPAddr:     "127.0.0.1:8765",
		AgentsDir:    ".",
		OutcomesKeep: 24 * time.Hour,
		LogLevel:     "info",
		LogFormat:    "text",
		Auth:         service != Dev,
		Webhooks:     Webhooks{Retries: []time.Duration{5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour, 10 * time.Hour}, Timeout: 15 * time.Second},
	}
	switch service {
	case Dispatcher:
		c.HTTPAddr = "127.0.0.1:8766"
	case Supervisor:
		c.HTTPAddr = "127.0.0.1:8767"
	}
	c.Node, _ = os.Hostname() // an empty name is refused by Validate, which says what to do
	if service == Dev {
		c.Node = "dev"
		c.Webhooks.Allow = []string{"127.0.0.0/8", "::1"}
	}
	return c
}

// A setting is one variable and what it does to a Config.
type setting struct {
	name  string
	apply func(c *Config, value string) error
}

func settings() []setting {
	return []setting{
		{"REEVE_KAFKA_BROKERS", func(c *Config, v string) error { c.Kafka.Brokers = list(v); return nil }},
		{"REEVE_TOPIC_PREFIX", func(c *Config, v string) error { c.Kafka.Prefix = v; return nil }},
		{"REEVE_TOPIC_REPLICATION", func(c *Config, v string) (err error) { c.Kafka.Replication, err = replication(v); return }},
		{"REEVE_RETRY_TIERS", func(c *Config, v string) (err error) { c.Kafka.RetryTiers, err = topics.ParseTiers(v); return }},
		{"REEVE_DATABASE_URL", func(c *Config, v string) error { c.DatabaseURL = v; return nil }},
		{"REEVE_HTTP_ADDR", func(c *Config, v string) error { c.HTTPAddr = v; return nil }},
		{"REEVE_AGENTS_DIR", func(c *Config, v string) error { c.AgentsDir = v; return nil }},
		{"REEVE_NODE", func(c *Config, v string) error { c.Node = v; return nil }},
		{"REEVE_OUTCOMES_KEEP", func(c *Config, v string) (err error) { c.OutcomesKeep, err = duration(v); return }},
		{"REEVE_LOG_LEVEL", func(c *Config, v string) error { c.LogLevel = v; return nil }},
		{"REEVE_LOG_FORMAT", func(c *Config, v string) error { c.LogFormat = v; return nil }},
		{"REEVE_AUTH", func(c *Config, v string) (err error) { c.Auth, err = onOff(v); return }},
		{"REEVE_ADMIN_KEY", func(c *Config, v string) error { c.AdminKey = v; return nil }},
		{"REEVE_WEBHOOK_ALLOW", func(c *Config, v string) error { c.Webhooks.Allow = listOrNone(v); return nil }},
		{"REEVE_WEBHOOK_SECRETS", func(c *Config, v string) error { c.Webhooks.Secrets = v; return nil }},
		{"REEVE_WEBHOOK_RETRIES", func(c *Config, v string) (err error) { c.Webhooks.Retries, err = durations(v); return }},
		{"REEVE_WEBHOOK_TIMEOUT", func(c *Config, v string) (err error) { c.Webhooks.Timeout, err = duration(v); return }},
	}
}

// elsewhere are variables that the command line and the SDK read, not a service.
func elsewhere() []string { return []string{"REEVE_URL", "REEVE_API_KEY", "REEVE_PROFILE"} }

// unavailable are variables of the documented contract that this version doesn't carry out.
func unavailable() []string { return []string{"REEVE_LABELS"} }

// ofSecurity are the variables that make Kafka.Security.
func ofSecurity() []string {
	return []string{security.EnvTLSCA, security.EnvTLSCert, security.EnvTLSKey, security.EnvMechanism, security.EnvUsername, security.EnvPassword}
}

// Load reads a service's configuration from an environment in the form of os.Environ. The warnings are for a
// person; an error holds them, since a misspelt name is often why something is missing. An empty value counts as unset.
func Load(service string, environ []string) (Config, []string, error) {
	c := Default(service)
	env := reeveVariables(environ)
	var errs []error
	for _, s := range settings() {
		v := env[s.name]
		delete(env, s.name)
		if v == "" {
			continue
		}
		if err := s.apply(&c, v); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", s.name, err))
		}
	}
	c.Kafka.Security = security.FromEnvironment(func(name string) string { return env[name] })
	for _, name := range ofSecurity() {
		delete(env, name)
	}
	for _, name := range unavailable() {
		if env[name] != "" {
			errs = append(errs, fmt.Errorf("%s: this version doesn't carry it out: unset it", name))
		}
		delete(env, name)
	}
	for _, name := range elsewhere() {
		delete(env, name)
	}
	warned := append(warnings(env), c.Kafka.Security.Warnings()...)
	if err := errors.Join(append(errs, c.Validate(service))...); err != nil {
		for _, w := range warnings(env) {
			err = errors.Join(err, errors.New(w))
		}
		return Config{}, warned, fmt.Errorf("read configuration: %w", err)
	}
	return c, warned, nil
}

// idRule is what Kafka takes in a group instance id, and a prefix in a topic name.
var idRule = regexp.MustCompile(`^[A-Za-z0-9._-]{1,100}$`)

// Validate reports everything that a service couldn't start with. It reads the files of Kafka.Security.
func (c Config) Validate(service string) error {
	var errs []error
	add := func(name, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: %s", name, fmt.Sprintf(format, args...)))
	}
	if len(c.Kafka.Brokers) == 0 {
		add("REEVE_KAFKA_BROKERS", "names no broker: give host:port, several parted by commas")
	}
	for _, b := range c.Kafka.Brokers {
		if _, port, err := net.SplitHostPort(b); err != nil || port == "" {
			add("REEVE_KAFKA_BROKERS", "%q is no address: give host:port", b)
		}
	}
	if err := c.Kafka.Security.Check(time.Now()); err != nil {
		errs = append(errs, err)
	}
	if !idRule.MatchString(c.Kafka.Prefix) || strings.Contains(c.Kafka.Prefix, "_") {
		add("REEVE_TOPIC_PREFIX", "%q is illegal: use 1 to 100 of the characters a-z A-Z 0-9 . -", c.Kafka.Prefix)
	}
	if !idRule.MatchString(c.Node) {
		add("REEVE_NODE", "%q is illegal: give a name of 1 to 100 of the characters a-z A-Z 0-9 . _ - that no other process of this service has", c.Node)
	}
	if service == Registry && c.DatabaseURL == "" {
		add("REEVE_DATABASE_URL", "is not set: give the registry's Postgres, postgres://user:password@host:5432/database")
	}
	host, _, err := net.SplitHostPort(c.HTTPAddr)
	if err != nil {
		add("REEVE_HTTP_ADDR", "%q is no address: give host:port", c.HTTPAddr)
	} else if !c.Auth && !Loopback(host) {
		add("REEVE_AUTH", "off is possible only on a loopback address, not on %s: switch it on, or listen on 127.0.0.1", c.HTTPAddr)
	}
	if _, err := egress.ParseAllow(c.Webhooks.Allow); err != nil {
		add("REEVE_WEBHOOK_ALLOW", "%v", err)
	}
	if c.Webhooks.Timeout < 100*time.Millisecond || c.Webhooks.Timeout > time.Minute {
		add("REEVE_WEBHOOK_TIMEOUT", "%s is out of range: give 100ms to 1m", c.Webhooks.Timeout)
	}
	if len(c.Webhooks.Retries) > maxWebhookRetries {
		add("REEVE_WEBHOOK_RETRIES", "lists %d delays: give at most %d", len(c.Webhooks.Retries), maxWebhookRetries)
	}
	if c.OutcomesKeep <= 0 {
		add("REEVE_OUTCOMES_KEEP", "%s is out of range: give a duration above 0, such as 24h", c.OutcomesKeep)
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, c.LogLevel) {
		add("REEVE_LOG_LEVEL", "%q is unknown: use debug, info, warn or error", c.LogLevel)
	}
	if !slices.Contains([]string{"text", "json"}, c.LogFormat) {
		add("REEVE_LOG_FORMAT", "%q is unknown: use text or json", c.LogFormat)
	}
	return errors.Join(errs...)
}

// Loopback reports whether a host can be reached from this machine only.
func Loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// prefix is what every variable's name begins with.
const prefix = "REEVE_"

func reeveVariables(environ []string) map[string]string {
	env := make(map[string]string)
	for _, kv := range environ {
		if name, value, ok := strings.Cut(kv, "="); ok && strings.HasPrefix(name, prefix) {
			env[name] = value
		}
	}
	return env
}

func warnings(unknown map[string]string) []string {
	var ws []string
	for name := range unknown {
		w := name + " is no variable of Reeve and is ignored"
		if near := nearest(name); near != "" {
			w += ": did you mean " + near + "?"
		}
		ws = append(ws, w)
	}
	slices.Sort(ws)
	return ws
}

func list(v string) []string {
	var out []string
	for s := range strings.SplitSeq(v, ",") {
		if s = strings.TrimSpace(s); s != "" {
			out = append(out, s)
		}
	}
	return out
}

// listOrNone is a list, or with the word none an empty one.
func listOrNone(v string) []string {
	if strings.TrimSpace(v) == "none" {
		return nil
	}
	return list(v)
}

// maxWebhookRetries bounds how often a webhook is tried.
const maxWebhookRetries = 20

// durations reads delays between tries, in their order, or none.
func durations(v string) ([]time.Duration, error) {
	var out []time.Duration
	for _, part := range listOrNone(v) {
		d, err := duration(part)
		if err != nil {
			return nil, err
		}
		if d < 100*time.Millisecond || d > 7*24*time.Hour {
			return nil, fmt.Errorf("%s is out of range: give delays from 100ms to 168h", part)
		}
		out = append(out, d)
	}
	return out, nil
}

func replication(v string) (int16, error) {
	n, err := strconv.ParseInt(v, 10, 16)
	if err != nil || n < -1 || n == 0 {
		return 0, fmt.Errorf("%q is no replication factor: give a number from 1, or -1 for the brokers' default", v)
	}
	return int16(n), nil
}

func duration(v string) (time.Duration, error) {
	d, err := time.ParseDuration(v)
	if err != nil {
		return 0, fmt.Errorf("%q is no duration: write 500ms, 30s, 5m, 24h", v)
	}
	return d, nil
}

func onOff(v string) (bool, error) {
	switch strings.ToLower(v) {
	case "on", "true", "1", "yes":
		return true, nil
	case "off", "false", "0", "no":
		return false, nil
	}
	return false, fmt.Errorf("%q is neither on nor off", v)
}
