package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/tests/harness"

	"github.com/reeve-run/reeve/internal/testenv"
)

// securedServices have a principal each.
func securedServices() []string { return []string{"registry", "dispatcher", "supervisor"} }

// secured is an installation on a Kafka with TLS, SCRAM and ACLs, where its services may not create topics.
type secured struct {
	*testing.T
	*harness.System
	kafka *testenv.Secured
	admin *kadm.Client // a superuser's
	topic string       // of the user
	file  string       // agents.yaml
}

const securedPassword = "s3cured-pw"

func onSecured(t *testing.T) *secured {
	t.Helper()
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("python3 isn't installed")
	}
	k := testenv.SecuredKafka(t)
	prefix := testenv.Unique()
	sys := system(t, &testenv.Server{Address: k.SASL}, prefix)
	sys.Env = append(sys.Env, "REEVE_KAFKA_TLS_CA="+k.Authority.File, "REEVE_KAFKA_SASL_MECHANISM=SCRAM-SHA-512", "REEVE_KAFKA_SASL_PASSWORD="+securedPassword)
	sys.EnvOf = map[string][]string{}
	for _, service := range securedServices() {
		user := prefix + "-" + service
		if err := k.AddUser(t.Context(), user, securedPassword); err != nil {
			t.Fatal(err)
		}
		sys.EnvOf[service] = []string{"REEVE_KAFKA_SASL_USERNAME=" + user}
	}
	sys.EnvOf["registry"] = append(sys.EnvOf["registry"], "REEVE_DATABASE_URL="+sys.Database)
	cl, err := kgo.NewClient(kgo.SeedBrokers(k.Address))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	s := &secured{T: t, System: sys, kafka: k, admin: kadm.NewClient(cl), topic: prefix + "-in", file: filepath.Join(sys.Dir, "agents.yaml")}
	if err := os.CopyFS(filepath.Join(sys.AgentsDir(), "stock"), os.DirFS("testdata/stock")); err != nil {
		t.Fatal(err)
	}
	yaml := fmt.Sprintf("agents:\n  - topic: %s\n    name: stock\n    runtime: command\n    dir: stock\n    command: [python3, adapter.py]\n    config: {max_retries: 1, retry_delays: [1s]}\n", s.topic)
	if err := os.WriteFile(s.file, []byte(yaml), 0o644); err != nil {
		t.Fatal(err)
	}
	return s
}

