package config

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestEveryVariableArrives(t *testing.T) {
	c, warned, err := Load(Registry, []string{
		"REEVE_KAFKA_BROKERS=a:1, b:2", "REEVE_TOPIC_PREFIX=x", "REEVE_TOPIC_REPLICATION=3", "REEVE_RETRY_TIERS=5s,1s,5s",
		"REEVE_DATABASE_URL=postgres://h/d", "REEVE_HTTP_ADDR=127.0.0.1:1", "REEVE_AGENTS_DIR=/a", "REEVE_NODE=n1",
		"REEVE_OUTCOMES_KEEP=1h", "REEVE_LOG_LEVEL=debug", "REEVE_LOG_FORMAT=json", "REEVE_AUTH=off", "REEVE_ADMIN_KEY=k",
		"REEVE_WEBHOOK_ALLOW=10.0.0.0/8, hooks.internal:8080", "REEVE_WEBHOOK_SECRETS=/s.yaml", "REEVE_WEBHOOK_RETRIES=1s,5m,2s", "REEVE_WEBHOOK_TIMEOUT=3s",
		"REEVE_URL=u", "PATH=/bin",
	})
	if err != nil || len(warned) != 0 {
		t.Fatal(warned, err)
	}
	if !slices.Equal(c.Kafka.Brokers, []string{"a:1", "b:2"}) || c.Kafka.Names().Control() != "x.control" || c.Kafka.Replication != 3 {
		t.Errorf("kafka: %+v", c.Kafka)
	}
	if !slices.Equal(c.Kafka.RetryTiers, []time.Duration{time.Second, 5 * time.Second}) {
		t.Errorf("tiers aren't sorted and unique: %v", c.Kafka.RetryTiers)
	}
	if w := c.Webhooks; !slices.Equal(w.Allow, []string{"10.0.0.0/8", "hooks.internal:8080"}) || w.Secrets != "/s.yaml" || w.Timeout != 3*time.Second ||
		!slices.Equal(w.Retries, []time.Duration{time.Second, 5 * time.Minute, 2 * time.Second}) {
		t.Errorf("webhooks: %+v", w)
	}
	want := Config{Kafka: c.Kafka, DatabaseURL: "postgres://h/d", HTTPAddr: "127.0.0.1:1", AgentsDir: "/a", Node: "n1",
		OutcomesKeep: time.Hour, LogLevel: "debug", LogFormat: "json", AdminKey: "k"}
	if c.DatabaseURL != want.DatabaseURL || c.HTTPAddr != want.HTTPAddr || c.AgentsDir != want.AgentsDir || c.Node != want.Node ||
		c.OutcomesKeep != want.OutcomesKeep || c.LogLevel != want.LogLevel || c.LogFormat != want.LogFormat || c.Auth || c.AdminKey != want.AdminKey {
		t.Errorf("got %+v, want %+v", c, want)
	}
}

func TestDefaultsDependOnTheService(t *testing.T) {
	for service, addr := range map[string]string{Dev: "127.0.0.1:8765", Dispatcher: "127.0.0.1:8766", Supervisor: "127.0.0.1:8767"} {
		c, _, err := Load(service, []string{"REEVE_NODE=n"})
		if err != nil || c.HTTPAddr != addr || c.Auth == (service == Dev) || (len(c.Webhooks.Allow) > 0) != (service == Dev) {
			t.Errorf("%s: %+v, %v", service, c, err)
		}
	}
}

func TestWhatCantBeUsedIsNamedWithItsRemedy(t *testing.T) {
	for _, tt := range []struct{ service, variable, says string }{
		{Dispatcher, "REEVE_KAFKA_BROKERS=localhost", "give host:port"},
		{Dispatcher, "REEVE_KAFKA_BROKERS=,", "names no broker"},
		{Dispatcher, "REEVE_TOPIC_PREFIX=a_b", "REEVE_TOPIC_PREFIX"},
		{Dispatcher, "REEVE_TOPIC_REPLICATION=0", "replication factor"},
		{Dispatcher, "REEVE_RETRY_TIERS=soon", "no duration"},
		{Dispatcher, "REEVE_WEBHOOK_ALLOW=10.0.0.0/33", "REEVE_WEBHOOK_ALLOW"},
		{Dispatcher, "REEVE_WEBHOOK_RETRIES=1ms", "out of range"},
		{Dispatcher, "REEVE_WEBHOOK_TIMEOUT=2h", "give 100ms to 1m"},
		{Dispatcher, "REEVE_RETRY_TIERS=1ms", "no retry tier"},
		{Dispatcher, "REEVE_NODE=a b", "REEVE_NODE"},
		{Dispatcher, "REEVE_OUTCOMES_KEEP=-1h", "out of range"},
		{Dispatcher, "REEVE_LOG_LEVEL=loud", "use debug"},
		{Dispatcher, "REEVE_LOG_FORMAT=xml", "use text or json"},
		{Dispatcher, "REEVE_AUTH=maybe", "neither on nor off"},
		{Dispatcher, "REEVE_HTTP_ADDR=8080", "host:port"},
		{Registry, "REEVE_NODE=n", "REEVE_DATABASE_URL: is not set"},
		{Registry, "REEVE_DATABSE_URL=x", "did you mean REEVE_DATABASE_URL?"},
		{Dev, "REEVE_HTTP_ADDR=0.0.0.0:80", "only on a loopback address"},
		{Dispatcher, "REEVE_KAFKA_TLS_CA=/x", "REEVE_KAFKA_TLS_CA: /x isn't there"},
		{Dispatcher, "REEVE_KAFKA_SASL_PASSWORD=secret", "REEVE_KAFKA_SASL_MECHANISM: is not set"},
		{Dispatcher, "REEVE_KAFKA_SASL_MECHANISM=scram-sha512", "did you mean SCRAM-SHA-512?"},
		{Dispatcher, "REEVE_LABELS=gpu", "REEVE_LABELS: this version"},
	} {
		_, _, err := Load(tt.service, []string{tt.variable})
		if err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s %s: %v", tt.service, tt.variable, err)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error shows a secret", tt.variable)
		}
	}
}

func TestAnUnknownVariableIsWarnedOfWithTheNearestName(t *testing.T) {
	_, warned, err := Load(Dispatcher, []string{"REEVE_NODE=n", "REEVE_KAFKA_BROKER=a:1", "REEVE_ENTIRELY_ELSE=1"})
	want := []string{
		"REEVE_ENTIRELY_ELSE is no variable of Reeve and is ignored",
		"REEVE_KAFKA_BROKER is no variable of Reeve and is ignored: did you mean REEVE_KAFKA_BROKERS?",
	}
	if err != nil || !slices.Equal(warned, want) {
		t.Errorf("%q, %v", warned, err)
	}
}
