package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/client"
	"github.com/reeve-run/reeve/pkg/security"
	"github.com/reeve-run/reeve/pkg/topics"
)

// Options are what a Runner stands on. The zero value is a Runner configured by its environment: a field that is left out
// is taken from the REEVE_* variable that its comment names, else it has the default.
type Options struct {
	// Brokers are Kafka's, host:port. REEVE_KAFKA_BROKERS. Defaults to 127.0.0.1:9092.
	Brokers []string
	// URL is the registry's. REEVE_URL. Defaults to http://127.0.0.1:8765.
	URL string
	// Key is the registry's API key. REEVE_API_KEY. Defaults to none.
	Key string
	// Node is the program's name among all that run agents, stable over restarts: by it a restart finds its partitions,
	// and of two processes with one name the newer wins. REEVE_NODE. Defaults to <host>-<program>, which is enough for one
	// process of a program on a host; several need names of their own.
	Node string
	// Prefix is the installation's, of its topics and groups. REEVE_TOPIC_PREFIX. Defaults to reeve.
	Prefix string
	// RetryTiers are the installation's. REEVE_RETRY_TIERS. Defaults to 1s 5s 30s 5m 1h.
	RetryTiers []time.Duration
	// Replication of dead-letter topics, which are made on first use. REEVE_TOPIC_REPLICATION. Defaults to the brokers'
	// default.
	Replication int16
	// CreateTopics makes topics of replies and of published records that don't exist. Defaults to false.
	CreateTopics bool

	// Security is how Kafka is reached: TLS and SASL. REEVE_KAFKA_TLS_CA, _CERT, _KEY and REEVE_KAFKA_SASL_MECHANISM,
	// _USERNAME, _PASSWORD. Defaults to neither.
	Security security.Config
	// Kafka are further options of every Kafka client: a dialer, another way of authentication, hooks for metrics and traces
	// (kprom, kotel).
	Kafka []kgo.Opt
	// HTTP does the requests to the registry. Defaults to a client of the Runner's own.
	HTTP *http.Client
	// Logger gets a line for each thing that an operator would act on. Defaults to slog.Default().
	Logger *slog.Logger
	// Middleware wraps every handler, the first outermost.
	Middleware []Middleware
	// OnAlert is told of what a person has to know, beside the registry and the log: one call at a time, and while one
	// takes long others may be left out. A stop waits 2 s for it, so that it mustn't call Shutdown itself.
	OnAlert func(Alert)
	// Environ is the environment. Defaults to the process's.
	Environ []string
}

// Alert asks for a person; the same Kind with Resolved takes it back. With no Topic it is about the program.
type Alert struct {
	Topic, Name string
	Kind        string // destination_unwritable, records_lost, attempts_overdue, registration_refused, …
	Severity    string // warning, critical
	Message     string
	Resolved    bool
}

// resolve fills in what was left out, and refuses what a Runner can't start with.
func (o Options) resolve() (Options, error) {
	if o.Environ == nil {
		o.Environ = os.Environ()
	}
	var errs []error
	env := variables(o.Environ)
	text := func(to *string, name, def string) {
		if *to == "" {
			*to = env[name]
		}
		if *to == "" {
			*to = def
		}
	}
	text(&o.URL, "REEVE_URL", client.DefaultURL)
	text(&o.Key, "REEVE_API_KEY", "")
	text(&o.Prefix, "REEVE_TOPIC_PREFIX", topics.DefaultPrefix)
	text(&o.Node, "REEVE_NODE", defaultNode())
	if len(o.Brokers) == 0 {
		o.Brokers = []string{"127.0.0.1:9092"}
		if v := env["REEVE_KAFKA_BROKERS"]; v != "" {
			o.Brokers = strings.FieldsFunc(v, func(r rune) bool { return r == ',' || r == ' ' })
		}
	}
	if len(o.RetryTiers) == 0 {
		var err error
		if o.RetryTiers, err = topics.ParseTiers(env["REEVE_RETRY_TIERS"]); err != nil {
			errs = append(errs, fmt.Errorf("REEVE_RETRY_TIERS: %w", err))
		}
	}
	if v := env["REEVE_TOPIC_REPLICATION"]; o.Replication == 0 && v != "" {
		n, err := strconv.ParseInt(v, 10, 16)
		if err != nil || n < -1 || n == 0 {
			errs = append(errs, fmt.Errorf("REEVE_TOPIC_REPLICATION: %q is no replication factor: give a number from 1, or -1 for the brokers' default", v))
		}
		o.Replication = int16(n)
	}
	if o.Security == (security.Config{}) {
		o.Security = security.FromEnvironment(func(name string) string { return env[name] })
	}
	if err := o.Security.Check(time.Now()); err != nil {
		errs = append(errs, err)
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	for _, w := range o.Security.Warnings() {
		o.Logger.Warn(w)
	}
	if o.OnAlert == nil {
		o.OnAlert = func(Alert) {}
	}
	if err := errors.Join(append(errs, o.validate(env))...); err != nil {
		return Options{}, fmt.Errorf("configure the runner: %w", err)
	}
	return o, nil
}

// nameRule is what Kafka takes in a group instance id, and a prefix in a topic name.
var nameRule = regexp.MustCompile(`^[A-Za-z0-9._-]{1,100}$`)

func (o Options) validate(env map[string]string) error {
	var errs []error
	if !nameRule.MatchString(o.Node) {
		errs = append(errs, fmt.Errorf("the node %q: give Options.Node or REEVE_NODE a name of 1 to 100 of the characters a-z A-Z 0-9 . _ - that no other program has", o.Node))
	}
	if !nameRule.MatchString(o.Prefix) || strings.Contains(o.Prefix, "_") {
		errs = append(errs, fmt.Errorf("the prefix %q is illegal: use 1 to 100 of the characters a-z A-Z 0-9 . -", o.Prefix))
	}
	for _, name := range []string{"REEVE_LABELS"} {
		if env[name] != "" {
			errs = append(errs, fmt.Errorf("%s: this version doesn't carry it out: unset it", name))
		}
	}
	return errors.Join(errs...)
}

// defaultNode is <host>-<program>, in what a name may hold; "" where the host has no name.
func defaultNode() string {
	host, _ := os.Hostname() // an empty one is refused below
	if host == "" {
		return ""
	}
	name := strings.Map(func(r rune) rune {
		if nameRule.MatchString(string(r)) {
			return r
		}
		return '-'
	}, host+"-"+filepath.Base(os.Args[0]))
	return name[:min(len(name), 100)]
}

func variables(environ []string) map[string]string {
	env := map[string]string{}
	for _, kv := range environ {
		if name, value, ok := strings.Cut(kv, "="); ok && strings.HasPrefix(name, "REEVE_") {
			env[name] = value
		}
	}
	return env
}
