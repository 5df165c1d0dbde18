package cli

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/reeve-run/reeve/pkg/topics"
	"github.com/reeve-run/reeve/services/reeve/internal/doctor"
)

// offKafka runs a command line in an environment whose registry doesn't answer.
func offKafka(t *testing.T, environ []string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") // takes a port that nobody answers on once it is closed
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + l.Addr().String()
	l.Close()
	var out, errs bytes.Buffer
	code = Run(t.Context(), System{Out: &out, Err: &errs, In: strings.NewReader(""), Environ: append([]string{"REEVE_URL=" + url, "REEVE_NODE=n1", "HOME=" + t.TempDir()}, environ...)}, args)
	return out.String(), errs.String(), code
}

func agentsYAML(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agents.yaml")
	file := "agents:\n  - {topic: orders, name: pricing, command: ./p, partitions: 3}\n  - {topic: orders, name: no_dlq, command: ./p, config: {dlq_enabled: false}}\n"
	if err := os.WriteFile(path, []byte(file), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTopicsListsWhatAnInstallationNeeds(t *testing.T) {
	out, _, code := offKafka(t, []string{"REEVE_TOPIC_PREFIX=acme", "REEVE_RETRY_TIERS=1s,1m", "REEVE_TOPIC_REPLICATION=3"}, "topics", "-f", agentsYAML(t), "--agent", "x.y/z", "-o", "json")
	var list struct{ Items []listedTopic }
	if err := json.Unmarshal([]byte(out), &list); err != nil || code != 0 {
		t.Fatal(code, err, out)
	}
	partitions := map[string]int32{}
	for _, topic := range list.Items {
		partitions[topic.Topic] = topic.Partitions
		if topic.ReplicationFactor != 3 || len(topic.WrittenBy) == 0 || topic.Configs["retention.bytes"] != "-1" {
			t.Errorf("%+v", topic)
		}
	}
	want := map[string]int32{"acme.control": 1, "acme.commands": 1, "acme.status": 4, "acme.outcomes": 8, "acme.retry.1s": 4, "acme.retry.1m": 4, "acme.webhooks": 4, "acme.webhooks.1s": 2, "acme.webhooks.1m": 2, "acme.dlq.webhooks": 1, "acme.tasks.orders.pricing": 3,
		"acme.dlq.orders.pricing": 1, "acme.tasks.orders.no--dlq": 8, "acme.tasks.x.y.z": 8, "acme.dlq.x.y.z": 1}
	for name, n := range want {
		if partitions[name] != n {
			t.Errorf("%s has %d partitions, want %d", name, partitions[name], n)
		}
	}
	if len(partitions) != len(want) {
		t.Errorf("%d topics, want %d: %v", len(partitions), len(want), partitions)
	}
}

func TestTopicsAndRightsAreWrittenAsLinesOfAShell(t *testing.T) {
	out, _, code := offKafka(t, []string{"REEVE_KAFKA_BROKERS=k1:9092,k2:9092"}, "topics", "--agent", "orders/a_1", "--commands", "--command-config", "my admin.properties")
	line := `kafka-topics.sh --bootstrap-server k1:9092,k2:9092 --command-config 'my admin.properties' --create --if-not-exists --topic reeve.tasks.orders.a--1 --partitions 8 --config cleanup.policy=delete`
	if code != 0 || !strings.Contains(out, line) {
		t.Errorf("%d\n%s", code, out)
	}
	out, _, code = offKafka(t, nil, "acls", "--agent", "orders/a", "--topic", "web.*", "--commands", "--principal", "User:it's me", "--principal-dispatcher", "User:d", "--service", "dispatcher", "--service", "registry")
	for _, line := range []string{
		`--add --allow-principal User:d --operation Read --operation DescribeConfigs --topic orders --resource-pattern-type literal`,
		`--add --allow-principal User:d --operation Read --operation DescribeConfigs --topic web. --resource-pattern-type prefixed`,
		`--add --allow-principal 'User:it'\''s me' --operation Write --transactional-id reeve-registry-relay-0 --resource-pattern-type literal`,
	} {
		if !strings.Contains(out, line+"\n") {
			t.Errorf("there is no %s in\n%s", line, out)
		}
	}
	if code != 0 || strings.Contains(out, "supervisor") || strings.Contains(out, "Create") {
		t.Errorf("%d\n%s", code, out)
	}
	if out, _, _ = offKafka(t, nil, "acls", "--agent", "orders/a", "--create-topics"); !strings.Contains(out, "Create,AlterConfigs") {
		t.Error(out)
	}
	if out, _, _ = offKafka(t, nil, "acls", "--agent", "orders/a"); strings.Contains(out, "kafka-cluster") {
		t.Errorf("a right on the cluster isn't among the least:\n%s", out)
	}
	out, _, code = offKafka(t, nil, "acls", "--agent", "orders/a", "--mend", "--commands", "--principal", "User:r", "--service", "supervisor")
	for _, line := range []string{`--allow-principal User:r --operation Alter --cluster`, `--operation Read --topic __consumer_offsets --resource-pattern-type literal`,
		`--operation Read --topic reeve. --resource-pattern-type prefixed`} {
		if code != 0 || !strings.Contains(out, line+"\n") {
			t.Errorf("%d: there is no %s in\n%s", code, line, out)
		}
	}
}

func TestWhatTopicsRightsAndDoctorCantDoIsAUsageError(t *testing.T) {
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"topics", "--agent", "orders"}, "write TOPIC/NAME"},
		{[]string{"topics", "--bootstrap-server", "b:1"}, "add it"},
		{[]string{"topics", "--commands", "-o", "json"}, "keep one"},
		{[]string{"topics", "--agents-dir", "x"}, "name it by -f"},
		{[]string{"topics", "--source-max-bytes", "0"}, "out of range"},
		{[]string{"acls", "--commands", "--agent", "t/n"}, "say who gets the rights of the registry"},
		{[]string{"acls", "--service", "cook"}, "there are registry, dispatcher, supervisor, worker"},
		{[]string{"acls", "--principal", "reeve"}, "write User:NAME"},
		{[]string{"doctor", "--service", "cook"}, "there are registry, dispatcher, supervisor, worker"},
	} {
		out, errs, code := offKafka(t, nil, c.args...)
		if code != Usage || !strings.Contains(errs, c.says) || out != "" {
			t.Errorf("%v: exit code %d, %q, %q", c.args, code, errs, out)
		}
	}
	if _, errs, code := offKafka(t, nil, "topics"); code != 0 || !strings.Contains(errs, "no registry answers") {
		t.Errorf("without a registry: %d %s", code, errs)
	}
	if out, _, code := offKafka(t, []string{"REEVE_KAFKA_TLS_CA=/nowhere.pem"}, "doctor"); code != Failed || !strings.Contains(out, "fail  configuration") || !strings.Contains(out, "/nowhere.pem isn't there") {
		t.Errorf("%d %s", code, out)
	}
}

