package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/reeve-run/reeve/tests/harness"

	"github.com/reeve-run/reeve/internal/testenv"
)

// Kafka's own tools are enough: its console producer publishes, its consumer-groups shows the agent's groups with
// members, and no lag when all is done.
func TestKafkasOwnToolsSeeTheGroupsAndPublish(t *testing.T) {
	t.Parallel()
	sys := onShared(t)
	topic := sys.Prefix + "-in"
	if err := harness.CreateTopic(t.Context(), sys.Brokers, topic, 3, nil); err != nil {
		t.Fatal(err)
	}
	start(t, sys, "registry.r0", "dispatcher.d0", "supervisor.s0")
	registerStock(t, sys, topic)

	lines := strings.Repeat(`{"n": 1}`+"\n", 100)
	tool(t, lines, "org.apache.kafka.tools.ConsoleProducer", "--bootstrap-server", sys.Brokers[0], "--topic", topic)
	eventually(t, time.Minute, func() string {
		var m struct{ Completed int }
		if err := sys.Call(t.Context(), "GET", "/v1/agents/"+topic+"/stock/metrics", nil, &m); err != nil {
			return err.Error()
		}
		if m.Completed != 100 {
			return fmt.Sprintf("%d of 100 completed", m.Completed)
		}
		return ""
	})
	for _, group := range []string{sys.Names().Group(topic, "stock"), sys.Names().WorkGroup(topic, "stock")} {
		eventually(t, time.Minute, func() string { return idle(describe(t, sys, group)) })
	}
}

// describe runs kafka-consumer-groups --describe.
func describe(t *testing.T, sys *harness.System, group string) string {
	t.Helper()
	return tool(t, "", "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
		"--bootstrap-server", sys.Brokers[0], "--describe", "--group", group)
}

// idle says what in the tool's table isn't a partition with a member and a lag of 0, "" where nothing is.
func idle(table string) string {
	partitions := 0
	for line := range strings.Lines(table) {
		// GROUP TOPIC PARTITION CURRENT-OFFSET LOG-END-OFFSET LAG CONSUMER-ID HOST CLIENT-ID
		f := strings.Fields(line)
		if len(f) < 9 || f[0] == "GROUP" {
			continue
		}
		partitions++
		if f[3] == "-" && f[4] == "0" {
			f[5] = "0" // nothing was ever there
		}
		if f[5] != "0" || f[6] == "-" {
			return table
		}
	}
	if partitions == 0 {
		return "no partition: " + table
	}
	return ""
}

func tool(t *testing.T, stdin, class string, args ...string) string {
	t.Helper()
	cmd, err := testenv.KafkaTool(t.Context(), t.Logf, class, args...)
	if err != nil {
		t.Skip(err)
	}
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", class, err, out)
	}
	return string(out)
}
