package dev

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/reeve-run/reeve/internal/config"
	"github.com/reeve-run/reeve/services/reeve/internal/cli"
)

// settings are the environment's and the command line's words together; flags win.
type settings struct {
	config.Config
	data, file                  string // file is "" where none is applied
	kafkaListen                 string
	listenGiven, kafkaGiven     bool
	embeddedKafka, embeddedData bool
}

// settle decides what is run with what.
func settle(o cli.DevOptions, environ []string) (settings, error) {
	cfg, _, err := config.Load(config.Dev, environ) // its warnings were told by the command
	if err != nil {
		return settings{}, err
	}
	s := settings{Config: cfg, data: o.Data, kafkaListen: o.KafkaListen, kafkaGiven: o.KafkaListenGiven}
	s.listenGiven = o.ListenGiven || isSet(environ, "REEVE_HTTP_ADDR")
	if o.ListenGiven || !isSet(environ, "REEVE_HTTP_ADDR") {
		s.HTTPAddr = o.Listen
	}
	if len(o.Brokers) > 0 {
		s.Kafka.Brokers = o.Brokers
	}
	s.embeddedKafka = len(o.Brokers) == 0 && (o.KafkaListenGiven || !isSet(environ, "REEVE_KAFKA_BROKERS"))
	if o.DatabaseURL != "" {
		s.DatabaseURL = o.DatabaseURL
	}
	s.embeddedData = s.DatabaseURL == ""
	if s.file, err = agentsFile(o); err != nil {
		return settings{}, err
	}
	s.AgentsDir, err = agentsDir(o, s.file, cfg.AgentsDir, isSet(environ, "REEVE_AGENTS_DIR"))
	if err != nil {
		return settings{}, err
	}
	return s, s.check()
}

// check repeats the configuration's rules, now that the flags have had their say.
func (s settings) check() error {
	if err := s.Validate(config.Dev); err != nil {
		return err
	}
	if s.embeddedKafka && s.Kafka.Security.Protocol() != "PLAINTEXT" {
		return cli.Usagef("the embedded Kafka has neither TLS nor SASL, which REEVE_KAFKA_TLS_… and REEVE_KAFKA_SASL_… ask for: unset them, or name a Kafka by --brokers")
	}
	host, _, _ := strings.Cut(s.kafkaListen, ":")
	if s.embeddedKafka && slices.Contains([]string{"", "0.0.0.0", "[", "*"}, host) {
		return cli.Usagef("--kafka-listen %s: the broker tells clients this address to connect to, so it must be one: give 127.0.0.1:PORT, or this machine's own", s.kafkaListen)
	}
	return nil
}

func isSet(environ []string, name string) bool {
	return slices.ContainsFunc(environ, func(v string) bool { return strings.HasPrefix(v, name+"=") && len(v) > len(name)+1 })
}

// agentsFile is the file to apply, "" where the default isn't there.
func agentsFile(o cli.DevOptions) (string, error) {
	if _, err := os.Stat(o.File); err != nil && (o.FileGiven || !os.IsNotExist(err)) {
		return "", fmt.Errorf("read the agents file: %w: name it by -f", err)
	} else if err != nil {
		return "", nil
	}
	return o.File, nil
}

// agentsDir is the directory that the agents' directories are below, absolute: agents' processes change theirs.
func agentsDir(o cli.DevOptions, file, environment string, set bool) (string, error) {
	dir := environment
	switch {
	case o.AgentsDirGiven:
		dir = o.AgentsDir
	case set:
	case file != "":
		dir = filepath.Dir(file)
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("find the agents directory: %w", err)
	}
	if info, err := os.Stat(abs); err != nil || !info.IsDir() {
		return "", fmt.Errorf("the agents directory %s isn't there: make it, or name another by --agents-dir", abs)
	}
	return abs, nil
}
