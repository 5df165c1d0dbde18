package dev

import (
	"strings"
	"testing"

	"github.com/reeve-run/reeve/services/reeve/internal/cli"
)

func TestSecurityIsForAKafkaThatIsNamed(t *testing.T) {
	environ := []string{"REEVE_KAFKA_TLS_CA=system", "REEVE_AGENTS_DIR=" + t.TempDir()}
	o := cli.DevOptions{Listen: "127.0.0.1:0", KafkaListen: "127.0.0.1:0", File: "agents.yaml"}
	if _, err := settle(o, environ); err == nil || !strings.Contains(err.Error(), "--brokers") {
		t.Errorf("with the embedded one: %v", err)
	}
	o.Brokers = []string{"k.example.org:9093"}
	s, err := settle(o, environ)
	if err != nil || s.Kafka.Security.Protocol() != "SSL" {
		t.Errorf("with another one: %+v, %v", s.Kafka, err)
	}
}