// reeve runs the command line as a service would see the world, and gives its output and exit code.
func (s *secured) reeve(service string, args ...string) (string, int) {
	s.Helper()
	cmd := exec.CommandContext(s.Context(), filepath.Join(s.Bin, "reeve"), args...)
	cmd.Env = append(harness.Environ(), "REEVE_KAFKA_BROKERS="+s.kafka.SASL, "REEVE_TOPIC_PREFIX="+s.Prefix, "REEVE_TOPIC_REPLICATION=1",
		"REEVE_NODE=doctor", "REEVE_URL="+s.URL, "REEVE_AGENTS_DIR="+s.AgentsDir(), "HOME="+s.Dir)
	cmd.Env = append(append(cmd.Env, s.Env...), s.EnvOf[service]...)
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		s.Fatal(err)
	}
	if strings.Contains(string(out), securedPassword) {
		s.Errorf("reeve %s tells the password:\n%s", strings.Join(args, " "), out)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// script runs the command line for the lines that it writes.
func (s *secured) script(args ...string) []string {
	s.Helper()
	out, code := s.reeve("registry", append(args, "--commands", "--bootstrap-server", s.kafka.Address)...)
	if code != 0 {
		s.Fatalf("reeve %s: exit code %d\n%s", strings.Join(args, " "), code, out)
	}
	return strings.Split(strings.TrimSpace(out), "\n")
}

// apply carries lines out: the first by Kafka's own tool, the others by the same requests, since each run of the tool
// costs a second.
func (s *secured) apply(lines []string, class string) {
	s.Helper()
	for n, line := range lines {
		f := strings.Fields(line) // nothing in them needs quotes here
		if n == 0 {
			tool(s.T, "", class, f[1:]...)
			continue
		}
		var err error
		if f[0] == "kafka-topics.sh" {
			err = s.makeTopic(words(f[1:]))
		} else {
			err = s.grant(words(f[1:]))
		}
		if err != nil {
			s.Fatalf("%s: %v", line, err)
		}
	}
}

// words are the flags of a command line with their values.
func words(f []string) map[string][]string {
	flags := map[string][]string{}
	name := ""
	for _, w := range f {
		if strings.HasPrefix(w, "--") {
			name = w
			flags[name] = append(flags[name], "")
			continue
		}
		flags[name][len(flags[name])-1] = w
	}
	return flags
}

func (s *secured) makeTopic(flags map[string][]string) error {
	partitions, err := strconv.Atoi(flags["--partitions"][0])
	if err != nil {
		return err
	}
	configs := map[string]*string{}
	for _, kv := range flags["--config"] {
		name, value, _ := strings.Cut(kv, "=")
		configs[name] = &value
	}
	topic := flags["--topic"][0]
	made, err := s.admin.CreateTopic(s.Context(), int32(partitions), 1, configs, topic)
	if err = errors.Join(err, made.Err); err != nil {
		return err
	}
	eventually(s.T, time.Minute, func() string { // what the controller has answered reaches the broker a moment later
		shown, err := s.admin.ListTopics(s.Context(), topic)
		if err = errors.Join(err, shown[topic].Err); err != nil {
			return err.Error()
		}
		return ""
	})
	return nil
}

// rights are what a line of kafka-acls.sh is about.
func rights(flags map[string][]string) *kadm.ACLBuilder {
	b := kadm.NewACLs().Allow(flags["--allow-principal"]...).AllowHosts("*")
	pattern := kadm.ACLPatternLiteral
	if flags["--resource-pattern-type"][0] == "prefixed" {
		pattern = kadm.ACLPatternPrefixed
	}
	b = b.ResourcePatternType(pattern)
	for flag, set := range map[string]func(...string) *kadm.ACLBuilder{"--topic": b.Topics, "--group": b.Groups, "--transactional-id": b.TransactionalIDs} {
		if len(flags[flag]) > 0 { // none would be any
			set(flags[flag]...)
		}
	}
	known := map[string]kadm.ACLOperation{"Read": kadm.OpRead, "Write": kadm.OpWrite, "Delete": kadm.OpDelete, "Describe": kadm.OpDescribe, "DescribeConfigs": kadm.OpDescribeConfigs}
	var ops []kadm.ACLOperation
	for _, name := range flags["--operation"] {
		ops = append(ops, known[name]) // one that isn't known is refused by the broker
	}
	return b.Operations(ops...)
}

func (s *secured) grant(flags map[string][]string) error {
	made, err := s.admin.CreateACLs(s.Context(), rights(flags))
	for _, r := range made {
		if err == nil {
			err = r.Err
		}
	}
	if err == nil {
		s.holds(rights(flags), true)
	}
	return err
}

// holds waits until the broker goes by rights, or doesn't any more: what the controller has answered reaches it a moment later.
func (s *secured) holds(rights *kadm.ACLBuilder, want bool) {
	s.Helper()
	eventually(s.T, time.Minute, func() string {
		all, err := s.admin.DescribeACLs(s.Context(), rights)
		if err != nil {
			return err.Error()
		}
		for _, r := range all {
			if r.Err != nil || (len(r.Described) > 0) != want {
				return fmt.Sprintf("the broker shows the rights %+v (%v)", r.Described, r.Err)
			}
		}
		return ""
	})
}

func (s *secured) revoke(flags map[string][]string) {
	s.Helper()
	gone, err := s.admin.DeleteACLs(s.Context(), rights(flags))
	if err != nil {
		s.Fatal(err)
	}
	n := 0
	for _, r := range gone {
		n += len(r.Deleted)
	}
	if n == 0 {
		s.Fatalf("nothing was revoked: %v", flags)
	}
	s.holds(rights(flags), false)
}

func (s *secured) acls() []string {
	args := []string{"acls", "-f", s.file}
	for _, service := range securedServices() {
		args = append(args, "--principal-"+service, "User:"+s.Prefix+"-"+service)
	}
	return s.script(args...)
}

// On a Kafka with TLS, SCRAM and ACLs, where no service may create a topic, everything works once an operator has
// applied what `reeve topics` and `reeve acls` print; and `reeve doctor` names each right that is taken away again.
func TestASecuredKafkaWhereNobodyMayCreateTopics(t *testing.T) {
	t.Parallel()
	s := onSecured(t)
	withWebhooks(t, s.System)
	s.Env = append(s.Env, "REEVE_WEBHOOK_RETRIES=1s")
	one := int16(1)
	if _, err := s.admin.CreateTopic(t.Context(), 3, one, nil, s.topic); err != nil {
		t.Fatal(err)
	}
	s.apply(s.acls(), "org.apache.kafka.tools.AclCommand")
	s.refusesToStartWithoutTopics()
	s.apply(s.script("topics", "-f", s.file), "org.apache.kafka.tools.TopicCommand")

	start(t, s.System, "registry.r0", "dispatcher.d0", "supervisor.s0")
	entry := map[string]any{"topic": s.topic, "name": "stock", "runtime": "command", "dir": "stock", "command": []string{"python3", "adapter.py"},
		"config": map[string]any{"max_retries": 1, "retry_delays": []string{"1s"}}}
	if err := s.Register(t.Context(), entry); err != nil {
		t.Fatal(err)
	}
	for _, content := range []any{map[string]any{"n": 1}, map[string]any{"do": "flaky"}, map[string]any{"do": "fail"}} {
		call(t, s.System, http.MethodPost, "/v1/events", map[string]any{"topic": s.topic, "payload": map[string]any{"content": content}}, nil)
	}
	for name, want := range map[string]float64{"completed": 2, "retried": 2, "dead_lettered": 1, "received": 3} {
		awaitMetric(t, s.System, s.topic, name, want)
	}
	var letters struct{ Items []any }
	call(t, s.System, http.MethodGet, "/v1/dlq/"+s.topic+"/stock", nil, &letters)
	if len(letters.Items) != 1 {
		t.Errorf("%d dead letters", len(letters.Items))
	}
	s.sendsWebhooks()
	s.deniedNothing()
	s.startsWhenItsTopicsAppear(entry)
	s.doctorNames()
}

// sendsWebhooks sends one that succeeds when it is tried again, and one that is given up.
func (s *secured) sendsWebhooks() {
	s.Helper()
	flaky := serveHooks(s.T, func(n int) bool { return n == 1 })
	broken := serveHooks(s.T, func(int) bool { return true })
	for url, want := range map[string]string{flaky.URL: "delivered", broken.URL: "failed"} {
		var p struct {
			Partition int32
			Offset    int64
		}
		call(s.T, s.System, http.MethodPost, "/v1/events", map[string]any{"topic": s.topic, "payload": map[string]any{"content": 1, "webhook": url}}, &p)
		eventually(s.T, time.Minute, func() string {
			var d struct{ Webhook struct{ State string } }
			if err := s.Call(s.Context(), http.MethodGet, fmt.Sprintf("/v1/tasks/%s/stock/%d/%d", s.topic, p.Partition, p.Offset), nil, &d); err != nil {
				return err.Error()
			}
			if d.Webhook.State != want {
				return fmt.Sprintf("the webhook is %q, not %s", d.Webhook.State, want)
			}
			return ""
		})
	}
}

// refusesToStartWithoutTopics: what can't work ends with the list of what is missing and the way to it.
func (s *secured) refusesToStartWithoutTopics() {
	s.Helper()
	for _, service := range securedServices() {
		p, err := s.Launch(service, "early")
		if err != nil {
			s.Fatal(err)
		}
		select {
		case <-p.Ended():
		case <-time.After(time.Minute):
			s.Fatalf("%s goes on without topics that it may not create:\n%s", service, p.Log())
		}
		for _, says := range []string{s.Names().Status(), "reeve topics --commands"} {
			if p.Exit() != 1 || !strings.Contains(p.Log(), says) {
				s.Errorf("%s: exit code %d, and it doesn't say %q:\n%s", service, p.Exit(), says, p.Log())
			}
		}
	}
}

// startsWhenItsTopicsAppear registers an agent whose topics nobody has made.
func (s *secured) startsWhenItsTopicsAppear(entry map[string]any) {
	s.Helper()
	entry["name"] = "later"
	if err := s.Register(s.Context(), entry); err != nil {
		s.Fatal(err)
	}
	path := "/v1/agents/" + s.topic + "/later"
	var body map[string]any
	eventually(s.T, time.Minute, func() string {
		body = nil
		if err := s.Call(s.Context(), http.MethodGet, path, nil, &body); err != nil {
			return err.Error()
		}
		problems := fmt.Sprint(body["problems"])
		for _, says := range []string{s.Names().Tasks(s.topic, "later"), "reeve topics"} {
			if !strings.Contains(problems, says) {
				return fmt.Sprintf("no problem says %q: %v", says, problems)
			}
		}
		return ""
	})
	if body["phase"] != "active" {
		s.Errorf("it is %v, and would have to be started by hand", body["phase"])
	}
	lines := slices.DeleteFunc(s.script("topics", "--agent", s.topic+"/later"), func(line string) bool { return !strings.Contains(line, ".later") })
	if len(lines) != 2 {
		s.Fatalf("%d topics of the agent: %q", len(lines), lines)
	}
	s.apply(lines[:1], "org.apache.kafka.tools.TopicCommand")
	eventually(s.T, time.Minute, func() string {
		err := s.Call(s.Context(), http.MethodGet, "/health", nil, &body)
		said := fmt.Sprint(body["alerts"], err)
		for _, says := range []string{s.Names().DLQ(s.topic, "later"), "reeve topics --agent " + s.topic + "/later"} {
			if !strings.Contains(said, says) {
				return fmt.Sprintf("no alert says %q: %s", says, said)
			}
		}
		return ""
	})
	s.apply(lines[1:], "org.apache.kafka.tools.TopicCommand")
	eventually(s.T, time.Minute, func() string {
		var m struct{ Completed int }
		if err := s.Call(s.Context(), http.MethodGet, path+"/metrics", nil, &m); err != nil {
			return err.Error()
		}
		return differ(m.Completed, 4) // from the topic's start on
	})
}

// doctorNames takes rights away one by one: each is named, with the service and the resource, and nothing else is.
func (s *secured) doctorNames() {
	s.Helper()
	for _, service := range securedServices() {
		if out, code := s.reeve(service, "doctor", "--service", service); code != 0 {
			s.Errorf("with all rights of the %s doctor ends with %d:\n%s", service, code, out)
		}
	}
	names := s.Names()
	for _, c := range []struct {
		service, flag, resource string // whose line of the rights is taken back
		operation               string
		says                    string
		code                    int
	}{
		{"registry", "--transactional-id", names.TransactionalID("registry", "relay", 0), "Write", "Write on transactional-id " + names.TransactionalID("registry", "relay", 0), 1},
		{"registry", "--topic", names.Outcomes(), "Read", "Read on topic " + names.Outcomes(), 1},
		{"registry", "--group", s.Prefix + ".", "Read", "Read on group " + names.Group(s.topic, "stock"), 1},
		{"dispatcher", "--topic", s.topic, "Read", "Read on topic " + s.topic, 1},
		{"dispatcher", "--group", s.Prefix + ".", "Read", "Read on group " + names.RetryGroup(time.Second), 1},
		{"dispatcher", "--topic", s.Prefix + ".tasks.", "Write", "Write on topic " + names.Tasks(s.topic, "stock"), 1},
		{"dispatcher", "--topic", s.Prefix + ".retry.", "Delete", "Delete on topic " + names.Retry(time.Second), 0}, // it goes on
		{"supervisor", "--transactional-id", s.Prefix + "-supervisor-", "Write", "Write on transactional-id " + s.Prefix + "-supervisor-doctor-0", 1},
		{"supervisor", "--topic", names.Control(), "Read", "Read on topic " + names.Control(), 1},
		{"supervisor", "--topic", s.Prefix + ".dlq.", "Write", "Write on topic " + names.DLQ(s.topic, "stock"), 1},
	} {
		right := map[string][]string{"--allow-principal": {"User:" + s.Prefix + "-" + c.service}, c.flag: {c.resource}, "--operation": {c.operation}, "--resource-pattern-type": {"literal"}}
		if strings.HasSuffix(c.resource, ".") || strings.HasSuffix(c.resource, "-") {
			right["--resource-pattern-type"][0] = "prefixed"
		}
		s.revoke(right)
		eventually(s.T, time.Minute, func() string { // rights reach a broker a moment later
			out, code := s.reeve(c.service, "doctor", "--service", c.service)
			if code != c.code || !strings.Contains(out, c.says) || !strings.Contains(out, "kafka-acls.sh --add") {
				return fmt.Sprintf("without %s of the %s on %s, exit code %d:\n%s", c.operation, c.service, c.resource, code, out)
			}
			return ""
		})
		if err := s.grant(right); err != nil {
			s.Fatal(err)
		}
	}
	b, err := os.ReadFile(filepath.Join(s.Dir, "dispatcher.d0.log"))
	if err != nil {
		s.Fatal(err)
	}
	if n := bytes.Count(b, []byte("AUTHORIZATION_FAILED")); n == 0 || n > 300 {
		s.Errorf("the dispatcher has told %d times that it lacked a right, while it lacked four for some seconds each", n)
	}
}

// Two installations with prefixes of their own, and the rights for nothing else, share a cluster and a user topic.
func TestTwoInstallationsShareAClusterAndATopic(t *testing.T) {
	t.Parallel()
	one, two := onSecured(t), onSecured(t)
	two.topic = one.topic
	yaml, err := os.ReadFile(one.file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(two.file, yaml, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := one.admin.CreateTopic(t.Context(), 3, 1, nil, one.topic); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*secured{one, two} {
		s.apply(s.acls(), "org.apache.kafka.tools.AclCommand")
		s.apply(s.script("topics", "-f", s.file), "org.apache.kafka.tools.TopicCommand")
		start(t, s.System, "registry.r0", "dispatcher.d0", "supervisor.s0")
		if err := s.Register(t.Context(), map[string]any{"topic": s.topic, "name": "stock", "runtime": "command", "dir": "stock", "command": []string{"python3", "adapter.py"}}); err != nil {
			t.Fatal(err)
		}
	}
	const events = 20
	var bodies []any
	for n := range events {
		bodies = append(bodies, map[string]any{"topic": one.topic, "payload": map[string]any{"content": map[string]any{"n": n}}})
	}
	call(t, one.System, http.MethodPost, "/v1/events/batch", map[string]any{"events": bodies}, nil)
	for _, s := range []*secured{one, two} {
		awaitMetric(t, s.System, s.topic, "completed", events)
		awaitMetric(t, s.System, s.topic, "received", events)
	}
	// What is deleted with everything in one is untouched in the other.
	call(t, one.System, http.MethodDelete, "/v1/agents/"+one.topic+"/stock?delete_group=true&delete_dlq=true", nil, nil)
	eventually(t, time.Minute, func() string {
		listed, err := one.admin.ListTopics(t.Context())
		if err != nil {
			return err.Error()
		}
		if listed.Has(one.Names().Tasks(one.topic, "stock")) {
			return "the task topic is still there"
		}
		if !listed.Has(two.Names().Tasks(two.topic, "stock")) || !listed.Has(one.topic) {
			t.Fatal("the other installation's task topic, or the user's own, is gone")
		}
		return ""
	})
	call(t, two.System, http.MethodPost, "/v1/events", bodies[0], nil)
	awaitMetric(t, two.System, two.topic, "completed", events+1)
	one.deniedNothing()
	two.deniedNothing()
}

// deniedNothing: the printed rights suffice, so that no service has met a refusal; and none has told the password. After a
// lost connection, as busy machines have them, a producer looks at its last transaction; the right to that is one of
// `reeve acls --mend` alone, and where it is withheld the refusal is expected.
func (s *secured) deniedNothing() {
	s.Helper()
	for _, log := range []string{"registry.r0", "dispatcher.d0", "supervisor.s0"} {
		b, err := os.ReadFile(filepath.Join(s.Dir, log+".log"))
		if err != nil {
			s.Fatal(err)
		}
		for line := range bytes.Lines(b) {
			refused := bytes.Contains(line, []byte("AUTHORIZATION_FAILED")) && !bytes.Contains(line, []byte(`msg="look at a transaction that may not be ended"`))
			if refused || bytes.Contains(line, []byte(securedPassword)) {
				s.Errorf("%s of %s lacks a right, or tells the password:\n%s", log, s.Prefix, line)
			}
		}
	}
}