// doctorOn examines a kfake with rights of a user.
func doctorOn(t *testing.T, acls []kfake.ACL, args ...string) ([]doctor.Check, int) {
	t.Helper()
	k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(), kfake.EnableACLs(), kfake.SeedTopics(3, "orders"), kfake.SeedTopics(1, "reeve.control"), kfake.User("SCRAM-SHA-256", "u", "pw", acls...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	env := []string{"REEVE_KAFKA_BROKERS=" + k.ListenAddrs()[0], "REEVE_KAFKA_SASL_MECHANISM=SCRAM-SHA-256", "REEVE_KAFKA_SASL_USERNAME=u", "REEVE_KAFKA_SASL_PASSWORD=pw", "REEVE_AGENTS_DIR=" + t.TempDir()}
	out, errs, code := offKafka(t, env, append([]string{"doctor", "--agent", "orders/a", "-o", "json"}, args...)...)
	var list struct{ Items []doctor.Check }
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		t.Fatal(err, out, errs)
	}
	return list.Items, code
}

func TestDoctorNamesWhatIsMissing(t *testing.T) {
	all := kmsg.ACLOperationAll
	allow := func(resource kmsg.ACLResourceType, name string, op kmsg.ACLOperation) kfake.ACL {
		return kfake.ACL{Resource: resource, Name: name, Pattern: kmsg.ACLResourcePatternTypePrefixed, Operation: op, Allow: true}
	}
	most := []kfake.ACL{allow(kmsg.ACLResourceTypeTopic, "reeve.", all), allow(kmsg.ACLResourceTypeGroup, "reeve.", all), allow(kmsg.ACLResourceTypeTransactionalId, "reeve-", all)}
	find := func(checks []doctor.Check, name, detail string) *doctor.Check {
		i := slices.IndexFunc(checks, func(c doctor.Check) bool { return c.Name == name && strings.Contains(c.Detail, detail) })
		if i < 0 {
			return nil
		}
		return &checks[i]
	}
	checks, code := doctorOn(t, append(most, allow(kmsg.ACLResourceTypeTopic, "orders", all)), "--service", "dispatcher")
	if c := find(checks, "rights of the dispatcher", "all that it needs"); c == nil {
		t.Errorf("with all rights: %+v", checks)
	}
	if c := find(checks, "rights of the dispatcher", "a person has to: for that it lacks"); c == nil || c.Status != doctor.OK || !strings.Contains(c.Detail, "Alter on cluster kafka-cluster") {
		t.Errorf("without those to mend: %+v", checks)
	}
	mending := append(most, allow(kmsg.ACLResourceTypeTopic, "orders", all), allow(kmsg.ACLResourceTypeTopic, "__consumer_offsets", all), allow(kmsg.ACLResourceTypeCluster, "kafka-cluster", all))
	if able, _ := doctorOn(t, mending, "--service", "dispatcher"); find(able, "rights of the dispatcher", "a person has to") != nil {
		t.Errorf("with those to mend: %+v", able)
	}
	if c := find(checks, "topic "+topics.Names{}.Tasks("orders", "a"), "will be made"); c == nil {
		t.Errorf("a topic that may be made: %+v", checks)
	}
	if c := find(checks, "topic reeve.control", "cleanup.policy is delete and should be compact"); c == nil || c.Status != doctor.Fail || !strings.Contains(c.Remedy, "cleanup.policy=compact") || code != Failed {
		t.Errorf("a topic with other settings, exit code %d: %+v", code, checks)
	}
	checks, _ = doctorOn(t, most[:1], "--service", "dispatcher")
	for _, lacks := range []string{"Read on topic orders", "Read on group reeve.orders.a", "Write on transactional-id reeve-dispatcher-n1-0"} {
		if c := find(checks, "rights of the dispatcher", lacks); c == nil || c.Status != doctor.Fail || !strings.Contains(c.Remedy, "--allow-principal User:u") {
			t.Errorf("it isn't named that it lacks %s: %+v", lacks, checks)
		}
	}
}
