package agent

import (
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
)

func TestARunnerGetsIntoASecuredKafkaByItsEnvironment(t *testing.T) {
	k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-256", "u", "pw"))
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	base := []string{"REEVE_NODE=n", "REEVE_KAFKA_BROKERS=" + k.ListenAddrs()[0], "REEVE_KAFKA_SASL_MECHANISM=SCRAM-SHA-256", "REEVE_KAFKA_SASL_USERNAME=u"}
	connect := func(password string) error {
		r, err := NewRunner(Options{Environ: append(base, "REEVE_KAFKA_SASL_PASSWORD="+password)})
		if err != nil {
			return err
		}
		run, err := r.connect(t.Context())
		if err == nil {
			run.end()
			run.endBeat()
			run.close()
		}
		return err
	}
	if err := connect("pw"); err != nil {
		t.Error(err)
	}
	if err := connect("wr0ng"); err == nil || strings.Contains(err.Error(), "wr0ng") {
		t.Errorf("a wrong password: %v", err) // kfake ends the connection without a word
	}
	if _, err := NewRunner(Options{Environ: []string{"REEVE_NODE=n", "REEVE_KAFKA_SASL_MECHANISM=SCRAM"}}); err == nil || !strings.Contains(err.Error(), "did you mean SCRAM-SHA-512?") {
		t.Errorf("a misspelt mechanism: %v", err)
	}
}
